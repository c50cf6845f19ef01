package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// testLease returns a lease that does not end during the test.
func testLease(t *testing.T) *lease { return newLease(t.Context(), time.Now(), time.Hour) }

// historyOf opens the history of an account.
func historyOf(t *testing.T, b *Bus, account string, held *lease) *kvHistory {
	t.Helper()
	h, err := openSeen(t.Context(), b, t.Context(), held, Account{Name: account})
	require.NoError(t, err)
	return h
}

// eachSeen runs a test with our history and with that of package fetch, because both must behave in the same way.
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
			h := historyOf(t, b, account, testLease(t))
			return h, func() { require.NoError(t, h.Close()) }
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
		// These unique-ids are strange but valid (H-119).
		for _, uid := range []string{"", `"`, "*", "..", ">", `\`, strings.Repeat("u", 1024)} {
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

// The history has more than one page. Entries are removed, and new entries fill the gaps.
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
		for i := range pageSize { // the first page becomes empty; the other pages must still be found
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

// Pages of the version before do not contain the field Last.
func TestSeenPagesOfLastVersion(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	key := keyOf("a@test")
	for n, text := range []string{`{"account":"a@test","entries":[]}`, `{"account":"a@test","entries":[{"UID":"1"}]}`} {
		_, err := b.seen.Create(t.Context(), pageKey(key, n), []byte(text))
		require.NoError(t, err)
	}
	h := historyOf(t, b, "a@test", testLease(t))
	assert.Len(t, h.pages, 2)
	assert.Len(t, h.byID, 1)
}

// A worker that was taken for dead, but is alive, must not overwrite what its successor has saved. If there is no
// successor yet, its entries are saved.
func TestSeenAfterLeaseIsLost(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	stalled := historyOf(t, b, "a@test", testLease(t))
	require.NoError(t, stalled.Save(t.Context(), fetch.Entry{UID: "of the first"}))
	stalled.held.end()
	require.ErrorIs(t, stalled.Save(t.Context(), fetch.Entry{UID: "its last"}), errLeaseLost)
	next := historyOf(t, b, "a@test", testLease(t))
	assert.Len(t, next.byID, 2)
	require.NoError(t, next.Save(t.Context(), fetch.Entry{UID: "of the second"}))
	require.ErrorIs(t, stalled.Save(t.Context(), fetch.Entry{UID: "too late"}), errLeaseLost)
	assert.Len(t, historyOf(t, b, "a@test", testLease(t)).byID, 3)
}

// A worker that was stopped for a while writes nothing to the server, even if no timer has run yet.
func TestNothingIsWrittenWithoutLease(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go io.Copy(io.Discard, server)
	tests := map[time.Duration]bool{0: true, 9 * time.Second: true, 10 * time.Second: false, time.Hour: false}
	for ago, ok := range tests {
		held := testLease(t)
		renewed := time.Now().Add(-ago)
		held.lasts = 10 * time.Second
		held.renewed.Store(&renewed)
		_, err := leasedConn{client, held}.Write([]byte("QUIT\r\n"))
		assert.Equal(t, ok, held.renew(time.Now()), "what was lost is not renewed")
		if ok {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, errLeaseLost, ago)
	}
}

// The connection is closed as soon as the lease is lost, although the poll may still be storing its history. So the
// server unlocks the maildrop.
func TestConnectionEndsWithLease(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	ctx, lose := context.WithCancel(t.Context())
	newLeasedConn(client, newLease(ctx, time.Now(), time.Hour))
	lose()
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// A lease lasts two thirds of its time, from the moment when it was requested.
func TestLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		held := newLease(t.Context(), begin, 30*time.Second)
		time.Sleep(15 * time.Second)
		assert.True(t, held.renew(begin.Add(10*time.Second)))
		time.Sleep(15*time.Second - 1)
		assert.True(t, held.valid())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.Equal(t, 30*time.Second, time.Since(begin))
		assert.False(t, held.valid())
		require.ErrorIs(t, held.ctx.Err(), context.Canceled)
		assert.False(t, held.renew(time.Now()))
	})
}
