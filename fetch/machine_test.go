package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/race"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// These tests run the Fetcher once with a fault, and once without one. Each test has one round for every place where
// its fault can happen. After each run they check the promises of the package against three things: the messages on the
// server, the stored messages, and the report.

// A setup describes a maildrop and the settings of the Fetcher.
type setup struct {
	name            string
	messages        [][]byte
	uids            []string
	caps            []string // capabilities that the server announces; nil for its real ones
	expireRetrieved bool     // QUIT removes what was retrieved
	options         fetch.Fetcher
	pipeline        pop3.Pipelining
}

// A failure describes what fails in the first run.
type failure struct {
	name                 string
	faults               []pop3test.Fault
	sinkErr              func(call int) error
	seenFailsAt          int  // number of the call of failingSeen that fails
	seenFailsAfterEffect bool // the call has its usual effect, and then fails
	cancelAt             int  // the number of the command at which the context ends
	stopAfter            int  // the number of results after which the loop is left

	err error // the error of the first run, if not nil

	falseConfirmation bool // the server confirms deletions that it does not make
	partialMessages   bool // parts of messages arrive as if they were complete
	maxStoredTwice    int  // number of messages that may be stored again in the second run
}

// A testRun is the maildrop, the sink and the history with which a run works. It records the steps of the run.
type testRun struct {
	t     *testing.T
	setup setup
	drop  *maildrop
	sink  *store
	seen  *failingSeen
	quits int // number of QUITs that were sent

	listed   [][]byte     // messages that the current session lists
	inFlight map[int]bool // message numbers of RETR commands without a reply
	commands int
	cancelAt int
	cancel   context.CancelFunc
}

func newTestRun(t *testing.T, s setup) *testRun {
	w := &testRun{t: t, setup: s, drop: newMaildrop(s.messages, s.uids...), sink: new(store)}
	w.drop.Caps, w.drop.ExpireRetrieved = s.caps, s.expireRetrieved
	w.drop.opts.Pipelining = s.pipeline
	w.drop.opts.Trace = &pop3.Trace{WroteCommand: w.checkCommand, Done: w.commandDone}
	w.seen = &failingSeen{Seen: new(fetch.MemorySeen)}
	return w
}

// checkCommand checks each command that the client writes (promises I2 and I4 of internal/lossproof).
func (w *testRun) checkCommand(_ context.Context, cmd string) {
	if w.commands++; w.commands == w.cancelAt {
		w.cancel()
	}
	var num int
	switch verb, arg, _ := strings.Cut(cmd, " "); verb {
	case "RETR":
		fmt.Sscan(arg, &num)
		w.inFlight[num] = true
	case "DELE":
		fmt.Sscan(arg, &num)
		assert.False(w.t, w.inFlight[num], "DELE %d was sent before the end of the reply to RETR", num)
		assert.Contains(w.t, texts(w.sink.messages), string(w.listed[num-1]),
			"DELE of message %d, which is not stored",
			num)
	case "QUIT":
		w.quits++
		assert.Equal(w.t, 1, w.quits, "a second QUIT")
	}
}

func (w *testRun) commandDone(_ context.Context, cmd string, _ int64, _ error) {
	var num int
	if _, err := fmt.Sscanf(cmd, "RETR %d", &num); err == nil {
		delete(w.inFlight, num)
	}
}

func (w *testRun) connect(ctx context.Context) (*pop3.Client, error) {
	w.listed, w.inFlight, w.quits = w.drop.Left(user), make(map[int]bool), 0
	return w.drop.connect(ctx)
}

