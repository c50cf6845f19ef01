package leases

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
)

// An Election chooses one of many processes as the leader. The leader writes a key of a bucket, whose values expire,
// again and again.
type Election struct {
	Bucket jetstream.KeyValue
	TTL    time.Duration // the time after which values of the bucket expire
	Name   string        // the name of this process

	lease atomic.Pointer[Lease]
}

// electionKey is the key that the leader writes.
const electionKey = "leader"

// Lease returns the lease of this process. It is valid while this process leads, and nil if it has never led.
func (e *Election) Lease() *Lease { return e.lease.Load() }

// Run takes the lease when it is free, renews it, and gives it up when ctx ends.
func (e *Election) Run(ctx context.Context) {
	var last uint64 // revision of our last write
	for ok := true; ok; ok = natsretry.Pause(ctx, e.TTL/5) {
		last = e.try(ctx, last)
	}
	if lease := e.Lease(); lease.Valid() {
		lease.End()
		natsretry.Try(context.WithoutCancel(ctx), natsretry.Timeout, func(ctx context.Context) error {
			return e.Bucket.Delete(ctx, electionKey, jetstream.LastRevision(last)) // if this fails, the lease expires
		})
	}
}

// try takes or renews the lease. It returns the revision of our last write, which was last before.
func (e *Election) try(ctx context.Context, last uint64) uint64 {
	requested, lease := time.Now(), e.Lease()
	var revision uint64
	err := natsretry.Try(ctx, e.TTL/3, func(ctx context.Context) (err error) {
		if lease.Valid() {
			revision, err = e.Bucket.Update(ctx, electionKey, []byte(e.Name), last)
		} else {
			revision, err = e.Bucket.Create(ctx, electionKey, []byte(e.Name))
		}
		return err
	})
	switch {
	case err == nil && lease.Renew(requested):
		return revision
	case err == nil:
		next := New(context.WithoutCancel(ctx), requested, e.TTL)
		alone := revision == last+1 // nobody else has led since our last write, or ever
		next.Informed.Store(alone && (lease == nil || lease.Informed.Load()))
		e.lease.Store(next)
		slog.Info("this process leads")
		context.AfterFunc(next.Context(), func() { slog.Info("this process does not lead any more") })
		return revision
	case natsretry.IsConflict(err):
		lease.End()
	case ctx.Err() == nil:
		slog.Warn("cannot get the lease of the leader", "error", err)
	}
	return last
}
