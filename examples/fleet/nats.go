package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A natsConfig says where NATS is and how to log in. Secrets are in files, so that a list of processes does not show
// them.
type natsConfig struct {
	URL   string `name:"nats" help:"URLs of NATS, separated by commas. With a password only in the environment."`
	Creds string `name:"nats-creds" placeholder:"FILE" help:"Credentials of a user (JWT and NKey seed)."`
	NKey  string `name:"nats-nkey" placeholder:"FILE" help:"NKey seed."`
	Token string `name:"nats-token" placeholder:"FILE" help:"Token."`
	CA    string `name:"nats-ca" placeholder:"FILE" help:"Certificates to trust for NATS."`
	Cert  string `name:"nats-cert" placeholder:"FILE" help:"Our certificate for NATS."`
	Key   string `name:"nats-key" placeholder:"FILE" help:"Key of that certificate."`
}

// connect returns JetStream over a connection that is made in the background, and made again when it is lost. A server
// that is silent for half a minute counts as lost. The caller must close the connection.
func (c *natsConfig) connect(name string) (jetstream.JetStream, error) {
	urls := cmp.Or(c.URL, nats.DefaultURL)
	for one := range strings.SplitSeq(urls, ",") {
		// The error never shows the URL, because it may contain a password.
		if u, err := url.Parse(strings.TrimSpace(one)); err != nil || u.Host == "" {
			return nil, errors.New("an URL of NATS is not valid; it should look like nats://host:4222")
		}
	}
	opts, err := c.login()
	if err != nil {
		return nil, err
	}
	connected := func(nc *nats.Conn) { slog.Info("NATS: connected", "url", nc.ConnectedUrlRedacted()) }
	nc, err := nats.Connect(urls, append(opts,
		nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.PingInterval(10*time.Second),
		nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1), nats.ReconnectWait(time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				slog.Warn("NATS: connection lost", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { slog.Warn("NATS: no connection", "error", err) }),
		nats.ConnectHandler(connected), nats.ReconnectHandler(connected),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { slog.Warn("NATS", "error", err) }),
	)...)
	if err != nil {
		return nil, err
	}
	return jetstream.New(nc)
}

// login returns the options for credentials and TLS.
func (c *natsConfig) login() (opts []nats.Option, err error) {
	for _, name := range []string{c.Creds, c.NKey, c.Token} {
		if name != "" {
			if _, err := statPrivate(name); err != nil {
				return nil, err
			}
		}
	}
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("%s: no NKey seed in it", c.NKey)
		}
		opts = append(opts, nkey)
	}
	if c.Token != "" {
		opts = append(opts, nats.TokenHandler(func() string {
			token, _ := os.ReadFile(c.Token)
			return strings.TrimSpace(string(token))
		}))
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			return nil, err
		}
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	return opts, nil
}

// When a server of a cluster dies, the streams that it led have no leader for some seconds, and requests get no answer.
// When the store is full, writes are refused until there is room. Neither is the fault of an account, so polls wait.

// errAway means that NATS did not answer, or could not store anything.
var errAway = errors.New("NATS is not available")

// oneTry is how long to wait for an answer. Then the request is sent again, because the leader may have died.
const oneTry = 2 * time.Second

// insist calls do until NATS has answered, or ctx has ended. Bus.waiting counts the waiting calls.
func (b *Bus) insist(ctx context.Context, do func(context.Context) error) error {
	err := try(ctx, oneTry, do)
	if !isAway(err) {
		return err
	}
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	for isAway(err) {
		if !pause(ctx, oneTry/10) {
			return fmt.Errorf("%w: %w", errAway, err)
		}
		err = try(ctx, oneTry, do)
	}
	return err
}

// try calls do, which may take at most d.
func try(ctx context.Context, d time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return do(ctx)
}

// noAnswer are the errors of requests without an answer. Such a request may have been carried out.
var noAnswer = []error{
	errAway, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
	nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
}

// fullCodes are JetStream's errors when an account or a machine has no room. All others of this kind are a 503.
var fullCodes = []jetstream.ErrorCode{10002, 10028, 10047}

// isAway reports whether err means that there was no answer or no room.
func isAway(err error) bool {
	refusal, refused := errors.AsType[*jetstream.APIError](err)
	return slices.ContainsFunc(noAnswer, func(one error) bool { return errors.Is(err, one) }) ||
		refused && (refusal.Code == 503 || slices.Contains(fullCodes, refusal.ErrorCode))
}

// isConflict reports whether a write was refused because the revision of the key has changed.
func isConflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}

// waitFor calls do until NATS can be reached and everything that was missing exists. It logs what it waits for.
func waitFor(ctx context.Context, nc *nats.Conn, do func(ctx context.Context) error) error {
	for last := ""; ; {
		err := fmt.Errorf("%w: it is not connected", errAway)
		if nc.IsConnected() {
			err = try(ctx, 5*time.Second, do)
		}
		if !isAway(err) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		if err.Error() != last {
			slog.Warn("waiting for NATS", "error", err)
		}
		last = err.Error()
		if !pause(ctx, time.Second) {
			return err
		}
	}
}

// pause waits for d, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
