package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Bus is what the processes have in common, all of it in JetStream.
type Bus struct {
	nc *nats.Conn
	js jetstream.JetStream

	due       jetstream.Stream   // one message for each maildrop that is to be polled now
	workers   jetstream.Consumer // of due
	schedules jetstream.KeyValue // a Record for each account
	seen      jetstream.KeyValue // what was delivered, in pages
	leases    leases

	ackWait time.Duration
}

// BusConfig is how the streams are made.
type BusConfig struct {
	Replicas int           // of each stream; 3 on a cluster
	AckWait  time.Duration // how long a worker may be silent before its maildrop goes to another one
}

const dueSubject = "due."

// openBus makes the streams and buckets, or takes those that are there.
func openBus(ctx context.Context, nc *nats.Conn, c BusConfig) (*Bus, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096),
		jetstream.WithPublishAsyncTimeout(patience)) // an answer that died with a leader must not wait for ever
	if err != nil {
		return nil, err
	}
	b := &Bus{nc: nc, js: js, ackWait: c.AckWait}
	if err = b.openQueue(ctx, c); err == nil {
		err = b.openBuckets(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	return b, nil
}

// openQueue makes the work queue. A maildrop that is waiting, or is being polled, has its message in it and can't get
// a second one: that is what keeps it at one session. It is in memory, since the scheduler can make it anew.
func (b *Bus) openQueue(ctx context.Context, c BusConfig) (err error) {
	b.due, err = b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:                 "DUE",
		Subjects:             []string{dueSubject + "*"},
		Retention:            jetstream.WorkQueuePolicy,
		Storage:              jetstream.MemoryStorage,
		MaxMsgsPerSubject:    1,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		Replicas:             c.Replicas,
	})
	if err != nil {
		return err
	}
	b.workers, err = b.due.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       "workers",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       c.AckWait,
		MaxAckPending: 100_000,
		MaxDeliver:    -1,
	})
	return err
}

func (b *Bus) openBuckets(ctx context.Context, c BusConfig) (err error) {
	if b.schedules, err = b.openBucket(ctx, "schedules", c.Replicas); err != nil {
		return err
	}
	if b.seen, err = b.openBucket(ctx, "seen", c.Replicas); err != nil {
		return err
	}
	b.leases, err = openLeases(ctx, b.js, c)
	return err
}

// openBucket makes the stream of a bucket as CreateKeyValue does, but for one thing: on a cluster only the leader
// answers what is in it. The others may be behind, and then mail that was stored a moment ago would be fetched again.
func (b *Bus) openBucket(ctx context.Context, name string, replicas int) (jetstream.KeyValue, error) {
	_, err := b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: 1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxMsgs:           -1,
		MaxConsumers:      -1,
		Discard:           jetstream.DiscardNew,
		Duplicates:        2 * time.Minute,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowDirect:       replicas == 1,
		Replicas:          replicas,
	})
	if err != nil {
		return nil, err
	}
	return b.js.KeyValue(ctx, name)
}
