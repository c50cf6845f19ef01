package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A Poller fetches from one maildrop after another.
type Poller struct {
	Seen        fetch.Seen
	Sink        func(a Account) fetch.Sink
	TLS         *tls.Config // with a cache of sessions that all polls share
	Timeout     time.Duration
	Mechanisms  []string        // as in [pop3.Options]
	ScramKeys   *sasl.ScramKeys // that all polls share
	MaxMessages int             // in a poll; the next one follows at once
	MaxSize     int64
	Metrics     *Metrics
}

// Poll is one poll.
func (p Poller) Poll(ctx context.Context, a Account) Outcome {
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) { return p.connect(ctx, a) },
		Sink:    p.Sink(a), Seen: p.Seen, Account: a.Name,
		Delete: a.Delete, MaxMessages: p.MaxMessages, MaxSize: p.MaxSize,
	}
	report, err := f.Run(ctx)
	p.Metrics.messages.Add(float64(report.Delivered))
	p.Metrics.octets.Add(float64(report.Octets))
	return outcomeOf(report, err)
}

// outcomeOf sums up a report. A run that came as far as single messages, and has trouble with those only, is one that
// worked: the error is kept for people, and the maildrop is polled as ever.
func outcomeOf(r fetch.Report, err error) Outcome {
	o := Outcome{Delivered: r.Delivered, TryAgain: r.TryAgain, Err: err, Code: codeOf(err),
		Locked: errors.Is(err, fetch.ErrLocked), Away: errors.Is(err, errAway)}
	for _, s := range r.Skipped {
		o.More = o.More || errors.Is(s.Err, fetch.ErrLimit)
	}
	o.Failed = r.Aborted != nil && r.Delivered == 0
	if r.Sessions > 0 {
		return o
	}
	var refusal *pop3.Error
	if errors.As(err, &refusal) {
		o.Refused, _ = refusal.RejectsCredentials()
	}
	return o
}

// connect gives a session that is logged in.
func (p Poller) connect(ctx context.Context, a Account) (*pop3.Client, error) {
	opts := &pop3.Options{
		TLSConfig: p.TLS, Timeout: p.Timeout, Mechanisms: p.Mechanisms, ScramKeys: p.ScramKeys,
		Trace: p.Metrics.trace(),
	}
	c, err := dial(ctx, a, opts)
	if err != nil {
		return nil, err
	}
	p.Metrics.connected(c)
	if err := c.Login(ctx, a.User, a.Password); err != nil {
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

// codeOf gives an error a short name, for counting: the code of a refusal, or a word in lower case.
func codeOf(err error) string {
	var refusal *pop3.Error
	var broken *pop3.ProtocolError
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fetch.ErrLocked):
		return "locked"
	case errors.Is(err, errAway):
		return "nats"
	case errors.As(err, &refusal) && refusal.Code != "":
		return string(refusal.Code)
	case refusal != nil:
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
