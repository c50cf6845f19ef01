package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A run is one call of [Fetcher.Results]: as many sessions as it takes.
type run struct {
	*Fetcher
	yield   func(Result, error) bool
	stopped bool // by the caller, with a break
	report  *Report
	record  *record
	skipped []Result // by the latest plan

	settled map[string]bool // by unique-id, what was dealt with and is left alone in further sessions
	count   int             // messages that were retrieved

	allMessages int // to be retrieved in the run, so far as is known
	allOctets   int64

	enough   bool  // nothing more is to be retrieved
	row      int   // failures in a row
	lost     int   // sessions that were lost at a message
	hangUp   error // why the latest of them was
	failures int   // messages that could not be fetched or stored
	failure  error // the first of them
	withheld bool  // a QUIT
	mixedUp  bool  // a reply was none, so that those before it may have been to other commands
}

// Limits on trouble: past them it is not about single messages.
const (
	maxFailures = 10 // in a row
	maxLost     = 3
)

// do is the whole run.
func (r *run) do(ctx context.Context) (err error) {
	defer func() {
		r.report.Aborted = err
		err = errors.Join(err, r.troubles())
	}()
	if err := r.check(); err != nil {
		return err
	}
	if sink, ok := r.Sink.(CheckedSink); ok && !r.DryRun {
		if err := sink.Check(ctx); err != nil {
			return err
		}
	}
	r.record, err = openRecord(ctx, r.Seen, r.Account)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.record.history.Close()) }()
	r.settled = make(map[string]bool)
	for again := true; again && err == nil; {
		again, err = r.session(ctx)
	}
	for _, res := range r.skipped {
		r.emit(res)
	}
	return err
}

// troubles makes the error for what did not end the run.
func (r *run) troubles() error {
	var err error
	if r.withheld {
		err = fmt.Errorf("fetch: %w", ErrQuitWithheld)
	}
	if r.hangUp != nil {
		err = errors.Join(err, r.hangUp)
	}
	if r.failures > 0 {
		err = errors.Join(err, fmt.Errorf("fetch: trouble with %s, the first: %w", count(r.failures), r.failure))
	}
	return err
}

// emit reports a result, to the caller too unless he has had enough.
func (r *run) emit(res Result) {
	r.report.add(res)
	if !r.stopped && !r.yield(res, nil) {
		r.stopped, r.enough = true, true
	}
}

// fail reports a result with an error that does not end the run.
func (r *run) fail(res Result) {
	if r.failures++; r.failure == nil {
		r.failure = fmt.Errorf("message %d: %w", res.Num, res.Err)
	}
	r.emit(res)
}

// wait lets TryAgain be no earlier than d from now.
func (r *run) wait(d time.Duration) {
	if at := time.Now().Add(d); d > 0 && at.After(r.report.TryAgain) {
		r.report.TryAgain = at
	}
}

func count(messages int) string {
	if messages == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", messages)
}
