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
	name     string
	messages [][]byte
	uids     []string
	caps     []string
	faults   []pop3test.Fault
	change   func(j *job)          // changes the options before the first run
	refuses  string                // the sink refuses each message that contains this text
	between  func(run int, j *job) // called before each run but the first
	runs     int

	stored  []string // messages that are stored at the end, in any order
	left    int      // messages on the server at the end
	err     error    // error of the last run
	kept    fetch.KeptCounts
	retries int // number of messages that the last run retrieved
}

var errRefused = errors.New("the filter does not like it")

func (s situation) run(t *testing.T) {
	j := newJob(t, s.messages, s.uids...)
	j.Caps = s.caps
	j.Delete = true
	sink := j.Sink
	j.Sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
		content, err := io.ReadAll(r)
		if err == nil && s.refuses != "" && bytes.Contains(content, []byte(s.refuses)) {
			err = errRefused
		}
		if err != nil {
			return err
		}
		return sink.Deliver(ctx, item, bytes.NewReader(content))
	})
	j.SetFaults(s.faults...)
	if s.change != nil {
		s.change(j)
	}
	var report fetch.Report
	var err error
	sessions := 0
	for run := range s.runs {
		if run > 0 && s.between != nil {
			s.between(run, j)
		}
		sessions = len(j.Sessions())
		report, err = j.Run(t.Context())
	}
	switch s.err {
	case nil:
		require.NoError(t, err)
	case errAny:
		require.Error(t, err)
	default:
		require.ErrorIs(t, err, s.err)
	}
	assert.ElementsMatch(t, s.stored, texts(j.store.got))
	assert.Len(t, j.Left(user), s.left)
	assert.Equal(t, s.kept, report.Kept)
	retries := 0
	for i := sessions; i < len(j.Sessions()); i++ {
		retries += len(j.sentIn(i, "RETR"))
	}
	assert.Equal(t, s.retries, retries, "retrieved in the last run")
}

