package pop3

import (
	"fmt"
	"time"
)

// minRate is what a peer has to deliver in a multi-line reply, in octets a second, over any stretch as long as
// the time limit.
const minRate = 128

// A clock tells how long the peer may take. A reply of one line has to be whole within the time limit. In a
// multi-line reply the limit is on each stretch in which fewer than minRate octets a second arrive. Only the
// time in which something is waited for counts.
type clock struct {
	timeout time.Duration // below 0: no limit
	cutoff  time.Time     // a limit on all of it, if not zero

	bulk  bool          // a multi-line reply
	armed bool          // the deadline of a one-line reply is set
	began time.Time     // of the read in progress
	spent time.Duration // waiting, in this stretch
	got   int64         // octets, in this stretch
}

// line starts the time for a reply of one line.
func (k *clock) line() { k.bulk, k.armed = false, false }

// body starts the time for a multi-line reply.
func (k *clock) body() { k.bulk, k.spent, k.got = true, 0, 0 }

// start tells the deadline for the next read; ok is false if it need not be set.
func (k *clock) start() (deadline time.Time, ok bool) {
	if k.timeout < 0 && k.cutoff.IsZero() || k.armed && !k.bulk {
		return time.Time{}, false
	}
	k.began = time.Now()
	k.armed = true
	deadline = k.began.Add(k.timeout)
	if k.bulk {
		deadline = deadline.Add(-k.spent)
	}
	if k.timeout < 0 || !k.cutoff.IsZero() && k.cutoff.Before(deadline) {
		deadline = k.cutoff
	}
	return deadline, true
}

// stop counts a read of n octets. A stretch that was fast enough is over, and the next one starts.
func (k *clock) stop(n int) {
	if !k.bulk || k.timeout < 0 {
		return
	}
	k.spent += time.Since(k.began)
	k.got += int64(n)
	if float64(k.got) >= minRate*k.timeout.Seconds() {
		k.spent, k.got = 0, 0
	}
}

// forWrite tells the deadline for a write; ok is false if there is no limit.
func (k *clock) forWrite() (deadline time.Time, ok bool) {
	if k.timeout < 0 {
		return time.Time{}, false
	}
	return time.Now().Add(k.timeout), true
}

// expired says which limit was passed when a read failed with err.
func (k *clock) expired(err error) error {
	switch {
	case !k.cutoff.IsZero() && !time.Now().Before(k.cutoff):
		return errAbandoned
	case k.bulk:
		return fmt.Errorf("fewer than %d octets a second for %v: %w", minRate, k.timeout, err)
	}
	return fmt.Errorf("no complete reply within %v: %w", k.timeout, err)
}
