package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// maxCrashes is how many workers may die in a poll before the account is set aside as the cause.
const maxCrashes = 5

// date is the clock of this machine. Tests replace it, to see that a wrong date does no harm.
var date = time.Now

// A Worker polls the accounts that are in the work queue.
type Worker struct {
	Bus      *Bus
	Accounts *accountsFile
	Poller   Poller
	Policy   Policy
	Metrics  *Metrics
	Owner    string
	Sessions int           // polls at the same time
	Longest  time.Duration // a poll may take
	Grace    time.Duration // for polls under way when Run is to end

	gate *gate // that of Poller too
}

// Run works until ctx ends, and then lets the polls under way finish.
func (w *Worker) Run(ctx context.Context) error {
	polls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.Grace, cancel) })
	defer stop()
	queue, err := w.Bus.workers.Messages(jetstream.PullMaxMessages(1)) // one with each Next
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, w.Sessions)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return w.drain(queue)
		}
		if w.gate.enter(ctx) != nil {
			return w.drain(queue)
		}
		msg, err := queue.Next(jetstream.NextContext(ctx))
		if err != nil {
			<-free
			if err = w.queueError(ctx, err); err != nil {
				queue.Stop()
				cancel()
				return err
			}
			continue
		}
		wg.Go(func() {
			defer func() { <-free }()
			w.handle(polls, msg)
		})
	}
}

// ready reports whether the worker polls.
func (w *Worker) ready() error {
	switch {
	case !w.Bus.nc.IsConnected():
		return errors.New("NATS is not connected")
	case w.gate.closed():
		return errors.New("polls are held back, because NATS cannot store notes of them")
	}
	return nil
}

// drain hands back a message that came too late.
func (w *Worker) drain(queue jetstream.MessagesContext) error {
	queue.Drain()
	for {
		msg, err := queue.Next()
		if err != nil {
			return nil
		}
		w.handBack(strings.TrimPrefix(msg.Subject(), dueSubject), msg, 0)
	}
}

// queueError decides whether the worker can go on after an error of the queue. It cannot if the queue is gone.
func (w *Worker) queueError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	silence := err
	if errors.Is(err, jetstream.ErrNoHeartbeat) {
		look, cancel := context.WithTimeout(ctx, oneTry)
		defer cancel()
		_, err = w.Bus.workers.Info(look)
	} else if !errors.Is(err, jetstream.ErrConsumerDeleted) {
		return fmt.Errorf("the work queue: %w", err)
	}
	for _, gone := range []error{
		jetstream.ErrConsumerDeleted, jetstream.ErrConsumerNotFound, jetstream.ErrStreamNotFound,
	} {
		if errors.Is(err, gone) {
			return fmt.Errorf("the work queue is gone: %w: %w", errLayout, err)
		}
	}
	if isAway(err) {
		w.gate.result(false)
	}
	slog.Warn("the work queue is silent", "error", cmp.Or(err, silence))
	return nil
}

// handle does the poll that a message asks for. It acknowledges the message when the outcome is stored. If this process
// dies before that, JetStream delivers the message again.
func (w *Worker) handle(ctx context.Context, msg jetstream.Msg) {
	key := strings.TrimPrefix(msg.Subject(), dueSubject)
	var due dueMessage
	if json.Unmarshal(msg.Data(), &due) != nil {
		msg.Term() // not from a scheduler
		return
	}
	held, err := w.take(ctx, key, msg)
	if err != nil {
		w.leave(ctx, slog.With("key", key), err, key, msg)
		return
	}
	defer held.release()
	rec, current, err := w.read(held.ctx, key, due)
	switch a, ok := w.Accounts.lookup(key); {
	case err != nil:
		w.leave(ctx, slog.With("key", key), err, key, msg)
	case !current:
		msg.Ack()
	case !ok || rec.Fingerprint != "" && a.print != rec.Fingerprint:
		slog.Warn("this worker has another accounts file than the scheduler", "account", rec.Account, "missing", !ok)
		w.Metrics.handedBack.WithLabelValues("unknown").Inc()
		w.handBack(key, msg, w.Bus.ackWait)
	default:
		w.poll(ctx, held, key, a, rec, due, msg)
	}
}

// take takes the lease of an account, which also keeps its message with this worker.
func (w *Worker) take(ctx context.Context, key string, msg jetstream.Msg) (held *lease, err error) {
	err = insist(ctx, func(try context.Context) (err error) {
		held, err = w.Bus.leases.take(try, ctx, key, w.Owner, func() { msg.InProgress() })
		return err
	})
	return held, err
}

// read returns the record of an account, and whether the message is about it as it is now.
func (w *Worker) read(ctx context.Context, key string, due dueMessage) (rec Record, current bool, err error) {
	kve, err := getKey(ctx, w.Bus.records, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Record{}, false, nil
	}
	if err == nil {
		rec, err = recordOf(kve)
	}
	if err != nil {
		return Record{}, false, err
	}
	return rec, kve.Revision() == due.Revision, nil
}