// run runs the Fetcher once, and checks what it did.
func (w *testRun) run(m failure) (fetch.Report, error) {
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	faults := m.faults
	if w.setup.uids == nil {
		faults = append(slices.Clone(faults), pop3test.Fault{At: "UIDL", Reply: "-ERR unknown command"})
	}
	w.drop.SetFaults(faults...)
	w.sink.callErr, w.sink.calls = m.sinkErr, 0
	w.seen.failAt, w.seen.failAfterEffect, w.seen.calls = m.seenFailsAt, m.seenFailsAfterEffect, 0
	w.commands, w.cancelAt, w.cancel = 0, m.cancelAt, cancel

	f := w.setup.options
	f.Connect, f.Sink, f.Seen, f.Account = w.connect, w.sink, w.seen, account
	onServerBefore, storedBefore := texts(w.drop.Left(user)), len(w.sink.messages)
	var report fetch.Report
	var results []fetch.Result
	var lastErr error
	for res, err := range f.Results(ctx, &report) {
		if err != nil {
			lastErr = err
			break
		}
		if results = append(results, res); len(results) == m.stopAfter {
			break
		}
	}
	synctest.Wait() // the server must first receive the last commands
	if m.stopAfter == 0 {
		assert.Equal(w.t, report.Err, lastErr)
	} else {
		assert.Equal(w.t, countOf(results, fetch.Delivered), report.Delivered, "nothing is retrieved after a break")
	}
	if m.err != nil {
		require.ErrorIs(w.t, report.Err, m.err)
	}
	w.checkPromises(m, report, results, onServerBefore, storedBefore)
	return report, report.Err
}

func countOf(results []fetch.Result, o fetch.Outcome) (n int) {
	for _, res := range results {
		if res.Outcome == o {
			n++
		}
	}
	return n
}

// checkPromises checks the promises I1 and I3 of internal/lossproof.
func (w *testRun) checkPromises(m failure, report fetch.Report, results []fetch.Result, onServerBefore []string,
	storedBefore int) {
	t, left, stored := w.t, texts(w.drop.Left(user)), texts(w.sink.messages)
	for _, text := range texts(w.setup.messages) {
		assert.True(t, slices.Contains(left, text) || slices.Contains(stored, text), "lost: %q", text)
	}
	assert.Equal(t, len(stored)-storedBefore, report.Delivered, "reported as delivered")
	deleted := len(onServerBefore) - len(left)
	if w.setup.expireRetrieved {
		return
	}
	assert.LessOrEqual(t, deleted, report.Deleted+report.Unconfirmed, "deleted and not reported")
	if !m.falseConfirmation {
		assert.GreaterOrEqual(t, deleted, report.Deleted, "reported as deleted and still there")
	}
	if unique := slices.Compact(slices.Clone(w.setup.uids)); len(unique) < len(w.setup.messages) {
		return
	}
	for _, res := range results {
		i := slices.Index(w.setup.uids, res.UID)
		if res.UID == "" {
			continue // the server did not show its unique-ids
		}
		require.GreaterOrEqual(t, i, 0, "%q is no unique-id of the server", res.UID)
		onServer := slices.Contains(left, string(w.setup.messages[i]))
		switch res.Outcome {
		case fetch.Deleted:
			assert.True(t, m.falseConfirmation || !onServer, "%s: reported as deleted", res.UID)
		case fetch.Kept, fetch.Skipped:
			assert.True(t, onServer, "%s: reported as %v", res.UID, res.Outcome)
		case fetch.Failed:
			assert.True(t, onServer, "%s: reported as failed", res.UID)
		}
	}
}

// runAgain runs the Fetcher again without faults, and checks that all messages are stored, and deleted if the settings
// require it (I5).
func (w *testRun) runAgain(m failure) {
	time.Sleep(2 * time.Hour) // the server has unlocked the maildrop after this time
	report, err := w.run(failure{})
	// ErrNotDeleted is about the false confirmation in the first run.
	if !m.falseConfirmation || !errors.Is(err, fetch.ErrNotDeleted) {
		require.NoError(w.t, err)
	}
	assert.Zero(w.t, report.Unconfirmed)
	if w.setup.options.Delete {
		assert.Empty(w.t, w.drop.Left(user), "left on the server")
	} else if !w.setup.expireRetrieved {
		assert.Equal(w.t, texts(w.setup.messages), texts(w.drop.Left(user)))
	}
	allowedCopies := m.maxStoredTwice
	if m.seenFailsAt > 0 {
		allowedCopies = 1 // the message that was stored but could not be remembered
	}
	stored, copies := texts(w.sink.messages), 0
	for _, text := range texts(w.setup.messages) {
		i := slices.Index(stored, text)
		if assert.GreaterOrEqual(w.t, i, 0, "not stored: %q", text) {
			stored = slices.Delete(stored, i, i+1)
		}
	}
	for _, text := range stored {
		if complete := slices.Contains(texts(w.setup.messages), text); complete || !m.partialMessages {
			copies++
		}
	}
	assert.LessOrEqual(w.t, copies, allowedCopies, "stored twice: %q", stored)
}

