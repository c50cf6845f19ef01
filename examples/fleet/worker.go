package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Worker polls the maildrops that are in the work queue.
type Worker struct {
	Bus      *Bus
	Accounts Accounts
	Poller   Poller
	Policy   Policy
	Metrics  *Metrics
	Owner    string
	Sessions int           // at the same time
	Grace    time.Duration // for polls under way when Run is to end

	hearts hearts
}

// Run works until ctx ends, and then lets the polls under way come to an end.
func (w *Worker) Run(ctx context.Context) error {
	polls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.Grace, cancel) })
	defer stop()
	beat := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { w.hearts.beat(beat, w.Bus.ackWait/3) })
	w.work(ctx, polls)
	close(beat)
	wg.Wait()
	return nil
}

// work takes as many messages as there are sessions free.
func (w *Worker) work(ctx, polls context.Context) {
	free := newSlots(w.Sessions)
	defer free.takeAll()
	for ctx.Err() == nil {
		n := free.take(ctx, 100)
		if n == 0 {
			return
		}
		msgs, err := w.next(n)
		free.put(n - len(msgs))
		if err != nil && ctx.Err() == nil {
			slog.Warn("worker: no messages", "err", err)
			pause(ctx, time.Second)
		}
		for _, msg := range msgs {
			w.hearts.add(msg)
			go func() {
				defer free.put(1)
				defer w.hearts.remove(msg)
				w.handle(polls, msg)
			}()
		}
	}
}

// next gives up to n messages that are in the queue, or waits for a first one.
func (w *Worker) next(n int) ([]jetstream.Msg, error) {
	msgs, err := collect(w.Bus.workers.FetchNoWait(n))
	if err != nil || len(msgs) > 0 {
		return msgs, err
	}
	return collect(w.Bus.workers.Fetch(1, jetstream.FetchMaxWait(200*time.Millisecond)))
}

func collect(batch jetstream.MessageBatch, err error) ([]jetstream.Msg, error) {
	if err != nil {
		return nil, err
	}
	var msgs []jetstream.Msg
	for msg := range batch.Messages() {
		msgs = append(msgs, msg)
	}
	err = batch.Error()
	if errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return msgs, err
}
