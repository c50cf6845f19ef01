package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// When a server of a cluster dies, the streams that it led have no leader for some seconds, and requests get no answer.
// When the store is full, writes are refused until there is room. Neither is the fault of an account.

// errAway means that NATS did not answer, or could not store anything.
var errAway = errors.New("NATS is not available")

const (
	oneTry   = 2 * time.Second  // then the request is sent again: the leader may have died with it
	patience = 15 * time.Second // for all tries; an election begins after 4 to 9 seconds
)

// insist calls do until NATS has answered, or patience has ended.
func insist(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		try, end := context.WithTimeout(ctx, oneTry)
		err := do(try)
		end()
		if err == nil || !isAway(err) {
			return err
		}
		if !pause(ctx, oneTry/10) {
			return fmt.Errorf("%w: %w", errAway, err)
		}
	}
}

// fullCodes are JetStream's errors when an account, a stream or the disk has no room.
var fullCodes = []jetstream.ErrorCode{10002, 10023, 10028, 10047, 10077,
	jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount}

// isAway reports whether there was no answer, so that the request was done or not, or no room.
func isAway(err error) bool {
	for _, one := range []error{
		errAway, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	var answer *jetstream.APIError
	return errors.As(err, &answer) && !strings.Contains(answer.Description, "per subject") &&
		(answer.Code == 503 || slices.Contains(fullCodes, answer.ErrorCode))
}

// getKey is kv.Get with retries.
func getKey(ctx context.Context, kv jetstream.KeyValue, key string) (kve jetstream.KeyValueEntry, err error) {
	err = insist(ctx, func(ctx context.Context) (err error) {
		kve, err = kv.Get(ctx, key)
		return err
	})
	return kve, err
}

// updateKey is kv.Update with retries. over is the revision to replace, 0 if there must be none. If a try got no
// answer, the next one may be refused because the first was carried out.
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

// revisionOf returns the revision of a value that may have been written.
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

// pause waits, and reports whether ctx still holds.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
