package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Bus is what the processes share, all of it in JetStream.
type Bus struct {
	nc *nats.Conn
	js jetstream.JetStream

	due     jetstream.Stream   // one message for each account that is to be polled now
	workers jetstream.Consumer // of due
	records jetstream.KeyValue // a Record for each account
	hosts   jetstream.KeyValue // what operators have said about hosts
	seen    jetstream.KeyValue // delivered messages, in pages
	leases  leases

	seenStream jetstream.Stream // of seen

	ackWait time.Duration // how long a worker may be silent before its message goes to another one
}

const (
	dueSubject  = "due."
	mailSubject = "mail."
)

// errLayout means that the streams are not as this program needs them. Only "fleet init" changes them.
var errLayout = errors.New("run fleet init")

// A stream is one of JetStream's. require sets the fields that this program depends on. All other fields are the
// operator's.
type stream struct {
	name     string
	rebuilt  bool // its content can be lost while no process runs
	require  func(c *jetstream.StreamConfig)
	describe string
}

// dueStream is a work queue. A message stays in it until it is acknowledged, and an account that has one cannot
// get a second one. That keeps an account at one poll.
var dueStream = stream{"DUE", true, func(c *jetstream.StreamConfig) {
	c.Subjects, c.Retention, c.Storage = []string{dueSubject + "*"}, jetstream.WorkQueuePolicy, jetstream.FileStorage
	c.MaxMsgsPerSubject, c.Discard, c.DiscardNewPerSubject = 1, jetstream.DiscardNew, true
}, "the work queue"}

var leaseStream = stream{"LEASES", true, func(c *jetstream.StreamConfig) {
	c.Subjects, c.Storage, c.MaxMsgsPerSubject = []string{leaseSubject + "*"}, jetstream.FileStorage, 1
	c.Duplicates = min(c.Duplicates, c.MaxAge)
}, "who polls what"}

// bucketStream is the stream of a bucket. With replicas AllowDirect is off, because a follower may be behind its
// leader: mail that was stored a moment ago would be fetched again.
func bucketStream(name, describe string) stream {
	return stream{"KV_" + name, false, func(c *jetstream.StreamConfig) {
		c.Subjects, c.MaxMsgsPerSubject, c.Discard = []string{"$KV." + name + ".>"}, 1, jetstream.DiscardNew
		c.AllowRollup, c.DenyDelete, c.AllowMsgTTL, c.AllowDirect = true, true, true, c.Replicas == 1
	}, describe}
}

// mailStream needs a limit, and refuses mail at the limit. Without one it would fill the store of the records.
var mailStream = stream{"MAIL", false, func(c *jetstream.StreamConfig) {
	c.Subjects, c.Discard = []string{mailSubject + "*"}, jetstream.DiscardNew
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
}, "delivered mail"}

var recordStreams = []stream{dueStream, leaseStream, bucketStream("schedules", "records of the accounts"),
	bucketStream("hosts", "paused hosts"), bucketStream("seen", "messages that were delivered")}

// open returns the stream, or an error that wraps errLayout if it is missing or different.
func (s stream) open(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	opened, err := js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s (%s) is missing: %w: %w", s.name, s.describe, errLayout, err)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.name, err)
	}
	have := opened.CachedInfo().Config
	want := have
	if s.require(&want); !reflect.DeepEqual(have, want) {
		return nil, fmt.Errorf("stream %s (%s) is not as this version needs it: %w", s.name, s.describe, errLayout)
	}
	return opened, nil
}

// openBus opens all streams and changes none.
func openBus(ctx context.Context, nc *nats.Conn) (*Bus, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096),
		jetstream.WithPublishAsyncTimeout(patience)) // an answer that died with a leader must not be awaited for ever
	if err != nil {
		return nil, err
	}
	b := &Bus{nc: nc, js: js}
	opened := make(map[string]jetstream.Stream)
	for _, s := range recordStreams {
		if opened[s.name], err = s.open(ctx, js); err != nil {
			return nil, err
		}
	}
	b.due, b.seenStream = opened["DUE"], opened["KV_seen"]
	buckets := map[string]*jetstream.KeyValue{"schedules": &b.records, "hosts": &b.hosts, "seen": &b.seen}
	for bucket, kv := range buckets {
		if *kv, err = js.KeyValue(ctx, bucket); err != nil {
			return nil, err
		}
	}
	if b.workers, err = b.due.Consumer(ctx, "workers"); err != nil {
		return nil, fmt.Errorf("consumer of stream DUE: %w: %w", errLayout, err)
	}
	b.ackWait = b.workers.CachedInfo().Config.AckWait
	b.leases = leases{js: js, stream: opened["LEASES"], ttl: opened["LEASES"].CachedInfo().Config.MaxAge}
	if b.leases.ttl <= 0 || b.leases.ttl > b.ackWait/2 {
		return nil, fmt.Errorf("leases last %v, and the queue waits %v for workers; that has to be twice as long: %w",
			b.leases.ttl, b.ackWait, errLayout)
	}
	return b, nil
}

