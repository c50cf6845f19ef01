package clients

import (
	"fmt"
	"os/exec"
	"strings"
)

// curl is the program. It throws away what it gets, and tells that each transfer was whole. Its URLs name one message
// each, with a range in brackets for many over one connection. It has no way to ask for sizes and unique-ids both, so
// its listing is that of sizes.
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
		r.Messages, r.Octets = -1, -1 // they are in what was thrown away
		if j.Work != Uidl && j.Work != Poll {
			r.Messages = strings.Count("\n"+string(out), "\n0")
		}
		return nil
	}
	return p, nil
}, VersionOf: []string{"curl", "--version"}, Silent: true}
