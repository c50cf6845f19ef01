package pop3

import (
	"context"
	"sync"
	"time"
)

// A use tells who has the connection: a call, the NOOP of KeepAlive, or nobody.
type use struct {
	mu    sync.Mutex
	taken bool
	noop  chan struct{} // taken for a NOOP; closed when that is over
	since time.Time     // when it was last given back
}

// take takes the connection for a call. It waits for a NOOP, and fails with ErrBusy if another call has it.
func (u *use) take(ctx context.Context) error {
	for {
		noop, ok := u.try(nil)
		switch {
		case ok:
			return nil
		case noop == nil:
			return ErrBusy
		}
		select {
		case <-noop:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try takes the connection if nobody has it: for a call if noop is nil, else for a NOOP, at whose end noop is closed.
// If a NOOP has it already, other is the channel of that one.
func (u *use) try(noop chan struct{}) (other chan struct{}, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken {
		return u.noop, false
	}
	u.taken, u.noop = true, noop
	return nil, true
}

// give gives the connection back.
func (u *use) give() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.noop != nil {
		close(u.noop)
	}
	u.taken, u.noop, u.since = false, nil, time.Now()
}

// idle tells for how long nobody has had the connection, 0 if somebody has.
func (u *use) idle() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken {
		return 0
	}
	return time.Since(u.since)
}
