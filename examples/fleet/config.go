package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
	"golang.org/x/time/rate"
)

// A config is the flags of all commands. Each command defines those that it needs.
type config struct {
	nats, mail     natsConfig
	name, http     string
	accounts, keys string
	keep           time.Duration
	policy         Policy
	limits         Limits
	rate           float64

	sessions, maxMessages, tlsSessions, scramKeys int
	sink, ca, mechanisms, cpuProfile              string
	timeout, longest                              time.Duration
}

// flags defines the flags that every command has.
func (c *config) flags(command string) *flag.FlagSet {
	f := flag.NewFlagSet(command, flag.ExitOnError)
	c.nats.flags(f, "", "nats://127.0.0.1:4222", "`URLs` of the NATS servers, separated by commas")
	host, _ := os.Hostname()
	f.StringVar(&c.name, "name", fmt.Sprintf("%s-%d", strings.ReplaceAll(host, ".", "-"), os.Getpid()),
		"name of this process, unique")
	return f
}

func (c *config) accountFlags(f *flag.FlagSet) {
	f.StringVar(&c.accounts, "accounts", "accounts.json", "`file` with the accounts")
	f.StringVar(&c.keys, "fingerprint-key", "",
		"`file` with a secret, the same everywhere; without it a changed password is not noticed")
}

func (c *config) serviceFlags(f *flag.FlagSet) {
	f.StringVar(&c.http, "http", "127.0.0.1:8080", "`address` of /healthz, /readyz, /metrics and the page")
	p := &c.policy
	*p = DefaultPolicy
	f.DurationVar(&p.Min, "min", p.Min, "interval of busy accounts")
	f.DurationVar(&p.Max, "max", p.Max, "interval of idle accounts")
	f.DurationVar(&p.Backoff, "backoff", p.Backoff, "longest wait after failures")
	f.IntVar(&p.Refusals, "refusals", p.Refusals, "refused logins before an account is set aside")
	f.IntVar(&p.Failures, "failures", p.Failures, "failures of any kind before an account is set aside")
}

func (c *config) schedulerFlags(f *flag.FlagSet) {
	l := &c.limits
	*l = DefaultLimits
	f.Float64Var(&c.rate, "rate", float64(l.Rate), "polls a second for each host")
	f.IntVar(&l.Burst, "burst", l.Burst, "polls for each host that may start at once")
	f.IntVar(&l.Sessions, "host-sessions", l.Sessions, "polls at the same time for each host")
	f.DurationVar(&l.Resend, "resend", l.Resend, "when to queue a poll again that nobody has reported")
	f.DurationVar(&c.keep, "keep-removed", 7*24*time.Hour, "how long the data of removed accounts is kept")
}

func (c *config) workerFlags(f *flag.FlagSet) {
	c.mail.flags(f, "mail-", "", "`URLs` of NATS for the mail stream, if it is not in the account of the rest")
	f.IntVar(&c.sessions, "sessions", 200, "polls at the same time in this worker")
	f.DurationVar(&c.longest, "longest", 10*time.Minute, "longest time for a poll")
	f.IntVar(&c.maxMessages, "max-messages", 500, "messages in a poll")
	f.StringVar(&c.sink, "sink", "stream", "where mail goes: stream, or maildir:`DIR`")
	f.StringVar(&c.ca, "ca", "", "`file` with the only certificates to trust for POP3, in place of the system's")
	f.StringVar(&c.mechanisms, "mechanisms", "", "the only mechanisms to log in with, separated by commas")
	f.IntVar(&c.tlsSessions, "tls-sessions", 4096, "hosts whose TLS sessions can be resumed; 0 for none")
	f.IntVar(&c.scramKeys, "scram-keys", 100_000, "accounts whose SCRAM keys are kept in memory; 0 for none")
	f.DurationVar(&c.timeout, "timeout", 0, "longest wait for a POP3 server; 0 is that of the library")
	f.StringVar(&c.cpuProfile, "cpuprofile", "", "write a CPU profile to this `file`")
}

