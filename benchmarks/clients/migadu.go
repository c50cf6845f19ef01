package clients

import (
	"context"
	"errors"
	"io"

	"github.com/migadu/go-pop3/pop3client"
)

// migadu is github.com/migadu/go-pop3/pop3client. Its limit on the number of lines in a reply is raised, because the
// lists of the benchmarks are longer.
var migadu = Client{Name: "migadu/go-pop3", Version: "v0.1.4", Open: func(ctx context.Context, j Job) (session, error) {
	opts := pop3client.Options{MaxResponseLines: 1_000_000}
	if j.TLS {
		var err error
		if opts.TLSConfig, err = tlsConfig(j); err != nil {
			return nil, err
		}
	}
	c, err := pop3client.Dial(ctx, j.Addr, opts)
	if err != nil {
		return nil, err
	}
	return migaduSession{ctx, c}, c.AuthPlain(ctx, "", j.User, j.Password)
}}

type migaduSession struct {
	ctx context.Context
	c   *pop3client.Client
}

func (s migaduSession) list(int) (int, error) {
	if _, err := s.c.List(s.ctx); err != nil {
		return 0, err
	}
	return s.uidl(0)
}

func (s migaduSession) fetch(n int) (octets int64, err error) {
	for i := range n {
		m, err := s.c.Retr(s.ctx, i+1)
		if err != nil {
			return octets, err
		}
		n, err := io.Copy(io.Discard, m)
		octets += n
		if err = errors.Join(err, m.Close()); err != nil {
			return octets, err
		}
	}
	return octets, nil
}

func (s migaduSession) uidl(int) (int, error) {
	ids, err := s.c.Uidl(s.ctx)
	return len(ids), err
}

func (s migaduSession) dele(n int) error {
	for i := range n {
		if err := s.c.Dele(s.ctx, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (s migaduSession) quit() error { return errors.Join(s.c.Quit(s.ctx), s.c.Close()) }