// numbered returns texts for messages. All have the same size.
func numbered(from, to int) (names []string) {
	for i := from; i <= to; i++ {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	return names
}

func day(int, *job) { time.Sleep(24 * time.Hour) }

// inTurn replaces the maildrop before each run but the first. The new maildrop is the next one in drops.
func inTurn(drops ...*maildrop) func(run int, j *job) {
	return func(run int, j *job) {
		time.Sleep(24 * time.Hour)
		j.Connect = drops[run-1].connect
	}
}

func TestCases(t *testing.T) {
	twelve := numbered(1, 12)
	delay := []string{"UIDL", "LOGIN-DELAY 60"}
	reused := newMaildrop(mails("two"), "1")
	migrated := newMaildrop(mails("one", "two", "six"), "x1", "x2", "x3")
	folded := func(text string) [][]byte {
		return [][]byte{fmt.Appendf(nil, "Subject: s\r\nX-Keywords: $a\r\n %s\r\n\r\nbody\r\n", text)}
	}
	other := newMaildrop(folded("second"))
	varied := func(boundary string) *maildrop {
		return newMaildrop([][]byte{fmt.Appendf(nil,
			"Message-ID: <1@x>\r\nContent-Type: multipart/mixed;\r\n boundary=%s\r\n\r\n%[1]s\r\n",
			boundary)}, "u1")
	}
	for _, s := range []situation{
		{name: "C-069 a unique-id is given to another message of the same size", messages: mails("one"),
			uids:   []string{"1"},
			change: func(j *job) { j.KeepFor = 24 * time.Hour }, between: inTurn(reused), runs: 2,
			stored: texts(mails("one", "two")), left: 1, kept: fetch.KeptCounts{KeepFor: 1}},
		{name: "C-070 messages that differ in the second line of a note", messages: folded("first"),
			caps: []string{"USER"}, faults: []pop3test.Fault{{At: "UIDL", Reply: "-ERR"}}, change: func(j *job) {
				j.KeepFor, other.Caps = 24*time.Hour, j.Caps
				other.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR"})
			},
			between: inTurn(other), runs: 2, stored: texts(append(folded("first"), folded("second")...)), left: 1,
			kept: fetch.KeptCounts{KeepFor: 1}},
		{name: "C-060 ten that RETR refuses", messages: mails(twelve...), faults: refusals(10), runs: 2,
			change: func(j *job) { j.Delete = false }, stored: texts(mails("m11", "m12")), left: 12, err: errAny,
			kept: fetch.KeptCounts{DeleteOff: 2}, retries: 10},
		{name: "C-060 the sink refuses ten", messages: mails(append(slicesOf("bad", 10), "good 1", "good 2")...),
			refuses: "bad",
			runs:    1, stored: texts(mails("good 1", "good 2")), left: 10, err: errRefused, retries: 12},
		{name: "C-060 refused messages do not use up MaxMessages", messages: mails("bad 1", "bad 2", "good 1",
			"good 2"),
			refuses: "bad", change: func(j *job) { j.MaxMessages = 2 }, runs: 1,
			stored: texts(mails("good 1", "good 2")), left: 2, err: errRefused, retries: 4},
		{name: "C-061 set aside", messages: mails("bad"), refuses: "bad", runs: 8, left: 1, err: fetch.ErrSetAside},
		{name: "C-061 tried again after a day", messages: mails("bad"), refuses: "bad", runs: 8, left: 1,
			err:     errRefused,
			between: day, retries: 1},
		{name: "C-062 what is due does not wait for a second login", messages: mails("bad", "one", "two"),
			refuses: "bad",
			caps:    delay, runs: 2, stored: texts(mails("one", "two")), left: 1, retries: 2,
			err: fetch.ErrNotReached},
		{name: "C-063 the content differs at each look", messages: nil, runs: 4, change: func(j *job) {
			j.KeepFor = 72 * time.Hour
			j.Connect = varied("b0").connect
		}, between: func(run int, j *job) {
			time.Sleep(24 * time.Hour)
			j.Connect = varied(fmt.Sprint("b",
				run)).connect
		},
			stored: texts(append(varied("b0").Left(user), varied("b3").Left(user)...)),
			kept:   fetch.KeptCounts{KeepFor: 1}},
		{name: "C-065 QUIT is never answered", messages: mails("one"), runs: 4,
			faults: []pop3test.Fault{{At: "QUIT", Drop: pop3test.BeforeReply, Commit: pop3test.CommitNone}},
			stored: texts(mails("one")), left: 1, err: fetch.ErrNotDeleted, kept: fetch.KeptCounts{NotDeleted: 1}},
		{name: "C-066 all sizes two octets too large", messages: mails("one", "three", "the fourth"), runs: 1,
			faults: []pop3test.Fault{{At: "LIST", Lie: 2}}, stored: texts(mails("one", "three", "the fourth")),
			retries: 3},
		{name: "C-066 one size too large", messages: mails("one"), runs: 3, faults: []pop3test.Fault{{At: "LIST",
			Lie: 2}},
			stored: texts(mails("one")), left: 1, err: fetch.ErrSizeShort, kept: fetch.KeptCounts{Short: 1}},
		{name: "C-067 deletions are confirmed, and nothing is deleted", messages: mails("one"), runs: 3,
			faults: []pop3test.Fault{{At: "QUIT", Commit: pop3test.CommitNone}}, stored: texts(mails("one")), left: 1,
			err: fetch.ErrNotDeleted, kept: fetch.KeptCounts{NotDeleted: 1}},
		{name: "C-068 all unique-ids are new", messages: mails("one", "two"), uids: []string{"1", "2"}, runs: 2,
			change: func(j *job) { j.Delete = false }, between: inTurn(migrated), stored: texts(mails("one", "two",
				"six")),
			left: 2, kept: fetch.KeptCounts{DeleteOff: 3}},
		{name: "C-038 an empty maildrop that is not listed", runs: 2,
			faults: []pop3test.Fault{{At: "LIST", Reply: "-ERR no messages"}, {At: "UIDL", Reply: "-ERR no messages"}}},
		{name: "C-039 one odd line", messages: mails("one", "two", "three"), uids: []string{"a", "b", "c"}, runs: 1,
			faults: []pop3test.Fault{{At: "UIDL", Reply: "+OK\r\n1 a\r\n2 \r\n3 c\r\n."}},
			change: func(j *job) { j.Delete = false },
			stored: texts(mails("one", "three")), left: 3, err: errAny, kept: fetch.KeptCounts{DeleteOff: 2},
			retries: 2},
		{name: "C-040 LIST with a number is broken", messages: mails("one", "two"), runs: 1,
			faults: []pop3test.Fault{{At: "LIST 1", Reply: "-ERR"}, {At: "LIST 2", Reply: "-ERR"}, {At: "STAT",
				Reply: "-ERR"}},
			stored: texts(mails("one", "two")), retries: 2},
		{name: "C-041 EXPIRENEVER", messages: mails("bad", "one"), refuses: "bad", runs: 1,
			caps: []string{"UIDL", "EXPIRENEVER"}, stored: texts(mails("one")), left: 1, err: errRefused, retries: 2},
		{name: "C-110 what MaxOctets left over comes first in the next run", messages: mails(numbered(1, 2)...),
			faults: refusals(1), runs: 3, change: func(j *job) { j.Delete, j.MaxOctets = false, 40 },
			between: func(run int, j *job) {
				j.SetFaults()
				j.maildrop.Deliver(user, mails(numbered(run+2, run+2)...)...)
			},
			stored: texts(mails("m01", "m02", "m03")), left: 4, kept: fetch.KeptCounts{DeleteOff: 3}, retries: 1},
		{name: "C-110 what was passed over is not looked at, nor what has its unique-id", runs: 2,
			messages: mails("one", "two"), uids: []string{"u", "u"}, err: fetch.ErrNotDeleted,
			change: func(j *job) { j.KeepFor = time.Hour },
			between: func(_ int, j *job) {
				time.Sleep(24 * time.Hour)
				second := fetch.Entry{UID: "u", Copy: 1, Skipped: time.Now()} // the form in which Import saves entries
				change(j.t, j.Seen, account, func(h fetch.History) error { return h.Save(j.t.Context(), second) })
			},
			stored: texts(mails("one", "two")), left: 2,
			kept: fetch.KeptCounts{PassedOver: 1, NotDeleted: 1}},
		{name: "C-110 the only message has no unique-id yet", messages: mails("one"), runs: 1, left: 1,
			faults: []pop3test.Fault{{At: "UIDL", Reply: "+OK\r\n."}}},
		{name: "C-110 sizes are too large since those of before have gone",
			messages: mails("one", "three", "the fourth"), faults: []pop3test.Fault{{At: "LIST", Lie: 2}}, runs: 3,
			change: func(j *job) {
				j.Connect, j.Delete = newMaildrop(mails("before")).connect, false
			},
			between: func(run int, j *job) {
				if j.Connect = newMaildrop(nil).connect; run == 2 {
					j.Connect, j.Delete = j.connect, true
				}
			},
			stored: texts(mails("before", "one", "three", "the fourth")), retries: 3},
		{name: "C-110 sizes of messages with one unique-id, all too small", messages: mails("one", "three"),
			uids: []string{"u", "u"}, faults: []pop3test.Fault{{At: "LIST", Lie: -3}}, runs: 2,
			change: func(j *job) { j.Delete = false }, stored: texts(mails("one", "three")), left: 2,
			kept: fetch.KeptCounts{DeleteOff: 2}},
		{name: "C-110 sizes of messages with one unique-id, which are right later", messages: mails("one", "three"),
			uids: []string{"u", "u"}, faults: []pop3test.Fault{{At: "LIST", Lie: -3}}, runs: 2,
			change:  func(j *job) { j.Delete = false },
			between: func(_ int, j *job) { j.SetFaults() }, stored: texts(mails("one", "three")), left: 2,
			kept: fetch.KeptCounts{DeleteOff: 2}},
		{name: "C-110 no size of a message that was stored", messages: mails("one", "two"), uids: []string{"a", "b"},
			runs: 2, change: func(j *job) { j.Delete = false },
			between: func(_ int, j *job) { j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n1 x\r\n2 30\r\n."}) },
			stored:  texts(mails("one", "two")), left: 2, err: errAny, kept: fetch.KeptCounts{DeleteOff: 2}},
		{name: "C-110 size 0 of a message that was stored", messages: mails("one", "two"), uids: []string{"a", "b"},
			runs: 2, change: func(j *job) { j.Delete = false },
			between: func(_ int, j *job) { j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n1 0\r\n2 30\r\n."}) },
			stored:  texts(mails("one", "two")), left: 2, kept: fetch.KeptCounts{DeleteOff: 2}, retries: 1},
		{name: "C-061 set aside, although the list was empty in between", messages: mails("bad"), refuses: "bad",
			runs: 11, between: func(run int, j *job) {
				j.SetFaults()
				if run%2 == 1 {
					j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n."},
						pop3test.Fault{At: "UIDL", Reply: "+OK\r\n."})
				}
			},
			left: 1, err: fetch.ErrSetAside},
		{name: "C-067 a wrong confirmation, and then a right one", messages: mails("one"), runs: 2,
			faults:  []pop3test.Fault{{At: "QUIT", Times: 1, Commit: pop3test.CommitNone}},
			between: func(_ int, j *job) { j.maildrop.Deliver(user, mails("two")...) },
			stored:  texts(mails("one", "two")), retries: 2},
		{name: "C-015 UIDL works and is not announced", messages: mails("one", "two"), caps: []string{"USER"}, runs: 2,
			change: func(j *job) { j.Delete = false }, stored: texts(mails("one", "two")), left: 2,
			kept: fetch.KeptCounts{DeleteOff: 2}},
	} {
		t.Run(s.name, func(t *testing.T) { bubble(t, s.run) })
	}
}

// errAny stands for any error that is not one of package fetch.
var errAny = errors.New("any")

// refusals returns faults that refuse RETR of the first n messages.
func refusals(n int) (faults []pop3test.Fault) {
	for num := 1; num <= n; num++ {
		faults = append(faults, pop3test.Fault{At: fmt.Sprint("RETR ", num), Reply: "-ERR no"})
	}
	return faults
}

func slicesOf(text string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(text, " ", i))
	}
	return all
}
