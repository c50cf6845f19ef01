package main

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

var errLeaseLost = errors.New("the lease was lost")

// A lease is a right that ends unless it is renewed: that of a worker to poll, which each answer of the leading
// scheduler renews, and that of a scheduler to lead. Its holder uses it for two thirds of its time only, by its own
// monotonic clock, so that it ends before anybody else can have what it was for. A lease that was lost is never valid
// again.
type lease struct {
	ctx     context.Context // ends with the lease
	end     context.CancelFunc
	lasts   time.Duration
	since   time.Time
	sure    atomic.Bool // of a leader: it knows everything that others have handed out before
	renewed atomic.Pointer[time.Time]
	expiry  *time.Timer
}

// newLease returns a lease that was asked for at a time. asked has to be before the question was sent.
func newLease(ctx context.Context, asked time.Time, ttl time.Duration) *lease {
	l := &lease{lasts: ttl * 2 / 3, since: asked}
	l.renewed.Store(&asked)
	l.ctx, l.end = context.WithCancel(ctx)
	l.expiry = time.AfterFunc(time.Until(asked.Add(l.lasts)), l.end)
	return l
}

// valid reports whether the lease is still ours, even if this process was stopped and its timers have not run yet.
func (l *lease) valid() bool {
	return l != nil && l.ctx.Err() == nil && time.Since(*l.renewed.Load()) < l.lasts
}

// renew extends the lease, and reports whether it was valid until then.
func (l *lease) renew(asked time.Time) bool {
	if !l.valid() {
		return false
	}
	l.renewed.Store(&asked)
	l.expiry.Reset(time.Until(asked.Add(l.lasts)))
	return true
}

// A leasedConn writes only while the lease is held. A worker that was stopped for a while must not go on in a
// session when another worker may have the account: that is decided here, because timers that are late have not
// run yet.
type leasedConn struct {
	net.Conn
	held *lease
}

// newLeasedConn closes the connection as soon as the lease is lost. The poll may go on for a while, to store its
// notes, and the next worker must not find the maildrop locked.
func newLeasedConn(conn net.Conn, held *lease) leasedConn {
	context.AfterFunc(held.ctx, func() { conn.Close() })
	return leasedConn{conn, held}
}

func (c leasedConn) Write(b []byte) (int, error) {
	if !c.held.valid() {
		return 0, errLeaseLost
	}
	return c.Conn.Write(b)
}

// NetConn lets the library set socket options.
func (c leasedConn) NetConn() net.Conn { return c.Conn }
