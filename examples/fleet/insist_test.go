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
)

func TestInsist(t *testing.T) {
	refused := errors.New("refused")
	hang := errors.New("no answer at all")
	tests := []struct {
		name    string
		answers []error // the answer to each try; the last one is repeated
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
		{"for as long as ctx lasts", []error{hang}, 7, 15 * time.Second, errAway},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, tries := time.Now(), 0
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				var b Bus
				err := b.insist(ctx, func(ctx context.Context) error {
					answer := tt.answers[min(tries, len(tt.answers)-1)]
					assert.Equal(t, int64(min(tries, 1)), b.waiting.Load())
					if tries++; answer == hang {
						<-ctx.Done()
						return ctx.Err()
					}
					return answer
				})
				require.ErrorIs(t, err, tt.err)
				assert.Zero(t, b.waiting.Load())
				assert.Equal(t, tt.tries, tries)
				assert.Equal(t, tt.took, time.Since(begin))
			})
		})
	}
}
