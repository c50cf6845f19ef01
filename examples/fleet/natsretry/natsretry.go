// Package natsretry repeats requests to NATS JetStream while a server does not answer or has no room. When a server of
// a cluster dies, the streams that it led have no leader for some seconds, and requests get no answer. When the store
// is full, writes are refused until there is room.
package natsretry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrUnavailable means that NATS did not answer, or could not store anything.
var ErrUnavailable = errors.New("NATS is not available")

// Timeout is how long to wait for an answer. After it the request is sent again, because the leader may have died.
const Timeout = 2 * time.Second

// A Retrier repeats requests and counts those that wait. Its methods can be called concurrently.
type Retrier struct{ waiting atomic.Int64 }

// Waiting returns the number of requests that wait because NATS is not available.
func (r *Retrier) Waiting() int64 { return r.waiting.Load() }

// Do calls request until NATS has answered, or ctx has ended. Then the error wraps [ErrUnavailable].
func (r *Retrier) Do(ctx context.Context, request func(context.Context) error) error {
	err := Try(ctx, Timeout, request)
	if !isUnavailable(err) {
		return err
	}
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for isUnavailable(err) {
		if !Pause(ctx, Timeout/10) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		err = Try(ctx, Timeout, request)
	}
	return err
}

// Try calls request, which may take at most d.
func Try(ctx context.Context, d time.Duration, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return request(ctx)
}

// Pause waits for d. It reports whether ctx has not ended.
func Pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// WaitFor calls open until NATS can be reached and all streams exist. It logs what it waits for.
func WaitFor(ctx context.Context, nc *nats.Conn, open func(ctx context.Context) error) error {
	for logged := ""; ; {
		err := fmt.Errorf("%w: it is not connected", ErrUnavailable)
		if nc.IsConnected() {
			err = Try(ctx, 5*time.Second, open)
		}
		if !isUnavailable(err) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		if err.Error() != logged {
			slog.Warn("waiting for NATS", "error", err)
		}
		logged = err.Error()
		if !Pause(ctx, time.Second) {
			return err
		}
	}
}

// unanswered are the errors of requests without an answer. Such a request may have been carried out.
var unanswered = []error{
	ErrUnavailable, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
	nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
}

// fullCodes are JetStream's errors when an account or a server has no room, if their status is not 503.
var fullCodes = []jetstream.ErrorCode{10002, 10028, 10047}

// isUnavailable reports whether err means that there was no answer or no room.
func isUnavailable(err error) bool {
	if apiError, ok := errors.AsType[*jetstream.APIError](err); ok &&
		(apiError.Code == 503 || slices.Contains(fullCodes, apiError.ErrorCode)) {
		return true
	}
	return slices.ContainsFunc(unanswered, func(target error) bool { return errors.Is(err, target) })
}

// IsConflict reports whether a write was refused because the revision of the key has changed.
func IsConflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}
