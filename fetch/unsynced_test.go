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

// A diary records calls in order, as one letter each. The letters for messages are m, or M if the message is synced.
// Those for entries are e, or E if they are synced. A sync of the sink is s, and a sync of the history S. DELE is D,
// and QUIT is Q.
type diary struct{ strings.Builder }

// A notedSink records its calls and stores nothing.
type notedSink struct {
	*diary
	syncs error
}

func (s notedSink) Deliver(_ context.Context, _ fetch.Item, r io.Reader) error {
	s.WriteString("M")
	_, err := io.Copy(io.Discard, r)
	return err
}

func (s notedSink) DeliverUnsynced(_ context.Context, _ fetch.Item, r io.Reader) error {
	s.WriteString("m")
	_, err := io.Copy(io.Discard, r)
	return err
}

func (s notedSink) Sync(context.Context) error {
	s.WriteString("s")
	return s.syncs
}

type notedSeen struct {
	*diary
	fetch.Seen
	synced bool // its histories do not implement UnsyncedHistory
}

func (s notedSeen) Open(ctx context.Context, account string) (fetch.History, error) {
	h, err := s.Seen.Open(ctx, account)
	if s.synced {
		return struct{ fetch.History }{notedHistory{s.diary, h}}, err
	}
	return notedHistory{s.diary, h}, err
}

type notedHistory struct {
	*diary
	fetch.History
}

func (h notedHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
	h.WriteString("E")
	return h.History.Save(ctx, entries...)
}

func (h notedHistory) SaveUnsynced(ctx context.Context, entries ...fetch.Entry) error {
	h.WriteString("e")
	return h.History.Save(ctx, entries...)
}

func (h notedHistory) Sync(context.Context) error {
	h.WriteString("S")
	return nil
}

// Messages are synced before the entries in the history. Both are synced before a DELE or a QUIT, because QUIT may
// remove messages that were retrieved.
func TestOrderOfSyncs(t *testing.T) {
	failure := errors.New("input/output error")
	tests := []struct {
		name string
		set  func(j *job, d *diary)
		want string // regular expression for the diary up to the first QUIT
		left int
		err  error
	}{
		{name: "both", set: func(*job, *diary) {}, want: `^e*(me+){3}e*sSD+$`},
		{name: "keep", set: func(j *job, _ *diary) { j.Delete = false }, want: `^e*(me+){3}e*sS$`, left: 3},
		{name: "a sink that syncs each", set: func(j *job, d *diary) {
			j.Sink = fetch.SinkFunc(notedSink{diary: d}.Deliver)
		}, want: `^e*(Me+){3}e*SD+$`},
		{name: "a record that syncs each", set: func(j *job, d *diary) {
			j.Seen = notedSeen{d, new(fetch.MemorySeen), true}
		}, want: `^E*(ME+){3}E*D+$`},
		{name: "no record", set: func(j *job, _ *diary) { j.Seen = nil }, want: `^M{3}D+$`},
		{name: "the sync fails", set: func(j *job, d *diary) { j.Sink = notedSink{d, failure} },
			want: `^e*(me+){3}e*s+$`, left: 3, err: failure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, mails("one", "two", "three"))
			d := new(diary)
			j.opts.Trace = &pop3.Trace{WroteCommand: func(_ context.Context, cmd string) {
				switch verb, _, _ := strings.Cut(cmd, " "); verb {
				case "DELE", "QUIT":
					d.WriteString(verb[:1])
				}
			}}
			j.Delete, j.Sink, j.Seen = true, notedSink{diary: d}, notedSeen{d, new(fetch.MemorySeen), false}
			tt.set(j, d)
			_, err := j.Run(t.Context())
			require.ErrorIs(t, err, tt.err)
			first, _, _ := strings.Cut(d.String(), "Q")
			assert.Regexp(t, tt.want, first)
			assert.Len(t, j.Left(user), tt.left)
		})
	}
}
