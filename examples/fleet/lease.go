package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errHeld means that another process has the lease.
var errHeld = errors.New("another process has the lease")

// leases are locks that expire when their holder does not renew them: one message for each, in a stream with MaxAge.
// Only the clock of NATS decides when a lease expires.
type leases struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	ttl    time.Duration
}

const leaseSubject = "lease."

// write replaces the message of a lease, which must have the given sequence number, or not exist if that is 0.
// Otherwise the error is errHeld.
func (l leases) write(ctx context.Context, key, owner string, over uint64) (uint64, error) {
	ack, err := l.js.Publish(ctx, leaseSubject+key, []byte(owner), jetstream.WithExpectLastSequencePerSubject(over))
	switch {
	case isWrongLast(err):
		return 0, errHeld
	case err != nil:
		return 0, fmt.Errorf("lease: %w", err)
	}
	return ack.Sequence, nil
}

// isWrongLast reports whether there is another message. The second code is that of a stream with replicas while the
// other message is being written.
func isWrongLast(err error) bool {
	var refusal *jetstream.APIError
	return errors.As(err, &refusal) && (refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// A lease gives its holder sole use of an account, or the lead of the schedulers. Work under a lease has to use ctx,
// which ends when the lease is lost. That is at two thirds of its time, before anybody else can have it.
type lease struct {
	leases
	key, owner string
	ctx        context.Context
	lose       context.CancelFunc
	beat       func() // called whenever it is renewed, and on until it is released

	renewed atomic.Pointer[time.Time] // with its monotonic clock, which a wrong date does not touch

	mu       sync.Mutex
	revision uint64
	released bool
	renewal  *time.Timer
	expiry   *time.Timer
}

// take returns the lease, or errHeld. The lease is lost when life ends.
func (l leases) take(ctx, life context.Context, key, owner string, beat func()) (*lease, error) {
	asked := time.Now()
	revision, err := l.write(ctx, key, owner, 0)
	if err != nil {
		return nil, err
	}
	held := &lease{leases: l, key: key, owner: owner, beat: beat, revision: revision}
	held.renewed.Store(&asked)
	held.ctx, held.lose = context.WithCancel(life)
	held.mu.Lock()
	defer held.mu.Unlock()
	held.renewal = time.AfterFunc(l.ttl/3, held.renew)
	held.expiry = time.AfterFunc(time.Until(asked.Add(l.ttl*2/3)), held.lose)
	return held, nil
}

// renew extends the lease. If that fails it is tried again until the lease has expired.
func (l *lease) renew() {
	l.beat()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return
	}
	next := l.ttl / 3
	if l.ctx.Err() == nil {
		asked := time.Now()
		ctx, cancel := context.WithTimeout(l.ctx, l.ttl/3)
		revision, err := l.write(ctx, l.key, l.owner, l.revision)
		cancel()
		switch {
		case err == nil:
			l.revision = revision
			l.renewed.Store(&asked)
			l.expiry.Reset(time.Until(asked.Add(l.ttl * 2 / 3)))
		case errors.Is(err, errHeld):
			l.lose()
		default:
			next = l.ttl / 12
		}
	}
	l.renewal.Reset(next)
}

// valid reports whether the lease is still ours, even if this process was stopped and its timers have not run yet.
func (l *lease) valid() bool {
	return l.ctx.Err() == nil && time.Since(*l.renewed.Load()) < l.ttl*2/3
}

// release ends the lease. It deletes the message that made it, so it cannot hit another holder.
func (l *lease) release() {
	l.lose()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	l.renewal.Stop()
	l.expiry.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), min(l.ttl, oneTry))
	defer cancel()
	l.stream.DeleteMsg(ctx, l.revision) // if that fails, the lease expires by itself
}
