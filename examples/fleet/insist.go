package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// When a server of a cluster dies, the streams that it led have no leader for some seconds, and requests get no answer.
// When the store is full, writes are refused until there is room. Neither is the fault of an account, so polls wait.

// errAway means that NATS did not answer, or could not store anything.
var errAway = errors.New("NATS is not available")

// oneTry is how long an answer is awaited. Then the request is sent again: the leader may have died with it.
const oneTry = 2 * time.Second

// insist calls do until NATS has answered, or ctx has ended. While it waits, Bus.waiting counts it.
func (b *Bus) insist(ctx context.Context, do func(context.Context) error) error {
	for waits := false; ; waits = true {
		try, end := context.WithTimeout(ctx, oneTry)
		err := do(try)
		end()
		if err == nil || !isAway(err) {
			return err
		}
		if !waits {
			b.waiting.Add(1)
			defer b.waiting.Add(-1)
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
	return errors.As(err, &answer) && (answer.Code == 503 || slices.Contains(fullCodes, answer.ErrorCode))
}

// isConflict reports whether a write was refused because the key has another revision.
func isConflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
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
