package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
	"golang.org/x/time/rate"
)

// A config is the flags of all commands that need the bus. Some are of no use to some.
type config struct {
	nats, accounts, name string
	bus                  BusConfig
	policy               Policy
	limits               Limits
	rate                 float64

	sessions, maxMessages int
	sink, ca, mechanisms  string
	cache, keys           int
	timeout               time.Duration
	cpuProfile            string
}

func (c *config) flags(command string) *flag.FlagSet {
	host, _ := os.Hostname()
	f := flag.NewFlagSet(command, flag.ExitOnError)
	f.StringVar(&c.nats, "nats", "nats://127.0.0.1:4222", "`URL` of the NATS server or cluster")
	f.StringVar(&c.accounts, "accounts", "accounts.json", "`file` with the accounts")
	f.StringVar(&c.name, "name", fmt.Sprintf("%s-%d", strings.ReplaceAll(host, ".", "-"), os.Getpid()),
		"name of this process, unique")
	f.IntVar(&c.bus.Replicas, "replicas", 1, "of each stream; 3 on a cluster")
	f.DurationVar(&c.bus.AckWait, "ackwait", 30*time.Second, "how long a worker may be silent; the same everywhere")
	return f
}

func (c *config) policyFlags(f *flag.FlagSet) {
	p := &c.policy
	*p = DefaultPolicy
	f.DurationVar(&p.Min, "min", p.Min, "interval of busy maildrops")
	f.DurationVar(&p.Max, "max", p.Max, "interval of idle maildrops")
	f.DurationVar(&p.Backoff, "backoff", p.Backoff, "longest wait after failures")
	f.IntVar(&p.Refusals, "refusals", p.Refusals, "logins refused before an account is set aside")
	f.IntVar(&p.Failures, "failures", p.Failures, "failures of any kind before an account is set aside")
}

func (c *config) limitFlags(f *flag.FlagSet) {
	l := &c.limits
	*l = DefaultLimits
	f.Float64Var(&c.rate, "rate", float64(l.Rate), "polls a second for each host")
	f.IntVar(&l.Burst, "burst", l.Burst, "polls at once for each host")
	f.IntVar(&l.Sessions, "host-sessions", l.Sessions, "sessions at the same time for each host")
	f.DurationVar(&l.Resend, "resend", l.Resend, "when to look after a maildrop that was queued")
}

func (c *config) workerFlags(f *flag.FlagSet) {
	f.IntVar(&c.sessions, "sessions", 200, "polls at the same time in this worker")
	f.IntVar(&c.maxMessages, "max-messages", 500, "messages in a poll")
	f.StringVar(&c.sink, "sink", "stream", "where mail goes: stream, or maildir:`DIR`")
	f.StringVar(&c.ca, "ca", "", "`file` with the only certificates to trust, in place of the system's")
	f.StringVar(&c.mechanisms, "mechanisms", "", "the only ways to log in, separated by commas")
	f.IntVar(&c.cache, "tls-sessions", 4096, "hosts whose TLS sessions can be resumed; 0 for none")
	f.IntVar(&c.keys, "scram-keys", 100_000, "accounts whose keys of SCRAM are kept for the next login; 0 for none")
	f.DurationVar(&c.timeout, "timeout", 0, "longest wait for a server; 0 is that of the library")
	f.StringVar(&c.cpuProfile, "cpuprofile", "", "write a CPU profile to this `file`")
}

// open connects and opens the bus. The caller ends with b.nc.Close.
func (c *config) open(ctx context.Context) (*Bus, error) {
	nc, err := connectNATS(c.nats, c.name)
	if err != nil {
		return nil, err
	}
	b, err := openBus(ctx, nc, c.bus)
	if err != nil {
		nc.Close()
	}
	return b, err
}

func (c *config) scheduler(b *Bus) *Scheduler {
	c.limits.Rate = rate.Limit(c.rate)
	return &Scheduler{Bus: b, Limits: c.limits, Policy: c.policy, Owner: c.name}
}

func (c *config) worker(ctx context.Context, b *Bus, accounts Accounts) (*Worker, error) {
	trust, err := c.trust()
	if err != nil {
		return nil, err
	}
	sink, err := c.openSink(ctx, b)
	if err != nil {
		return nil, err
	}
	m := newMetrics()
	poller := Poller{
		Seen: kvSeen{b.seen, b.leases, c.name}, Sink: sink, TLS: trust, Timeout: c.timeout, Metrics: m,
		MaxMessages: c.maxMessages, MaxSize: b.nc.MaxPayload() - 16<<10, ScramKeys: sasl.NewScramKeys(c.keys),
	}
	if c.mechanisms != "" {
		poller.Mechanisms = strings.Split(c.mechanisms, ",")
	}
	return &Worker{
		Bus: b, Accounts: accounts, Poller: poller, Policy: c.policy, Metrics: m, Owner: c.name,
		Sessions: c.sessions, Grace: c.bus.AckWait / 2,
	}, nil
}

// trust gives what all polls have of TLS in common: the cache of sessions is what makes the next poll cheap.
func (c *config) trust() (*tls.Config, error) {
	t := new(tls.Config)
	if c.cache > 0 {
		t.ClientSessionCache = tls.NewLRUClientSessionCache(c.cache)
	}
	if c.ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, err
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", c.ca)
	}
	return t, nil
}

func (c *config) openSink(ctx context.Context, b *Bus) (func(Account) fetch.Sink, error) {
	if dir, ok := strings.CutPrefix(c.sink, "maildir:"); ok {
		return maildirSink(dir), nil
	}
	if c.sink != "stream" {
		return nil, errors.New("the sink has to be stream, or maildir: and a folder")
	}
	s, err := openStreamSink(ctx, b.js, c.bus)
	return s.of, err
}
