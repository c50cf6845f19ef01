package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// openSeen opens the history of an account under a lease, which is released when the test ends.
func openSeen(t *testing.T, b *Bus, account string) *kvHistory {
	t.Helper()
	held, err := b.leases.take(t.Context(), context.Background(), keyOf(account), "test", func() {})
	require.NoError(t, err)
	t.Cleanup(held.release)
	h, err := leasedSeen{b.seen, held, new(gate), t.Context()}.Open(t.Context(), account)
	require.NoError(t, err)
	return h.(*kvHistory)
}

// eachSeen runs a test with the store of package fetch too: what holds for one has to hold for the other.
func eachSeen(t *testing.T, test func(t *testing.T, open func(t *testing.T, account string) (fetch.History, func()))) {
	t.Run("memory", func(t *testing.T) {
		seen := new(fetch.MemorySeen)
		test(t, func(t *testing.T, account string) (fetch.History, func()) {
			h, err := seen.Open(t.Context(), account)
			require.NoError(t, err)
			return h, func() { require.NoError(t, h.Close()) }
		})
	})
	t.Run("bucket", func(t *testing.T) {
		b := newRig(t, lab.Size{Servers: 1}).bus
		test(t, func(t *testing.T, account string) (fetch.History, func()) {
			h := openSeen(t, b, account)
			return h, func() { require.NoError(t, h.Close()); h.held.release() }
		})
	})
}

type opener = func(t *testing.T, account string) (fetch.History, func())

// entriesOf returns the entries of an account, in order.
func entriesOf(t *testing.T, open opener, account string) []fetch.Entry {
	t.Helper()
	h, done := open(t, account)
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	done()
	slices.SortFunc(entries, func(a, b fetch.Entry) int {
		return cmp.Or(strings.Compare(a.UID, b.UID), cmp.Compare(a.Copy, b.Copy))
	})
	return entries
}

func TestSeenKeepsEntries(t *testing.T) {
	t.Parallel()
	eachSeen(t, func(t *testing.T, open opener) {
		assert.Empty(t, entriesOf(t, open, "a@test"))
		when := time.Date(2026, 11, 24, 8, 30, 0, 123456789, time.UTC)
		var all []fetch.Entry
		for _, uid := range []string{"", `"`, "*", "..", ">", `\`, strings.Repeat("u", 1024)} { // H-119
			all = append(all, fetch.Entry{UID: uid, Size: 1 << 40, Octets: 2, Digest: "abc", Stored: when},
				fetch.Entry{UID: uid, Copy: 1, Short: true, Checked: when, Unsure: true, Stored: when, Deleted: when,
					Quits: 3, Missing: when})
		}
		h, done := open(t, "a@test")
		require.NoError(t, h.Save(t.Context(), all...))
		done()
		assert.Equal(t, all, entriesOf(t, open, "a@test"))
		assert.Empty(t, entriesOf(t, open, "b@test"))

		all[0].Octets = 7
		h, done = open(t, "a@test")
		require.NoError(t, h.Save(t.Context(), all[0]))
		require.NoError(t, h.Forget(t.Context(), all[3:]...))
		require.NoError(t, h.Forget(t.Context(), fetch.Entry{UID: "never saved"}))
		done()
		assert.Equal(t, all[:3], entriesOf(t, open, "a@test"))
	})
}

// More than a page, with holes that are filled again.
func TestSeenPages(t *testing.T) {
	t.Parallel()
	eachSeen(t, func(t *testing.T, open opener) {
		const n = 3*pageSize + 1
		uid := func(i int) fetch.Entry { return fetch.Entry{UID: fmt.Sprintf("%04d", i)} }
		h, done := open(t, "a@test")
		for i := range n {
			require.NoError(t, h.Save(t.Context(), uid(i)))
		}
		done()
		h, done = open(t, "a@test")
		for i := range pageSize { // the first page gets empty, and must not hide the others
			require.NoError(t, h.Forget(t.Context(), uid(i)))
		}
		done()
		assert.Len(t, entriesOf(t, open, "a@test"), n-pageSize)
		h, done = open(t, "a@test")
		require.NoError(t, h.Save(t.Context(), uid(9999)))
		require.NoError(t, h.Forget(t.Context(), uid(n-1)))
		done()
		entries := entriesOf(t, open, "a@test")
		assert.Len(t, entries, n-pageSize)
		assert.Equal(t, "9999", entries[len(entries)-1].UID)
	})
}

// A worker that was taken for dead, and lives, must not undo what its successor has saved.
func TestSeenAfterLeaseIsLost(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	stalled := openSeen(t, b, "a@test")
	stalled.held.mu.Lock() // it is not renewed any more
	<-stalled.held.ctx.Done()
	assert.False(t, stalled.held.valid())
	_, err := b.leases.take(t.Context(), t.Context(), keyOf("a@test"), "second", func() {})
	require.ErrorIs(t, err, errHeld, "the holder has to stop before another one can start")
	var second *lease
	eventually(t, "the lease expires", func() bool {
		second, err = b.leases.take(t.Context(), context.Background(), keyOf("a@test"), "second", func() {})
		return err == nil
	})
	defer second.release()
	next, err := leasedSeen{b.seen, second, new(gate), t.Context()}.Open(t.Context(), "a@test")
	require.NoError(t, err)
	require.NoError(t, next.Save(t.Context(), fetch.Entry{UID: "of the second"}))
	stalled.held.mu.Unlock()
	require.ErrorIs(t, stalled.Save(t.Context(), fetch.Entry{UID: "of the first"}), errLeaseLost)
	require.NoError(t, next.Save(t.Context(), fetch.Entry{UID: "still of the second"}))
	entries, err := next.Load(t.Context())
	require.NoError(t, err)
	assert.Len(t, entries, 2)
}

// A worker that was stopped for a while writes nothing to the server, even if no timer has run yet.
func TestNothingIsWrittenWithoutLease(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go io.Copy(io.Discard, server)
	held := &lease{leases: leases{ttl: 15 * time.Second}, ctx: t.Context()}
	tests := map[time.Duration]bool{0: true, 9 * time.Second: true, 10 * time.Second: false, time.Hour: false}
	for ago, ok := range tests {
		renewed := time.Now().Add(-ago)
		held.renewed.Store(&renewed)
		_, err := leasedConn{client, held}.Write([]byte("QUIT\r\n"))
		if ok {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, errLeaseLost, ago)
	}
}

// The server lets go of the maildrop as soon as the lease is lost, while the poll may still be storing its notes.
func TestConnectionEndsWithLease(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	ctx, lose := context.WithCancel(t.Context())
	newLeasedConn(client, &lease{ctx: ctx})
	lose()
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestLeaseIsRenewed(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	var beats atomic.Int64
	held, err := b.leases.take(t.Context(), t.Context(), "k", "me", func() { beats.Add(1) })
	require.NoError(t, err)
	eventually(t, "it is renewed again and again", func() bool { return beats.Load() > 3 }) // longer than it lasts
	_, err = b.leases.take(t.Context(), t.Context(), "k", "another", func() {})
	require.ErrorIs(t, err, errHeld)
	held.release()
	held.release()
	held, err = b.leases.take(t.Context(), context.Background(), "k", "another", func() {})
	require.NoError(t, err)
	held.release()
}
