package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

// A Lab is a folder and the POP3 servers that run for it. Each server has its own address on the loopback interface,
// because limits apply to hosts.
type Lab struct {
	Dir      string
	Servers  []*Child
	Accounts []accounts.Account
}

// A Size is the size of a lab.
type Size struct {
	Boxes, Servers, Messages, Bytes int
	Deliver                         float64       // messages per second, on each server
	Delay                           time.Duration // before each reply
	TLS                             bool
}

// Open starts servers and writes the accounts file.
func Open(dir string, size Size) (*Lab, error) {
	lab := &Lab{Dir: dir}
	if size.TLS {
		if err := certificate(dir); err != nil {
			return nil, err
		}
	}
	each := (size.Boxes + size.Servers - 1) / size.Servers
	for n := range size.Servers {
		args := []string{"-first", strconv.Itoa(n * each), "-count", strconv.Itoa(min(each, size.Boxes-n*each)),
			"-messages", strconv.Itoa(size.Messages), "-size", strconv.Itoa(size.Bytes),
			"-deliver", fmt.Sprint(size.Deliver), "-delay", size.Delay.String()}
		if err := lab.Start(n, n*each, min(each, size.Boxes-n*each), size.TLS, args...); err != nil {
			lab.Close()
			return nil, err
		}
	}
	return lab, lab.Save()
}

// Start starts a server with flags and adds the accounts of its boxes.
func (l *Lab) Start(server, first, count int, tls bool, flags ...string) error {
	args := append([]string{"pop3", "-addr", net.JoinHostPort(serverIP(server).String(), "0")}, flags...)
	security := "none"
	if tls {
		args = append(args, "-dir", l.Dir)
		security = ""
	}
	c, err := Spawn(args...)
	if err != nil {
		return err
	}
	l.Servers = append(l.Servers, c)
	addr, err := c.Line()
	if err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(addr)
	for n := first; n < first+count; n++ {
		l.Accounts = append(l.Accounts, accounts.Account{Name: User(n) + "@" + host, Addr: addr, User: User(n),
			Password: Password(n), Security: security})
	}
	return nil
}

// Close stops the servers.
func (l *Lab) Close() {
	for _, c := range l.Servers {
		c.Stop()
	}
}

// File returns the name of the accounts file. CA returns the name of the file with the trusted certificate.
func (l *Lab) File() string { return filepath.Join(l.Dir, "accounts.json") }
func (l *Lab) CA() string   { return filepath.Join(l.Dir, "ca.pem") }

// Save writes the accounts file.
func (l *Lab) Save() error { return Save(l.File(), l.Accounts) }

// Save writes an accounts file that only its owner can read. It replaces the old one when it is complete.
func Save(name string, all []accounts.Account) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // os.CreateTemp uses mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, a := range all {
		if err = lines.Encode(a); err != nil {
			break
		}
	}
	if err = errors.Join(err, w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func serverIP(server int) net.IP { return net.IPv4(127, 0, 0, byte(2+server)) }

// certificate writes a self-signed certificate for all addresses of the lab.
func certificate(dir string) error {
	names := []string{"127.0.0.1", "localhost"}
	for server := range 100 {
		names = append(names, serverIP(server).String())
	}
	cert, key := testcert.PEM(testcert.New(names...).Certificate)
	return errors.Join(os.WriteFile(filepath.Join(dir, "ca.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
}