// testFailure runs the Fetcher with the failure and then without it. It returns the result of the first run.
func testFailure(t *testing.T, s setup, m failure) (report fetch.Report, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newTestRun(t, s)
		report, err = w.run(m)
		w.runAgain(m)
		w.drop.Close()
	})
	if t.Failed() {
		t.Fatalf("setup %q, mishap %q %+v", s.name, m.name, m.faults)
	}
	return report, err
}

// A failingSeen counts the calls of its methods and of its histories, and makes one call fail.
type failingSeen struct {
	fetch.Seen
	mu              sync.Mutex
	calls           int
	failAt          int
	failAfterEffect bool // the call has its usual effect, and then fails
}

var errSeen = errors.New("the disk is broken")

func (s *failingSeen) call(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.calls != s.failAt {
		return do()
	}
	if s.failAfterEffect {
		do()
	}
	return errSeen
}

func (s *failingSeen) Open(ctx context.Context, account string) (h fetch.History, err error) {
	err = s.call(func() error {
		h, err = s.Seen.Open(ctx, account)
		return err
	})
	if err != nil {
		if h != nil {
			h.Close()
		}
		return nil, err
	}
	return &failingHistory{h, s}, nil
}

type failingHistory struct {
	fetch.History
	seen *failingSeen
}

func (h *failingHistory) Load(ctx context.Context) (entries []fetch.Entry, err error) {
	err = h.seen.call(func() error {
		entries, err = h.History.Load(ctx)
		return err
	})
	return entries, err
}

func (h *failingHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
	return h.seen.call(func() error { return h.History.Save(ctx, entries...) })
}

func (h *failingHistory) Forget(ctx context.Context, entries ...fetch.Entry) error {
	return h.seen.call(func() error { return h.History.Forget(ctx, entries...) })
}

// Close always closes the history, even if it returns an error. A FileSeen does the same.
func (h *failingHistory) Close() error {
	err := h.History.Close()
	return errors.Join(err, h.seen.call(func() error { return nil }))
}

// setups returns the setups that testAll uses.
func setups() []setup {
	three := mails("one", "two", "three")
	uids := []string{"uid-1", "uid-2", "uid-3"}
	unknown := []string{"UIDL", "PIPELINING", "USER"}
	twins := [][]byte{three[0], three[1], three[1]}
	return []setup{
		{name: "keep", messages: three, uids: uids},
		{name: "delete", messages: three, uids: uids, options: fetch.Fetcher{Delete: true}},
		{name: "delete, one by one", messages: three, uids: uids, options: fetch.Fetcher{Delete: true},
			pipeline: pop3.PipeliningNever},
		{name: "commit each", messages: three, uids: uids, options: fetch.Fetcher{Delete: true, CommitEvery: 1}},
		{name: "commit two, newest first", messages: three, uids: uids,
			options: fetch.Fetcher{Delete: true, CommitEvery: 2, NewestFirst: true}},
		{name: "EXPIRE 0", messages: three, uids: uids, expireRetrieved: true, options: fetch.Fetcher{Delete: true}},
		{name: "EXPIRE unknown", messages: three, uids: uids, expireRetrieved: true, caps: unknown,
			options: fetch.Fetcher{Delete: true, CommitEvery: 2}},
		{name: "Q-50 twins with one unique-id", messages: twins, uids: []string{"uid-1", "uid-2", "uid-2"},
			options: fetch.Fetcher{Delete: true}},
		{name: "H-114 one unique-id for all", messages: three, uids: []string{"uid", "uid", "uid"},
			options: fetch.Fetcher{Delete: true, CommitEvery: 2}},
		{name: "Q-51 no unique-ids", messages: twins, caps: []string{"PIPELINING", "EXPIRE NEVER"},
			options: fetch.Fetcher{Delete: true, CommitEvery: 1}},
	}
}

