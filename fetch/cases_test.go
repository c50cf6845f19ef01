package fetch_test

import (
	"bytes"
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

// A situation is a problem that users of mail fetchers have reported. It lasts for several runs.
type situation struct {
	name        string
	messages    [][]byte
	uids        []string
	caps        []string
	faults      []pop3test.Fault
	configure   func(j *job)          // changes the options before the first run
	refusedText string                // the sink refuses each message that contains this text
	beforeRun   func(run int, j *job) // called before each run but the first
	runs        int

	wantStored    []string // messages that are stored at the end, in any order
	wantLeft      int      // messages on the server at the end
	wantErr       error    // error of the last run
	wantKept      fetch.KeptCounts
	wantRetrieved int // number of messages that the last run retrieved
}

var errRefused = errors.New("the filter does not like it")

func (s situation) run(t *testing.T) {
	j := newJob(t, s.messages, s.uids...)
	j.Caps = s.caps
	j.Delete = true
	sink := j.Sink
	j.Sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
		content, err := io.ReadAll(r)
		if err == nil && s.refusedText != "" && bytes.Contains(content, []byte(s.refusedText)) {
			err = errRefused
		}
		if err != nil {
			return err
		}
		return sink.Deliver(ctx, item, bytes.NewReader(content))
	})
	j.SetFaults(s.faults...)
	if s.configure != nil {
		s.configure(j)
	}
	var report fetch.Report
	var err error
	earlierSessions := 0
	for run := range s.runs {
		if run > 0 && s.beforeRun != nil {
			s.beforeRun(run, j)
		}
		earlierSessions = len(j.Sessions())
		report, err = j.Run(t.Context())
	}
	switch s.wantErr {
	case nil:
		require.NoError(t, err)
	case errOther:
		require.Error(t, err)
	default:
		require.ErrorIs(t, err, s.wantErr)
	}
	assert.ElementsMatch(t, s.wantStored, texts(j.store.messages))
	assert.Len(t, j.Left(user), s.wantLeft)
	assert.Equal(t, s.wantKept, report.Kept)
	retrieved := 0
	for i := earlierSessions; i < len(j.Sessions()); i++ {
		retrieved += len(j.commandsSentIn(i, "RETR"))
	}
	assert.Equal(t, s.wantRetrieved, retrieved, "retrieved in the last run")
}

