package natsmail

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// TestMain makes the test binary also the NATS server, when a test starts it as another process.
func TestMain(m *testing.M) {
	if lab.IsChild() {
		os.Exit(lab.Main(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// newJetStream starts a NATS server and connects to it.
func newJetStream(t *testing.T) jetstream.JetStream {
	t.Helper()
	server, err := lab.Spawn("nats", "--dir", t.TempDir(), "--sync=false")
	require.NoError(t, err)
	t.Cleanup(server.Kill)
	url, err := server.Line()
	require.NoError(t, err)
	closed := make(chan struct{})
	nc, err := nats.Connect(url, nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close(); <-closed })
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

// newBucket starts a NATS server with a bucket.
func newBucket(t *testing.T) jetstream.KeyValue {
	t.Helper()
	bucket, err := newJetStream(t).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "seen"})
	require.NoError(t, err)
	return bucket
}

// openHistory opens the history of an account, with a lease of its own.
func openHistory(t *testing.T, bucket jetstream.KeyValue, account string) *History {
	t.Helper()
	h := &History{Bucket: bucket, Requests: new(natsretry.Retrier), Key: accounts.KeyOf(account),
		Lease: leases.New(t.Context(), time.Now(), time.Hour), StoreContext: t.Context()}
	_, err := h.Open(t.Context(), account)
	require.NoError(t, err)
	return h
}

// eachSeen runs a test with our history and with that of package fetch, because both must behave in the same way.
func eachSeen(t *testing.T, test func(t *testing.T, open opener)) {
	t.Run("memory", func(t *testing.T) {
		seen := new(fetch.MemorySeen)
		test(t, func(t *testing.T, account string) (fetch.History, func()) {
			h, err := seen.Open(t.Context(), account)
			require.NoError(t, err)
			return h, func() { require.NoError(t, h.Close()) }
		})
	})
	t.Run("bucket", func(t *testing.T) {
		bucket := newBucket(t)
		test(t, func(t *testing.T, account string) (fetch.History, func()) {
			h := openHistory(t, bucket, account)
			return h, func() { require.NoError(t, h.Close()) }
		})
	})
}

// An opener opens the history of an account, and returns a function to close it.
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
	bucket := newBucket(t)
	key := accounts.KeyOf("a@test")
	for n, text := range []string{`{"account":"a@test","entries":[]}`, `{"account":"a@test","entries":[{"UID":"1"}]}`} {
		_, err := bucket.Create(t.Context(), PageKey(key, n), []byte(text))
		require.NoError(t, err)
	}
	h := openHistory(t, bucket, "a@test")
	assert.Len(t, h.pages, 2)
	assert.Len(t, h.byID, 1)
}

// A process that lost its lease, but is alive, must not overwrite what its successor has saved. If there is no
// successor yet, its entries are saved.
func TestSeenAfterLeaseIsLost(t *testing.T) {
	t.Parallel()
	bucket := newBucket(t)
	stalled := openHistory(t, bucket, "a@test")
	require.NoError(t, stalled.Save(t.Context(), fetch.Entry{UID: "first, with its lease"}))
	stalled.Lease.End()
	require.ErrorIs(t, stalled.Save(t.Context(), fetch.Entry{UID: "first, without its lease"}), leases.ErrLost)
	next := openHistory(t, bucket, "a@test")
	assert.Len(t, next.byID, 2)
	require.NoError(t, next.Save(t.Context(), fetch.Entry{UID: "second"}))
	require.ErrorIs(t, stalled.Save(t.Context(), fetch.Entry{UID: "first, too late"}), leases.ErrLost)
	assert.Len(t, openHistory(t, bucket, "a@test").byID, 3)
}
