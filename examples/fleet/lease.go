package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errHeld: somebody else has the lease.
var errHeld = errors.New("held by another process")

// leases are locks that go away by themselves when their holder does: one message for each, in a stream where none
// gets old. Their time is that of the NATS server alone, so the clocks of the workers do not matter. A bucket would
// do, but for its marks of deletion.
type leases struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	ttl    time.Duration
}

const leaseSubject = "lease."

// openLeases makes the stream. A message is beaten for every third of AckWait, so the one of a worker that dies comes
// back after two thirds at least: half of it as the time of a lease lets the next worker in.
func openLeases(ctx context.Context, js jetstream.JetStream, c BusConfig) (leases, error) {
	ttl := c.AckWait / 2
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "LEASES", Subjects: []string{leaseSubject + "*"}, Storage: jetstream.MemoryStorage,
		MaxMsgsPerSubject: 1, MaxAge: ttl, Replicas: c.Replicas,
	})
	return leases{js: js, stream: stream, ttl: ttl}, err
}

// write puts the message of a lease over the one with the given number, 0 if there must be none. If there is another
// one the error is errHeld.
func (l leases) write(ctx context.Context, key, owner string, over uint64) (uint64, error) {
	ack, err := l.js.Publish(ctx, leaseSubject+key, []byte(owner), jetstream.WithExpectLastSequencePerSubject(over))
	switch {
	case isWrongLast(err):
		return 0, errHeld
	case err != nil:
		return 0, fmt.Errorf("taking a lease: %w", err)
	}
	return ack.Sequence, nil
}

// isWrongLast tells that there is another message. The second code is that of a stream with replicas, while the other
// message is being written.
func isWrongLast(err error) bool {
	var refusal *jetstream.APIError
	return errors.As(err, &refusal) && (refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// A lease is held until it is released, or lost because it could not be renewed.
type lease struct {
	leases
	key   string
	owner string

	mu       sync.Mutex
	revision uint64
	renewed  time.Time
	timer    *time.Timer
	lost     chan struct{} // closed when it is
	over     bool
}

// take gets the lease, or errHeld.
func (l leases) take(ctx context.Context, key, owner string) (*lease, error) {
	asked := time.Now()
	revision, err := l.write(ctx, key, owner, 0)
	if err != nil {
		return nil, err
	}
	held := &lease{leases: l, key: key, owner: owner, revision: revision, renewed: asked,
		lost: make(chan struct{})}
	held.mu.Lock()
	defer held.mu.Unlock()
	held.timer = time.AfterFunc(l.ttl/3, held.renew)
	return held, nil
}

// renew makes it last another while. One failure may be the network's, for which there is time enough.
func (l *lease) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), l.ttl/3)
	defer cancel()
	revision, err := l.write(ctx, l.key, l.owner, l.revision)
	switch {
	case err == nil:
		l.revision, l.renewed = revision, asked
	case errors.Is(err, errHeld) || time.Since(l.renewed) > l.ttl*2/3:
		l.over = true
		close(l.lost)
		return
	default:
		l.timer.Reset(l.ttl / 12)
		return
	}
	l.timer.Reset(l.ttl / 3)
}

// held reports whether the lease is still ours, as far as can be known here.
func (l *lease) held() bool {
	select {
	case <-l.lost:
		return false
	default:
		return true
	}
}

// release ends the lease. It deletes the very message that made it, so it can't hit another holder.
func (l *lease) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	l.over = true
	l.timer.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), min(l.ttl, oneTry))
	defer cancel()
	err := l.stream.DeleteMsg(ctx, l.revision)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // it had run out
	}
	return err
}
