package fetch_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// startReal starts a real server, or skips the test, depending on interop.CurrentMode.
func startReal(t *testing.T, kind interop.Kind) *interop.Server {
	t.Helper()
	return startRealWith(t, kind, nil)
}

func startRealWith(t *testing.T, kind interop.Kind, opts *interop.Options) *interop.Server {
	t.Helper()
	mode := interop.CurrentMode()
	if mode == interop.ModeOff {
		t.Skipf("NOT RUN: it needs a real server; as root on Debian 12: %s=on go test ./fetch", interop.EnvMode)
	}
	s, err := interop.Start(t.Context(), kind, t.TempDir(), opts)
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

// On each server, the first run stores all messages, the next runs know them, and a later run deletes them. Nothing is
// stored twice. Until the run that deletes them, messages are not retrieved again. The exception is Mailutils: it
// writes notes into the header, so the second run retrieves the messages again.
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
						assert.Zero(t, report.Octets, "%s: nothing is retrieved", a.Name)
					}
				}
				f.Delete = true
				report, err = f.Run(t.Context())
				require.NoError(t, err)
				assert.Equal(t, n, report.Deleted)
				assert.NotZero(t, report.Octets, "compared before they are deleted")
				report, err = f.Run(t.Context())
				require.NoError(t, err)
				assert.Zero(t, report.Listed)
				copies := len(sink.messages) - n
				assert.LessOrEqual(t, copies, rewrittenMessages[kind],
					"%s: C-063 at most one copy of a rewritten message",
					a.Name)
			}
		})
	}
}

// rewrittenMessages is the number of messages of alice that a server wraps in a different way each time.
var rewrittenMessages = map[interop.Kind]int{interop.Courier: 1}

// This test uses CommitEvery and immediate deletion, so that a run has several sessions.
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
			assert.Equal(t, 5, len(sink.messages))
		})
	}
}

// Processes that fetch from Dovecot are killed at random times.
func TestRealServerKillAtRandom(t *testing.T) {
	s := startReal(t, interop.Dovecot)
	random := rand.New(rand.NewPCG(1, 1))
	kills, duringRun := 0, 0
	for i := range 40 {
		a := s.Spare()
		o := &killTest{t: t, process: fetchProcesses[i%len(fetchProcesses)]}
		o.process.Addr, o.process.User, o.process.Password, o.process.Dir = s.Addr, a.Name, a.Password, t.TempDir()
		require.NoError(t, o.process.sink().Create())
		o.messages = retrieveAll(t, connectTo(s.Addr, a))
		o.left = func() int { return len(retrieveAll(t, connectTo(s.Addr, a))) }
		during, all := o.killAtRandom(random, 40*time.Millisecond)
		o.runToEnd()
		kills += all
		duringRun += during
		require.False(t, t.Failed(), "round %d", i)
	}
	t.Logf("%d kills, %d of them during a run", kills, duringRun)
}

// retrieveAll returns the messages on the server.
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

// The Maildir cannot be written, and the server replies +OK to QUIT and deletes nothing. The next run notices that.
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
	assert.Equal(t, 5, report.Deleted, "the server confirmed it")
	require.NoError(t, s.Thaw(a.Name))
	trace.WroteCommand = nil
	report, err = f.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrNotDeleted, "the messages were still listed")
	assert.Equal(t, 5, report.Listed)
	assert.Equal(t, 5, report.Deleted)
	assert.Empty(t, retrieveAll(t, connect))
	assert.Equal(t, 5, len(sink.messages), "each stored once")
}

// C-067: the Maildir cannot be written for several runs. Each run reports that. When the Maildir can be written again,
// everything is deleted, and nothing is stored twice.
func TestRealServerWithAReadOnlyStore(t *testing.T) {
	s := startReal(t, interop.Dovecot)
	a := s.Spare()
	sink := new(store)
	f := fetch.Fetcher{Connect: connectTo(s.Addr, a), Sink: sink, Seen: new(fetch.MemorySeen), Account: a.Name,
		Delete: true}
	assert.Len(t, retrieveAll(t, f.Connect), 5) // retrieving makes the server move the messages to cur
	cur := filepath.Join(s.Maildrop(a.Name), "Maildir", "cur")
	require.NoError(t, os.Chmod(cur, 0o555))
	for i := range 4 {
		_, err := f.Run(t.Context())
		require.ErrorIs(t, err, fetch.ErrNotDeleted, "run %d", i)
		assert.Len(t, sink.messages, 5)
	}
	require.NoError(t, os.Chmod(cur, 0o770))
	changeEntries(t, f.Seen, a.Name, func(e *fetch.Entry) { e.Deleted = e.Deleted.Add(-25 * time.Hour) })
	f.Run(t.Context()) // this run reports again that the messages were not deleted
	report, err := f.Run(t.Context())
	require.NoError(t, err)
	assert.Zero(t, report.Listed)
	assert.Len(t, sink.messages, 5)
}

