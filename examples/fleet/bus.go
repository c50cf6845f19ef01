package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Bus is what the processes share: messages, and what has to outlive them in JetStream.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	records jetstream.KeyValue // a Record for each account
	hosts   jetstream.KeyValue // paused hosts
	seen    jetstream.KeyValue // delivered messages, in pages
	leader  jetstream.KeyValue // which scheduler leads

	silence time.Duration // after which a worker is taken for dead
	waiting atomic.Int64  // operations that wait for NATS to answer, or to have room
}

const mailSubject = "mail."

// errLayout means that the streams are not as this program needs them. Only "fleet init" changes them.
var errLayout = errors.New("run fleet init")

// A stream is one of JetStream's. require sets the fields that this program depends on. All other fields are the
// operator's.
type stream struct {
	name, describe string
	require        func(c *jetstream.StreamConfig)
}

// bucketStream is the stream of a bucket. With replicas AllowDirect is off, because a follower may be behind its
// leader: mail that was stored a moment ago would be fetched again.
func bucketStream(name, describe string) stream {
	return stream{"KV_" + name, describe, func(c *jetstream.StreamConfig) {
		c.Subjects, c.MaxMsgsPerSubject, c.Discard = []string{"$KV." + name + ".>"}, 1, jetstream.DiscardNew
		c.AllowRollup, c.DenyDelete, c.AllowMsgTTL, c.AllowDirect = true, true, true, c.Replicas == 1
	}}
}

const leaderStream = "KV_leader"

var busStreams = []stream{bucketStream("schedules", "records of the accounts"), bucketStream("hosts", "paused hosts"),
	bucketStream("seen", "messages that were delivered"), bucketStream("leader", "which scheduler leads")}

// mailStream needs a limit, and refuses mail at the limit. Without one it would fill the store of the records.
var mailStream = stream{"MAIL", "delivered mail", func(c *jetstream.StreamConfig) {
	c.Subjects, c.Discard = []string{mailSubject + "*"}, jetstream.DiscardNew
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
}}

// oldStreams are those of the version before, which had a work queue.
var oldStreams = []string{"DUE", "LEASES"}

// open returns the configuration of the stream, or an error that wraps errLayout if it is missing or different.
func (s stream) open(ctx context.Context, js jetstream.JetStream) (have jetstream.StreamConfig, err error) {
	opened, err := js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return have, fmt.Errorf("stream %s (%s) is missing: %w: %w", s.name, s.describe, errLayout, err)
	}
	if err != nil {
		return have, fmt.Errorf("stream %s: %w", s.name, err)
	}
	have = opened.CachedInfo().Config
	want := have
	if s.require(&want); !reflect.DeepEqual(have, want) {
		return have, fmt.Errorf("stream %s (%s) is not as this version needs it: %w", s.name, s.describe, errLayout)
	}
	return have, nil
}

// openBus opens all streams and changes none.
func openBus(ctx context.Context, nc *nats.Conn) (*Bus, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	b := &Bus{nc: nc, js: js}
	for _, s := range busStreams {
		have, err := s.open(ctx, js)
		if err != nil {
			return nil, err
		}
		if s.name == leaderStream {
			b.silence = 3 * have.MaxAge
		}
	}
	for bucket, kv := range map[string]*jetstream.KeyValue{
		"schedules": &b.records, "hosts": &b.hosts, "seen": &b.seen, "leader": &b.leader,
	} {
		if *kv, err = js.KeyValue(ctx, bucket); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// A layout is what an operator chooses. Fields that are zero stay as they are in streams that exist.
type layout struct {
	Replicas  int           `help:"Of each stream; 3 on a cluster. 0 leaves it, and is 1 for a new one."`
	Silence   time.Duration `help:"After which a worker is taken for dead. 0 leaves it, and is 30s at first."`
	MailBytes int64         `help:"Limit of the mail stream. 0 leaves it, and is 1 GiB for a new one."`
}

// initialize makes the streams, or migrates those of an earlier version. It tells w what it does.
func (l layout) initialize(ctx context.Context, js, mail jetstream.JetStream, w io.Writer) error {
	for _, name := range oldStreams {
		if err := js.DeleteStream(ctx, name); err == nil {
			fmt.Fprintf(w, "%s: deleted, not used any more\n", name)
		} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	for _, s := range busStreams {
		if err := l.make(ctx, js, s, w); err != nil {
			return fmt.Errorf("stream %s: %w", s.name, err)
		}
	}
	if err := l.make(ctx, mail, mailStream, w); err != nil {
		return fmt.Errorf("stream %s: %w", mailStream.name, err)
	}
	return nil
}

// make makes a stream, or changes it where that is needed.
func (l layout) make(ctx context.Context, js jetstream.JetStream, s stream, w io.Writer) error {
	have := jetstream.StreamConfig{Name: s.name, Replicas: 1, MaxBytes: -1, MaxMsgs: -1, MaxMsgSize: -1,
		MaxConsumers: -1, Duplicates: 2 * time.Minute}
	opened, err := js.Stream(ctx, s.name)
	isNew := errors.Is(err, jetstream.ErrStreamNotFound)
	switch {
	case err == nil:
		have = opened.CachedInfo().Config
	case !isNew:
		return err
	case s.name == mailStream.name:
		have.Duplicates = 10 * time.Minute // to recognize mail that is delivered again after a crash
	case s.name == leaderStream:
		have.MaxAge = 10 * time.Second
	}
	want := have
	if l.Replicas != 0 {
		want.Replicas = l.Replicas
	}
	if s.name == leaderStream && l.Silence != 0 {
		want.MaxAge = l.Silence / 3 // a scheduler that dies is replaced before workers have to stop
	}
	if s.name == mailStream.name && l.MailBytes != 0 {
		want.MaxBytes = l.MailBytes
	}
	if want.MaxAge > 0 {
		want.Duplicates = min(want.Duplicates, want.MaxAge)
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
