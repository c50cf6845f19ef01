package fetch_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// A callLog records calls in order, as one letter each. The letters for messages are m, or M if the message is synced.
// Those for entries are e, or E if they are synced. A sync of the sink is s, and a sync of the history S. DELE is D,
// and QUIT is Q.
type callLog struct{ strings.Builder }

// A loggedSink records its calls and stores nothing.
type loggedSink struct {
	*callLog
	syncErr error
}

func (s loggedSink) Deliver(_ context.Context, _ fetch.Item, r io.Reader) error {
	s.WriteString("M")
	_, err := io.Copy(io.Discard, r)
	return err
}

func (s loggedSink) DeliverUnsynced(_ context.Context, _ fetch.Item, r io.Reader) error {
	s.WriteString("m")
	_, err := io.Copy(io.Discard, r)
	return err
}

func (s loggedSink) Sync(context.Context) error {
	s.WriteString("s")
	return s.syncErr
}

type loggedSeen struct {
	*callLog
	fetch.Seen
	synced bool // its histories do not implement UnsyncedHistory
}

func (s loggedSeen) Open(ctx context.Context, account string) (fetch.History, error) {
	h, err := s.Seen.Open(ctx, account)
	if s.synced {
		return struct{ fetch.History }{loggedHistory{s.callLog, h}}, err
	}
	return loggedHistory{s.callLog, h}, err
}

type loggedHistory struct {
	*callLog
	fetch.History
}

func (h loggedHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
	h.WriteString("E")
	return h.History.Save(ctx, entries...)
}

func (h loggedHistory) SaveUnsynced(ctx context.Context, entries ...fetch.Entry) error {
	h.WriteString("e")
	return h.History.Save(ctx, entries...)
}

func (h loggedHistory) Sync(context.Context) error {
	h.WriteString("S")
	return nil
}

// Messages are synced before the entries in the history. Both are synced before a DELE or a QUIT, because QUIT may
// remove messages that were retrieved.
func TestOrderOfSyncs(t *testing.T) {
	failure := errors.New("input/output error")
	tests := []struct {
		name string
		set  func(j *job, d *callLog)
		want string // regular expression for the log up to the first QUIT
		left int
		err  error
	}{
		{name: "sink and history are unsynced", set: func(*job, *callLog) {}, want: `^e*(me+){3}e*sSD+$`},
		{name: "no deletion", set: func(j *job, _ *callLog) { j.Delete = false }, want: `^e*(me+){3}e*sS$`, left: 3},
		{name: "a sink that syncs each message", set: func(j *job, d *callLog) {
			j.Sink = fetch.SinkFunc(loggedSink{callLog: d}.Deliver)
		}, want: `^e*(Me+){3}e*SD+$`},
		{name: "a history that syncs each entry", set: func(j *job, d *callLog) {
			j.Seen = loggedSeen{d, new(fetch.MemorySeen), true}
		}, want: `^E*(ME+){3}E*D+$`},
		{name: "no history", set: func(j *job, _ *callLog) { j.Seen = nil }, want: `^M{3}D+$`},
		{name: "the sync fails", set: func(j *job, d *callLog) { j.Sink = loggedSink{d, failure} },
			want: `^e*(me+){3}e*s+$`, left: 3, err: failure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, mails("one", "two", "three"))
			d := new(callLog)
			j.opts.Trace = &pop3.Trace{WroteCommand: func(_ context.Context, cmd string) {
				switch verb, _, _ := strings.Cut(cmd, " "); verb {
				case "DELE", "QUIT":
					d.WriteString(verb[:1])
				}
			}}
			j.Delete, j.Sink, j.Seen = true, loggedSink{callLog: d}, loggedSeen{d, new(fetch.MemorySeen), false}
			tt.set(j, d)
			_, err := j.Run(t.Context())
			require.ErrorIs(t, err, tt.err)
			first, _, _ := strings.Cut(d.String(), "Q")
			assert.Regexp(t, tt.want, first)
			assert.Len(t, j.Left(user), tt.left)
		})
	}
}
