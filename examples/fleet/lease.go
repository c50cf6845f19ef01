package main

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

var errLeaseLost = errors.New("the lease was lost")

// A lease is a right that ends unless it is renewed. A worker has a lease to poll, which each answer of the leading
// scheduler renews. A scheduler has a lease to lead. By its own monotonic clock, the holder uses a lease for only two
// thirds of its time. So it has stopped before anybody else can get the same right. A lease that was lost is never
// valid again.
type lease struct {
	ctx     context.Context // ends with the lease
	end     context.CancelFunc
	lasts   time.Duration
	since   time.Time
	sure    atomic.Bool // true if this leader knows all polls that other leaders have handed out
	renewed atomic.Pointer[time.Time]
	expiry  *time.Timer
}

// newLease returns a lease that was requested at the time asked, which must be before the request was sent.
func newLease(ctx context.Context, asked time.Time, ttl time.Duration) *lease {
	l := &lease{lasts: ttl * 2 / 3, since: asked}
	l.renewed.Store(&asked)
	l.ctx, l.end = context.WithCancel(ctx)
	l.expiry = time.AfterFunc(time.Until(asked.Add(l.lasts)), l.end)
	return l
}

// valid reports whether the lease still holds. It is correct even if this process was stopped and its timers have not
// run yet.
func (l *lease) valid() bool {
	return l != nil && l.ctx.Err() == nil && time.Since(*l.renewed.Load()) < l.lasts
}

// renew extends the lease, and reports whether it was still valid.
func (l *lease) renew(asked time.Time) bool {
	if !l.valid() {
		return false
	}
	l.renewed.Store(&asked)
	l.expiry.Reset(time.Until(asked.Add(l.lasts)))
	return true
}

// A leasedConn writes only while the lease holds. A worker that was stopped for a while must not continue its session,
// because another worker may have the account. Each write checks the lease itself, because timers may be late.
type leasedConn struct {
	net.Conn
	held *lease
}

// newLeasedConn returns a connection that is closed as soon as the lease is lost. The poll may still have to store its
// history, but the next worker must not find the maildrop locked.
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