// parse reads the flags from the environment, as FLEET_HOST_SESSIONS for -host-sessions, and then from args.
func (c *config) parse(f *flag.FlagSet, args []string) (err error) {
	f.VisitAll(func(one *flag.Flag) {
		name := "FLEET_" + strings.ToUpper(strings.ReplaceAll(one.Name, "-", "_"))
		if value, ok := os.LookupEnv(name); ok && f.Set(one.Name, value) != nil {
			err = errors.Join(err, fmt.Errorf("variable %s: not a value for -%s", name, one.Name))
		}
	})
	if err != nil {
		return err
	}
	for _, arg := range args { // before flag can show it in an error
		if strings.Contains(arg, "://") && hasPassword(arg) {
			return errors.New("an URL with a user or password can be seen by everybody on this machine; " +
				"set it as FLEET_NATS or FLEET_MAIL_NATS, or use -nats-creds, -nats-nkey or -nats-token")
		}
	}
	return f.Parse(args)
}

func (c *config) openAccounts() (*accountsFile, error) {
	if c.keys == "" {
		return openAccounts(c.accounts, nil)
	}
	info, err := os.Stat(c.keys)
	if err == nil {
		err = checkPrivate(c.keys, info)
	}
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(c.keys)
	if err == nil && len(key) < 16 {
		err = fmt.Errorf("%s: a secret needs at least 16 bytes", c.keys)
	}
	if err != nil {
		return nil, err
	}
	return openAccounts(c.accounts, key)
}

func (c *config) scheduler(b *Bus, accounts *accountsFile) *Scheduler {
	c.limits.Rate = rate.Limit(c.rate)
	return &Scheduler{Bus: b, Accounts: accounts, Limits: c.limits, Policy: c.policy, Keep: c.keep, Owner: c.name}
}

func (c *config) worker(ctx context.Context, b *Bus, mail *nats.Conn, accounts *accountsFile) (*Worker, error) {
	sink, err := c.openSink(ctx, mail)
	if err != nil {
		return nil, err
	}
	m := newMetrics()
	options, err := c.pop3Options(m)
	if err != nil {
		return nil, err
	}
	open := new(gate)
	poller := Poller{Bus: b, Sink: sink, Metrics: m, Gate: open, Options: options, MaxMessages: c.maxMessages}
	if c.sink == "stream" {
		poller.MaxSize = mail.MaxPayload() - 16<<10
	}
	return &Worker{
		Bus: b, Accounts: accounts, Poller: poller, Policy: c.policy, Metrics: m, Owner: c.name,
		Sessions: c.sessions, Longest: c.longest, Grace: b.ackWait / 2, gate: open,
	}, nil
}

// pop3Options returns what all connections have in common. The cache of TLS sessions makes the next poll cheap.
func (c *config) pop3Options(m *Metrics) (opts pop3.Options, err error) {
	opts = pop3.Options{TLSConfig: new(tls.Config), Timeout: c.timeout, Trace: m.hooks,
		ScramKeys: sasl.NewScramKeys(c.scramKeys)}
	if c.mechanisms != "" {
		opts.Mechanisms = strings.Split(c.mechanisms, ",")
	}
	if c.tlsSessions > 0 {
		opts.TLSConfig.ClientSessionCache = tls.NewLRUClientSessionCache(c.tlsSessions)
	}
	if c.ca == "" {
		return opts, nil
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return opts, err
	}
	opts.TLSConfig.RootCAs = x509.NewCertPool()
	if !opts.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
		return opts, fmt.Errorf("%s: no certificate in it", c.ca)
	}
	return opts, nil
}

func (c *config) openSink(ctx context.Context, mail *nats.Conn) (func(Account) fetch.Sink, error) {
	if dir, ok := strings.CutPrefix(c.sink, "maildir:"); ok {
		return maildirSink(dir), nil
	}
	if c.sink != "stream" {
		return nil, errors.New("-sink has to be stream, or maildir: and a folder")
	}
	s, err := openStreamSink(ctx, mail)
	return s.of, err
}

// profile begins a CPU profile if -cpuprofile names a file.
func (c *config) profile() (stop func(), err error) {
	if c.cpuProfile == "" {
		return func() {}, nil
	}
	f, err := os.Create(c.cpuProfile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}