// A layout is what an operator chooses. Fields that are zero stay as they are in streams that exist.
type layout struct {
	Replicas  int           // of each stream; 3 on a cluster
	AckWait   time.Duration // how long a worker may be silent
	MailBytes int64         // limit of the mail stream
}

// initialize makes the streams, or migrates those of an earlier version. It tells w what it does.
func (l layout) initialize(ctx context.Context, js, mail jetstream.JetStream, w io.Writer) error {
	for _, s := range recordStreams {
		if err := l.make(ctx, js, s, w); err != nil {
			return fmt.Errorf("stream %s: %w", s.name, err)
		}
	}
	if err := l.make(ctx, mail, mailStream, w); err != nil {
		return fmt.Errorf("stream %s: %w", mailStream.name, err)
	}
	return l.makeConsumer(ctx, js)
}

func (l layout) make(ctx context.Context, js jetstream.JetStream, s stream, w io.Writer) error {
	opened, err := js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		fmt.Fprintf(w, "%s: created\n", s.name)
		return l.create(ctx, js, s)
	}
	if err != nil {
		return err
	}
	have := opened.CachedInfo().Config
	want := have
	l.apply(&want, s)
	s.require(&want)
	switch {
	case reflect.DeepEqual(have, want):
		fmt.Fprintf(w, "%s: unchanged\n", s.name)
		return nil
	case have.Storage != want.Storage && s.rebuilt:
		fmt.Fprintf(w, "%s: created anew, in a file\n", s.name)
		if err := js.DeleteStream(ctx, s.name); err != nil {
			return err
		}
		return l.create(ctx, js, s)
	}
	fmt.Fprintf(w, "%s: changed\n", s.name)
	_, err = js.UpdateStream(ctx, want)
	return err
}

func (l layout) create(ctx context.Context, js jetstream.JetStream, s stream) error {
	c := jetstream.StreamConfig{Name: s.name, Replicas: 1, MaxBytes: -1, MaxMsgs: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: 2 * time.Minute}
	if s.name == mailStream.name {
		c.Duplicates = 10 * time.Minute // to recognize mail that is delivered again after a crash
	}
	if l.AckWait == 0 {
		l.AckWait = 30 * time.Second
	}
	l.apply(&c, s)
	s.require(&c)
	_, err := js.CreateStream(ctx, c)
	return err
}

// apply sets what the operator has chosen.
func (l layout) apply(c *jetstream.StreamConfig, s stream) {
	if l.Replicas != 0 {
		c.Replicas = l.Replicas
	}
	if s.name == leaseStream.name && l.AckWait != 0 {
		c.MaxAge = l.AckWait / 2 // a message goes to the next worker after two thirds of AckWait at least
		c.Duplicates = min(c.Duplicates, c.MaxAge)
	}
	if s.name == mailStream.name && l.MailBytes != 0 {
		c.MaxBytes = l.MailBytes
	}
}

func (l layout) makeConsumer(ctx context.Context, js jetstream.JetStream) error {
	c := jetstream.ConsumerConfig{
		Durable:       "workers",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       30 * time.Second,
		MaxAckPending: 100_000,
		MaxDeliver:    -1,
	}
	if have, err := js.Consumer(ctx, dueStream.name, c.Durable); err == nil {
		c = have.CachedInfo().Config
	} else if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	if l.AckWait != 0 {
		c.AckWait = l.AckWait
	}
	_, err := js.CreateOrUpdateConsumer(ctx, dueStream.name, c)
	return err
}
