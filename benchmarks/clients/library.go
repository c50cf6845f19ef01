package clients

import (
	"context"
	"io"

	"github.com/seed-2d50cddb/pop3"
)

// This library is measured twice. With the default options, Login uses the strongest mechanism of the server. The
// second time Login uses the mechanism of the other clients, which takes fewer round trips.
var (
	library      = newLibraryClient("pop3", pop3.Options{})
	libraryPlain = newLibraryClient("pop3, PLAIN", pop3.Options{Mechanisms: []string{"PLAIN", "USER"}})
)

func newLibraryClient(name string, opts pop3.Options) Client {
	open := func(ctx context.Context, j Job) (session, error) {
		dial := pop3.DialInsecure
		if j.TLS {
			config, err := tlsConfig(j)
			if err != nil {
				return nil, err
			}
			opts.TLSConfig = config
			dial = pop3.DialTLS
		}
		c, err := dial(ctx, j.Addr, &opts)
		if err != nil {
			return nil, err
		}
		return librarySession{ctx, c}, c.Login(ctx, j.User, j.Password)
	}
	return Client{Name: name, Version: "this tree", Ours: true, Open: open, Pipelines: true,
		LoginOnly: opts.Mechanisms != nil}
}

type librarySession struct {
	ctx context.Context
	c   *pop3.Client
}

func (s librarySession) list(int) (int, error) {
	infos, err := s.c.Listing(s.ctx)
	return len(infos), err
}

func (s librarySession) fetch(n int) (octets int64, err error) {
	for m, err := range s.c.Messages(s.ctx, numbers(n)...) {
		if err != nil {
			return octets, err
		}
		n, err := io.Copy(io.Discard, m)
		octets += n
		if err != nil {
			return octets, err
		}
	}
	return octets, nil
}

func (s librarySession) uidl(int) (int, error) {
	infos, err := s.c.UidlAll(s.ctx)
	return len(infos), err
}

func (s librarySession) dele(n int) error { return s.c.Dele(s.ctx, numbers(n)...) }
func (s librarySession) quit() error      { return s.c.Quit(s.ctx) }
