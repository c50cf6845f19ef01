package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// sinks makes the sinks of all accounts. Accounts that share an mbox file share the sink, which is what keeps their
// messages apart.
type sinks struct {
	mboxes map[string]*fetch.Mbox
	secret map[string]bool // environment variables that hold passwords
}

func newSinks(c *config) *sinks {
	s := &sinks{mboxes: make(map[string]*fetch.Mbox), secret: make(map[string]bool)}
	for _, a := range c.Accounts {
		if a.PasswordEnv != "" {
			s.secret[a.PasswordEnv] = true
		}
	}
	return s
}

// make gives the sink of an account.
func (all *sinks) make(s settings) fetch.Sink {
	switch {
	case s.Maildir != "":
		return fetch.Maildir{Dir: s.Maildir, LF: s.LineEnds.is != lineEndCRLF}
	case s.Mbox != "":
		path := filepath.Clean(s.Mbox)
		if all.mboxes[path] == nil {
			all.mboxes[path] = &fetch.Mbox{Path: path}
		}
		return all.mboxes[path]
	}
	argv := s.Command
	if s.ShellCommand != "" {
		argv = []string{"/bin/sh", "-c", s.ShellCommand}
	}
	return &agent{
		argv: argv, crlf: s.LineEnds.is == lineEndCRLF, hide: all.secret,
		timeout: cmp.Or(s.CommandTimeout.Duration, defaultCommandTimeout),
		env:     []string{"POPFETCH_ACCOUNT=" + s.Name, "POPFETCH_USER=" + s.User, "POPFETCH_SERVER=" + s.Server},
	}
}

// create makes the Maildir or the mbox file of an account in its first run. Later one that is missing may be on a file
// system that is not mounted, and is an error.
func (a *account) create() error {
	seen, isFile := a.seen.(fetch.FileSeen)
	place, canCreate := a.sink.(interface{ Create() error })
	if !isFile || !canCreate {
		return nil
	}
	if _, err := os.Stat(seen.Path(a.key)); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return place.Create()
}
