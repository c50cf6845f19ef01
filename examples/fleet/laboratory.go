package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A laboratory is a folder and the servers that run for it.
type laboratory struct {
	dir      string
	servers  children
	accounts []Account
}

// labSize is how large it is.
type labSize struct {
	Maildrops, Servers, Messages, Octets int
	Deliver                              float64       // messages a second, on each server
	Delay                                time.Duration // before each reply
}

// openLab starts servers and writes accounts.json.
func openLab(dir string, size labSize) (*laboratory, error) {
	lab := &laboratory{dir: dir}
	if err := labCertificate(dir); err != nil {
		return nil, err
	}
	each := (size.Maildrops + size.Servers - 1) / size.Servers
	for server := range size.Servers {
		first := server * each
		if err := lab.start(server, first, min(each, size.Maildrops-first), size); err != nil {
			lab.servers.stop()
			return nil, err
		}
	}
	return lab, lab.save()
}

// start starts a server, and adds its accounts.
func (l *laboratory) start(server, first, count int, size labSize) error {
	c, err := spawn("lab-pop3", "-dir", l.dir, "-server", fmt.Sprint(server), "-first", fmt.Sprint(first),
		"-count", fmt.Sprint(count), "-messages", fmt.Sprint(size.Messages), "-size", fmt.Sprint(size.Octets),
		"-deliver", fmt.Sprint(size.Deliver), "-delay", size.Delay.String())
	if err != nil {
		return err
	}
	l.servers = append(l.servers, c)
	addr, err := c.line()
	if err != nil {
		return err
	}
	for n := first; n < first+count; n++ {
		a := Account{Addr: addr, User: labUser(n), Password: labPassword(n)}
		a.Name = a.User + "@" + a.Host()
		l.accounts = append(l.accounts, a)
	}
	return nil
}

func (l *laboratory) file() string { return filepath.Join(l.dir, "accounts.json") }
func (l *laboratory) ca() string   { return filepath.Join(l.dir, "ca.pem") }
func (l *laboratory) save() error  { return saveAccounts(l.file(), l.accounts) }

// tempDir makes a folder, and gives what removes it.
func tempDir() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "fleet-")
	return dir, func() { os.RemoveAll(dir) }, err
}
