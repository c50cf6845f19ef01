package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// An account is a maildrop and what is to be done with it.
type account struct {
	settings
	key    string // names the maildrop in the record of what was stored
	seen   fetch.Seen
	sink   fetch.Sink
	roots  *x509.CertPool // nil for those of the system
	dial   dialer
	failed bool // the latest run
}

// build makes the accounts of a configuration.
func (c *config) build() ([]*account, error) {
	dir, err := stateDir(c.State)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	sinks := newSinks(c)
	var accounts []*account
	for _, s := range c.Accounts {
		a := &account{settings: s, key: s.key(), sink: sinks.make(s), dial: dialers[s.TLS.is]}
		a.seen = fetch.FileSeen{Dir: dir}
		if s.CAFile != "" {
			if a.roots, err = readRoots(s.CAFile); err != nil {
				return nil, fmt.Errorf("account %q: ca_file: %w", s.Name, err)
			}
		}
		for _, other := range accounts {
			if other.key == a.key {
				return nil, fmt.Errorf("accounts %q and %q are the same maildrop", other.Name, a.Name)
			}
		}
		accounts = append(accounts, a)
	}
	return accounts, nil
}

// key names the maildrop. The usual ports are left out of it, so that it stays the same when TLS is switched on.
func (s *settings) key() string {
	host, port, err := net.SplitHostPort(s.Server)
	if err != nil {
		host = s.Server
	}
	if port == "" || port == "110" || port == "995" {
		return s.User + "@" + strings.ToLower(host)
	}
	return s.User + "@" + strings.ToLower(s.Server)
}

// readRoots reads certificates.
func readRoots(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s; it should have them in PEM", name)
	}
	return pool, nil
}

// fetch sees to the account once. It ends between two messages when stop is done.
func (a *account) fetch(stop, cut context.Context, dryRun bool, show display, log *slog.Logger) fetch.Report {
	var report fetch.Report
	f := a.fetcher()
	f.DryRun = dryRun
	f.Connect = func(ctx context.Context) (*pop3.Client, error) {
		if report.Sessions > 0 {
			return a.connect(ctx, log) // this may be the session that deletes what is stored
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(stop, func() { cancel(errStopped) })()
		return a.connect(ctx, log)
	}
	f.Progress = func(p fetch.Progress) { show.progress(a, p) }
	show.begin(a)
	if !dryRun {
		if err := a.create(); err != nil {
			report.Err, report.Aborted = err, err
			a.failed = true
			show.end(a, report)
			return report
		}
	}
	for res, err := range f.Results(cut, &report) {
		if err == nil {
			show.message(a, res)
		}
		if stop.Err() != nil {
			break
		}
	}
	a.failed = report.Err != nil
	show.end(a, report)
	return report
}

var errStopped = errors.New("stopped by a signal")

// fetcher is all but the way to the server.
func (a *account) fetcher() *fetch.Fetcher {
	return &fetch.Fetcher{
		Sink: a.sink, Seen: a.seen, Account: a.key,
		Delete: a.Delete.delete, KeepFor: a.Delete.after, CommitEvery: a.CommitEvery, AcceptShort: a.AcceptShort,
		MaxSize: int64(a.MaxSize), MaxMessages: a.MaxMessages, MaxOctets: int64(a.MaxOctets),
		NewestFirst: a.NewestFirst,
	}
}

// A dialer is a way to connect.
type dialer func(ctx context.Context, addr string, opts *pop3.Options) (*pop3.Client, error)

var dialers = map[tlsMode]dialer{
	"":          pop3.DialTLS,
	tlsImplicit: pop3.DialTLS,
	tlsStart:    pop3.DialStartTLS,
	tlsNone:     pop3.DialInsecure,
}

// connect gives a session that is logged in. The password comes first, since a person may have to be asked for it
// and the server does not wait for long.
func (a *account) connect(ctx context.Context, log *slog.Logger) (*pop3.Client, error) {
	password, err := a.password(ctx)
	if err != nil {
		return nil, err
	}
	c, err := a.dial(ctx, a.Server, a.options(log))
	if err != nil {
		return nil, a.stopped(ctx, err)
	}
	if err := a.login(ctx, c, password); err != nil {
		c.Close()
		return nil, a.stopped(ctx, err)
	}
	return c, nil
}

// stopped puts the reason for the end of ctx in the place of what it has caused.
func (a *account) stopped(ctx context.Context, err error) error {
	if context.Cause(ctx) == errStopped {
		return errStopped
	}
	return err
}

// options are those of a connection.
func (a *account) options(log *slog.Logger) *pop3.Options {
	o := &pop3.Options{Timeout: a.Timeout.Duration, InsecureAuth: a.InsecureAuth}
	o.Pipelining = pipelinings[a.Pipelining.is]
	if a.roots != nil {
		o.TLSConfig = &tls.Config{RootCAs: a.roots}
	}
	if len(a.Mechanisms) > 0 && !isTokenMechanism(a.Mechanisms[0]) {
		o.Mechanisms = a.Mechanisms
	}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		o.Trace = pop3.LogTrace(log)
	}
	return o
}

var pipelinings = map[pipelineMode]pop3.Pipelining{
	"never":  pop3.PipeliningNever,
	"always": pop3.PipeliningAlways,
}

// login logs in with a password, or with a token if the mechanism is one for tokens.
func (a *account) login(ctx context.Context, c *pop3.Client, secret string) error {
	if len(a.Mechanisms) == 0 || !isTokenMechanism(a.Mechanisms[0]) {
		return c.Login(ctx, a.User, secret)
	}
	if strings.EqualFold(a.Mechanisms[0], "XOAUTH2") {
		return c.Auth(ctx, sasl.XOAuth2(a.User, secret))
	}
	return c.Auth(ctx, sasl.OAuthBearer(a.User, secret))
}

// isTokenMechanism tells a mechanism that takes an OAuth token.
func isTokenMechanism(name string) bool {
	return strings.EqualFold(name, "XOAUTH2") || strings.EqualFold(name, "OAUTHBEARER")
}
