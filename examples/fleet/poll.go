package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
	"golang.org/x/net/proxy"
)

// A Poller fetches from one maildrop after another.
type Poller struct {
	MaxMessages int           `default:"500" help:"Messages in a poll; the next one follows at once."`
	Sink        string        `default:"stream" help:"Where mail goes: stream, or maildir: and a folder that exists."`
	CA          file          `name:"ca" placeholder:"FILE" help:"The only certificates to trust for POP3."`
	Mechanisms  []string      `help:"The only mechanisms to log in with."`
	Timeout     time.Duration `help:"Longest wait for a POP3 server; 0 is that of the library."`

	notes   *Bus
	sink    sink
	options pop3.Options // of all connections
	maxSize int64
	metrics *Metrics
}

// Validate is called by kong.
func (p *Poller) Validate() error {
	if p.Sink != "stream" && !strings.HasPrefix(p.Sink, "maildir:") {
		return errors.New("--sink has to be stream, or maildir: and a folder")
	}
	if p.CA.Filename != "" && !x509.NewCertPool().AppendCertsFromPEM(p.CA.Contents) {
		return fmt.Errorf("%s: no certificate in it", p.CA.Filename)
	}
	return nil
}

// prepare makes what all polls share. The cache of TLS sessions makes the next poll of a host cheap, and the cache of
// SCRAM keys the next poll of an account.
func (p *Poller) prepare(ctx context.Context, bus *Bus, mail jetstream.JetStream, m *monitor) error {
	p.notes, p.metrics = bus, newMetrics(m)
	m.gauge("nats_waiting", "Operations that wait because NATS does not answer, or has no room.",
		func() float64 { return float64(bus.waiting.Load()) })
	p.options = pop3.Options{Timeout: p.Timeout, Trace: p.metrics.hooks, Mechanisms: p.Mechanisms,
		ScramKeys: sasl.NewScramKeys(100_000),
		TLSConfig: &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(4096)}}
	if p.CA.Filename != "" {
		p.options.TLSConfig.RootCAs = x509.NewCertPool()
		p.options.TLSConfig.RootCAs.AppendCertsFromPEM(p.CA.Contents)
	}
	if dir, ok := strings.CutPrefix(p.Sink, "maildir:"); ok {
		p.sink = maildirs(dir)
		return nil
	}
	p.sink = streamSink{bus, mail}
	return waitFor(ctx, mail.Conn(), func(ctx context.Context) error {
		_, err := mailStream.open(ctx, mail)
		p.maxSize = mail.Conn().MaxPayload() - 16<<10
		return err
	})
}

// poll fetches the new mail of an account while the lease is held. The history is stored until life ends. poll reports
// whether it failed because of NATS; an error of the server is in the outcome.
func (p *Poller) poll(ctx, life context.Context, held *lease, a Account) (o Outcome, away bool) {
	seen, err := openSeen(ctx, p.notes, life, held, a)
	// If there are pages, mail was stored before, and a missing Maildir is an error.
	if err == nil && len(seen.pages) == 0 {
		err = p.sink.create(a)
	}
	if err != nil {
		return Outcome{Failed: true, Error: shorten(err), Code: codeOf(err)}, isAway(err)
	}
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) { return p.connect(ctx, held, a) },
		Sink:    p.sink.of(a), Seen: seen, Account: a.Name,
		Delete: a.Delete, MaxMessages: p.MaxMessages, MaxSize: p.maxSize,
	}
	report, err := f.Run(ctx)
	p.metrics.messages.Add(float64(report.Delivered))
	p.metrics.octets.Add(float64(report.Octets))
	return outcomeOf(report, err), errors.Is(err, errAway) || errors.Is(err, errLeaseLost)
}

// shorten returns the text of an error for a record: one line of at most 500 bytes.
func shorten(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

// outcomeOf returns the outcome of a run. If only single messages failed, the run was successful. Its error is kept for
// people, and the account is polled as usual.
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
	opts := p.options
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
	p.metrics.connected(c)
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

// knownCodes are the response codes that have a time series of their own. All others are counted together, because a
// server can send any word.
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
