package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
)

// A natsConfig contains the flags for a connection to NATS. Secrets are in files, because a list of processes shows the
// values of flags.
type natsConfig struct {
	URL   string `name:"nats" help:"URLs of NATS servers, separated by commas. No passwords on the command line."`
	Creds string `name:"nats-creds" placeholder:"FILE" help:"File with the JWT and the NKey seed of a user."`
	NKey  string `name:"nats-nkey" placeholder:"FILE" help:"File with an NKey seed."`
	Token string `name:"nats-token" placeholder:"FILE" help:"File with a token."`
	CA    string `name:"nats-ca" placeholder:"FILE" help:"Trust only these certificates of NATS servers."`
	Cert  string `name:"nats-cert" placeholder:"FILE" help:"Client certificate for NATS."`
	Key   string `name:"nats-key" placeholder:"FILE" help:"Key of the client certificate."`
}

// connect returns JetStream over a connection. The connection is made in the background, and again whenever it is lost.
// A server that does not answer pings for 30 seconds counts as lost. The caller must close the connection.
func (c *natsConfig) connect(name string) (jetstream.JetStream, error) {
	urls := cmp.Or(c.URL, nats.DefaultURL)
	for text := range strings.SplitSeq(urls, ",") {
		// The error does not show the URL, because it may contain a password.
		if u, err := url.Parse(strings.TrimSpace(text)); err != nil || u.Host == "" {
			return nil, errors.New("a URL of NATS is not valid; it must look like nats://host:4222")
		}
	}
	opts, err := c.login()
	if err != nil {
		return nil, err
	}
	connected := func(nc *nats.Conn) { slog.Info("NATS: connected", "url", nc.ConnectedUrlRedacted()) }
	// Without SkipHostLookup nats.go looks up the host without a time limit, before each attempt to connect.
	nc, err := nats.Connect(urls, append(opts,
		nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.PingInterval(10*time.Second),
		nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1), nats.ReconnectWait(time.Second), nats.SkipHostLookup(),
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
			if _, err := accounts.StatPrivate(name); err != nil {
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
			return nil, fmt.Errorf("%s contains no NKey seed", c.NKey)
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
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	return opts, nil
}

// A Bus connects a process with the others: by messages, and by the data in JetStream that must survive a process.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	records jetstream.KeyValue // a Record for each account, and a hostRule for each host that was ever paused
	seen    jetstream.KeyValue // the histories; see natsmail.History
	leader  jetstream.KeyValue // the lease of the scheduler that leads

	clock    natsClock     // set by checkStreams
	silence  time.Duration // time after which a silent worker counts as dead
	requests natsretry.Retrier
}

// errLayout means that a stream is missing, or has settings with which this program does not work. Only "fleet init"
// changes streams.
var errLayout = errors.New("run fleet init")

// A stream is a stream of JetStream. require sets the settings on which this program depends. The operator may choose
// all other settings.
type stream struct {
	name, description string
	require           func(c *jetstream.StreamConfig)
}

// bucketStream returns the stream of a bucket. AllowDirect lets every replica answer reads. It is off if there is more
// than one replica: the history from a replica may be out of date, and mail would be fetched again.
func bucketStream(name, description string) stream {
	return stream{"KV_" + name, description, func(c *jetstream.StreamConfig) {
		c.Subjects, c.MaxMsgsPerSubject, c.Discard = []string{"$KV." + name + ".>"}, 1, jetstream.DiscardNew
		c.AllowRollup, c.DenyDelete, c.AllowMsgTTL, c.AllowDirect = true, true, true, c.Replicas == 1
	}}
}

var (
	recordStream = bucketStream("schedules", "records of the accounts")
	seenStream   = bucketStream("seen", "messages that were delivered")
	leaderStream = bucketStream("leader", "which scheduler leads")
)

// mailSubject is the begin of the subjects of mail. The key of the account follows.
const mailSubject = "mail."

// mailStream refuses mail at its size limit. Without a limit, mail would fill the store that the records need.
var mailStream = stream{"MAIL", "delivered mail", func(c *jetstream.StreamConfig) {
	c.Subjects, c.Discard = []string{mailSubject + "*"}, jetstream.DiscardNew
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
}}

// open returns the state of the stream. The error wraps errLayout if the stream is missing or has wrong settings.
func (s stream) open(ctx context.Context, js jetstream.JetStream) (*jetstream.StreamInfo, error) {
	opened, err := js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s (%s) is missing: %w: %w", s.name, s.description, errLayout, err)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.name, err)
	}
	info := opened.CachedInfo()
	want := info.Config
	if s.require(&want); !reflect.DeepEqual(info.Config, want) {
		return nil, fmt.Errorf("stream %s (%s) has other settings than this version needs: %w", s.name, s.description,
			errLayout)
	}
	return info, nil
}

