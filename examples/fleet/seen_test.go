package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// What package fetch asks of a [fetch.Seen], for one in memory too, which is its own: the same rows must hold.
func eachSeen(t *testing.T, test func(t *testing.T, seen fetch.Seen)) {
	t.Run("memory", func(t *testing.T) { test(t, new(fetch.MemorySeen)) })
	t.Run("bucket", func(t *testing.T) {
		b, _ := testBus(t, time.Minute)
		test(t, kvSeen{b.seen, b.leases, "test"})
	})
}

func open(t *testing.T, seen fetch.Seen, account string) fetch.History {
	t.Helper()
	h, err := seen.Open(t.Context(), account)
	require.NoError(t, err)
	return h
}

// entriesOf gives the entries of an account, in order.
func entriesOf(t *testing.T, seen fetch.Seen, account string) []fetch.Entry {
	t.Helper()
	h := open(t, seen, account)
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, h.Close())
	slices.SortFunc(entries, func(a, b fetch.Entry) int {
		return cmp.Or(strings.Compare(a.UID, b.UID), cmp.Compare(a.Copy, b.Copy))
	})
	return entries
}

func TestSeenKeepsEntries(t *testing.T) {
	eachSeen(t, func(t *testing.T, seen fetch.Seen) {
		assert.Empty(t, entriesOf(t, seen, "a@test"))
		when := time.Date(2026, 11, 24, 8, 30, 0, 123456789, time.UTC)
		var all []fetch.Entry
		for _, uid := range []string{"", `"`, "*", "..", ">", `\`, strings.Repeat("u", 1024)} { // H-119
			all = append(all, fetch.Entry{UID: uid, Size: 1 << 40, Octets: 2, Digest: "abc", Stored: when},
				fetch.Entry{UID: uid, Copy: 1, Short: true, Checked: when, Unsure: true, Stored: when, Deleted: when,
					Quits: 3, Missing: when})
		}
		h := open(t, seen, "a@test")
		require.NoError(t, h.Save(t.Context(), all...))
		require.NoError(t, h.Close())
		assert.Equal(t, all, entriesOf(t, seen, "a@test"))
		assert.Empty(t, entriesOf(t, seen, "b@test"))

		all[0].Octets = 7
		h = open(t, seen, "a@test")
		require.NoError(t, h.Save(t.Context(), all[0]))
		require.NoError(t, h.Forget(t.Context(), all[3:]...))
		require.NoError(t, h.Forget(t.Context(), fetch.Entry{UID: "never saved"}))
		require.NoError(t, h.Close())
		assert.Equal(t, all[:3], entriesOf(t, seen, "a@test"))
	})
}

func TestSeenIsForOneAtATime(t *testing.T) {
	eachSeen(t, func(t *testing.T, seen fetch.Seen) {
		h := open(t, seen, "a@test")
		_, err := seen.Open(t.Context(), "a@test")
		require.ErrorIs(t, err, fetch.ErrLocked)
		assert.Empty(t, entriesOf(t, seen, "b@test"))
		require.NoError(t, h.Close())
		assert.Empty(t, entriesOf(t, seen, "a@test"))
	})
}

// More than a page, with holes that are filled again.
func TestSeenPages(t *testing.T) {
	eachSeen(t, func(t *testing.T, seen fetch.Seen) {
		const n = 3*pageSize + 1
		uid := func(i int) fetch.Entry { return fetch.Entry{UID: fmt.Sprintf("%04d", i)} }
		h := open(t, seen, "a@test")
		for i := range n {
			require.NoError(t, h.Save(t.Context(), uid(i)))
		}
		require.NoError(t, h.Close())
		h = open(t, seen, "a@test")
		for i := range pageSize { // the first page gets empty, and must not hide the others
			require.NoError(t, h.Forget(t.Context(), uid(i)))
		}
		require.NoError(t, h.Close())
		assert.Len(t, entriesOf(t, seen, "a@test"), n-pageSize)
		h = open(t, seen, "a@test")
		require.NoError(t, h.Save(t.Context(), uid(9999)))
		require.NoError(t, h.Forget(t.Context(), uid(n-1)))
		require.NoError(t, h.Close())
		entries := entriesOf(t, seen, "a@test")
		assert.Len(t, entries, n-pageSize)
		assert.Equal(t, "9999", entries[len(entries)-1].UID)
	})
}

// A worker that was taken for dead, and lives, must not undo what its successor has saved.
func TestSeenAfterLeaseIsLost(t *testing.T) {
	b, _ := testBus(t, 600*time.Millisecond)
	seen := kvSeen{b.seen, b.leases, "first"}
	stalled := open(t, seen, "a@test").(*kvHistory)
	stalled.lease.mu.Lock() // it renews no more
	var next fetch.History
	eventually(t, "the lease runs out", func() (ok bool) {
		h, err := seen.Open(t.Context(), "a@test")
		next = h
		return err == nil
	})
	require.NoError(t, next.Save(t.Context(), fetch.Entry{UID: "of the second"}))
	stalled.lease.mu.Unlock()
	require.Error(t, stalled.Save(t.Context(), fetch.Entry{UID: "of the first"}))
	require.NoError(t, stalled.Close())
	require.NoError(t, next.Save(t.Context(), fetch.Entry{UID: "still of the second"}))
	require.NoError(t, next.Close())
	assert.Len(t, entriesOf(t, seen, "a@test"), 2)
}

func TestLeaseIsRenewed(t *testing.T) {
	b, _ := testBus(t, 600*time.Millisecond)
	held, err := b.leases.take(t.Context(), "k", "me")
	require.NoError(t, err)
	first := held.revision
	eventually(t, "it is renewed again and again", func() bool {
		held.mu.Lock()
		defer held.mu.Unlock()
		return held.revision >= first+6 // more than twice its time
	})
	_, err = b.leases.take(t.Context(), "k", "another")
	require.ErrorIs(t, err, errHeld)
	require.NoError(t, held.release())
	require.NoError(t, held.release())
	held, err = b.leases.take(context.Background(), "k", "another")
	require.NoError(t, err)
	require.NoError(t, held.release())
}