// testAll runs each setup with each of its failures, and logs the number of rounds. With the race detector it uses one
// failure in race.Stride. It begins with a different failure for each setup.
func testAll(t *testing.T, mishaps func(t *testing.T, s setup) []failure) {
	rounds := 0
	for n, s := range setups() {
		t.Run(s.name, func(t *testing.T) {
			all := mishaps(t, s)
			for i := n % race.Stride; i < len(all); i += race.Stride {
				testFailure(t, s, all[i])
				rounds++
			}
		})
	}
	t.Logf("%d rounds", rounds)
}

// A runCounts contains the counts of a run without faults.
type runCounts struct {
	sent, received                 int64 // octets that the server sent and received in the first session
	commands, sinkCalls, seenCalls int
	results                        int
}

func countGoodRun(t *testing.T, s setup) (c runCounts) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestRun(t, s)
		report, err := w.run(failure{})
		require.NoError(t, err)
		c = runCounts{w.drop.sent, w.drop.received, w.commands, w.sink.calls, w.seen.calls,
			report.Delivered + report.Deleted}
		w.drop.Close()
	})
	require.Greater(t, c.sent, int64(300))
	require.Greater(t, c.received, int64(60))
	return c
}

// The connection is lost after one octet that the server sends or receives (H-222). A silent connection takes long and
// has the same effect, so it is tested only after each fifth octet.
func TestLossAtEveryOctet(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		c := countGoodRun(t, s)
		lose := func(moment pop3test.Moment, octets int64, by pop3test.Ending, step int64) {
			for n := int64(0); n <= octets; n += step {
				ms = append(ms, failure{faults: []pop3test.Fault{{Session: 1, Drop: moment, Octets: n, By: by}}})
			}
		}
		lose(pop3test.AfterSent, c.sent, pop3test.Hangup, 1)
		lose(pop3test.AfterSent, c.sent, pop3test.Silence, 5)
		lose(pop3test.AfterReceived, c.received, pop3test.Hangup, 1)
		lose(pop3test.AfterReceived, c.received, pop3test.Silence, 5)
		return ms
	})
}

// The connection is lost at one command of a run, which may have several sessions.
func TestLossAtEveryCommand(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		moments := []pop3test.Moment{pop3test.BeforeCommand, pop3test.BeforeReply, pop3test.InReply,
			pop3test.AfterReply}
		for n := range countGoodRun(t, s).commands {
			for _, moment := range moments {
				ms = append(ms, failure{faults: []pop3test.Fault{{Skip: n, Times: 1, Drop: moment, Octets: 4}}})
			}
		}
		return ms
	})
}

// One call of the sink fails, or all calls from one call on.
func TestSinkFailsAtEveryCall(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for n := range countGoodRun(t, s).sinkCalls {
			ms = append(ms, failure{name: fmt.Sprint("call ", n+1), err: errFull,
				sinkErr: func(call int) error { return failIf(call == n+1, errFull) }})
			ms = append(ms, failure{name: fmt.Sprint("after ", n), err: errFull,
				sinkErr: func(call int) error { return failIf(call > n, errFull) }})
		}
		return ms
	})
}

func failIf(bad bool, err error) error {
	if bad {
		return err
	}
	return nil
}

// One call of the Seen fails, before or after it has had its effect.
func TestSeenFailsAtEveryCall(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for n := range countGoodRun(t, s).seenCalls {
			name := fmt.Sprint("call ", n+1)
			ms = append(ms, failure{name: name, seenFailsAt: n + 1, err: errSeen})
			ms = append(ms, failure{name: name + ", done", seenFailsAt: n + 1, seenFailsAfterEffect: true,
				err: errSeen})
		}
		return ms
	})
}

// The context ends at one command.
func TestCancelAtEveryCommand(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for n := range countGoodRun(t, s).commands {
			ms = append(ms, failure{name: fmt.Sprint("command ", n+1), cancelAt: n + 1})
		}
		return ms
	})
}

// The caller leaves the loop after one result.
func TestBreakAtEveryResult(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for n := range countGoodRun(t, s).results {
			ms = append(ms, failure{name: fmt.Sprint("result ", n+1), stopAfter: n + 1})
		}
		return ms
	})
}

