package natsretry

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

func TestRetrierDo(t *testing.T) {
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
		{"nobody there", []error{nats.ErrNoResponders, nil}, 2, Timeout / 10, nil},
		{"no leader", []error{&jetstream.APIError{Code: 503}, jetstream.ErrNoStreamResponse, nil}, 3, Timeout / 5, nil},
		{"then refused", []error{nats.ErrTimeout, refused}, 2, Timeout / 10, refused},
		{"the question died with the leader", []error{hang, nil}, 2, Timeout + Timeout/10, nil},
		{"no room in the store", []error{&jetstream.APIError{Code: 503, ErrorCode: 10023}, nil}, 2, Timeout / 10, nil},
		{"no room in the stream", []error{&jetstream.APIError{Code: 503, ErrorCode: 10077,
			Description: "maximum bytes exceeded"}, nil}, 2, Timeout / 10, nil},
		{"for as long as ctx lasts", []error{hang}, 7, 15 * time.Second, ErrUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, tries := time.Now(), 0
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				var r Retrier
				err := r.Do(ctx, func(ctx context.Context) error {
					answer := tt.answers[min(tries, len(tt.answers)-1)]
					assert.Equal(t, int64(min(tries, 1)), r.Waiting())
					if tries++; answer == hang {
						<-ctx.Done()
						return ctx.Err()
					}
					return answer
				})
				require.ErrorIs(t, err, tt.err)
				assert.Zero(t, r.Waiting())
				assert.Equal(t, tt.tries, tries)
				assert.Equal(t, tt.took, time.Since(begin))
			})
		})
	}
}