// The server cannot read one message, or the whole Maildir. The other messages are stored and deleted, and each run
// reports the missing ones. They are stored when the server can read them again.
func TestRealServerWithAnUnreadableStore(t *testing.T) {
	s := startReal(t, interop.Dovecot)
	for _, tt := range []struct {
		name, path string
		stored     int // number of messages that are stored while the server cannot read the others
	}{
		{"a message", "Maildir/*/*.M3P1.host*", 4},
		{"all", "Maildir", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := s.Spare()
			sink := new(store)
			f := fetch.Fetcher{Connect: connectTo(s.Addr, a), Sink: sink, Seen: new(fetch.MemorySeen), Account: a.Name,
				Delete: true}
			retrieveAll(t, f.Connect) // the server reads each message and saves the size of the message
			paths, err := filepath.Glob(filepath.Join(s.Maildrop(a.Name), tt.path))
			require.NoError(t, err)
			require.Len(t, paths, 1)
			require.NoError(t, os.Chmod(paths[0], 0))
			for i := range 3 {
				report, err := f.Run(t.Context())
				require.Error(t, err, "run %d", i)
				assert.Equal(t, tt.stored == 0, report.Aborted != nil)
				assert.Len(t, sink.messages, tt.stored)
			}
			// the server may have renamed the file
			paths, err = filepath.Glob(filepath.Join(s.Maildrop(a.Name), tt.path))
			require.NoError(t, err)
			require.Len(t, paths, 1)
			require.NoError(t, os.Chmod(paths[0], 0o770))
			f.Run(t.Context())
			report, err := f.Run(t.Context())
			require.NoError(t, err)
			assert.Zero(t, report.Listed)
			assert.Len(t, sink.messages, 5)
		})
	}
}

// changeEntries changes the history of an account.
func changeEntries(t *testing.T, seen fetch.Seen, account string, change func(*fetch.Entry)) {
	t.Helper()
	h, err := seen.Open(t.Context(), account)
	require.NoError(t, err)
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	for _, e := range entries {
		change(&e)
		require.NoError(t, h.Save(t.Context(), e))
	}
	require.NoError(t, h.Close())
}

// C-068: after a change of pop3_uidl_format all unique-ids are new, but nothing is stored again. Each server has the
// same messages, and the configuration changes from run to run.
func TestRealServerThatChangesItsUniqueIDs(t *testing.T) {
	sink := new(store)
	f := fetch.Fetcher{Sink: sink, Seen: new(fetch.MemorySeen), Account: "account"}
	uids := make(map[string]bool)
	for i, format := range []string{"%08Xu%08Xv", "%f", "%u.%v", "%08Xu%08Xv"} {
		conf := fmt.Sprintf("protocol pop3 {\n  pop3_uidl_format = %s\n}\n", format)
		s := startRealWith(t, interop.Dovecot, &interop.Options{Conf: conf})
		f.Connect = connectTo(s.Addr, s.Spare())
		c, err := f.Connect(t.Context())
		require.NoError(t, err)
		infos, err := c.UidlAll(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		uids[infos[0].UID] = true

		report, err := f.Run(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 5, report.Listed)
		assert.Len(t, sink.messages, 5, "format %d", i)
		f.Delete = i == 2
	}
	assert.GreaterOrEqual(t, len(uids), 3, "the formats differ")
	report, err := f.Run(t.Context())
	require.NoError(t, err)
	assert.Zero(t, report.Listed, "the run before deleted the messages")
}

// C-041, Q-16: Mailutils locks a maildrop and writes EXPIRENEVER. A run during another session reports the lock, and a
// time to try again. In the next run a refused message does not prevent QUIT, and the others are deleted in one
// session.
func TestRealServerWithALock(t *testing.T) {
	s := startReal(t, interop.Mailutils)
	a := s.Spare()
	connect := connectTo(s.Addr, a)
	sink := new(store)
	refuse := true
	refusing := fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
		if refuse && item.Num == 3 {
			return errFull
		}
		return sink.Deliver(ctx, item, r)
	})
	f := fetch.Fetcher{Connect: connect, Sink: refusing, Seen: new(fetch.MemorySeen), Account: a.Name, Delete: true}
	other, err := connect(t.Context())
	require.NoError(t, err)
	report, err := f.Run(t.Context())
	refusal, ok := errors.AsType[*pop3.Error](err)
	require.True(t, ok, "%v", err)
	assert.True(t, refusal.Code.Is(pop3.CodeInUse))
	assert.ErrorIs(t, report.Aborted, refusal)
	assert.NotZero(t, report.TryAgain)
	require.NoError(t, other.Quit(t.Context()))

	report, err = f.Run(t.Context())
	require.ErrorIs(t, err, errFull)
	require.NotErrorIs(t, err, fetch.ErrQuitWithheld)
	assert.Equal(t, 4, report.Deleted)
	assert.Len(t, report.Problems, 1)
	assert.Len(t, sink.messages, 4)
	refuse = false
	report, err = f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, report.Deleted)
	assert.Len(t, sink.messages, 5)
	assert.Empty(t, retrieveAll(t, connect))
}

