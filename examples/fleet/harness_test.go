package main

import (
	"context"
	"io"
	"regexp"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// testBus gives a bus on a server of its own. Nothing in these tests waits for a time to pass but for what is to
// happen, with a limit that only a failure reaches.
func testBus(t *testing.T, ackWait time.Duration) (*Bus, *natsserver.Server) {
	t.Helper()
	s, err := startNATS(t.TempDir(), false)
	require.NoError(t, err)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return joinBus(t, s, ackWait), s
}

// joinBus is the bus for another process.
func joinBus(t *testing.T, s *natsserver.Server, ackWait time.Duration) *Bus {
	t.Helper()
	closed := make(chan struct{})
	nc, err := nats.Connect(s.ClientURL(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close(); <-closed })
	b, err := openBus(t.Context(), nc, BusConfig{Replicas: 1, AckWait: ackWait})
	require.NoError(t, err)
	return b
}

// A memorySink keeps what was delivered: how often each message, by its first line.
type memorySink struct {
	mu    sync.Mutex
	count map[string]int
}

func (s *memorySink) Deliver(_ context.Context, _ fetch.Item, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = make(map[string]int)
	}
	s.count[firstLine.FindString(string(body))]++
	return nil
}

func (s *memorySink) of(Account) fetch.Sink { return s }

// all is how many were delivered, with those that were more than once.
func (s *memorySink) all() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.count {
		n += times
	}
	return n
}

func (s *memorySink) different() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.count)
}

var firstLine = regexp.MustCompile(`box \d+ message \d+`)

// A testFleet is a POP3 server, and what a scheduler and workers need.
type testFleet struct {
	bus      *Bus
	nats     *natsserver.Server
	pop3     *pop3test.Server
	accounts fileAccounts
	sink     memorySink
}

const testAckWait = 1500 * time.Millisecond

func newFleet(t *testing.T, boxes, messages int) *testFleet {
	t.Helper()
	f := newPOP3(t, boxes, messages)
	f.bus, f.nats = testBus(t, testAckWait)
	return f
}

// newPOP3 is a fleet that has no NATS yet.
func newPOP3(t *testing.T, boxes, messages int) *testFleet {
	t.Helper()
	f := &testFleet{accounts: make(fileAccounts)}
	var all []*pop3test.Mailbox
	for n := range boxes {
		box := &pop3test.Mailbox{User: labUser(n), Password: labPassword(n)}
		for i := range messages {
			box.Messages = append(box.Messages, labMessage(n, i, 200))
		}
		all = append(all, box)
	}
	f.pop3 = pop3test.NewServer(all...)
	t.Cleanup(f.pop3.Close)
	for n := range boxes {
		f.add(Account{Name: labUser(n), Addr: f.pop3.Addr, User: labUser(n), Password: labPassword(n), Security: "none"})
	}
	return f
}

func (f *testFleet) add(a Account) { f.accounts[a.Key()] = a }

// quick is a policy under which all is due at once, and then not again while a test runs.
var quick = Policy{Min: time.Hour, Max: time.Hour, Backoff: time.Hour, Refusals: 2, Failures: 3}

func (f *testFleet) worker(b *Bus, name string, p Policy) *Worker {
	m := newMetrics()
	return &Worker{
		Bus: b, Accounts: f.accounts, Policy: p, Metrics: m, Owner: name, Sessions: 8, Grace: time.Second,
		Poller: Poller{Seen: kvSeen{b.seen, b.leases, name}, Sink: f.sink.of, Metrics: m, Timeout: 5 * time.Second,
			Mechanisms: []string{"PLAIN"}},
	}
}

// enlist makes all accounts due.
func (f *testFleet) enlist(t *testing.T) {
	t.Helper()
	s := f.scheduler(f.bus, Policy{})
	require.NoError(t, s.Enlist(t.Context(), f.accounts))
}

func (f *testFleet) scheduler(b *Bus, p Policy) *Scheduler {
	return &Scheduler{Bus: b, Policy: p, Owner: "scheduler",
		Limits: Limits{Rate: rate.Inf, Burst: 1000, Sessions: 1000, Resend: time.Minute}}
}

// start runs something until the function that is returned is called, or the test ends.
func start(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func (f *testFleet) record(t *testing.T, name string) Record {
	t.Helper()
	kve, err := f.bus.schedules.Get(context.Background(), keyOf(name))
	require.NoError(t, err)
	return recordOf(kve)
}

// eventually waits for what other goroutines and processes are to bring about.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	require.Eventually(t, happened, 30*time.Second, 5*time.Millisecond, what)
}

// polled tells that each account was polled, and is not due now.
func (f *testFleet) polled() bool {
	for key := range f.accounts {
		kve, err := f.bus.schedules.Get(context.Background(), key)
		if err != nil || recordOf(kve).Polled.IsZero() {
			return false
		}
	}
	return true
}

// queued is how many messages are in the queue, with those that are being worked on.
func (f *testFleet) queued(t *testing.T) int {
	t.Helper()
	info, err := f.bus.due.Info(context.Background())
	require.NoError(t, err)
	return int(info.State.Msgs)
}
