package fetch_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// startReal starts a real server, or skips the test as the mode of the run says.
func startReal(t *testing.T, kind interop.Kind) *interop.Server {
	t.Helper()
	mode := interop.CurrentMode()
	if mode == interop.ModeOff {
		t.Skipf("NOT RUN: it needs a real server; as root on Debian 12: %s=on go test ./fetch", interop.EnvMode)
	}
	s, err := interop.Start(t.Context(), kind, t.TempDir(), nil)
	if mode == interop.ModeOn && errors.Is(err, interop.ErrUnavailable) {
		t.Skipf("NOT RUN: %v (with %s=require this is a failure)", err, interop.EnvMode)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	return s
}

func connectTo(addr string, a interop.Account) func(ctx context.Context) (*pop3.Client, error) {
	return connectWith(addr, a, nil)
}

func connectWith(addr string, a interop.Account, opts *pop3.Options) func(ctx context.Context) (*pop3.Client, error) {
	return func(ctx context.Context) (*pop3.Client, error) {
		c, err := pop3.DialInsecure(ctx, addr, opts)
		if err != nil {
			return nil, err
		}
		if err = c.User(ctx, a.Name); err == nil {
			err = c.Pass(ctx, a.Password)
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// The life of a maildrop on each server: kept, known, deleted, gone. Nothing is stored twice, and nothing is retrieved
// twice but from Mailutils, which writes notes into the header, and only once more.
func TestRealServers(t *testing.T) {
	for _, kind := range interop.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			s := startReal(t, kind)
			for _, a := range []interop.Account{interop.Alice, s.Spare()} {
				sink := new(store)
				f := fetch.Fetcher{Connect: connectTo(s.Addr, a), Sink: sink, Seen: new(fetch.MemorySeen),
					Account: a.Name}
				report, err := f.Run(t.Context())
				require.NoError(t, err)
				n := report.Listed
				assert.GreaterOrEqual(t, n, 5)
				assert.Equal(t, n, report.Delivered)

				for round := range 2 {
					report, err = f.Run(t.Context())
					require.NoError(t, err)
					assert.Equal(t, n, report.Known)
					assert.Zero(t, report.Delivered)
					if round > 0 || kind != interop.Mailutils {
						assert.Zero(t, report.Octets, "%s: nothing has to be looked at", a.Name)
					}
				}
				f.Delete = true
				report, err = f.Run(t.Context())
				require.NoError(t, err)
				assert.Equal(t, n, report.Deleted)
				assert.NotZero(t, report.Octets, "looked at before they are deleted")
				report, err = f.Run(t.Context())
				require.NoError(t, err)
				assert.Zero(t, report.Listed)
				copies := len(sink.got) - n
				assert.LessOrEqual(
					t,
					copies,
					varying[kind],
					"%s: C-063 a copy of what differs each time, at most",
					a.Name,
				)
			}
		})
	}
}

// varying is how many messages of alice a server wraps anew each time they are retrieved.
var varying = map[interop.Kind]int{interop.Courier: 1}

// The same with CommitEvery and deletion at once, over connections that are new each time.
func TestRealServersCommitEvery(t *testing.T) {
	for _, kind := range interop.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			s := startReal(t, kind)
			sink := new(store)
			f := fetch.Fetcher{Connect: connectTo(s.Addr, s.Spare()), Sink: sink, Delete: true, CommitEvery: 2}
			report, err := f.Run(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 5, report.Delivered)
			assert.Equal(t, 5, report.Deleted)
			assert.Equal(t, 5, len(sink.got))
		})
	}
}

// Processes that are killed while they fetch from Dovecot.
func TestRealServerKillAtRandom(t *testing.T) {
	s := startReal(t, interop.Dovecot)
	random := rand.New(rand.NewPCG(1, 1))
	kills, inTheMidst := 0, 0
	for i := range 40 {
		a := s.Spare()
		o := &ordeal{t: t, v: victims[i%len(victims)]}
		o.v.Addr, o.v.User, o.v.Password, o.v.Dir = s.Addr, a.Name, a.Password, t.TempDir()
		require.NoError(t, o.v.sink().Create())
		o.all = retrieveAll(t, connectTo(s.Addr, a))
		o.left = func() int { return len(retrieveAll(t, connectTo(s.Addr, a))) }
		midst, all := o.dieAtRandom(random, 40*time.Millisecond)
		o.live()
		kills += all
		inTheMidst += midst
		require.False(t, t.Failed(), "round %d", i)
	}
	t.Logf("%d kills, %d of them in the midst of a run", kills, inTheMidst)
}