// C-063: Courier wraps a mail with UTF-8 in its header in a different way each time. The sink refuses another message
// for ever. There are at most two copies, and only the refused message is left.
func TestRealServerThatRewritesMessages(t *testing.T) {
	s := startReal(t, interop.Courier)
	for _, remove := range []bool{false, true} {
		t.Run(fmt.Sprint("delete ", remove), func(t *testing.T) {
			sink := new(store)
			refusing := fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
				content, err := io.ReadAll(r)
				if err != nil || bytes.Contains(content, []byte("Subject: small one\r\n")) {
					return cmp.Or(err, errFull)
				}
				return sink.Deliver(ctx, item, bytes.NewReader(content))
			})
			f := fetch.Fetcher{Connect: connectTo(s.Addr, interop.Alice), Sink: refusing, Seen: new(fetch.MemorySeen),
				Account: "alice", Delete: remove}
			n := 0
			for i := range 4 {
				report, err := f.Run(t.Context())
				require.NoError(t, report.Aborted)
				n = max(n, report.Listed)
				if i == 1 && remove { // LOGIN-DELAY allows one session in a run, and this session deletes
					require.ErrorIs(t, err, fetch.ErrNotReached)
					require.Len(t, report.Skipped, 1)
					assert.ErrorIs(t, report.Skipped[0].Err, fetch.ErrNotReached)
				} else {
					require.ErrorIs(t, err, errFull, "run %d", i)
				}
			}
			assert.LessOrEqual(t, len(sink.messages), n-1+rewrittenMessages[interop.Courier])
			if remove {
				assert.Len(t, retrieveAll(t, f.Connect), 1)
			}
		})
	}
}

// C-066: solid-pop3d adds an empty line to a message and counts it. So its sizes are correct, and everything is
// deleted.
func TestRealServerThatCountsByItsOwnRule(t *testing.T) {
	s := startReal(t, interop.Solid)
	sink := new(store)
	f := fetch.Fetcher{Connect: connectTo(s.Addr, interop.Alice), Sink: sink, Seen: new(fetch.MemorySeen),
		Account: "alice", Delete: true}
	report, err := f.Run(t.Context())
	for i, item := range sink.items {
		t.Log(item.Num, item.Size, len(sink.messages[i]))
	}
	require.NoError(t, err)
	assert.Equal(t, report.Delivered, report.Deleted)
	assert.Empty(t, retrieveAll(t, f.Connect))
}

// Messages of Inbucket are fetched over implicit TLS. The first run stores them, the second one knows them, and the
// third one deletes them.
func TestRealServerOverTLS(t *testing.T) {
	s := startReal(t, interop.Inbucket)
	a := s.Spare()
	sink := new(store)
	f := fetch.Fetcher{Sink: sink, Seen: fetch.FileSeen{Dir: t.TempDir()}, Account: a.Name}
	f.Connect = func(ctx context.Context) (*pop3.Client, error) {
		c, err := pop3.DialTLS(ctx, s.TLSAddr, &pop3.Options{TLSConfig: s.TLSConfig()})
		if err != nil {
			return nil, err
		}
		if err := c.Login(ctx, a.Name, a.Password); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	for i, want := range []struct{ listed, known, delivered, deleted int }{
		{listed: 5, delivered: 5}, {listed: 5, known: 5}, {listed: 5, known: 5, deleted: 5}, {},
	} {
		f.Delete = i == 2
		report, err := f.Run(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want.listed, report.Listed, "run %d", i)
		assert.Equal(t, want.known, report.Known, "run %d", i)
		assert.Equal(t, want.delivered, report.Delivered, "run %d", i)
		assert.Equal(t, want.deleted, report.Deleted, "run %d", i)
	}
	assert.Len(t, sink.messages, 5)
}

// A sink refuses one message in several runs. The others are deleted in the first run, and the refused message is kept.
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
			assert.Len(t, sink.messages, 4)
			assert.Len(t, retrieveAll(t, connectTo(s.Addr, a)), 1)
		})
	}
}
