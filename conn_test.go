package pop3

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// wait simulates a read of n octets that takes d. It returns the time limit of the read.
func (k *clock) wait(d time.Duration, n int) (limit time.Duration, ok bool) {
	deadline, ok := k.deadline()
	limit = time.Until(deadline)
	time.Sleep(d)
	k.count(n)
	return limit, ok
}

// testClock runs f in a synctest bubble. The clock k has a time limit of ten seconds. In this time at least 1280 octets
// of a multi-line reply must arrive.
func testClock(t *testing.T, f func(t *testing.T, k *clock)) {
	synctest.Test(t, func(t *testing.T) { f(t, &clock{timeout: 10 * time.Second}) })
}

// H-047, H-240: a reply of one line has one deadline, however many reads it takes.
func TestClockLine(t *testing.T) {
	testClock(t, func(t *testing.T, k *clock) {
		k.startLine()
		limit, ok := k.wait(6*time.Second, 1)
		assert.True(t, ok)
		assert.Equal(t, 10*time.Second, limit)
		_, ok = k.wait(time.Second, 1000)
		assert.False(t, ok, "the deadline stays as it was set")
		k.startLine()
		limit, ok = k.wait(0, 1)
		assert.True(t, ok)
		assert.Equal(t, 10*time.Second, limit, "the next reply has its own time")
	})
}

func TestClockBody(t *testing.T) {
	type read struct {
		d     time.Duration
		n     int
		limit time.Duration // the expected time limit of this read
	}
	const second = time.Second
	for _, tt := range []struct {
		name  string
		reads []read
	}{
		{"full speed", []read{{second, 1 << 20, 10 * second}, {second, 1 << 20, 10 * second}}},
		{"the minimum in one read", []read{{9 * second, 1280, 10 * second}, {0, 1, 10 * second}}},
		{"H-078 an octet too few", []read{{9 * second, 1279, 10 * second}, {0, 1, second}, {0, 0, 10 * second}}},
		{"H-078 an octet a second", []read{{second, 1, 10 * second}, {second, 1, 9 * second},
			{7 * second, 1, 8 * second}, {0, 0, second}}},
		{"H-241 an octet in 100 seconds", []read{{9 * second, 0, 10 * second}, {0, 0, second}}},
		{"the minimum in three reads", []read{{4 * second, 640, 10 * second}, {5 * second, 639, 6 * second},
			{0, 1, second}, {0, 0, 10 * second}}},
		{"a fast period is no credit for the next one", []read{{second, 1 << 30, 10 * second},
			{9 * second, 1, 10 * second}, {0, 0, second}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testClock(t, func(t *testing.T, k *clock) {
				k.startBody()
				for i, r := range tt.reads {
					limit, ok := k.wait(r.d, r.n)
					assert.True(t, ok)
					assert.Equal(t, r.limit, limit, "read %d", i)
				}
			})
		})
	}
}

// Time that the caller spends between two reads is not counted.
func TestClockBodyPause(t *testing.T) {
	testClock(t, func(t *testing.T, k *clock) {
		k.startBody()
		k.wait(3*time.Second, 10)
		time.Sleep(time.Hour)
		limit, _ := k.wait(time.Second, 10)
		assert.Equal(t, 7*time.Second, limit)
	})
}

// Each reply starts the clock again.
func TestClockChanges(t *testing.T) {
	testClock(t, func(t *testing.T, k *clock) {
		k.startBody()
		k.wait(8*time.Second, 1)
		k.startBody()
		limit, _ := k.wait(8*time.Second, 1)
		assert.Equal(t, 10*time.Second, limit)
		k.startLine()
		limit, ok := k.wait(0, 1)
		assert.True(t, ok)
		assert.Equal(t, 10*time.Second, limit)
	})
}

func TestClockNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &clock{timeout: -1}
		for _, start := range []func(){k.startLine, k.startBody} {
			start()
			_, ok := k.wait(time.Hour, 0)
			assert.False(t, ok)
		}
	})
}

// A cutoff can only make the time limit shorter.
func TestClockCutoff(t *testing.T) {
	testClock(t, func(t *testing.T, k *clock) {
		k.cutoff = time.Now().Add(time.Second)
		k.startBody()
		limit, _ := k.wait(time.Second/4, 1)
		assert.Equal(t, time.Second, limit)
		limit, _ = k.wait(time.Second/4, 1)
		assert.Equal(t, 3*time.Second/4, limit)

		k.cutoff = time.Now().Add(time.Hour)
		limit, _ = k.wait(0, 1)
		assert.Equal(t, 9*time.Second+time.Second/2, limit)

		k.timeout = -1
		limit, ok := k.wait(0, 1)
		assert.True(t, ok, "a cutoff applies even without a timeout")
		assert.Equal(t, time.Hour, limit)
	})
}

// The error names the limit that has passed.
func TestClockExpired(t *testing.T) {
	testClock(t, func(t *testing.T, k *clock) {
		k.startLine()
		err := k.expired(os.ErrDeadlineExceeded)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.EqualError(t, err, "no complete reply within 10s: i/o timeout")

		k.startBody()
		err = k.expired(os.ErrDeadlineExceeded)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.EqualError(t, err, "fewer than 128 octets per second for 10s: i/o timeout")

		k.cutoff = time.Now().Add(time.Second)
		assert.Equal(t, err, k.expired(os.ErrDeadlineExceeded), "the cutoff has not passed yet")
		time.Sleep(time.Second)
		err = k.expired(os.ErrDeadlineExceeded)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.EqualError(t, err, "the whole reply took too long: i/o timeout")
	})
}