// numbered returns texts for messages. All have the same size.
func numbered(from, to int) (names []string) {
	for i := from; i <= to; i++ {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	return names
}

func waitOneDay(int, *job) { time.Sleep(24 * time.Hour) }

// useNextMaildrop replaces the maildrop before each run but the first. The new maildrop is the next one in drops.
func useNextMaildrop(drops ...*maildrop) func(run int, j *job) {
	return func(run int, j *job) {
		time.Sleep(24 * time.Hour)
		j.Connect = drops[run-1].connect
	}
}

func TestCases(t *testing.T) {
	twelveTexts := numbered(1, 12)
	delay := []string{"UIDL", "LOGIN-DELAY 60"}
	reusedUIDs := newMaildrop(mails("two"), "1")
	newUIDs := newMaildrop(mails("one", "two", "six"), "x1", "x2", "x3")
	foldedNote := func(text string) [][]byte {
		return [][]byte{fmt.Appendf(nil, "Subject: s\r\nX-Keywords: $a\r\n %s\r\n\r\nbody\r\n", text)}
	}
	otherMaildrop := newMaildrop(foldedNote("second"))
	withBoundary := func(boundary string) *maildrop {
		return newMaildrop([][]byte{fmt.Appendf(nil,
			"Message-ID: <1@x>\r\nContent-Type: multipart/mixed;\r\n boundary=%s\r\n\r\n%[1]s\r\n",
			boundary)}, "u1")
	}
	for _, s := range []situation{
		{name: "C-069 a unique-id is given to another message of the same size", messages: mails("one"),
			uids:      []string{"1"},
			configure: func(j *job) { j.KeepFor = 24 * time.Hour }, beforeRun: useNextMaildrop(reusedUIDs), runs: 2,
			wantStored: texts(mails("one", "two")), wantLeft: 1, wantKept: fetch.KeptCounts{KeepFor: 1}},
		{name: "C-070 messages that differ in the second line of a note", messages: foldedNote("first"),
			caps: []string{"USER"}, faults: []pop3test.Fault{{At: "UIDL", Reply: "-ERR"}}, configure: func(j *job) {
				j.KeepFor, otherMaildrop.Caps = 24*time.Hour, j.Caps
				otherMaildrop.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR"})
			},
			beforeRun: useNextMaildrop(otherMaildrop), runs: 2,
			wantStored: texts(append(foldedNote("first"), foldedNote("second")...)), wantLeft: 1,
			wantKept: fetch.KeptCounts{KeepFor: 1}},
		{name: "C-060 RETR refuses ten messages", messages: mails(twelveTexts...), faults: refusals(10), runs: 2,
			configure: func(j *job) { j.Delete = false }, wantStored: texts(mails("m11", "m12")), wantLeft: 12,
			wantErr:  errOther,
			wantKept: fetch.KeptCounts{DeleteOff: 2}, wantRetrieved: 10},
		{name: "C-060 the sink refuses ten messages",
			messages:    mails(append(repeatedText("bad", 10), "good 1", "good 2")...),
			refusedText: "bad",
			runs:        1, wantStored: texts(mails("good 1", "good 2")), wantLeft: 10, wantErr: errRefused,
			wantRetrieved: 12},
		{name: "C-060 refused messages do not use up MaxMessages", messages: mails("bad 1", "bad 2", "good 1",
			"good 2"),
			refusedText: "bad", configure: func(j *job) { j.MaxMessages = 2 }, runs: 1,
			wantStored: texts(mails("good 1", "good 2")), wantLeft: 2, wantErr: errRefused, wantRetrieved: 4},
		{name: "C-061 a message is set aside", messages: mails("bad"), refusedText: "bad", runs: 8, wantLeft: 1,
			wantErr: fetch.ErrSetAside},
		{name: "C-061 a message is tried again after a day", messages: mails("bad"), refusedText: "bad", runs: 8,
			wantLeft:  1,
			wantErr:   errRefused,
			beforeRun: waitOneDay, wantRetrieved: 1},
		{name: "C-062 due messages are deleted without a second login", messages: mails("bad", "one", "two"),
			refusedText: "bad",
			caps:        delay, runs: 2, wantStored: texts(mails("one", "two")), wantLeft: 1, wantRetrieved: 2,
			wantErr: fetch.ErrNotReached},
		{name: "C-063 the content differs each time", messages: nil, runs: 4, configure: func(j *job) {
			j.KeepFor = 72 * time.Hour
			j.Connect = withBoundary("b0").connect
		}, beforeRun: func(run int, j *job) {
			time.Sleep(24 * time.Hour)
			j.Connect = withBoundary(fmt.Sprint("b",
				run)).connect
		},
			wantStored: texts(append(withBoundary("b0").Left(user), withBoundary("b3").Left(user)...)),
			wantKept:   fetch.KeptCounts{KeepFor: 1}},
		{name: "C-065 QUIT is never answered", messages: mails("one"), runs: 4,
			faults:     []pop3test.Fault{{At: "QUIT", Drop: pop3test.BeforeReply, Commit: pop3test.CommitNone}},
			wantStored: texts(mails("one")), wantLeft: 1, wantErr: fetch.ErrNotDeleted,
			wantKept: fetch.KeptCounts{NotDeleted: 1}},
		{name: "C-066 all sizes are two octets too large", messages: mails("one", "three", "the fourth"), runs: 1,
			faults: []pop3test.Fault{{At: "LIST", Lie: 2}}, wantStored: texts(mails("one", "three", "the fourth")),
			wantRetrieved: 3},
		{name: "C-066 one size is too large", messages: mails("one"), runs: 3, faults: []pop3test.Fault{{At: "LIST",
			Lie: 2}},
			wantStored: texts(mails("one")), wantLeft: 1, wantErr: fetch.ErrSizeShort,
			wantKept: fetch.KeptCounts{Short: 1}},
		{name: "C-067 deletions are confirmed, and nothing is deleted", messages: mails("one"), runs: 3,
			faults: []pop3test.Fault{{At: "QUIT", Commit: pop3test.CommitNone}}, wantStored: texts(mails("one")),
			wantLeft: 1,
			wantErr:  fetch.ErrNotDeleted, wantKept: fetch.KeptCounts{NotDeleted: 1}},
		{name: "C-068 all unique-ids are new", messages: mails("one", "two"), uids: []string{"1", "2"}, runs: 2,
			configure: func(j *job) { j.Delete = false }, beforeRun: useNextMaildrop(newUIDs),
			wantStored: texts(mails("one", "two",
				"six")),
			wantLeft: 2, wantKept: fetch.KeptCounts{DeleteOff: 3}},
		{name: "C-038 an empty maildrop that is not listed", runs: 2,
			faults: []pop3test.Fault{{At: "LIST", Reply: "-ERR no messages"}, {At: "UIDL", Reply: "-ERR no messages"}}},
		{name: "C-039 one malformed line", messages: mails("one", "two", "three"), uids: []string{"a", "b", "c"},
			runs:       1,
			faults:     []pop3test.Fault{{At: "UIDL", Reply: "+OK\r\n1 a\r\n2 \r\n3 c\r\n."}},
			configure:  func(j *job) { j.Delete = false },
			wantStored: texts(mails("one", "three")), wantLeft: 3, wantErr: errOther,
			wantKept:      fetch.KeptCounts{DeleteOff: 2},
			wantRetrieved: 2},
		{name: "C-040 LIST with a number is broken", messages: mails("one", "two"), runs: 1,
			faults: []pop3test.Fault{{At: "LIST 1", Reply: "-ERR"}, {At: "LIST 2", Reply: "-ERR"}, {At: "STAT",
				Reply: "-ERR"}},
			wantStored: texts(mails("one", "two")), wantRetrieved: 2},
		{name: "C-041 EXPIRENEVER", messages: mails("bad", "one"), refusedText: "bad", runs: 1,
			caps: []string{"UIDL", "EXPIRENEVER"}, wantStored: texts(mails("one")), wantLeft: 1, wantErr: errRefused,
			wantRetrieved: 2},
		{name: "C-110 a message over MaxOctets comes first in the next run", messages: mails(numbered(1, 2)...),
			faults: refusals(1), runs: 3, configure: func(j *job) { j.Delete, j.MaxOctets = false, 40 },
			beforeRun: func(run int, j *job) {
				j.SetFaults()
				j.maildrop.Deliver(user, mails(numbered(run+2, run+2)...)...)
			},
			wantStored: texts(mails("m01", "m02", "m03")), wantLeft: 4, wantKept: fetch.KeptCounts{DeleteOff: 3},
			wantRetrieved: 1},
		{name: "C-110 an imported message and another with its unique-id are not retrieved", runs: 2,
			messages: mails("one", "two"), uids: []string{"u", "u"}, wantErr: fetch.ErrNotDeleted,
			configure: func(j *job) { j.KeepFor = time.Hour },
			beforeRun: func(_ int, j *job) {
				time.Sleep(24 * time.Hour)
				second := fetch.Entry{UID: "u", Copy: 1, Skipped: time.Now()} // the form in which Import saves entries
				change(j.t, j.Seen, account, func(h fetch.History) error { return h.Save(j.t.Context(), second) })
			},
			wantStored: texts(mails("one", "two")), wantLeft: 2,
			wantKept: fetch.KeptCounts{PassedOver: 1, NotDeleted: 1}},
		{name: "C-110 the only message has no unique-id yet", messages: mails("one"), runs: 1, wantLeft: 1,
			faults: []pop3test.Fault{{At: "UIDL", Reply: "+OK\r\n."}}},
		{name: "C-110 sizes are too large after the earlier messages are gone",
			messages: mails("one", "three", "the fourth"), faults: []pop3test.Fault{{At: "LIST", Lie: 2}}, runs: 3,
			configure: func(j *job) {
				j.Connect, j.Delete = newMaildrop(mails("before")).connect, false
			},
			beforeRun: func(run int, j *job) {
				if j.Connect = newMaildrop(nil).connect; run == 2 {
					j.Connect, j.Delete = j.connect, true
				}
			},
			wantStored: texts(mails("before", "one", "three", "the fourth")), wantRetrieved: 3},
		{name: "C-110 listed sizes of messages with one unique-id are too small", messages: mails("one", "three"),
			uids: []string{"u", "u"}, faults: []pop3test.Fault{{At: "LIST", Lie: -3}}, runs: 2,
			configure: func(j *job) { j.Delete = false }, wantStored: texts(mails("one", "three")), wantLeft: 2,
			wantKept: fetch.KeptCounts{DeleteOff: 2}},
		{name: "C-110 listed sizes of messages with one unique-id are right later", messages: mails("one", "three"),
			uids: []string{"u", "u"}, faults: []pop3test.Fault{{At: "LIST", Lie: -3}}, runs: 2,
			configure: func(j *job) { j.Delete = false },
			beforeRun: func(_ int, j *job) { j.SetFaults() }, wantStored: texts(mails("one", "three")), wantLeft: 2,
			wantKept: fetch.KeptCounts{DeleteOff: 2}},
		{name: "C-110 LIST has no size for a stored message", messages: mails("one", "two"), uids: []string{"a", "b"},
			runs: 2, configure: func(j *job) { j.Delete = false },
			beforeRun: func(_ int, j *job) {
				j.SetFaults(pop3test.Fault{At: "LIST",
					Reply: "+OK\r\n1 x\r\n2 30\r\n."})
			},
			wantStored: texts(mails("one", "two")), wantLeft: 2, wantErr: errOther,
			wantKept: fetch.KeptCounts{DeleteOff: 2}},
		{name: "C-110 LIST has size 0 for a stored message", messages: mails("one", "two"), uids: []string{"a", "b"},
			runs: 2, configure: func(j *job) { j.Delete = false },
			beforeRun: func(_ int, j *job) {
				j.SetFaults(pop3test.Fault{At: "LIST",
					Reply: "+OK\r\n1 0\r\n2 30\r\n."})
			},
			wantStored: texts(mails("one", "two")), wantLeft: 2, wantKept: fetch.KeptCounts{DeleteOff: 2},
			wantRetrieved: 1},
		{name: "C-061 a message is set aside although some lists were empty", messages: mails("bad"),
			refusedText: "bad",
			runs:        11, beforeRun: func(run int, j *job) {
				j.SetFaults()
				if run%2 == 1 {
					j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n."},
						pop3test.Fault{At: "UIDL", Reply: "+OK\r\n."})
				}
			},
			wantLeft: 1, wantErr: fetch.ErrSetAside},
		{name: "C-067 a wrong confirmation, and then a right one", messages: mails("one"), runs: 2,
			faults:     []pop3test.Fault{{At: "QUIT", Times: 1, Commit: pop3test.CommitNone}},
			beforeRun:  func(_ int, j *job) { j.maildrop.Deliver(user, mails("two")...) },
			wantStored: texts(mails("one", "two")), wantRetrieved: 2},
		{name: "C-015 UIDL works and is not announced", messages: mails("one", "two"), caps: []string{"USER"}, runs: 2,
			configure: func(j *job) { j.Delete = false }, wantStored: texts(mails("one", "two")), wantLeft: 2,
			wantKept: fetch.KeptCounts{DeleteOff: 2}},
	} {
		t.Run(s.name, func(t *testing.T) { bubble(t, s.run) })
	}
}

// errOther stands for any error that has no variable in package fetch.
var errOther = errors.New("any")

// refusals returns faults that refuse RETR of the first n messages.
func refusals(n int) (faults []pop3test.Fault) {
	for num := 1; num <= n; num++ {
		faults = append(faults, pop3test.Fault{At: fmt.Sprint("RETR ", num), Reply: "-ERR no"})
	}
	return faults
}

func repeatedText(text string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(text, " ", i))
	}
	return all
}
