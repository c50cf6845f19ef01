package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// bySubject returns a Select function that decides by the header and counts its calls.
func bySubject(decisions map[string]fetch.Decision, calls *int) func(context.Context, fetch.Item,
	[]byte) fetch.Decision {
	return func(_ context.Context, _ fetch.Item, header []byte) fetch.Decision {
		*calls++
		if header == nil {
			return fetch.WantHeader
		}
		return decisions[string(header)]
	}
}

func TestSelect(t *testing.T) {
	header := func(text string) string { return fmt.Sprintf("Subject: %s\r\n\r\n", text) }
	decisions := map[string]fetch.Decision{header("skip"): fetch.Skip, header("leave"): fetch.Leave}
	for _, tt := range []struct {
		name   string
		caps   []string
		faults []pop3test.Fault
	}{
		{name: "TOP"},
		{name: "no TOP", caps: []string{"UIDL"}},
		{name: "TOP is refused", faults: []pop3test.Fault{{At: "TOP", Reply: "-ERR no"}}},
		{name: "TOP ends the connection", faults: []pop3test.Fault{{At: "TOP", Drop: pop3test.BeforeReply}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			j := newJob(t, mails("fetch", "skip", "leave"), "a", "b", "c")
			j.Caps, j.Delete, j.Select = tt.caps, true, bySubject(decisions, &calls)
			j.SetFaults(tt.faults...)
			report, _ := j.Run(t.Context())
			assert.NoError(t, report.Aborted)
			assert.Equal(t, texts(mails("fetch")), texts(j.store.messages))
			assert.Equal(t, texts(mails("skip", "leave")), texts(j.Left(user)))
			assert.Equal(t, 1, report.Deleted)
			assert.Equal(t, 1, report.Kept.PassedOver)
			require.NotEmpty(t, report.Skipped)
			for _, res := range report.Skipped {
				assert.Equal(t, fetch.ErrNotSelected, res.Err)
			}
			j.SetFaults()
			calls = 0
			j.Run(t.Context())
			assert.LessOrEqual(t, calls, 2, "Select is called again only for the message that it left")
			delete(decisions, header("leave"))
			j.Run(t.Context())
			assert.Equal(t, texts(mails("fetch", "leave")), texts(j.store.messages))
			assert.Equal(t, texts(mails("skip")), texts(j.Left(user)), "a skipped message is never deleted")
			decisions[header("leave")] = fetch.Leave
		})
	}
}

// The time at which a message was first seen is remembered as long as it is left on the server.
func TestFirstSeen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one"), "a")
		var seen []time.Time
		j.Select = func(_ context.Context, item fetch.Item, _ []byte) fetch.Decision {
			seen = append(seen, item.FirstSeen)
			return fetch.Leave
		}
		j.mustRun()
		time.Sleep(time.Hour)
		j.mustRun()
		require.Len(t, seen, 2)
		assert.WithinDuration(t, seen[0], seen[1], 0)
	})
}

func TestNotBefore(t *testing.T) {
	since := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, header string
		want         fetch.Decision
	}{
		{"old by Date", "Date: Sat, 31 Oct 2026 23:00:00 +0000\r\n\r\n", fetch.Skip},
		{"new by Date", "Date: Sun, 1 Nov 2026 01:00:00 +0000\r\n\r\n", fetch.Fetch},
		{"received later than written", "Received: by x; Mon, 2 Nov 2026 10:00:00 +0100\r\n" +
			"Received: by y; Sat, 31 Oct 2026 10:00:00 +0100\r\nDate: Sat, 31 Oct 2026 23:00:00 +0000\r\n\r\n",
			fetch.Fetch},
		{"received long ago, with a Date in the future", "Received: by x; Mon, 2 Feb 2026 10:00:00 +0100\r\n" +
			"Date: Thu, 31 Oct 2030 23:00:00 +0000\r\n\r\n", fetch.Skip},
		{"no date", "Subject: x\r\n\r\n", fetch.Fetch},
		{"no valid date", "Date: yesterday\r\nReceived: soon\r\n\r\n", fetch.Fetch},
		{"no header", "\r\n", fetch.Fetch},
		{"date after a malformed line", "Subject: x\r\nno field\r\nDate: Sat, 31 Oct 2026 23:00:00 +0000\r\n\r\n",
			fetch.Skip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, fetch.NotBefore(since)(t.Context(), fetch.Item{}, []byte(tt.header)))
		})
	}
	assert.Equal(t, fetch.WantHeader, fetch.NotBefore(since)(t.Context(), fetch.Item{}, nil))
}