// A message is cut at one octet and ended normally, as Dovecot does after a read error.
func TestShortAtEveryOctet(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for i, text := range s.messages {
			for n := range len(text) - 1 { // a cut in the last CRLF cannot be noticed, and the text is complete
				at := fmt.Sprint("RETR ", i+1)
				ms = append(ms, failure{partialMessages: true, faults: []pop3test.Fault{{At: at, Short: true,
					Octets: int64(n)}}})
			}
		}
		return ms
	})
}

// The server sends a wrong reply to one command. Each command is tried with each wrong reply.
func TestWrongReplyToEachCommand(t *testing.T) {
	replies := []string{"-ERR", "-ERR [SYS/TEMP] later", "+OK", "", "+OK 1", "+OK\r\n.", "+OK\r\n1 x y z\r\n.", "+",
		"OK"}
	verbs := []string{pop3test.AtGreeting, "USER", "PASS", "CAPA", "LIST", "LIST 2", "LIST 3", "UIDL", "RETR 1",
		"RETR 2",
		"DELE 1", "DELE"}
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for _, verb := range verbs {
			for _, reply := range replies {
				if reply == "+OK\r\n." && (verb == "LIST" || verb == "UIDL") && s.uids == nil {
					continue // without unique-ids, hidden messages cannot be noticed
				}
				m := failure{partialMessages: true, falseConfirmation: verb[:4] == "DELE",
					faults: []pop3test.Fault{{At: verb, Times: 1, Reply: reply}}}
				if verb == "CAPA" && s.uids != nil {
					m.maxStoredTwice = len(s.messages) // a server without CAPA has no unique-ids
				}
				ms = append(ms, m)
			}
			ms = append(ms, failure{partialMessages: true, faults: []pop3test.Fault{{At: verb, Times: 1,
				Extra: "+OK and again"}}})
		}
		return ms
	})
}

// The test combines everything that QUIT may delete with everything that the server may reply.
func TestQuitReplies(t *testing.T) {
	commits := []pop3test.Commit{pop3test.CommitNone, pop3test.CommitHalf, pop3test.CommitAll}
	faults := []pop3test.Fault{
		{}, // here the server confirms a deletion that it has not made
		{Reply: "-ERR Some deleted messages not removed"},
		{Reply: "-ERR [SYS/TEMP] Internal error occurred."},
		{Reply: "+"}, {Reply: "nonsense"},
		{Extra: "+OK Logging out"},
		{Drop: pop3test.BeforeReply}, {Drop: pop3test.BeforeReply, By: pop3test.Silence},
		{Drop: pop3test.InReply, Octets: 2},
		{Delay: time.Hour},
	}
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for _, commit := range commits {
			for _, f := range faults {
				f.At, f.Commit = "QUIT", commit
				once := f
				once.Times = 1
				ms = append(ms, failure{falseConfirmation: true, faults: []pop3test.Fault{f}},
					failure{falseConfirmation: true,
						faults: []pop3test.Fault{once}})
			}
		}
		return ms
	})
}

// Replies are missing, come twice, or belong to no command. Then each later reply belongs to another command.
func TestShiftedReplies(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for _, at := range []string{"CAPA", "LIST", "UIDL", "RETR 1", "RETR 2", "RETR 3", "DELE 1", "DELE 2",
			"DELE 3"} {
			fs := []pop3test.Fault{{Deaf: true}, {Extra: "+OK"}, {Extra: "-ERR what?"}, {Extra: ""}}
			for _, text := range s.messages {
				fs = append(fs, pop3test.Fault{Extra: "+OK once more\r\n" + string(text) + "."})
			}
			for _, f := range fs {
				f.At, f.Times = at, 1
				ms = append(ms, failure{faults: []pop3test.Fault{f}, falseConfirmation: true, partialMessages: true,
					maxStoredTwice: 3})
			}
		}
		return ms
	})
}

// The server announces wrong sizes: H-211 too small, H-212 with one octet for each line end, Q-46 too large.
func TestWrongSizes(t *testing.T) {
	testAll(t, func(t *testing.T, s setup) (ms []failure) {
		for _, lie := range []int64{-1000, -10, -4, -1, 1, 2, 4, 1000} {
			for _, verb := range []string{"LIST", "RETR", "RETR 2"} {
				ms = append(ms, failure{faults: []pop3test.Fault{{At: verb, Lie: lie}}})
			}
		}
		return ms
	})
}
