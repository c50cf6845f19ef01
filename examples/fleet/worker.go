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

	"github.com/nats-io/nats.go"
)

// A Worker does the polls that the leading scheduler hands out.
type Worker struct {
	service
	mailConfig
	Poller   `embed:""`
	Sessions int           `default:"200" help:"Polls at the same time in this worker."`
	Longest  time.Duration `default:"10m" help:"Longest time for a poll."`

	about hello  // the next hello; only the method work uses about and held
	held  *lease // the lease of all polls
	ended chan endedPoll
}

// An endedPoll is a poll that has ended. It was reported, unless outcome is nil.
type endedPoll struct {
	key     string
	outcome *Outcome
}

const (
	beat   = time.Second           // the longest time between two hellos
	hurry  = 25 * time.Millisecond // the shortest time, used while there is more to do
	lookup = 5 * time.Second       // the time between two checks of the streams
)

// Run is called by kong.
func (w *Worker) Run(ctx context.Context, g *globals) error {
	return w.run(ctx, g, func(ctx context.Context) error {
		mail, err := w.jetStream(g, w.bus.nc)
		if err != nil {
			return err
		}
		defer mail.Conn().Close()
		if err := w.prepare(ctx, w.bus, mail, &w.monitor); err != nil {
			return err
		}
		w.monitor.ready.Store(new(w.ready))
		return w.work(ctx)
	})
}

// work works until ctx ends. Then it lets running polls finish, for at most half of the time for which workers may be
// silent.
func (w *Worker) work(ctx context.Context) (err error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.bus.silence/2, cancel) })
	defer stop()
	w.about = hello{ID: rand.Text(), Name: w.name, Sessions: w.Sessions, Polls: make(map[string]uint64)}
	w.ended = make(chan endedPoll, max(1, w.Sessions))
	var polls sync.WaitGroup
	for looked := time.Now(); err == nil && life.Err() == nil && (ctx.Err() == nil || len(w.about.Polls) > 0); {
		all := w.ask(life, ctx.Err() == nil)
		for _, g := range all {
			held := w.held
			w.about.Polls[g.Key] = g.Revision
			polls.Go(func() { w.ended <- endedPoll{g.Key, w.handle(life, held, g)} })
		}
		if time.Since(looked) > lookup {
			looked = time.Now()
			err = w.bus.look(life)
		}
		w.rest(len(all) > 0)
	}
	cancel()
	polls.Wait()
	for len(w.ended) > 0 {
		w.end(<-w.ended)
	}
	w.about.Stopped = true
	w.say(context.WithoutCancel(ctx))
	return err
}

// ask sends a hello to the leading scheduler. The answer renews the lease, and contains polls to do.
func (w *Worker) ask(ctx context.Context, more bool) (all []grant) {
	asked := time.Now()
	w.about.Free = 0
	if more {
		w.about.Free = max(0, w.Sessions-len(w.about.Polls))
	}
	answer, err := w.say(ctx)
	if err != nil || json.Unmarshal(answer.Data, &all) != nil {
		return nil
	}
	if !w.held.renew(asked) {
		if w.held != nil {
			w.held.end()
		}
		w.held = newLease(ctx, asked, w.bus.silence)
	}
	return all
}

// say sends a hello and returns the answer.
func (w *Worker) say(ctx context.Context) (answer *nats.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	w.about.Waiting = w.bus.waiting.Load()
	w.metrics.polling.Set(float64(len(w.about.Polls)))
	text, _ := json.Marshal(w.about)
	return w.bus.nc.RequestWithContext(ctx, helloSubject, text)
}

// rest waits until the next hello is due. It is due early if there may be more to do, or when a poll has ended.
func (w *Worker) rest(soon bool) {
	next := time.After(beat / 2)
	if soon {
		next = time.After(hurry)
	}
	for {
		select {
		case e := <-w.ended:
			w.end(e)
			if !soon {
				soon, next = true, time.After(hurry)
			}
		case <-next:
			return
		}
	}
}

// end records that a poll has ended.
func (w *Worker) end(e endedPoll) {
	delete(w.about.Polls, e.key)
	if e.outcome == nil {
		return
	}
	w.about.Done++
	w.about.Messages += uint64(e.outcome.Delivered)
	if e.outcome.Failed {
		w.about.Failed++
	}
}

// ready reports whether the worker polls.
func (w *Worker) ready() error {
	switch n := w.bus.waiting.Load(); {
	case !w.bus.nc.IsConnected():
		return errors.New("NATS is not connected")
	case n > 0:
		return fmt.Errorf("%d polls are held back: NATS does not answer or has no room, or no scheduler leads", n)
	}
	return nil
}

// handle carries out a poll and reports it. It sends the report until NATS answers or ctx ends. It returns the outcome
// that was reported, or nil.
func (w *Worker) handle(ctx context.Context, held *lease, g grant) *Outcome {
	begin := time.Now()
	a, known := w.accounts.lookup(g.Key)
	log := slog.With("account", a.Name, "key", g.Key, "start", begin)
	r := report{Key: g.Key, Revision: g.Revision}
	if !known || g.Fingerprint != "" && a.print != g.Fingerprint {
		log.Warn("this worker has another accounts file than the scheduler", "missing", !known)
		w.metrics.handedBack.WithLabelValues("unknown").Inc()
		r.After = w.bus.silence
	} else {
		w.metrics.lag.Observe(max(0, g.Late.Seconds()))
		if o, reason := w.outcome(ctx, held, a); reason == "" {
			r.Outcome = &o
		} else {
			log.Warn("a poll is left for later", "reason", reason, "error", o.Error)
			w.metrics.handedBack.WithLabelValues(reason).Inc()
		}
	}
	text, _ := json.Marshal(r)
	err := w.bus.insist(ctx, func(ctx context.Context) error {
		_, err := w.bus.nc.RequestWithContext(ctx, reportSubject, text)
		return err
	})
	if err != nil || r.Outcome == nil {
		return nil
	}
	w.metrics.polled(*r.Outcome, time.Since(begin))
	level := slog.LevelDebug
	if r.Outcome.Error != "" {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "polled", "delivered", r.Outcome.Delivered, "code", r.Outcome.Code, "error", r.Outcome.Error,
		"seconds", time.Since(begin).Seconds())
	return r.Outcome
}

// outcome polls an account. If it returns a reason, the poll failed for a reason that is not the account's.
func (w *Worker) outcome(ctx context.Context, held *lease, a Account) (o Outcome, reason string) {
	limited, cancel := context.WithTimeout(held.ctx, w.Longest)
	defer cancel()
	o, away := w.poll(limited, ctx, held, a)
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