// openBus waits until NATS and all streams are available, and opens the streams. It changes none.
func openBus(ctx context.Context, js jetstream.JetStream) (*Bus, error) {
	b := &Bus{nc: js.Conn(), js: js}
	return b, natsretry.WaitFor(ctx, b.nc, func(ctx context.Context) (err error) {
		if err = b.checkStreams(ctx); err != nil {
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

// checkStreams checks the streams and sets the clock. The error wraps errLayout if a stream is missing or has wrong
// settings.
func (b *Bus) checkStreams(ctx context.Context) error {
	for _, s := range []stream{seenStream, leaderStream, recordStream} {
		requested := time.Now()
		info, err := s.open(ctx, b.js)
		if err != nil {
			return err
		}
		b.clock = natsClock{info.TimeStamp, requested}
	}
	return nil
}

// A natsClock is the clock of NATS. It adds the time that has passed, by the monotonic clock of this machine, to a time
// that a server has sent. So a wrong date on this machine does no harm.
type natsClock struct{ server, read time.Time }

func (c natsClock) now() time.Time { return c.server.Add(time.Since(c.read)) }

// An initCommand makes or changes the streams. No other command does so. In existing streams, zero fields change
// nothing.
type initCommand struct {
	mailConfig
	Replicas  int           `help:"Replicas of each stream, 3 on a cluster. 0 means no change, or 1 for a new stream."`
	Silence   time.Duration `help:"A worker that is silent for this time counts as dead. 0 means no change, or 30s."`
	MailBytes int64         `help:"Size limit of the mail stream. 0 means no change, or 1 GiB for a new stream."`
}

// Run is called by kong.
func (c *initCommand) Run(ctx context.Context, js jetstream.JetStream, g globals) error {
	mail, err := c.connect(g.Name, js)
	if err != nil {
		return err
	}
	defer mail.Conn().Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return natsretry.WaitFor(ctx, js.Conn(), func(ctx context.Context) error {
		for _, s := range []stream{recordStream, seenStream, leaderStream} {
			if err := c.make(ctx, js, s); err != nil {
				return err
			}
		}
		return c.make(ctx, mail, mailStream)
	})
}

// make creates a stream, or changes it if necessary. It prints what it has done.
func (c *initCommand) make(ctx context.Context, js jetstream.JetStream, s stream) error {
	// Duplicates is the time for which the mail stream recognizes mail that is delivered again.
	have := jetstream.StreamConfig{Name: s.name, Replicas: 1, Duplicates: 10 * time.Minute}
	opened, err := js.Stream(ctx, s.name)
	isNew := errors.Is(err, jetstream.ErrStreamNotFound)
	if err == nil {
		have = opened.CachedInfo().Config
	} else if !isNew {
		return fmt.Errorf("stream %s: %w", s.name, err)
	}
	want := have
	want.Replicas = cmp.Or(c.Replicas, have.Replicas)
	switch s.name {
	case leaderStream.name: // a dead leader must be replaced before the leases of the workers end
		want.MaxAge = cmp.Or(c.Silence/3, have.MaxAge, 10*time.Second)
		want.Duplicates = min(have.Duplicates, want.MaxAge)
	case mailStream.name:
		want.MaxBytes = cmp.Or(c.MailBytes, have.MaxBytes)
	}
	s.require(&want)
	done := "changed"
	switch {
	case isNew:
		done = "created"
		_, err = js.CreateStream(ctx, want)
	case reflect.DeepEqual(have, want):
		done = "unchanged"
	default:
		_, err = js.UpdateStream(ctx, want)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", s.name, err)
	}
	fmt.Printf("%s: %s\n", s.name, done)
	return nil
}
