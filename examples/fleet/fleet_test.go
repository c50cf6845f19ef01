package main

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

func TestAllMaildropsArePolledOnce(t *testing.T) {
	f := newFleet(t, 30, 2)
	f.enlist(t)
	start(t, f.worker(f.bus, "w1", quick).Run)
	start(t, f.worker(joinBus(t, f.nats, testAckWait), "w2", quick).Run)
	start(t, f.scheduler(f.bus, quick).Run)
	start(t, f.scheduler(joinBus(t, f.nats, testAckWait), quick).Run) // one of them has nothing to do
	eventually(t, "all are polled", f.polled)
	eventually(t, "all are acknowledged", func() bool { return f.queued(t) == 0 })
	assert.Equal(t, 60, f.sink.different())
	for line, n := range f.sink.count {
		assert.Equal(t, 1, n, line)
	}
	assert.Len(t, f.pop3.Sessions(), 60, "another session follows each that brought something")
	assert.EqualValues(t, 2, f.record(t, labUser(0)).Total)
}

// queue puts the only account into the queue as the scheduler does.
func (f *testFleet) queue(t *testing.T, name string) error {
	t.Helper()
	kve, err := f.bus.schedules.Get(t.Context(), keyOf(name))
	require.NoError(t, err)
	body, err := json.Marshal(dueMessage{kve.Revision(), time.Now()})
	require.NoError(t, err)
	_, err = f.bus.js.Publish(t.Context(), dueSubject+keyOf(name), body)
	return err
}

// pull takes a message as a worker does that will not live to its end.
func (f *testFleet) pull(t *testing.T) jetstream.Msg {
	t.Helper()
	batch, err := f.bus.workers.Fetch(1, jetstream.FetchMaxWait(20*time.Second))
	require.NoError(t, err)
	msg := <-batch.Messages()
	require.NotNil(t, msg)
	return msg
}

// A worker that dies with the lease, and without a word.
func TestRedeliveryAfterWorkerDies(t *testing.T) {
	f := newFleet(t, 1, 3)
	f.enlist(t)
	require.NoError(t, f.queue(t, labUser(0)))
	f.pull(t)
	_, err := f.bus.leases.write(t.Context(), keyOf(labUser(0)), "dead", 0)
	require.NoError(t, err)
	start(t, f.worker(f.bus, "w", quick).Run)
	eventually(t, "another worker does it", f.polled)
	assert.Equal(t, 3, f.sink.different())
	assert.Zero(t, f.record(t, labUser(0)).Fails)
}

// A worker that died when all was done, except that the queue did not know.
func TestLostAcknowledgementIsNoSecondPoll(t *testing.T) {
	f := newFleet(t, 1, 3)
	f.enlist(t)
	require.NoError(t, f.queue(t, labUser(0)))
	msg := f.pull(t)
	require.NoError(t, releaseAccount(t.Context(), f.bus.schedules, keyOf(labUser(0)))) // any new revision
	require.NoError(t, msg.Nak())
	start(t, f.worker(f.bus, "w", quick).Run)
	eventually(t, "it leaves the queue", func() bool { return f.queued(t) == 0 })
	assert.Empty(t, f.pop3.Sessions())
}

// A blockedSink holds every poll at its first message.
type blockedSink struct{ begun, release chan struct{} }

func (s blockedSink) Deliver(ctx context.Context, _ fetch.Item, r io.Reader) error {
	s.begun <- struct{}{}
	<-s.release
	_, err := io.Copy(io.Discard, r)
	return err
}

// A poll that takes longer than AckWait stays the only one: its message is not given to others, no second one is
// taken into the queue, and nobody else gets the lease.
func TestOneSessionForMaildrop(t *testing.T) {
	f := newFleet(t, 1, 1)
	f.enlist(t)
	sink := blockedSink{make(chan struct{}, 10), make(chan struct{})}
	release := sync.OnceFunc(func() { close(sink.release) })
	for _, name := range []string{"w1", "w2"} {
		w := f.worker(joinBus(t, f.nats, testAckWait), name, quick)
		w.Poller.Sink = func(Account) fetch.Sink { return sink }
		start(t, w.Run)
	}
	t.Cleanup(release) // so that the workers come to an end if something fails
	require.NoError(t, f.queue(t, labUser(0)))
	<-sink.begun
	before, err := f.bus.leases.stream.Info(t.Context())
	require.NoError(t, err)
	eventually(t, "the lease was renewed for longer than AckWait", func() bool {
		now, err := f.bus.leases.stream.Info(t.Context())
		return err == nil && now.State.LastSeq > before.State.LastSeq+8
	})
	var refusal *jetstream.APIError
	require.ErrorAs(t, f.queue(t, labUser(0)), &refusal)
	assert.Contains(t, refusal.Description, "maximum messages per subject")
	_, err = kvSeen{f.bus.seen, f.bus.leases, "w3"}.Open(t.Context(), labUser(0))
	require.ErrorIs(t, err, fetch.ErrLocked)
	info, err := f.bus.workers.Info(t.Context())
	require.NoError(t, err)
	assert.Zero(t, info.NumRedelivered)
	release()
	eventually(t, "it is polled", f.polled)
	assert.Len(t, f.pop3.Sessions(), 2)
}

// The lease of a poll that goes on elsewhere: no failure, and another try later.
func TestLockedIsNoFailure(t *testing.T) {
	f := newFleet(t, 1, 1)
	f.enlist(t)
	held, err := f.bus.leases.take(t.Context(), keyOf(labUser(0)), "partitioned")
	require.NoError(t, err)
	require.NoError(t, f.queue(t, labUser(0)))
	start(t, f.worker(f.bus, "w", quick).Run)
	eventually(t, "it leaves the queue", func() bool { return f.queued(t) == 0 })
	r := f.record(t, labUser(0))
	assert.Zero(t, r.Fails)
	assert.True(t, r.Next.After(time.Now()), "not at once")
	require.NoError(t, held.release())
	assert.Empty(t, f.pop3.Sessions())
}

func TestShutdownLetsPollsEnd(t *testing.T) {
	f := newFleet(t, 1, 1)
	f.enlist(t)
	sink := blockedSink{make(chan struct{}, 10), make(chan struct{})}
	w := f.worker(f.bus, "w", quick)
	w.Grace = time.Minute
	w.Poller.Sink = func(Account) fetch.Sink { return sink }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	require.NoError(t, f.queue(t, labUser(0)))
	<-sink.begun
	cancel()
	close(sink.release)
	require.NoError(t, <-done)
	assert.True(t, f.polled())
	eventually(t, "it is acknowledged", func() bool { return f.queued(t) == 0 })
}