// poll polls and reports.
func (w *Worker) poll(ctx context.Context, held *lease, key string, a Account, rec Record, due dueMessage,
	msg jetstream.Msg) {
	begin := time.Now()
	log := slog.With("account", rec.Account, "start", begin)
	w.Metrics.polling.Inc()
	defer w.Metrics.polling.Dec()
	w.Metrics.lag.Observe(max(0, begin.Sub(due.Due).Seconds()))
	o, err := w.outcome(ctx, held, a, rec, msg)
	if err == nil {
		err = w.report(ctx, key, w.Policy.Next(rec, date(), o, rand.Float64()), due.Revision)
	}
	held.release()
	if err != nil {
		w.leave(ctx, log, err, key, msg)
		return
	}
	w.Metrics.polled(o, time.Since(begin))
	level := slog.LevelDebug
	if o.Err != nil {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "polled", "delivered", o.Delivered, "code", o.Code, "error", o.Err,
		"seconds", time.Since(begin).Seconds())
	msg.Ack()
}

// outcome polls, unless workers keep dying in it. The error is one of ours, which is not the fault of the account.
func (w *Worker) outcome(ctx context.Context, held *lease, a Account, rec Record, msg jetstream.Msg) (Outcome, error) {
	// A worker that lives acknowledges every message, so only one that died leaves it to be delivered again.
	if meta, err := msg.Metadata(); err == nil && meta.NumDelivered > maxCrashes {
		err := fmt.Errorf("%d workers died in this poll; its last error: %q", meta.NumDelivered-1, rec.Error)
		return Outcome{Failed: true, Crashed: true, Code: "crashed", Err: err}, nil
	}
	limited, cancel := context.WithTimeout(held.ctx, w.Longest)
	defer cancel()
	o, err := w.Poller.Poll(limited, ctx, held, a)
	switch {
	case err != nil:
		return o, err
	case ctx.Err() != nil:
		return o, fmt.Errorf("this worker is stopping: %w", ctx.Err())
	case !held.valid():
		return o, errLeaseLost
	case limited.Err() != nil:
		o.More, o.Code = o.Delivered > 0, "slow"
	}
	return o, nil
}

// leave hands back a poll that failed for a reason of ours, which says nothing about the account.
func (w *Worker) leave(ctx context.Context, log *slog.Logger, err error, key string, msg jetstream.Msg) {
	reason, after := "locked", w.Bus.ackWait
	switch {
	case ctx.Err() != nil:
		reason, after = "stopping", 0
	case isAway(err):
		reason = "nats"
		w.gate.result(false)
	case errors.Is(err, errLeaseLost):
		reason = "lease"
	case !errors.Is(err, errHeld):
		reason = "record"
	}
	log.Warn("a poll is left for later", "reason", reason, "error", err)
	w.Metrics.handedBack.WithLabelValues(reason).Inc()
	w.handBack(key, msg, after)
}

// report stores the record, for as long as it takes. If the record has changed in the meantime, somebody else has done
// something with the account, and this poll does not count.
func (w *Worker) report(ctx context.Context, key string, rec Record, revision uint64) error {
	err := w.gate.store(ctx, func() error {
		_, err := updateKey(ctx, w.Bus.records, key, rec.value(), revision)
		return err
	})
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil
	}
	return err
}

// handBack lets go of a message, and tells the scheduler when to send another one. So a message that is delivered again
// always means that a worker died.
func (w *Worker) handBack(key string, msg jetstream.Msg, after time.Duration) {
	var due dueMessage
	json.Unmarshal(msg.Data(), &due)
	ctx, cancel := context.WithTimeout(context.Background(), oneTry)
	defer cancel()
	if msg.DoubleAck(ctx) != nil {
		return
	}
	body, _ := json.Marshal(handedBack{key, due.Revision, after})
	w.Bus.nc.Publish(backSubject, body) // if that is lost, the scheduler sends it after Limits.Resend
}

// A gate holds polls back while NATS cannot take notes of them. After an error it lets one poll through now and then:
// less often with each error, until one succeeds.
type gate struct {
	mu            sync.Mutex
	wait          time.Duration // 0 while the gate is open
	until, failed time.Time
}

// enter waits until a poll may begin.
func (g *gate) enter(ctx context.Context) error {
	for !g.pass() {
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

func (g *gate) pass() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wait > 0 && time.Now().Before(g.until) {
		return false
	}
	g.until = time.Now().Add(g.wait)
	return true
}

// result says whether notes of a poll could be taken.
func (g *gate) result(ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case ok:
		g.wait = 0
	case g.wait == 0 || time.Since(g.failed) > g.wait/2: // polls that fail together count once
		g.wait = min(max(2*g.wait, time.Second), 30*time.Second)
		g.until, g.failed = time.Now().Add(g.wait), time.Now()
	}
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wait > 0
}

// store writes something that must not be lost, for as long as it takes: what was fetched is not to be fetched again
// because the store was full. It ends with ctx, which lasts as long as this worker.
func (g *gate) store(ctx context.Context, write func() error) error {
	for {
		err := write()
		if err == nil || !isAway(err) || ctx.Err() != nil {
			if err == nil {
				g.result(true)
			}
			return err
		}
		g.result(false)
		slog.Warn("a note cannot be stored; trying again", "error", err)
	}
}
