package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A service is what a scheduler and a worker have in common, from their start to their end.
type service struct {
	Accounts       string `default:"accounts.json" placeholder:"FILE" help:"File with the accounts."`
	FingerprintKey string `placeholder:"FILE" help:"Secret, the same everywhere, to notice changed passwords."`
	HTTP           string `default:"127.0.0.1:8080" help:"Address of /healthz, /readyz, /metrics and the page."`

	accounts *accountsFile
	bus      *Bus
	monitor  atomic.Pointer[monitor]
}

// run opens everything, runs work, and closes everything. The HTTP server says that the service is not ready until work
// has set another monitor.
func (s *service) run(ctx context.Context, name string, nc *nats.Conn, work func(ctx context.Context) error) error {
	defer nc.Close()
	slog.SetDefault(slog.With("process", name))
	s.monitor.Store(&monitor{metrics: prometheus.NewRegistry(), ready: func() error {
		return errors.New("starting: NATS is not there, or fleet init has not been run")
	}})
	stop, err := serveHTTP(s.HTTP, &s.monitor)
	if err != nil {
		return err
	}
	defer stop()
	key, err := s.readKey()
	if err != nil {
		return err
	}
	if s.accounts, err = openAccounts(s.Accounts, key); err != nil {
		return err
	}
	err = waitFor(ctx, nc, func(ctx context.Context) (err error) {
		s.bus, err = openBus(ctx, nc)
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	return work(ctx)
}

// readKey returns the key of fingerprints, or nil.
func (s *service) readKey() (key []byte, err error) {
	if s.FingerprintKey == "" {
		return nil, nil
	}
	if err = checkPrivate(s.FingerprintKey); err == nil {
		key, err = os.ReadFile(s.FingerprintKey)
	}
	if err == nil && len(key) < 16 {
		err = fmt.Errorf("%s: a secret needs at least 16 bytes", s.FingerprintKey)
	}
	return key, err
}

type schedulerCommand struct {
	service
	Policy
	Limits
	KeepRemoved time.Duration `default:"168h" help:"How long the data of removed accounts is kept."`
}

func (c *schedulerCommand) Run(ctx context.Context, g *globals) error {
	nc, err := g.NATS.connect(g.Name)
	if err != nil {
		return err
	}
	return c.run(ctx, g.Name, nc, func(ctx context.Context) error {
		s := &Scheduler{Bus: c.bus, Accounts: c.accounts, Limits: c.Limits, Policy: c.Policy, Keep: c.KeepRemoved,
			Owner: g.Name}
		c.monitor.Store(&monitor{healthy: s.healthy, ready: s.ready, metrics: schedulerMetrics(s, nc),
			page: &s.view})
		return s.Run(ctx)
	})
}

type workerCommand struct {
	service
	mailConfig
	Sessions    int           `default:"200" help:"Polls at the same time in this worker."`
	Longest     time.Duration `default:"10m" help:"Longest time for a poll."`
	MaxMessages int           `default:"500" help:"Messages in a poll."`
	Sink        string        `default:"stream" help:"Where mail goes: stream, or maildir: and a folder that exists."`
	CA          string        `name:"ca" placeholder:"FILE" help:"The only certificates to trust for POP3."`
	Mechanisms  []string      `help:"The only mechanisms to log in with."`
	TLSSessions int           `name:"tls-sessions" default:"4096" help:"Hosts whose TLS sessions can be resumed."`
	ScramKeys   int           `default:"100000" help:"Accounts whose SCRAM keys are kept in memory."`
	Timeout     time.Duration `help:"Longest wait for a POP3 server; 0 is that of the library."`
}

func (c *workerCommand) Run(ctx context.Context, g *globals) error {
	m := newMetrics()
	options, err := c.pop3Options(m)
	if err != nil {
		return err
	}
	nc, mail, err := c.connect(g)
	if err != nil {
		return err
	}
	defer mail.Close()
	return c.run(ctx, g.Name, nc, func(ctx context.Context) error {
		w := &Worker{Bus: c.bus, Accounts: c.accounts, Metrics: m, Owner: g.Name, Sessions: c.Sessions,
			Longest: c.Longest, Poller: Poller{Bus: c.bus, Metrics: m, Options: options, MaxMessages: c.MaxMessages}}
		if err := c.openSink(ctx, mail, &w.Poller); err != nil {
			return err
		}
		registerNATS(m.registry, nc, c.bus)
		c.monitor.Store(&monitor{ready: w.ready, metrics: m.registry})
		return w.Run(ctx)
	})
}

func (c *workerCommand) openSink(ctx context.Context, mail *nats.Conn, p *Poller) error {
	if dir, ok := strings.CutPrefix(c.Sink, "maildir:"); ok {
		p.Sink = maildirs(dir)
		return nil
	}
	if c.Sink != "stream" {
		return errors.New("--sink has to be stream, or maildir: and a folder")
	}
	js, err := jetstream.New(mail)
	if err != nil {
		return err
	}
	p.Sink = streamSink{c.bus, js}
	return waitFor(ctx, mail, func(ctx context.Context) error {
		_, err := mailStream.open(ctx, js)
		p.MaxSize = mail.MaxPayload() - 16<<10
		return err
	})
}

// pop3Options returns what all connections have in common. The cache of TLS sessions makes the next poll cheap.
func (c *workerCommand) pop3Options(m *Metrics) (opts pop3.Options, err error) {
	opts = pop3.Options{Timeout: c.Timeout, Trace: m.hooks, Mechanisms: c.Mechanisms,
		ScramKeys: sasl.NewScramKeys(c.ScramKeys),
		TLSConfig: &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(c.TLSSessions)}}
	if c.CA == "" {
		return opts, nil
	}
	pem, err := os.ReadFile(c.CA)
	opts.TLSConfig.RootCAs = x509.NewCertPool()
	if err == nil && !opts.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
		err = fmt.Errorf("%s: no certificate in it", c.CA)
	}
	return opts, err
}
