package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// When a server of a cluster dies, the streams that it led have no leader for some seconds, and what was asked of it
// has no answer. That is not the fault of a maildrop, and in most cases over before a POP3 server has had enough.

// errAway: NATS has not answered.
var errAway = errors.New("no answer from NATS")

const (
	oneTry   = 2 * time.Second  // for an answer, then it is asked for again: the leader may have died with the question
	patience = 15 * time.Second // for all tries; an election begins after 4 to 9 seconds
)

// insist does something again and again until NATS has answered, or patience has ended.
func insist(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		try, end := context.WithTimeout(ctx, oneTry)
		err := do(try)
		end()
		if err == nil || !noAnswer(err) {
			return err
		}
		if !pause(ctx, oneTry/10) {
			return fmt.Errorf("%w: %w", errAway, err)
		}
	}
}

// noAnswer tells that nobody was there, or that the answer got lost, so that it may have been done or not.
func noAnswer(err error) bool {
	for _, one := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	var answer *jetstream.APIError
	return errors.As(err, &answer) && answer.Code == 503
}

// getKey is kv.Get.
func getKey(ctx context.Context, kv jetstream.KeyValue, key string) (kve jetstream.KeyValueEntry, err error) {
	err = insist(ctx, func(ctx context.Context) (err error) {
		kve, err = kv.Get(ctx, key)
		return err
	})
	return kve, err
}

// updateKey writes a value over a revision, 0 if there must be none. When a try has had no answer, the next one may be
// refused since the first was done, or is being done.
func updateKey(ctx context.Context, kv jetstream.KeyValue, key string, value []byte, over uint64) (uint64, error) {
	var revision uint64
	unsure := false
	err := insist(ctx, func(ctx context.Context) (err error) {
		revision, err = kv.Update(ctx, key, value, over)
		if unsure && errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			revision, err = revisionOf(ctx, kv, key, value, over)
		}
		unsure = unsure || err != nil
		return err
	})
	return revision, err
}

// revisionOf gives the revision of a value that may be there.
func revisionOf(ctx context.Context, kv jetstream.KeyValue, key string, value []byte, over uint64) (uint64, error) {
	kve, err := kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && kve.Revision() == over:
		return 0, jetstream.ErrNoStreamResponse // not yet
	case err != nil:
		return 0, err
	case !bytes.Equal(kve.Value(), value):
		return 0, jetstream.ErrKeyRevisionMismatch
	}
	return kve.Revision(), nil
}
