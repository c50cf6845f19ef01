package clients

import (
	"fmt"
	"os/exec"
	"strings"
)

// curl is the program curl. It discards the messages, and reports whether each transfer was complete. A URL with a
// range in brackets stands for many messages over one connection. curl cannot request sizes and unique-ids in one
// session, so its listing contains only sizes.
var curl = Client{Name: "curl", Command: func(j Job) (*program, error) {
	scheme := "pop3"
	if j.TLS {
		scheme = "pop3s"
	}
	url := fmt.Sprintf("%s://%s/", scheme, j.Addr)
	args := []string{"--silent", "--show-error", "--fail-early", "--user", j.User + ":" + j.Password,
		"--cacert", j.CAFile, "--output", "/dev/null", "--write-out", "%{exitcode}\n"}
	switch j.Work {
	case Fetch, Large:
		args = append(args, url+fmt.Sprintf("[1-%d]", j.Count))
	case Uidl:
		args = append(args, "--request", "UIDL", url)
	case Dele:
		args = append(args, "--request", "DELE", "--list-only", url+fmt.Sprintf("[1-%d]", j.Count))
	case Poll:
		args = append(args, url)
	}
	p := &program{cmd: exec.Command("curl", args...)}
	p.read = func(out []byte, r *Result) error {
		r.Messages, r.Octets = -1, -1 // the output, which would show them, is discarded
		if j.Work != Uidl && j.Work != Poll {
			r.Messages = strings.Count("\n"+string(out), "\n0")
		}
		return nil
	}
	return p, nil
}, VersionCommand: []string{"curl", "--version"}, Silent: true}