// retrieveAll is what is on the server.
func retrieveAll(t *testing.T, connect func(context.Context) (*pop3.Client, error)) (all []string) {
	t.Helper()
	c, err := connect(t.Context())
	require.NoError(t, err)
	defer c.Close()
	drop, err := c.Stat(t.Context())
	require.NoError(t, err)
	for num := 1; num <= drop.Count; num++ {
		m, err := c.Retr(t.Context(), num)
		require.NoError(t, err)
		content, err := io.ReadAll(m)
		require.NoError(t, err)
		all = append(all, string(content))
	}
	return all
}

// The answer to QUIT is +OK over a Maildir that can't be written to any more, and nothing is deleted. The next run
// sees it.
func TestRealServerThatDeletesNothing(t *testing.T) {
	s := startReal(t, interop.Dovecot)
	a := s.Spare()
	trace := &pop3.Trace{}
	connect := connectWith(s.Addr, a, &pop3.Options{Trace: trace})
	sink := new(store)
	f := fetch.Fetcher{Connect: connect, Sink: sink, Seen: new(fetch.MemorySeen), Account: a.Name, Delete: true}
	trace.WroteCommand = func(_ context.Context, cmd string) {
		if cmd == "QUIT" {
			require.NoError(t, s.Freeze(a.Name))
		}
	}
	report, err := f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 5, report.Deleted, "as the server says")
	assert.NotZero(t, report.TryAgain, "C-003: the session after it was refused for now")
	require.NoError(t, s.Thaw(a.Name))
	trace.WroteCommand = nil
	report, err = f.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrNotDeleted, "it was still there")
	assert.Equal(t, 5, report.Listed)
	assert.Equal(t, 5, report.Deleted)
	assert.Empty(t, retrieveAll(t, connect))
	assert.Equal(t, 5, len(sink.got), "each stored once")
}

// C-068: after a change of pop3_uidl_format all unique-ids are new, and nothing is stored again.
func TestRealServerThatChangesItsUniqueIDs(t *testing.T) {
	s := startReal(t, interop.Dovecot)
	a := s.Spare()
	sink := new(store)
	f := fetch.Fetcher{Connect: connectTo(s.Addr, a), Sink: sink, Seen: new(fetch.MemorySeen), Account: a.Name}
	_, err := f.Run(t.Context())
	require.NoError(t, err)
	h, err := f.Seen.Open(t.Context(), a.Name)
	require.NoError(t, err)
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	for _, e := range entries { // as if the ids of today were those after the change
		require.NoError(t, h.Forget(t.Context(), e))
		e.UID = "old." + e.UID
		require.NoError(t, h.Save(t.Context(), e))
	}
	require.NoError(t, h.Close())
	report, err := f.Run(t.Context())
	require.NoError(t, err)
	assert.Zero(t, report.Delivered)
	assert.Equal(t, len(entries), report.Known)
	assert.Equal(t, len(entries), len(sink.got))
}

// A sink that refuses one message, over several runs: the others are deleted in the first of them, and it is kept.
func TestRealServersWithARefusedMessage(t *testing.T) {
	for _, kind := range interop.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			s := startReal(t, kind)
			a := s.Spare()
			sink := new(store)
			calls := 0
			refusing := fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
				if calls++; calls == 1 {
					io.Copy(io.Discard, r)
					return fetch.ErrPermanent
				}
				return sink.Deliver(ctx, item, r)
			})
			f := fetch.Fetcher{Connect: connectTo(s.Addr, a), Sink: refusing, Seen: new(fetch.MemorySeen),
				Account: a.Name, Delete: true}
			for range 3 {
				report, err := f.Run(t.Context())
				require.Error(t, err)
				require.NoError(t, report.Aborted)
				require.Len(t, report.Problems, 1)
			}
			assert.Len(t, sink.got, 4)
			assert.Len(t, retrieveAll(t, connectTo(s.Addr, a)), 1)
		})
	}
}