// Messages that another program has fetched are neither fetched nor deleted.
func TestImport(t *testing.T) {
	j := newJob(t, mails("one", "two", "three"), "a", "b", "c")
	require.NoError(t, fetch.Import(t.Context(), j.Seen, account, "a", "c", "c"))
	require.Error(t, fetch.Import(t.Context(), j.Seen, account, "d", ""))
	j.Delete = true
	report := j.mustRun()
	assert.Equal(t, texts(mails("two")), texts(j.store.messages))
	assert.Equal(t, fetch.KeptCounts{PassedOver: 2}, report.Kept)
	assert.Equal(t, texts(mails("one", "three")), texts(j.Left(user)))
}

// If a sink will never store a message, the message is not retrieved again.
func TestErrPermanent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one", "two"))
		calls := 0
		sink := j.Sink
		j.Sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
			if item.Num == 1 {
				calls++
				return fmt.Errorf("spam: %w", fetch.ErrPermanent)
			}
			return sink.Deliver(ctx, item, r)
		})
		for range 3 {
			report, err := j.Run(t.Context())
			require.Error(t, err)
			require.Len(t, report.Problems, 1)
			assert.ErrorContains(t, report.Problems[0].Err, "spam")
			time.Sleep(48 * time.Hour)
		}
		_, err := j.Run(t.Context())
		require.ErrorIs(t, err, fetch.ErrSetAside)
		assert.Equal(t, 1, calls)
		assert.Len(t, j.store.messages, 1)
	})
}

// A message that was set aside while nothing could be stored is tried again when another one is stored.
func TestSetAsideWhileSinkFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one"))
		j.store.callErr = func(int) error { return errFull }
		for range 6 {
			_, err := j.Run(t.Context())
			require.Error(t, err)
		}
		assert.Equal(t, 5, j.store.calls)
		j.store.callErr = nil
		_, err := j.Run(t.Context())
		require.ErrorIs(t, err, fetch.ErrSetAside)
		j.maildrop.Deliver(user, mails("two")...)
		j.mustRun()
		assert.ElementsMatch(t, texts(mails("one", "two")), texts(j.store.messages))
	})
}

// C-073: a server lists only one message in each session.
func TestOneMessagePerList(t *testing.T) {
	j := newJob(t, mails("one", "two", "three"), "a", "b", "c")
	for i, uid := range []string{"a", "b", "c"} {
		j.maildrop.SetFaults(append(j.faults,
			pop3test.Fault{At: "LIST", Session: i + 1, Reply: fmt.Sprintf("+OK\r\n%d 30\r\n.", i+1)},
			pop3test.Fault{At: "UIDL", Session: i + 1, Reply: fmt.Sprintf("+OK\r\n%d %s\r\n.", i+1, uid)})...)
		j.faults = append(j.faults,
			pop3test.Fault{At: "LIST", Session: i + 1, Reply: fmt.Sprintf("+OK\r\n%d 30\r\n.", i+1)},
			pop3test.Fault{At: "UIDL", Session: i + 1, Reply: fmt.Sprintf("+OK\r\n%d %s\r\n.", i+1, uid)})
	}
	report := j.mustRun()
	assert.Equal(t, 3, report.Delivered)
	assert.Equal(t, 4, report.Sessions)
}

// C-064: no message is delivered while the history cannot be written.
func TestHistoryThatCannotBeWritten(t *testing.T) {
	j := newJob(t, mails("one"))
	j.Seen = fullSeen{j.Seen}
	for range 3 {
		report, err := j.Run(t.Context())
		require.ErrorIs(t, err, errFull)
		require.ErrorIs(t, report.Aborted, errFull)
	}
	assert.Empty(t, j.store.messages)
}

type fullSeen struct{ fetch.Seen }

func (s fullSeen) Open(ctx context.Context, account string) (fetch.History, error) {
	h, err := s.Seen.Open(ctx, account)
	return fullHistory{h}, err
}

type fullHistory struct{ fetch.History }

func (fullHistory) Save(context.Context, ...fetch.Entry) error { return errFull }

// C-072: the server does not close the connection while a slow sink works.
func TestSlowSink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one", "two", "three"))
		sink := j.Sink
		j.Sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
			time.Sleep(time.Minute)
			return errors.Join(sink.Deliver(ctx, item, r))
		})
		report := j.mustRun()
		assert.Equal(t, 3, report.Delivered)
		assert.Len(t, j.commandsSentIn(0, "NOOP"), 18)
	})
}
