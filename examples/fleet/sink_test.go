package main

import (
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/fetch"
)

func TestStreamSink(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	s := streamSink{b, b.js}
	stream, err := b.js.Stream(t.Context(), "MAIL")
	require.NoError(t, err)
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
	assert.Equal(t, mailSubject+keyOf("a@x"), msg.Subject)
}

func TestStreamSinkStoresNoHalfMessage(t *testing.T) {
	t.Parallel()
	b := newRig(t, lab.Size{Servers: 1}).bus
	s := streamSink{b, b.js}
	for _, r := range []io.Reader{
		iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("half"))),
		iotest.ErrReader(io.ErrUnexpectedEOF),
	} {
		require.Error(t, s.Deliver(t.Context(), fetch.Item{UID: "2"}, r))
	}
	stream, err := b.js.Stream(t.Context(), "MAIL")
	require.NoError(t, err)
	assert.Zero(t, stream.CachedInfo().State.Msgs)
}

// A Maildir is made for an account that has none. The folder that contains the Maildirs must exist (C-074).
func TestMaildirsAreMade(t *testing.T) {
	root := t.TempDir()
	a := Account{Name: "a@x"}
	w := Worker{Sink: "maildir:" + root}
	sink, err := w.sinkOf(a, true)
	require.NoError(t, err)
	require.NoError(t, sink.Deliver(t.Context(), fetch.Item{}, strings.NewReader("mail")))
	sink, err = w.sinkOf(Account{Name: "b@x"}, false)
	require.NoError(t, err)
	require.ErrorIs(t, sink.Deliver(t.Context(), fetch.Item{}, strings.NewReader("mail")), fs.ErrNotExist)
	w.Sink += "/not mounted"
	_, err = w.sinkOf(a, true)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
