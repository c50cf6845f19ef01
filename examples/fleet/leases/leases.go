// Package leases has leases, and the election of a leader in a bucket of NATS JetStream. A lease is a right that ends
// unless it is renewed.
package leases

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// ErrLost is the error of a holder that continues without its lease.
var ErrLost = errors.New("the lease was lost")

// A Lease is the holder's view of a lease. By its own monotonic clock, the holder uses the lease for only two thirds of
// its time. So the holder has stopped before anybody else can get the same right. A lease that was lost is never valid
// again. The methods of a Lease can be called concurrently.
type Lease struct {
	// Informed is for a leader: it reports whether the leader knows everything that earlier leaders have done. It is
	// true from the beginning if nobody else has led since this process was an informed leader.
	Informed atomic.Bool
	// Begin is when the lease was requested.
	Begin time.Time

	ctx     context.Context // ends with the lease
	end     context.CancelFunc
	use     time.Duration // how long the holder uses the lease after each renewal
	renewed atomic.Pointer[time.Time]
	timer   *time.Timer // ends ctx
}

// New returns a lease that ends with ctx, or when it was not renewed for ttl. requested must be a time before the
// request was sent.
func New(ctx context.Context, requested time.Time, ttl time.Duration) *Lease {
	l := &Lease{Begin: requested, use: ttl * 2 / 3}
	l.renewed.Store(&requested)
	l.ctx, l.end = context.WithCancel(ctx)
	l.timer = time.AfterFunc(time.Until(requested.Add(l.use)), l.end)
	return l
}

// Context returns a context that ends with the lease.
func (l *Lease) Context() context.Context { return l.ctx }

// Valid reports whether the lease still holds. The nil lease is not valid. Valid is correct even if this process was
// stopped and its timers have not run yet.
func (l *Lease) Valid() bool {
	return l != nil && l.ctx.Err() == nil && time.Since(*l.renewed.Load()) < l.use
}

// Renew extends the lease from the time at which its renewal was requested. It reports whether the lease was still
// valid.
func (l *Lease) Renew(requested time.Time) bool {
	if !l.Valid() {
		return false
	}
	l.renewed.Store(&requested)
	l.timer.Reset(time.Until(requested.Add(l.use)))
	return true
}

// End ends the lease. It does nothing if l is nil.
func (l *Lease) End() {
	if l != nil {
		l.end()
	}
}

// A conn writes only while the lease is valid. A process that was stopped for a while must not continue its session,
// because another process may have the right now. Each write checks the lease, because timers may be late.
type conn struct {
	net.Conn
	lease *Lease
}

// Conn returns a connection that is closed as soon as the lease is lost.
func (l *Lease) Conn(c net.Conn) net.Conn {
	context.AfterFunc(l.ctx, func() { c.Close() })
	return conn{c, l}
}

// Write fails with [ErrLost] if the lease is not valid.
func (c conn) Write(b []byte) (int, error) {
	if !c.lease.Valid() {
		return 0, ErrLost
	}
	return c.Conn.Write(b)
}

// NetConn returns the wrapped connection, so that package pop3 can set socket options.
func (c conn) NetConn() net.Conn { return c.Conn }
