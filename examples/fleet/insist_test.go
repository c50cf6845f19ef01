package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

func TestInsist(t *testing.T) {
	refused := errors.New("refused")
	refusal := &jetstream.APIError{Code: 503, ErrorCode: 10077, Description: "maximum messages per subject exceeded"}
	hang := errors.New("no answer at all")
	tests := []struct {
		name    string
		answers []error // to one try after the other; the last one is given again and again
		tries   int
		took    time.Duration
		err     error
	}{
		{"done", []error{nil}, 1, 0, nil},
		{"refused", []error{refused}, 1, 0, refused},
		{"nobody there", []error{nats.ErrNoResponders, nil}, 2, oneTry / 10, nil},
		{"no leader", []error{&jetstream.APIError{Code: 503}, jetstream.ErrNoStreamResponse, nil}, 3, oneTry / 5, nil},
		{"then refused", []error{nats.ErrTimeout, refused}, 2, oneTry / 10, refused},
		{"the question died with the leader", []error{hang, nil}, 2, oneTry + oneTry/10, nil},
		{"no room in the store", []error{&jetstream.APIError{Code: 503, ErrorCode: 10023}, nil}, 2, oneTry / 10, nil},
		{"no room in the stream", []error{&jetstream.APIError{Code: 503, ErrorCode: 10077,
			Description: "maximum bytes exceeded"}, nil}, 2, oneTry / 10, nil},
		{"one message for each subject", []error{refusal}, 1, 0, refusal},
		{"for ever", []error{hang}, 7, patience, errAway},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, tries := time.Now(), 0
				err := insist(t.Context(), func(ctx context.Context) error {
					answer := tt.answers[min(tries, len(tt.answers)-1)]
					if tries++; answer == hang {
						<-ctx.Done()
						return ctx.Err()
					}
					return answer
				})
				require.ErrorIs(t, err, tt.err)
				assert.Equal(t, tt.tries, tries)
				assert.Equal(t, tt.took, time.Since(begin))
			})
		})
	}
}

// A deafKV loses answers.
type deafKV struct {
	jetstream.KeyValue
	lost int  // so many
	done bool // and what was asked for is done
}

func (kv *deafKV) Update(ctx context.Context, key string, value []byte, over uint64) (uint64, error) {
	if kv.lost == 0 {
		return kv.KeyValue.Update(ctx, key, value, over)
	}
	kv.lost--
	if kv.done {
		kv.KeyValue.Update(ctx, key, value, over)
	}
	return 0, nats.ErrTimeout
}

func TestUpdateKeyWhenAnswersAreLost(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	tests := []struct {
		name   string
		kv     deafKV
		before string // what somebody else has written
		err    error
	}{
		{"none lost", deafKV{}, "", nil},
		{"not done", deafKV{lost: 2}, "", nil},
		{"done", deafKV{lost: 2, done: true}, "", nil},
		{"somebody else was first", deafKV{}, "other", jetstream.ErrKeyRevisionMismatch},
		{"somebody else was first, and an answer lost", deafKV{lost: 1, done: true}, "other",
			jetstream.ErrKeyRevisionMismatch},
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := string(rune('a' + n))
			if tt.before != "" {
				_, err := b.seen.Create(t.Context(), key, []byte(tt.before))
				require.NoError(t, err)
			}
			tt.kv.KeyValue = b.seen
			revision, err := updateKey(t.Context(), &tt.kv, key, []byte("value"), 0)
			require.ErrorIs(t, err, tt.err)
			if tt.err != nil {
				return
			}
			kve, err := b.seen.Get(t.Context(), key)
			require.NoError(t, err)
			assert.Equal(t, "value", string(kve.Value()))
			assert.Equal(t, kve.Revision(), revision)
			_, err = updateKey(t.Context(), &tt.kv, key, []byte("next"), revision)
			require.NoError(t, err)
		})
	}
}
