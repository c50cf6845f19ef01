package natsmail

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/fetch"
)

func newStream(t *testing.T) (Stream, jetstream.Stream) {
	t.Helper()
	js := newJetStream(t)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MAIL", Subjects: []string{"mail.*"}})
	require.NoError(t, err)
	return Stream{JetStream: js, Requests: new(natsretry.Retrier), Subject: "mail.1"}, stream
}

func TestStreamDelivers(t *testing.T) {
	t.Parallel()
	s, stream := newStream(t)
	tests := []struct {
		name string
		item fetch.Item
		body string
		all  int // messages in the stream afterwards
	}{
		{"first", fetch.Item{Account: "a@x", UID: "1"}, "one", 1},
		{"again, after a crash", fetch.Item{Account: "a@x", UID: "1", Num: 7}, "one", 1},
		{"the same unique-id, other octets", fetch.Item{Account: "a@x", UID: "1"}, "two", 2},
		{"another account", fetch.Item{Account: "b@x", UID: "1"}, "one", 3},
		{"no unique-id", fetch.Item{Account: "a@x"}, "one", 4},
		{"no unique-id, again: it may be another one", fetch.Item{Account: "a@x"}, "one", 5},
		{"a unique-id that is no header", fetch.Item{Account: "a@x", UID: "\x7f\r\nX: 1"}, "one", 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, s.Deliver(t.Context(), tt.item, strings.NewReader(tt.body)))
			info, err := stream.Info(t.Context())
			require.NoError(t, err)
			assert.EqualValues(t, tt.all, info.State.Msgs)
		})
	}
	msg, err := stream.GetMsg(t.Context(), 2)
	require.NoError(t, err)
	assert.Equal(t, "two", string(msg.Data))
	assert.Equal(t, "a@x", msg.Header.Get("Account"))
	assert.Equal(t, "mail.1", msg.Subject)
}

func TestStreamStoresNoHalfMessage(t *testing.T) {
	t.Parallel()
	s, stream := newStream(t)
	for _, r := range []io.Reader{
		iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("half"))),
		iotest.ErrReader(io.ErrUnexpectedEOF),
	} {
		require.Error(t, s.Deliver(t.Context(), fetch.Item{UID: "2"}, r))
	}
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	assert.Zero(t, info.State.Msgs)
}
