package clients

import (
	"context"
	"net"
	"strconv"
	"time"

	knadhpop3 "github.com/knadh/go-pop3"
)

// knadh is github.com/knadh/go-pop3. A caller cannot set the authorities to trust, so over TLS the certificate is not
// verified.
var knadh = Client{Name: "knadh/go-pop3", Version: "v1.0.2", Open: func(_ context.Context, j Job) (session, error) {
	host, port, err := net.SplitHostPort(j.Addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	c, err := knadhpop3.New(knadhpop3.Opt{
		Host: host, Port: number, DialTimeout: time.Minute, TLSEnabled: j.TLS, TLSSkipVerify: j.TLS,
	}).NewConn()
	if err != nil {
		return nil, err
	}
	return knadhSession{c}, c.Auth(j.User, j.Password)
}}

type knadhSession struct{ c *knadhpop3.Conn }

func (s knadhSession) list(int) (int, error) {
	if _, err := s.c.List(0); err != nil {
		return 0, err
	}
	ids, err := s.c.Uidl(0)
	return len(ids), err
}

func (s knadhSession) fetch(n int) (octets int64, err error) {
	for i := range n {
		b, err := s.c.RetrRaw(i + 1)
		if err != nil {
			return octets, err
		}
		octets += int64(b.Len())
	}
	return octets, nil
}

func (s knadhSession) uidl(int) (int, error) {
	ids, err := s.c.Uidl(0)
	return len(ids), err
}

func (s knadhSession) dele(n int) error { return s.c.Dele(numbers(n)...) }
func (s knadhSession) quit() error      { return s.c.Quit() }
