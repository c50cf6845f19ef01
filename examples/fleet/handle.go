package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// maxDeaths is how many workers may die, or be restarted, over one poll before the account is taken for the cause.
const maxDeaths = 5

// handle does what a message asks for, and acknowledges it when the outcome is stored. Whatever goes wrong before
// that, the message comes back.
func (w *Worker) handle(ctx context.Context, msg jetstream.Msg) {
	key := strings.TrimPrefix(msg.Subject(), dueSubject)
	due, rec, current, err := w.read(ctx, key, msg)
	switch {
	case err != nil:
		slog.Warn("worker: the schedule can't be read; another try follows", "key", key, "err", err)
		msg.NakWithDelay(w.Bus.ackWait / 3)
		return
	case !current:
		msg.Ack()
		return
	}
	w.Metrics.lag.Observe(time.Since(due.Due).Seconds())
	outcome, err := w.outcome(ctx, key, rec, msg)
	switch {
	case errors.Is(err, errNoAccount):
		err = w.Bus.schedules.Delete(ctx, key, jetstream.LastRevision(due.Revision))
	case ctx.Err() != nil: // this process is about to end: let another one do it at once
		msg.Nak()
		return
	case err == nil:
		err = w.report(key, rec, due.Revision, outcome)
	}
	if err != nil {
		slog.Warn("worker: no outcome; another try follows", "account", rec.Account, "err", err)
		return
	}
	msg.Ack()
}

// read gives the record of an account, and whether the message is about it as it is now.
func (w *Worker) read(ctx context.Context, key string, msg jetstream.Msg) (dueMessage, Record, bool, error) {
	var due dueMessage
	if err := json.Unmarshal(msg.Data(), &due); err != nil {
		return due, Record{}, false, nil // not from a scheduler of ours
	}
	kve, err := getKey(ctx, w.Bus.schedules, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return due, Record{}, false, nil
	}
	if err != nil {
		return due, Record{}, false, err
	}
	return due, recordOf(kve), kve.Revision() == due.Revision, nil
}

// outcome polls, unless workers keep dying of it.
func (w *Worker) outcome(ctx context.Context, key string, rec Record, msg jetstream.Msg) (Outcome, error) {
	a, err := w.Accounts.Lookup(ctx, key)
	if err != nil {
		return Outcome{}, err
	}
	if meta, err := msg.Metadata(); err == nil && meta.NumDelivered > maxDeaths {
		died := fmt.Errorf("%d workers did not come to the end of it; last error: %q", meta.NumDelivered-1, rec.Error)
		return Outcome{Failed: true, Refused: true, Code: "died", Err: died}, nil
	}
	w.Metrics.polling.Inc()
	defer w.Metrics.polling.Dec()
	begin := time.Now()
	outcome := w.Poller.Poll(ctx, a)
	if outcome.Locked || outcome.Away {
		slog.Info("worker: the maildrop is left for later", "account", rec.Account, "err", outcome.Err)
		outcome.TryAgain = time.Now().Add(w.Bus.ackWait)
	}
	if ctx.Err() == nil {
		w.Metrics.polled(outcome, time.Since(begin))
	}
	return outcome, nil
}

// report stores the outcome, which makes the message obsolete. If the record has changed meanwhile, somebody else has
// done that.
func (w *Worker) report(key string, rec Record, revision uint64, o Outcome) error {
	rec = w.Policy.Next(rec, time.Now(), o, rand.Float64())
	if o.Code == "died" {
		rec.Aside = true
	}
	_, err := updateKey(context.Background(), w.Bus.schedules, key, rec.value(), revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil
	}
	return err
}
