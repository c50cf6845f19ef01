package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
	"golang.org/x/net/proxy"
)

// A Poller fetches from one maildrop after another.
type Poller struct {
	Bus         *Bus
	Sink        sink
	Options     pop3.Options // of all connections
	MaxMessages int          // in a poll; the next one follows at once
	MaxSize     int64
	Metrics     *Metrics
}

// Poll fetches the new mail of an account while the lease is held. Notes are stored for as long as life lasts. It
// reports whether the poll failed because of NATS; an error of the server is in the outcome.
func (p *Poller) Poll(ctx, life context.Context, held *lease, a Account) (o Outcome, away bool) {
	seen, err := openSeen(ctx, p.Bus, life, held, a)
	if err == nil && len(seen.pages) == 0 { // else mail went there before: a place that has disappeared is an error
		err = p.Sink.create(a)
	}
	if err != nil {
		return Outcome{Failed: true, Error: shorten(err), Code: codeOf(err)}, isAway(err)
	}
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) { return p.connect(ctx, held, a) },
		Sink:    p.Sink.of(a), Seen: seen, Account: a.Name,
		Delete: a.Delete, MaxMessages: p.MaxMessages, MaxSize: p.MaxSize,
	}
	report, err := f.Run(ctx)
	p.Metrics.messages.Add(float64(report.Delivered))
	p.Metrics.octets.Add(float64(report.Octets))
	return outcomeOf(report, err), errors.Is(err, errAway) || errors.Is(err, errLeaseLost)
}

// outcomeOf sums up a report. A run that reached single messages, and failed with some of them only, has worked:
// the error is kept for people, and the account is polled as before.
func outcomeOf(r fetch.Report, err error) Outcome {
	o := Outcome{Delivered: r.Delivered, TryAgain: r.TryAgain, Error: shorten(err), Code: codeOf(err)}
	for _, s := range r.Skipped {
		o.More = o.More || errors.Is(s.Err, fetch.ErrLimit)
	}
	o.Failed = r.Aborted != nil && r.Delivered == 0
	var refusal *pop3.Error
	if r.Sessions == 0 && errors.As(err, &refusal) {
		o.Refused, _ = refusal.RejectsCredentials()
	}
	return o
}

// connect returns a session that is logged in.
func (p *Poller) connect(ctx context.Context, held *lease, a Account) (*pop3.Client, error) {
	opts := p.Options
	opts.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := proxy.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newLeasedConn(conn, held), nil
	}
	c, err := dial(ctx, a, &opts)
	if err != nil {
		return nil, err
	}
	p.Metrics.connected(c)
	if len(a.TokenCommand) > 0 {
		err = loginWithToken(ctx, c, a)
	} else {
		err = c.Login(ctx, a.User, a.Password)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func dial(ctx context.Context, a Account, opts *pop3.Options) (*pop3.Client, error) {
	switch a.Security {
	case "", "tls":
		return pop3.DialTLS(ctx, a.Addr, opts)
	case "starttls":
		return pop3.DialStartTLS(ctx, a.Addr, opts)
	case "none":
		return pop3.DialInsecure(ctx, a.Addr, opts)
	}
	return nil, fmt.Errorf("account %q: security is %q; it has to be tls, starttls or none", a.Name, a.Security)
}

func loginWithToken(ctx context.Context, c *pop3.Client, a Account) error {
	token, err := a.token(ctx)
	if err != nil {
		return err
	}
	capabilities, err := c.Capa(ctx)
	if err != nil {
		return err
	}
	mechanism := sasl.XOAuth2(a.User, token)
	if slices.Contains(capabilities.SASL(), "OAUTHBEARER") {
		mechanism = sasl.OAuthBearer(a.User, token)
	}
	return c.Auth(ctx, mechanism)
}

// A leasedConn writes only while the lease is held. A worker that was stopped for a while must not go on in a
// session when another worker may have the account: that is decided here, because timers that are late have not
// run yet.
type leasedConn struct {
	net.Conn
	held *lease
}

// newLeasedConn closes the connection as soon as the lease is lost. The poll may go on for a while, to store its
// notes, and the next worker must not find the maildrop locked.
func newLeasedConn(conn net.Conn, held *lease) leasedConn {
	context.AfterFunc(held.ctx, func() { conn.Close() })
	return leasedConn{conn, held}
}

func (c leasedConn) Write(b []byte) (int, error) {
	if !c.held.valid() {
		return 0, errLeaseLost
	}
	return c.Conn.Write(b)
}

// NetConn lets the library set socket options.
func (c leasedConn) NetConn() net.Conn { return c.Conn }

// knownCodes are the response codes that are counted one by one. A server can send any other word, so those count
// together: each one would be a time series.
var knownCodes = []pop3.Code{pop3.CodeInUse, pop3.CodeLoginDelay, pop3.CodeAuth, pop3.CodeSysTemp, pop3.CodeSysPerm,
	pop3.CodeUTF8}

// codeOf returns a short name for an error: the code of a refusal, or a word in lower case.
func codeOf(err error) string {
	var refusal *pop3.Error
	var broken *pop3.ProtocolError
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refusal):
		for _, code := range knownCodes {
			if refusal.Code.Is(code) {
				return string(code)
			}
		}
		return "refused"
	case errors.As(err, &certificate):
		return "certificate"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &broken):
		return "protocol"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "cut"
	case errors.As(err, &network):
		return "network"
	case errors.Is(err, fetch.ErrTooLarge):
		return "too large"
	}
	return "other"
}
