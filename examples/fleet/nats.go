package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
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

// A Bus is the connection between the processes: messages, and the data in JetStream that must survive a process.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	records jetstream.KeyValue // a Record for each account, and a hostRule for each host that was paused
	seen    jetstream.KeyValue // delivered messages, in pages
	leader  jetstream.KeyValue // the lease of the scheduler that leads

	clock   natsClock     // read when the streams were looked at last
	silence time.Duration // time after which a silent worker counts as dead
	waiting atomic.Int64  // number of operations that wait for an answer of NATS, or for room
}

const mailSubject = "mail."

// errLayout means that the streams are not as this program needs them. Only "fleet init" changes them.
var errLayout = errors.New("run fleet init")

// A stream is a stream of JetStream. require sets the fields on which this program depends. The operator may choose all
// other fields.
type stream struct {
	name, describe string
	require        func(c *jetstream.StreamConfig)
}

// bucketStream returns the stream of a bucket. With replicas AllowDirect is off: a follower may be older than its
// leader, and mail that was just stored would be fetched again.
func bucketStream(name, describe string) stream {
	return stream{"KV_" + name, describe, func(c *jetstream.StreamConfig) {
		c.Subjects, c.MaxMsgsPerSubject, c.Discard = []string{"$KV." + name + ".>"}, 1, jetstream.DiscardNew
		c.AllowRollup, c.DenyDelete, c.AllowMsgTTL, c.AllowDirect = true, true, true, c.Replicas == 1
	}}
}

var (
	recordStream = bucketStream("schedules", "records of the accounts")
	seenStream   = bucketStream("seen", "messages that were delivered")
	leaderStream = bucketStream("leader", "which scheduler leads")
)

// mailStream has a limit, and refuses mail at the limit. Without a limit the mail would fill the store that the records
// need.
var mailStream = stream{"MAIL", "delivered mail", func(c *jetstream.StreamConfig) {
	c.Subjects, c.Discard = []string{mailSubject + "*"}, jetstream.DiscardNew
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
}}

// oldStreams are those of the previous version, which had a work queue.
var oldStreams = []string{"DUE", "LEASES"}

// open returns the state of the stream, or an error that wraps errLayout if it is missing or different.
func (s stream) open(ctx context.Context, js jetstream.JetStream) (*jetstream.StreamInfo, error) {
	opened, err := js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s (%s) is missing: %w: %w", s.name, s.describe, errLayout, err)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.name, err)
	}
	info := opened.CachedInfo()
	want := info.Config
	if s.require(&want); !reflect.DeepEqual(info.Config, want) {
		return nil, fmt.Errorf("stream %s (%s) is not as this version needs it: %w", s.name, s.describe, errLayout)
	}
	return info, nil
}

// openBus waits until NATS is there, and opens all streams. It changes none.
func openBus(ctx context.Context, js jetstream.JetStream) (*Bus, error) {
	b := &Bus{nc: js.Conn(), js: js}
	return b, waitFor(ctx, b.nc, func(ctx context.Context) (err error) {
		if err = b.look(ctx); err != nil {
			return err
		}
		for name, kv := range map[string]*jetstream.KeyValue{
			"schedules": &b.records, "seen": &b.seen, "leader": &b.leader,
		} {
			if *kv, err = js.KeyValue(ctx, name); err != nil {
				return err
			}
		}
		leader, err := b.leader.Status(ctx)
		if err == nil {
			b.silence = 3 * leader.TTL()
		}
		return err
	})
}

// look checks the streams and reads the clock. The error wraps errLayout if a stream is missing or different.
func (b *Bus) look(ctx context.Context) error {
	for _, s := range []stream{seenStream, leaderStream, recordStream} {
		asked := time.Now()
		info, err := s.open(ctx, b.js)
		if err != nil {
			return err
		}
		b.clock = natsClock{info.TimeStamp, asked}
	}
	return nil
}

// A natsClock computes the time of NATS. It adds the time that has passed on our monotonic clock to the time that a
// server has sent. A wrong date on this machine does no harm.
type natsClock struct{ server, read time.Time }

func (c natsClock) now() time.Time { return c.server.Add(time.Since(c.read)) }

// A layout is what an operator chooses. In existing streams, zero fields change nothing.
type layout struct {
	Replicas  int           `help:"Of each stream; 3 on a cluster. 0 leaves it, and is 1 for a new one."`
	Silence   time.Duration `help:"After which a worker is taken for dead. 0 leaves it, and is 30s at first."`
	MailBytes int64         `help:"Limit of the mail stream. 0 leaves it, and is 1 GiB for a new one."`
}

// initialize makes the streams, or migrates those of an earlier version. It writes to w what it does.
func (l layout) initialize(ctx context.Context, js, mail jetstream.JetStream, w io.Writer) error {
	for _, name := range oldStreams {
		if err := js.DeleteStream(ctx, name); err == nil {
			fmt.Fprintf(w, "%s: deleted, not used any more\n", name)
		} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	for _, s := range []stream{recordStream, seenStream, leaderStream, mailStream} {
		where := js
		if s.name == mailStream.name {
			where = mail
		}
		if err := l.make(ctx, where, s, w); err != nil {
			return fmt.Errorf("stream %s: %w", s.name, err)
		}
	}
	return nil
}

// make makes a stream, or changes it if necessary.
func (l layout) make(ctx context.Context, js jetstream.JetStream, s stream, w io.Writer) error {
	// Mail that is delivered again after a crash is recognized for ten minutes.
	have := jetstream.StreamConfig{Name: s.name, Replicas: 1, Duplicates: 10 * time.Minute}
	opened, err := js.Stream(ctx, s.name)
	isNew := errors.Is(err, jetstream.ErrStreamNotFound)
	if err == nil {
		have = opened.CachedInfo().Config
	} else if !isNew {
		return err
	}
	want := have
	want.Replicas = cmp.Or(l.Replicas, have.Replicas)
	switch s.name {
	case leaderStream.name: // a dead scheduler must be replaced before workers have to stop
		want.MaxAge = cmp.Or(l.Silence/3, have.MaxAge, 10*time.Second)
		want.Duplicates = min(have.Duplicates, want.MaxAge)
	case mailStream.name:
		want.MaxBytes = cmp.Or(l.MailBytes, have.MaxBytes)
	}
	s.require(&want)
	switch {
	case isNew:
		fmt.Fprintf(w, "%s: created\n", s.name)
		_, err = js.CreateStream(ctx, want)
	case reflect.DeepEqual(have, want):
		fmt.Fprintf(w, "%s: unchanged\n", s.name)
	default:
		fmt.Fprintf(w, "%s: changed\n", s.name)
		_, err = js.UpdateStream(ctx, want)
	}
	return err
}
