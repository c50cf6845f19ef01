package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Worker does the polls that the leading scheduler hands out.
type Worker struct {
	Bus      *Bus
	Accounts *accountsFile
	Poller   Poller
	Metrics  *Metrics
	Owner    string
	Sessions int           // polls at the same time
	Longest  time.Duration // a poll may take

	mu    sync.Mutex
	about hello // what the next hello says
	ended chan struct{}
	held  *lease // of all polls; used by Run only
}

const (
	beat   = time.Second           // between two hellos at most
	hurry  = 25 * time.Millisecond // while there is more to do, and at least
	lookup = 5 * time.Second       // between two looks at the streams
)

// Run works until ctx ends, and then lets the polls under way finish, for half of the time that workers may be silent.
func (w *Worker) Run(ctx context.Context) (err error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.Bus.silence/2, cancel) })
	defer stop()
	w.about = hello{ID: rand.Text(), Name: w.Owner, Polls: make(map[string]uint64)}
	w.ended = make(chan struct{}, 1)
	var polls sync.WaitGroup
	for looked := time.Now(); life.Err() == nil && (ctx.Err() == nil || w.polling() > 0); {
		all, held := w.ask(life, ctx.Err() == nil)
		for _, g := range all {
			w.begin(g)
			polls.Go(func() {
				defer w.end(g)
				w.handle(life, held, g)
			})
		}
		if time.Since(looked) > lookup {
			looked = time.Now()
			if err = w.Bus.look(life); err != nil {
				cancel()
				break
			}
		}
		w.rest(ctx, len(all) > 0)
	}
	cancel()
	polls.Wait()
	w.say(context.WithoutCancel(ctx), func(h *hello) { h.Stopped = true })
	return err
}

// ask tells the leading scheduler what this worker does. The answer renews the lease, and has polls to do under it.
func (w *Worker) ask(ctx context.Context, more bool) (all []grant, held *lease) {
	asked := time.Now()
	err := w.say(ctx, func(h *hello) {
		h.Sessions, h.Free = w.Sessions, 0
		if more {
			h.Free = max(0, w.Sessions-len(h.Polls))
		}
	}, &all)
	if err != nil {
		return nil, w.held
	}
	if !w.held.renew(asked) {
		if w.held != nil {
			w.held.end()
		}
		w.held = newLease(ctx, asked, w.Bus.silence)
	}
	return all, w.held
}

// say sends a hello, and reads the answer if answer is given.
func (w *Worker) say(ctx context.Context, change func(h *hello), answer ...any) error {
	w.mu.Lock()
	change(&w.about)
	w.about.Waiting = w.Bus.waiting.Load()
	text, _ := json.Marshal(w.about)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	msg, err := w.Bus.nc.RequestWithContext(ctx, helloSubject, text)
	if err == nil && len(answer) > 0 {
		err = json.Unmarshal(msg.Data, answer[0])
	}
	return err
}

// rest waits until the next hello is due: soon if there may be more to do, or when a poll has ended.
func (w *Worker) rest(ctx context.Context, busy bool) {
	wait := beat / 2
	if busy {
		wait = hurry
	}
	select {
	case <-time.After(wait):
	case <-w.ended:
		pause(ctx, hurry)
	}
}

func (w *Worker) begin(g grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.about.Polls[g.Key] = g.Revision
	w.Metrics.polling.Set(float64(len(w.about.Polls)))
}

func (w *Worker) end(g grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.about.Polls, g.Key)
	w.Metrics.polling.Set(float64(len(w.about.Polls)))
	select {
	case w.ended <- struct{}{}:
	default:
	}
}

func (w *Worker) polling() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.about.Polls)
}

// look returns an error if a stream is gone. Without an answer it returns nil: the streams may be there.
func (b *Bus) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	if _, err := b.js.Stream(ctx, "KV_seen"); errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	return nil
}

// ready reports whether the worker polls.
func (w *Worker) ready() error {
	switch n := w.Bus.waiting.Load(); {
	case !w.Bus.nc.IsConnected():
		return errors.New("NATS is not connected")
	case n > 0:
		return fmt.Errorf("%d polls are held back: NATS does not answer or has no room, or no scheduler leads", n)
	}
	return nil
}

// handle does a poll and reports it, for as long as that takes.
func (w *Worker) handle(ctx context.Context, held *lease, g grant) {
	begin := time.Now()
	a, known := w.Accounts.lookup(g.Key)
	log := slog.With("account", a.Name, "key", g.Key, "start", begin)
	r := report{Key: g.Key, Revision: g.Revision}
	if !known || g.Fingerprint != "" && a.print != g.Fingerprint {
		log.Warn("this worker has another accounts file than the scheduler", "missing", !known)
		w.Metrics.handedBack.WithLabelValues("unknown").Inc()
		r.After = w.Bus.silence
	} else {
		w.Metrics.lag.Observe(max(0, g.Late.Seconds()))
		if o, reason := w.outcome(ctx, held, a); reason == "" {
			r.Outcome = &o
		} else {
			log.Warn("a poll is left for later", "reason", reason, "error", o.Error)
			w.Metrics.handedBack.WithLabelValues(reason).Inc()
		}
	}
	text, _ := json.Marshal(r)
	err := w.Bus.insist(ctx, func(ctx context.Context) error {
		_, err := w.Bus.nc.RequestWithContext(ctx, reportSubject, text)
		return err
	})
	if err != nil || r.Outcome == nil {
		return
	}
	w.count(*r.Outcome, time.Since(begin))
	level := slog.LevelDebug
	if r.Outcome.Error != "" {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "polled", "delivered", r.Outcome.Delivered, "code", r.Outcome.Code, "error", r.Outcome.Error,
		"seconds", time.Since(begin).Seconds())
}

// outcome polls. A reason means that the poll failed for a reason of ours, which says nothing about the account.
func (w *Worker) outcome(ctx context.Context, held *lease, a Account) (o Outcome, reason string) {
	limited, cancel := context.WithTimeout(held.ctx, w.Longest)
	defer cancel()
	o, away := w.Poller.Poll(limited, ctx, held, a)
	switch {
	case ctx.Err() != nil:
		reason = "stopping"
	case !held.valid():
		reason = "lease"
	case away:
		reason = "nats"
	case limited.Err() != nil:
		o.More, o.Code = o.Delivered > 0, "slow"
	}
	return o, reason
}

func (w *Worker) count(o Outcome, took time.Duration) {
	w.Metrics.polled(o, took)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.about.Done++
	w.about.Messages += uint64(o.Delivered)
	if o.Failed {
		w.about.Failed++
	}
}
