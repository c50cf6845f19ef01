package clients

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// mpop is the program mpop. It cannot discard messages, so it delivers them to an mbox file in memory. With killsize 0
// it deletes every message, and with skipsize 0 it skips every message. It is configured for PLAIN, because by default
// it would use SCRAM, which takes more round trips.
var mpop = Client{Name: "mpop", Pipelines: true, Command: func(j Job) (*program, error) {
	host, port, err := net.SplitHostPort(j.Addr)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(j.Dir, "mpop-")
	if err != nil {
		return nil, err
	}
	mbox := filepath.Join(dir, "mbox")
	config := fmt.Sprintf("account bench\nhost %s\nport %s\nuser %s\npassword %s\nauth plain\ntimeout off\n"+
		"uidls_file %s\ndelivery mbox %s\nonly_new off\nreceived_header off\n",
		host, port, j.User, j.Password, filepath.Join(dir, "uidls"), mbox)
	if j.TLS {
		config += fmt.Sprintf("tls on\ntls_starttls off\ntls_trust_file %s\n", j.CAFile)
	}
	if j.Work == Dele {
		config += "keep off\nkillsize 0\n"
	} else {
		config += "keep on\n"
	}
	if j.Work == Uidl {
		config += "skipsize 0\n"
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p := &program{cmd: exec.Command("mpop", "-C", file, "bench"), cleanUp: func() { os.RemoveAll(dir) }}
	p.cmd.Env = append(os.Environ(), "LC_ALL=C", "TMPDIR="+dir)
	p.read = func(_ []byte, r *Result) error { return r.readMbox(mbox) }
	return p, nil
}, VersionCommand: []string{"mpop", "--version"}, Silent: true}

// readMbox sets the number of octets to the size of the mbox file. Lines in that file end in LF without CR, so the
// number only shows approximately whether the mail is complete.
func (r *Result) readMbox(mbox string) error {
	r.Messages = -1
	info, err := os.Stat(mbox)
	if os.IsNotExist(err) {
		return nil
	}
	if err == nil {
		r.Octets = info.Size()
	}
	return err
}
