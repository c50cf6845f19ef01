package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A job is a maildrop with a Fetcher for it.
type job struct {
	*maildrop
	fetch.Fetcher
	t      *testing.T
	store  *store
	faults []pop3test.Fault
}

func newJob(t *testing.T, messages [][]byte, uids ...string) *job {
	j := &job{maildrop: newMaildrop(messages, uids...), t: t, store: new(store)}
	j.Fetcher = fetch.Fetcher{Connect: j.connect, Sink: j.store, Seen: new(fetch.MemorySeen), Account: account}
	return j
}

// mustRun carries out a run that must succeed.
func (j *job) mustRun() fetch.Report {
	j.t.Helper()
	report, err := j.Run(j.t.Context())
	require.NoError(j.t, err)
	return report
}

// commandsSent returns the commands of the latest session that have one of these verbs.
func (j *job) commandsSent(verbs ...string) []string {
	return j.commandsSentIn(len(j.Sessions())-1, verbs...)
}

// commandsSentIn is like commandsSent, for the session with this index.
func (j *job) commandsSentIn(session int, verbs ...string) []string {
	return slices.DeleteFunc(j.Sessions()[session], func(line string) bool {
		verb, _, _ := strings.Cut(line, " ")
		return !slices.Contains(verbs, verb)
	})
}

// bubble runs a test in a bubble of synctest.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestRun(t *testing.T) {
	all := mails("one", "two", "three")
	j := newJob(t, all)
	report := j.mustRun()
	kept := fetch.KeptCounts{DeleteOff: 3}
	assert.Equal(t, fetch.Report{Listed: 3, Delivered: 3, Octets: 94, Sessions: 2, Kept: kept}, report)
	assert.Equal(t, texts(all), texts(j.store.messages))
	assert.Equal(t, texts(all), texts(j.Left(user)))
	assert.Equal(t, fetch.Report{Listed: 3, Known: 3, Sessions: 1, Kept: kept}, j.mustRun())

	j.maildrop.Deliver(user, mails("four")...)
	j.Delete = true
	report = j.mustRun()
	assert.Equal(t, fetch.Report{Listed: 4, Known: 3, Delivered: 1, Octets: 126, Deleted: 4, Sessions: 2}, report)
	assert.Equal(t, []string{"RETR 4", "RETR 1", "RETR 2", "RETR 3", "DELE 1", "DELE 2", "DELE 3", "DELE 4", "QUIT"},
		j.commandsSentIn(3, "RETR", "DELE", "QUIT"), "stored messages are compared before they are deleted")
	assert.Empty(t, j.Left(user))
	assert.Len(t, j.store.messages, 4)
	for _, item := range j.store.items {
		assert.Equal(t, account, item.Account)
		assert.NotEmpty(t, item.UID)
	}
	assert.Equal(t, fetch.Report{Sessions: 1}, j.mustRun())
}

func TestMissingFields(t *testing.T) {
	connect := func(context.Context) (*pop3.Client, error) { return nil, errors.New("not to be called") }
	nothing := func(context.Context) (*pop3.Client, error) { return nil, nil }
	sink := new(store)
	seen := new(fetch.MemorySeen)
	tests := []struct {
		name string
		fetch.Fetcher
		want string
	}{
		{"nothing", fetch.Fetcher{}, "Connect is not set"},
		{"no sink", fetch.Fetcher{Connect: connect}, "Sink is not set"},
		{"no account", fetch.Fetcher{Connect: connect, Sink: sink, Seen: seen}, "Account is not set"},
		{"no record", fetch.Fetcher{Connect: connect, Sink: sink, KeepFor: time.Hour}, "KeepFor needs Seen"},
		{"no connection", fetch.Fetcher{Connect: connect, Sink: sink}, "not to be called"},
		{"no client", fetch.Fetcher{Connect: nothing, Sink: sink}, "Connect returned no client and no error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			report, err := tt.Run(t.Context())
			require.ErrorContains(t, err, tt.want)
			assert.EqualError(t, report.Aborted, err.Error())
			report.Aborted = nil
			assert.Equal(t, fetch.Report{Err: err}, report)
			for res, err := range tt.Results(t.Context(), nil) {
				require.ErrorContains(t, err, tt.want)
				assert.Zero(t, res)
			}
		})
	}
}

func TestKeepFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one", "two"))
		j.Delete, j.KeepFor, j.CommitEvery = true, 14*24*time.Hour, 1
		assert.Equal(t, 2, j.mustRun().Delivered)
		time.Sleep(13 * 24 * time.Hour)
		j.maildrop.Deliver(user, mails("three")...)
		report := j.mustRun()
		assert.Equal(t, 1, report.Delivered)
		assert.Zero(t, report.Deleted)
		time.Sleep(24 * time.Hour)
		report = j.mustRun()
		assert.Equal(t, 2, report.Deleted)
		assert.Equal(t, fetch.KeptCounts{KeepFor: 1}, report.Kept)
		assert.Equal(t, []string{"RETR 1", "RETR 2"}, j.commandsSent("RETR"), "compared before they are deleted")
		assert.Equal(t, texts(mails("three")), texts(j.Left(user)))
		time.Sleep(13 * 24 * time.Hour)
		assert.Equal(t, 1, j.mustRun().Deleted)
	})
}

// A server lists nothing for a while. When it lists its messages again, they must not count as new.
func TestMaildropThatSeemsEmpty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one", "two"))
		assert.Equal(t, 2, j.mustRun().Delivered)
		j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n."}, pop3test.Fault{At: "UIDL", Reply: "+OK\r\n."})
		assert.Zero(t, j.mustRun().Listed)
		j.SetFaults()
		time.Sleep(29 * 24 * time.Hour)
		report := j.mustRun()
		assert.Zero(t, report.Delivered)
		assert.Equal(t, 2, report.Known)
		assert.Len(t, j.commandsSent("RETR"), 2, "compared again")
		assert.Equal(t, 2, j.mustRun().Known)
		assert.Empty(t, j.commandsSent("RETR"))
	})
}

func TestEntriesOfDeletedMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one", "two", "three"), "a", "b", "c")
		j.mustRun()
		c, err := j.connect(t.Context()) // another client deletes the second message
		require.NoError(t, err)
		require.NoError(t, c.Dele(t.Context(), 2))
		require.NoError(t, c.Quit(t.Context()))
		j.mustRun()
		uids := func() (uids []string) {
			for _, e := range load(t, j.Seen, account) {
				uids = append(uids, e.UID)
			}
			return uids
		}
		assert.Equal(t, []string{"a", "b", "c"}, uids())
		time.Sleep(31 * 24 * time.Hour)
		j.mustRun()
		assert.Equal(t, []string{"a", "c"}, uids())
		j.Delete = true
		j.mustRun()
		j.mustRun()
		assert.Empty(t, uids(), "deleted and no longer listed")
	})
}

// A server replies +OK to QUIT and deletes nothing. Deletion is tried again, but at most once a day.
func TestServerThatNeverDeletes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJob(t, mails("one", "two"))
		j.Delete = true
		j.SetFaults(pop3test.Fault{At: "QUIT", Commit: pop3test.CommitNone})
		for round := range 3 {
			report, err := j.Run(t.Context())
			require.ErrorIs(t, err, fetch.ErrNotDeleted)
			require.NoError(t, report.Aborted)
			assert.Equal(t, 2, report.Deleted, "the server confirmed it")
			assert.Equal(t, fetch.KeptCounts{NotDeleted: 2}, report.Kept)
			if round == 0 {
				continue
			}
			assert.Len(t, j.commandsSent("RETR"), 2)
			for range 3 {
				time.Sleep(7 * time.Hour)
				report, err := j.Run(t.Context())
				require.ErrorIs(t, err, fetch.ErrNotDeleted)
				require.NoError(t, report.Aborted)
				assert.Zero(t, report.Deleted)
				assert.Equal(t, fetch.KeptCounts{NotDeleted: 2}, report.Kept)
				assert.Empty(t, j.commandsSent("RETR", "DELE"))
			}
			time.Sleep(4 * time.Hour)
		}
		j.SetFaults()
		report, err := j.Run(t.Context())
		require.ErrorIs(t, err, fetch.ErrNotDeleted, "the messages were still listed")
		assert.Equal(t, 2, report.Deleted)
		assert.Empty(t, j.Left(user))
		assert.Len(t, j.store.messages, 2, "stored once")
		j.mustRun()
	})
}

// When a message is gone, the server gives its unique-id to another message of the same size.
func TestUniqueIDUsedAgain(t *testing.T) {
	j := newJob(t, mails("one"), "1")
	j.Delete = true
	j.mustRun()
	again := newMaildrop(mails("two"), "1")
	j.Connect = again.connect
	report := j.mustRun()
	assert.Equal(t, 1, report.Delivered)
	assert.Equal(t, texts(mails("one", "two")), texts(j.store.messages))
	assert.Empty(t, again.Left(user))
}

// A server writes notes into the header when a message was read, as Mailutils does.
func TestServerThatAddsNotes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		before := mails("one", "two")
		j := newJob(t, before, "a", "b")
		j.mustRun()
		after := make([][]byte, len(before))
		for i, m := range before {
			after[i] = bytes.Replace(m, []byte("\r\n\r\n"), []byte("\r\nX-UID: 1\r\nStatus: RO\r\n\r\n"), 1)
		}
		again := newMaildrop(after, "a", "b")
		j.Connect = again.connect
		for _, retrieved := range []int64{104, 0} {
			report := j.mustRun()
			assert.Zero(t, report.Delivered)
			assert.Equal(t, 2, report.Known)
			assert.Equal(t, retrieved, report.Octets)
		}
		j.Delete = true
		assert.Equal(t, 2, j.mustRun().Deleted)
		assert.Empty(t, again.Left(user))
	})
}

// Q-46 A server claims sizes that are too large: a message is delivered once, compared once more, and kept.
func TestListedSizesTooLarge(t *testing.T) {
	j := newJob(t, mails("one", "two"))
	j.Delete = true
	j.SetFaults(pop3test.Fault{At: "LIST", Lie: 24})
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrSizeShort)
	assert.Equal(t, 2, report.Delivered)
	require.Len(t, report.Problems, 2)
	assert.Equal(t, fetch.Kept, report.Problems[0].Outcome)
	require.ErrorContains(t, report.Problems[0].Err, "30 of 54 octets")

	for _, retrieved := range []int{2, 0, 0} {
		report, err = j.Run(t.Context())
		require.ErrorIs(t, err, fetch.ErrSizeShort, "each run reports it")
		assert.Equal(t, 2, report.Known)
		assert.Equal(t, fetch.KeptCounts{Short: 2}, report.Kept)
		assert.Len(t, j.commandsSent("RETR"), retrieved)
	}
	assert.Len(t, j.store.messages, 2)
	assert.Len(t, j.Left(user), 2)

	j.AcceptShort = true
	j.maildrop.Deliver(user, mails("three")...)
	report = j.mustRun()
	assert.Equal(t, 1, report.Delivered)
	assert.Equal(t, 3, report.Deleted)
}

// A message that was short and is complete later is stored once more. After that, it is not retrieved again.
func TestShortMessageCompleteLater(t *testing.T) {
	j := newJob(t, mails("one", "two"))
	j.SetFaults(pop3test.Fault{At: "RETR 1", Short: true, Octets: 9})
	_, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrSizeShort)
	j.SetFaults()
	report := j.mustRun()
	assert.Equal(t, 1, report.Delivered)
	assert.Equal(t, texts(mails("one")), texts(j.store.messages[2:]))
	assert.Len(t, load(t, j.Seen, account), 3,
		"the entry of the cut message is kept, because the message may get another unique-id")
	assert.Zero(t, j.mustRun().Octets)
}

// H-211 and H-212: sizes that are too small do no harm.
func TestListedSizesTooSmall(t *testing.T) {
	j := newJob(t, mails("one", "two"))
	j.SetFaults(pop3test.Fault{At: "LIST", Lie: -3})
	assert.Equal(t, 2, j.mustRun().Delivered)
	assert.Zero(t, j.mustRun().Octets)
	j.Delete = true
	assert.Equal(t, 2, j.mustRun().Deleted)
}

func TestLimits(t *testing.T) {
	small, middle, large := mails("s")[0], mails("middle")[0], mails(strings.Repeat("large ", 100))[0]
	all := [][]byte{small, large, middle, small, middle}
	s, l, m := int64(len(small)), int64(len(large)), int64(len(middle))
	tests := []struct {
		name    string
		options fetch.Fetcher
		got     []int // unique-ids of the stored messages, in this order
		skipped map[int]error
	}{
		{"none", fetch.Fetcher{}, []int{1, 2, 3, 4, 5}, nil},
		{"newest first", fetch.Fetcher{NewestFirst: true}, []int{5, 4, 3, 2, 1}, nil},
		{"MaxSize", fetch.Fetcher{MaxSize: m}, []int{1, 3, 4, 5}, map[int]error{2: fetch.ErrTooLarge}},
		{"MaxMessages", fetch.Fetcher{MaxMessages: 2}, []int{1, 2},
			map[int]error{3: fetch.ErrLimit, 4: fetch.ErrLimit, 5: fetch.ErrLimit}},
		{"MaxMessages, newest first", fetch.Fetcher{MaxMessages: 2, NewestFirst: true}, []int{5, 4},
			map[int]error{3: fetch.ErrLimit, 2: fetch.ErrLimit, 1: fetch.ErrLimit}},
		{"MaxOctets", fetch.Fetcher{MaxOctets: s + l + m}, []int{1, 2, 3},
			map[int]error{4: fetch.ErrLimit, 5: fetch.ErrLimit}},
		{"MaxOctets, in the order of messages", fetch.Fetcher{MaxOctets: l}, []int{1},
			map[int]error{2: fetch.ErrLimit, 3: fetch.ErrLimit, 4: fetch.ErrLimit, 5: fetch.ErrLimit}},
		{"MaxOctets smaller than the first", fetch.Fetcher{MaxOctets: 1, NewestFirst: true}, []int{5},
			map[int]error{4: fetch.ErrLimit, 3: fetch.ErrLimit, 2: fetch.ErrLimit, 1: fetch.ErrLimit}},
		{"all limits", fetch.Fetcher{MaxSize: m, MaxMessages: 2, MaxOctets: 10000}, []int{1, 3},
			map[int]error{2: fetch.ErrTooLarge, 4: fetch.ErrLimit, 5: fetch.ErrLimit}},
	}
	for _, tt := range tests {
		for _, commitEvery := range []int{0, 1, 2} {
			t.Run(fmt.Sprint(tt.name, ", commit every ", commitEvery), func(t *testing.T) {
				j := newJob(t, all, "1", "2", "3", "4", "5")
				o := tt.options
				o.Connect, o.Sink, o.Seen, o.Account = j.connect, j.store, j.Seen, account
				o.Delete, o.CommitEvery = commitEvery > 0, commitEvery
				report, err := o.Run(t.Context())
				require.NoError(t, err)
				var got []int
				for _, item := range j.store.items {
					got = append(got, int(item.UID[0]-'0'))
				}
				assert.Equal(t, tt.got, got)
				assert.Len(t, report.Skipped, len(tt.skipped))
				for _, res := range report.Skipped {
					assert.Equal(t, fetch.Skipped, res.Outcome)
					assert.Equal(t, tt.skipped[int(res.UID[0]-'0')], res.Err)
				}
			})
		}
	}
}

func TestMessagesOverLimitInNextRun(t *testing.T) {
	j := newJob(t, mails("one", "two", "three"))
	j.MaxMessages = 2
	assert.Len(t, j.mustRun().Skipped, 1)
	assert.Empty(t, j.mustRun().Skipped)
	assert.Equal(t, texts(mails("one", "two", "three")), texts(j.store.messages))
}

// A message that is larger than the server claimed, perhaps endless, is not stored.
func TestMaxSizeWithWrongListedSize(t *testing.T) {
	j := newJob(t, mails("one", strings.Repeat("large ", 100_000), "three"))
	j.MaxSize, j.Delete = 1000, true
	j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n1 30\r\n2 10\r\n3 32\r\n."})
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrTooLarge)
	assert.Equal(t, texts(mails("one", "three")), texts(j.store.messages))
	assert.Equal(t, 2, report.Deleted)
	assert.Less(t, report.Octets, int64(100_000))
	assert.Len(t, j.Left(user), 1)
}

// A message may be so large that the client closes the connection instead of reading the rest. That causes no other
// error and no other session.
func TestMaxSizeOfEndlessMessage(t *testing.T) {
	j := newJob(t, mails("one", "two", strings.Repeat("large ", 2<<20)))
	j.MaxSize = 1000
	j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\n1 30\r\n2 30\r\n3 10\r\n."})
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrTooLarge)
	assert.NotErrorIs(t, err, net.ErrClosed)
	assert.Equal(t, texts(mails("one", "two")), texts(j.store.messages))
	assert.Equal(t, 1, report.Sessions)
}

func TestDryRun(t *testing.T) {
	j := newJob(t, mails("one", "two", "three"), "a", "b", "c")
	j.MaxMessages = 1
	j.mustRun()
	j.Delete, j.DryRun, j.Sink = true, true, nil
	var got []string
	var report fetch.Report
	for res, err := range j.Results(t.Context(), &report) {
		require.NoError(t, err)
		got = append(got, fmt.Sprintf("%s %v %v", res.UID, res.Outcome, res.Err))
	}
	want := []string{"b pending <nil>", "a pending deletion <nil>", fmt.Sprint("c skipped ", fetch.ErrLimit)}
	assert.Equal(t, want, got)
	assert.Equal(t, 3, report.Listed)
	assert.Zero(t, report.Deleted+report.Delivered)
	require.Len(t, report.Pending, 2)
	assert.Equal(t, "b", report.Pending[0].UID)
	assert.Equal(t, fetch.PendingDeletion, report.Pending[1].Outcome)
	assert.Empty(t, j.commandsSent("RETR", "DELE"))
	assert.Len(t, j.Left(user), 3)
}

// A failed message gets another unique-id. A dry run does not write that to the history.
func TestDryRunSavesNothing(t *testing.T) {
	j := newJob(t, mails("one"), "a")
	j.store.callErr = func(int) error { return errFull }
	_, err := j.Run(t.Context())
	require.ErrorIs(t, err, errFull)
	before := load(t, j.Seen, account)
	require.Len(t, before, 1)
	j.Connect, j.DryRun = newMaildrop(mails("one"), "b").connect, true
	assert.Len(t, j.mustRun().Pending, 1)
	assert.Equal(t, before, load(t, j.Seen, account))
}

// Without unique-ids, only the sizes show which messages a run would fetch.
func TestDryRunWithoutUniqueIDs(t *testing.T) {
	j := newJob(t, mails("one", "two"))
	j.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR unknown command"})
	j.Caps = []string{"USER"}
	j.mustRun()
	j.maildrop.Deliver(user, mails("three")...)
	j.DryRun = true
	report := j.mustRun()
	assert.Equal(t, 2, report.Known)
	assert.Empty(t, report.Skipped)
	require.Len(t, report.Pending, 1)
	assert.Equal(t, fetch.Pending, report.Pending[0].Outcome)
	assert.Equal(t, 3, report.Pending[0].Num)
	j.Delete = true
	report = j.mustRun()
	require.Len(t, report.Pending, 3)
	assert.Equal(t, fetch.Pending, report.Pending[0].Outcome)
	assert.Equal(t, fetch.PendingDeletion, report.Pending[2].Outcome)
}

func TestProgress(t *testing.T) {
	j := newJob(t, mails("one", "three"), "a", "b")
	j.Delete, j.CommitEvery = true, 1
	var got []string
	j.Progress = func(p fetch.Progress) {
		got = append(got, fmt.Sprintf("%s %d/%d, %d/%d messages, %d/%d octets", p.Item.UID, p.Received, p.Item.Size,
			p.Messages, p.AllMessages, p.Octets, p.AllOctets))
	}
	j.mustRun()
	assert.Equal(t, []string{
		"a 0/30, 0/2 messages, 0/64 octets",
		"a 30/30, 0/2 messages, 30/64 octets",
		"a 30/30, 1/2 messages, 30/64 octets",
		"b 0/34, 1/2 messages, 30/64 octets",
		"b 34/34, 1/2 messages, 64/64 octets",
		"b 34/34, 2/2 messages, 64/64 octets",
	}, slices.Compact(got))
}

func TestTryAgain(t *testing.T) {
	delay := []string{"UIDL", "LOGIN-DELAY 900"}
	tests := []struct {
		name  string
		caps  []string
		fault pop3test.Fault
		wait  time.Duration
		fails bool
	}{
		{name: "nothing to wait for"},
		{name: "LOGIN-DELAY announced", caps: delay, wait: 15 * time.Minute},
		{
			name: "C-078 LOGIN-DELAY of three hundred years",
			caps: []string{"UIDL", "LOGIN-DELAY 9223372036"},
			wait: 24 * time.Hour,
		},
		{name: "LOGIN-DELAY refused", fault: pop3test.Fault{At: "PASS", Reply: "-ERR [LOGIN-DELAY] too soon"},
			wait: 5 * time.Minute, fails: true},
		{name: "IN-USE", fault: pop3test.Fault{At: "PASS", Reply: "-ERR [IN-USE] locked"}, wait: time.Minute,
			fails: true},
		{name: "SYS/TEMP at the greeting", fault: pop3test.Fault{At: pop3test.AtGreeting,
			Reply: "-ERR [SYS/TEMP/LOAD] busy"},
			wait: 5 * time.Minute, fails: true},
		{name: "SYS/TEMP at a message", fault: pop3test.Fault{At: "RETR 2", Reply: "-ERR [SYS/TEMP] later"},
			wait: 5 * time.Minute, fails: true},
		{name: "SYS/TEMP at QUIT", fault: pop3test.Fault{At: "QUIT", Reply: "-ERR [SYS/TEMP] disk"},
			wait: 5 * time.Minute, fails: true},
		{name: "the longer of two", caps: delay, fault: pop3test.Fault{At: "RETR 2", Reply: "-ERR [SYS/TEMP] later"},
			wait: 15 * time.Minute, fails: true},
		{name: "AUTH", fault: pop3test.Fault{At: "PASS", Reply: "-ERR [AUTH] wrong"}, fails: true},
		{name: "SYS/PERM", fault: pop3test.Fault{At: "PASS", Reply: "-ERR [SYS/PERM] broken"}, fails: true},
		{name: "a lost connection", fault: pop3test.Fault{At: "PASS", Drop: pop3test.BeforeReply}, fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j := newJob(t, mails("one", "two"))
				j.Caps, j.Delete = tt.caps, true
				j.SetFaults(tt.fault)
				report, err := j.Run(t.Context())
				assert.Equal(t, tt.fails, err != nil, err)
				if tt.wait == 0 {
					assert.Zero(t, report.TryAgain)
				} else {
					assert.WithinDuration(t, time.Now().Add(tt.wait), report.TryAgain, 0)
				}
			})
		})
	}
}

// R1-088: QUIT may remove what was retrieved and not stored, so it is not sent. Another session commits the deletions.
func TestQuitWithheld(t *testing.T) {
	tests := []struct {
		name     string
		caps     []string
		withheld bool
	}{
		{"EXPIRE 0", []string{"UIDL", "EXPIRE 0"}, true},
		{"EXPIRE unknown", []string{"UIDL"}, true},
		{"EXPIRE 7", []string{"UIDL", "EXPIRE 7"}, false},
		{"EXPIRE NEVER", []string{"UIDL", "EXPIRE NEVER"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, mails("one", "two", "three"))
			j.Caps, j.ExpireRetrieved, j.Delete = tt.caps, tt.withheld, true
			j.store.callErr = func(call int) error { return failIf(call == 2, errFull) }
			report, err := j.Run(t.Context())
			require.ErrorIs(t, err, errFull)
			assert.Equal(t, tt.withheld, errors.Is(err, fetch.ErrQuitWithheld))
			assert.Equal(t, 2, report.Delivered)
			assert.Equal(t, 2, report.Deleted)
			assert.Equal(t, texts(mails("two")), texts(j.Left(user)))
			if tt.withheld {
				assert.NotContains(t, j.Sessions()[0], "QUIT")
				assert.NotContains(t, j.Sessions()[0], "DELE 1")
				assert.Equal(t, []string{"RETR 1", "RETR 3", "DELE 1", "DELE 3", "QUIT"},
					j.commandsSentIn(1, "RETR", "DELE", "QUIT"))
			}
			j.store.callErr = nil
			assert.Equal(t, 1, j.mustRun().Deleted)
		})
	}
}

// A message that makes the server fail each time does not prevent the others from being fetched.
func TestMessageThatCannotBeRetrieved(t *testing.T) {
	for _, f := range []pop3test.Fault{
		{Drop: pop3test.BeforeReply}, {Drop: pop3test.InBody, Octets: 3}, {Reply: "-ERR no"}, {Reply: "what?"},
	} {
		j := newJob(t, mails("one", "two", "three"), "a", "b", "c")
		f.At = "RETR 2"
		j.SetFaults(f)
		report, err := j.Run(t.Context())
		require.Error(t, err)
		assert.Equal(t, texts(mails("one", "three")), texts(j.store.messages))
		require.Len(t, report.Problems, 1)
		assert.Equal(t, "b", report.Problems[0].UID)
		assert.Equal(t, fetch.Failed, report.Problems[0].Outcome)
		assert.NoError(t, report.Aborted)
		j.SetFaults()
		j.Delete = true
		j.mustRun()
		assert.Len(t, j.store.messages, 3)
		assert.Empty(t, j.Left(user))
	}
}

// A message that was cut when the connection was lost is tried again after all others. The next message is tried in the
// usual order.
func TestOrderAfterCutMessage(t *testing.T) {
	j := newJob(t, mails("one", "two", "three", "four"))
	j.SetFaults(pop3test.Fault{At: "RETR 3", Drop: pop3test.InBody, Octets: 3})
	report, err := j.Run(t.Context())
	require.Error(t, err)
	assert.Equal(t, 3, report.Delivered)
	assert.Equal(t, []string{"RETR 4", "RETR 3"}, j.commandsSentIn(1, "RETR"))
}

// Messages that failed before are tried in the same order as other messages.
func TestOrderOfFailedMessages(t *testing.T) {
	j := newJob(t, mails("one", "two"))
	j.NewestFirst = true
	j.store.callErr = func(int) error { return errFull }
	for run := range 3 {
		_, err := j.Run(t.Context())
		require.ErrorIs(t, err, errFull)
		assert.Equal(t, []string{"RETR 2", "RETR 1"}, j.commandsSentIn(run, "RETR"))
	}
}

// A list without any valid line does not count as an empty list.
func TestMalformedList(t *testing.T) {
	j := newJob(t, mails("one"))
	j.mustRun()
	j.SetFaults(pop3test.Fault{At: "LIST", Reply: "+OK\r\nx y\r\n."},
		pop3test.Fault{At: "UIDL", Reply: "+OK\r\nx y\r\n."})
	report, err := j.Run(t.Context())
	require.Error(t, err)
	assert.Error(t, report.Aborted)
	assert.Zero(t, load(t, j.Seen, account)[0].Missing, "a malformed list does not show which messages are missing")
}

// Two messages have the same unique-id, and then only one of them is listed. When it is deleted, the entry of the
// unlisted message loses its unique-id, because that message may have another one now.
func TestSharedUniqueIDOfDeletedMessage(t *testing.T) {
	j := newJob(t, mails("one", "two"), "u", "u")
	j.mustRun()
	remaining := newMaildrop(mails("one"), "u")
	j.Connect, j.Delete = remaining.connect, true
	assert.Equal(t, 1, j.mustRun().Deleted)
	entries := load(t, j.Seen, account)
	require.NotEmpty(t, entries)
	assert.Empty(t, entries[0].UID, "two may have another unique-id now")
}

func TestEachConnectionIsLost(t *testing.T) {
	j := newJob(t, mails("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"))
	j.SetFaults(pop3test.Fault{At: "RETR", Drop: pop3test.BeforeReply})
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, report.Aborted, io.ErrUnexpectedEOF)
	assert.Equal(t, 10, report.Sessions)
	assert.Len(t, report.Problems, 10)
	assert.Len(t, report.Skipped, 4)
	for _, res := range report.Skipped {
		assert.Equal(t, fetch.ErrNotReached, res.Err)
	}
}

func TestSinkFailsAfterThree(t *testing.T) {
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprint("message ", i))
	}
	j := newJob(t, mails(many...))
	j.Delete = true
	j.store.callErr = func(call int) error { return failIf(call > 3, errFull) }
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, errFull)
	assert.Equal(t, 30, j.store.calls, "the sink gets each message, because it may store another one")
	assert.Equal(t, 3, report.Deleted)
	j.store.callErr = nil
	assert.Equal(t, 27, j.mustRun().Delivered)
}

// A sink may read all of r, a part of it, or nothing.
func TestSinks(t *testing.T) {
	tests := []struct {
		name   string
		sink   fetch.SinkFunc
		fault  pop3test.Fault
		max    int64 // MaxSize
		stored bool
	}{
		{name: "reads nothing", stored: true,
			sink: func(context.Context, fetch.Item, io.Reader) error { return nil }},
		{name: "reads a part", stored: true,
			sink: func(_ context.Context, _ fetch.Item, r io.Reader) error {
				_, err := io.ReadFull(r, make([]byte, 5))
				return err
			}},
		{name: "reads nothing of a message that is cut", fault: pop3test.Fault{At: "RETR", Drop: pop3test.InBody,
			Octets: 9},
			sink: func(context.Context, fetch.Item, io.Reader) error { return nil }},
		{name: "ignores errors of the reader", fault: pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 9},
			sink: func(_ context.Context, _ fetch.Item, r io.Reader) error {
				io.Copy(io.Discard, r)
				_, err := r.Read(make([]byte, 1))
				return failIf(err == io.EOF, errors.New("EOF after an error"))
			}},
		{name: "reads nothing of a message that is too large", max: 20, fault: pop3test.Fault{At: "LIST", Lie: -20},
			sink: func(context.Context, fetch.Item, io.Reader) error { return nil }},
		{name: "fails at the end",
			sink: func(_ context.Context, _ fetch.Item, r io.Reader) error {
				io.Copy(io.Discard, r)
				return errFull
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t, mails("one"))
			j.Sink, j.Delete, j.MaxSize = tt.sink, true, tt.max
			j.SetFaults(tt.fault)
			report, err := j.Run(t.Context())
			assert.Equal(t, tt.stored, err == nil, err)
			assert.Equal(t, tt.stored, report.Delivered == 1)
			assert.Equal(t, tt.stored, len(j.Left(user)) == 0)
		})
	}
}

// H-102: a message that arrives between LIST and UIDL is left for the next run.
func TestMessageWithoutUniqueID(t *testing.T) {
	j := newJob(t, mails("one", "two"), "a", "b")
	j.Delete = true
	j.SetFaults(pop3test.Fault{At: "UIDL", Times: 1, Reply: "+OK\r\n1 a\r\n."},
		pop3test.Fault{At: "UIDL", Skip: 1, Times: 1, Reply: "+OK\r\n2 a\r\n."})
	report := j.mustRun()
	require.Len(t, report.Skipped, 1)
	assert.Equal(t, fetch.ErrNoUID, report.Skipped[0].Err)
	assert.Equal(t, texts(mails("two")), texts(j.Left(user)))
	assert.Equal(t, 1, j.mustRun().Delivered)
}

func TestServerThatLosesItsUniqueIDs(t *testing.T) {
	j := newJob(t, mails("one", "two"), "a", "b")
	j.mustRun()
	j.Caps = []string{"USER"}
	j.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR unknown command"})
	_, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrNoUID)
	assert.Len(t, j.store.messages, 2)
}

// without unique-ids, messages are recognized by their content, and deleted in the session that retrieved them.
func TestServerWithoutUniqueIDs(t *testing.T) {
	j := newJob(t, mails("one", "one", "two"))
	j.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR unknown command"})
	j.Caps = []string{"USER"}
	assert.Equal(t, 3, j.mustRun().Delivered)
	j.maildrop.Deliver(user, mails("three")...)
	report := j.mustRun()
	assert.Equal(t, 1, report.Delivered)
	assert.Equal(t, 3, report.Known)
	j.Delete = true
	assert.Equal(t, 4, j.mustRun().Deleted)
	assert.Equal(t, []string{"RETR 1", "RETR 2", "RETR 3", "RETR 4"}, j.commandsSent("RETR"))
	assert.Len(t, j.store.messages, 4)
}

func TestDeletionThatIsRefused(t *testing.T) {
	j := newJob(t, mails("one", "two", "three"), "a", "b", "c")
	j.Delete = true
	j.SetFaults(pop3test.Fault{At: "DELE 2", Reply: "-ERR no"}, pop3test.Fault{At: "DELE 3", Reply: "-ERR neither"})
	report, err := j.Run(t.Context())
	require.ErrorContains(t, err, "2 messages failed, the first: "+
		"message 2 (unique-id \"b\"): pop3: DELE 2: -ERR no; the next run tries again")
	assert.Equal(t, 1, report.Deleted)
	require.Len(t, report.Problems, 2)
	assert.Equal(t, fetch.Kept, report.Problems[1].Outcome)
	assert.Equal(t, "c", report.Problems[1].UID)
	j.SetFaults()
	assert.Equal(t, 2, j.mustRun().Deleted)
	assert.Len(t, j.store.messages, 3)
}

// If many messages are to be deleted, at most 1,000 commands are sent at once, because some servers crash with more.
func TestManyDeletions(t *testing.T) {
	const n = 2500
	var ahead, maxAhead, marks int
	isDele := func(cmd string) bool { return strings.HasPrefix(cmd, "DELE") }
	j := newJob(t, slices.Repeat(mails("one"), n))
	j.Delete = true
	j.opts.Trace = &pop3.Trace{
		WroteCommand: func(_ context.Context, cmd string) {
			if isDele(cmd) {
				ahead++
				maxAhead = max(maxAhead, ahead)
			}
		},
		Done: func(_ context.Context, cmd string, _ int64, _ error) {
			if isDele(cmd) {
				ahead--
				marks++
			}
		},
	}
	assert.Equal(t, n, j.mustRun().Deleted)
	assert.Equal(t, n, marks)
	assert.Equal(t, 1000, maxAhead)
	assert.Empty(t, j.Left(user))
}

// With CommitEvery a run logs in several times. LOGIN-DELAY forbids that, so CommitEvery then has no effect.
func TestCommitEvery(t *testing.T) {
	for _, tt := range []struct {
		name        string
		commitEvery int
		caps        []string
		keepFor     time.Duration
		sessions    int
		deleted     int
	}{
		{name: "all at once", sessions: 2, deleted: 5},
		{name: "one by one", commitEvery: 1, sessions: 6, deleted: 5},
		{name: "two by two", commitEvery: 2, sessions: 4, deleted: 5},
		{name: "LOGIN-DELAY", commitEvery: 2, caps: []string{"UIDL", "LOGIN-DELAY 60"}, sessions: 1, deleted: 5},
		{name: "no unique-ids", commitEvery: 2, caps: []string{"TOP"}, sessions: 2, deleted: 5},
		{name: "C-110 KeepFor", commitEvery: 2, keepFor: 1, sessions: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j := newJob(t, mails("1", "2", "3", "4", "5"))
				j.Caps, j.Delete, j.CommitEvery, j.KeepFor = tt.caps, true, tt.commitEvery, tt.keepFor
				if tt.name == "no unique-ids" {
					j.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR unknown command"})
				}
				report := j.mustRun()
				assert.Equal(t, tt.sessions, report.Sessions)
				assert.Equal(t, tt.deleted, report.Deleted)
				assert.Len(t, j.store.messages, 5)
			})
		})
	}
}

// A server closes the connection at the second message of each session. Then the run uses a session for each message,
// and ends it with QUIT (C-110).
func TestOneMessageInASession(t *testing.T) {
	j := newJob(t, mails("one", "two", "three"))
	j.Delete = true
	for session := range 20 {
		j.faults = append(j.faults,
			pop3test.Fault{At: "RETR", Session: session + 1, Skip: 1, Drop: pop3test.BeforeReply})
	}
	j.SetFaults(j.faults...)
	report, _ := j.Run(t.Context())
	assert.NoError(t, report.Aborted)
	assert.Equal(t, 3, report.Deleted)
	assert.Empty(t, report.Problems)
	assert.Len(t, j.store.messages, 3)
	assert.Len(t, j.Sessions(), 6, "two to find out, one for each message, one to look for new ones")
}

// A server closes each connection, each time after another number of messages. Then sessions become shorter until they
// reach QUIT (L2).
func TestSessionsOfAllLengths(t *testing.T) {
	j := newJob(t, mails(numbered(1, 30)...))
	sessions := j.mustRun().Sessions
	for n := range 60 {
		j.faults = append(j.faults, pop3test.Fault{At: "RETR", Session: sessions + n + 1, Skip: 7 + n*5%11,
			Drop: pop3test.InReply, Octets: 2})
	}
	j.SetFaults(j.faults...)
	j.Delete = true
	report, _ := j.Run(t.Context())
	assert.NoError(t, report.Aborted)
	assert.GreaterOrEqual(t, report.Deleted, 29, "one message may count as the cause of lost sessions")
	assert.Len(t, j.Left(user), 30-report.Deleted)
}

// When MaxMessages is reached, the messages of a lost session are still compared and deleted.
func TestLimitAndLostSessions(t *testing.T) {
	j := newJob(t, mails(numbered(1, 6)...))
	j.Delete, j.MaxMessages = true, 3
	for session := range 20 {
		j.faults = append(j.faults,
			pop3test.Fault{At: "RETR", Session: session + 1, Skip: 2, Drop: pop3test.BeforeReply})
	}
	j.SetFaults(j.faults...)
	report, _ := j.Run(t.Context())
	assert.NoError(t, report.Aborted)
	assert.Equal(t, 3, report.Delivered)
	assert.Equal(t, 3, report.Deleted)
}

// A message that is to be deleted is left for another session, and the login of that session fails. The error is
// reported, even if MaxMessages is reached (L5).
func TestLimitAndRefusedLogin(t *testing.T) {
	j := newJob(t, mails(numbered(1, 5)...))
	j.MaxMessages = 1
	j.mustRun()
	j.Delete = true
	j.SetFaults(pop3test.Fault{At: "RETR 1", Reply: "-ERR not now"})
	_, err := j.Run(t.Context())
	require.ErrorContains(t, err, "not now")
	j.SetFaults(pop3test.Fault{At: "PASS", Session: len(j.Sessions()) + 2, Reply: "-ERR locked"})
	report, err := j.Run(t.Context())
	require.ErrorContains(t, err, "locked")
	assert.ErrorContains(t, report.Aborted, "locked")
	assert.Equal(t, 1, report.Deleted)
	assert.Len(t, j.Left(user), 3)
}

// A session lists only some messages, and each message that was requested is not listed again. A message that was
// listed and not reached is in the report, even if it has the size of those that failed (L5).
func TestPartOfMaildropInEachSession(t *testing.T) {
	j := newJob(t, nil)
	drops := []*maildrop{newMaildrop(mails("bad 1", "second"), "1", "2"),
		newMaildrop(mails("second", "bad 2"), "2", "3"), newMaildrop(mails("bad 2", "fourth"), "3", "4"),
		newMaildrop(mails("new 1", "fourth", "another"), "5", "4", "6"), newMaildrop(mails("new 1"), "5")}
	for _, d := range drops[:3] {
		d.SetFaults(pop3test.Fault{At: "RETR 1", Drop: pop3test.InBody, Octets: 9})
	}
	j.Connect = func(ctx context.Context) (*pop3.Client, error) {
		d := drops[0]
		drops = drops[min(1, len(drops)-1):]
		return d.connect(ctx)
	}
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrNotReached)
	assert.Len(t, report.Problems, 3)
	require.Len(t, report.Skipped, 1)
	assert.Equal(t, "5", report.Skipped[0].UID)
	assert.Equal(t, 1, j.mustRun().Delivered)
}

// The first session is lost, and the second one lists an empty maildrop. The messages that the first one listed and did
// not reach are in the report (L5).
func TestListThatIsEmptyInLaterSession(t *testing.T) {
	j := newJob(t, mails("one", "three", "the fourth"))
	j.SetFaults(pop3test.Fault{At: "RETR", Session: 1, Drop: pop3test.InBody, Octets: 9},
		pop3test.Fault{At: "LIST", Session: 2, Reply: "+OK\r\n."},
		pop3test.Fault{At: "UIDL", Session: 2, Reply: "+OK\r\n."})
	report, err := j.Run(t.Context())
	require.ErrorIs(t, err, fetch.ErrNotReached)
	assert.Len(t, report.Problems, 1)
	assert.Len(t, report.Skipped, 2)
	assert.Equal(t, 3, j.mustRun().Delivered)
}

// All unique-ids change after the first session of a run. No message is reported as not reached.
func TestUniqueIDsThatChangeInRun(t *testing.T) {
	drops := []*maildrop{newMaildrop(mails("one", "two"), "a1", "a2"), newMaildrop(mails("one", "two"), "b1", "b2")}
	drops[0].SetFaults(pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 9})
	j := newJob(t, nil)
	j.Connect = func(ctx context.Context) (*pop3.Client, error) {
		d := drops[0]
		drops = drops[len(drops)-1:]
		return d.connect(ctx)
	}
	report, err := j.Run(t.Context())
	require.NotErrorIs(t, err, fetch.ErrNotReached)
	assert.Empty(t, report.Skipped)
	assert.Equal(t, 2, report.Delivered)
}

func TestTwoRunsAtOnce(t *testing.T) {
	j := newJob(t, mails("one"))
	j.Sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
		_, err := j.Run(ctx)
		require.ErrorIs(t, err, fetch.ErrLocked)
		return nil
	})
	assert.Equal(t, 1, j.mustRun().Delivered)
}

// When a sink panics, the history is unlocked and the session is closed.
func TestSinkThatPanics(t *testing.T) {
	j := newJob(t, mails("one"))
	sink := j.Sink
	j.Sink = fetch.SinkFunc(func(context.Context, fetch.Item, io.Reader) error { panic("oh") })
	assert.PanicsWithValue(t, "oh", func() { j.Run(t.Context()) })
	j.Sink = sink
	assert.Equal(t, 1, j.mustRun().Delivered)
}

// A large message is not kept in memory.
func TestLargeMessageNotInMemory(t *testing.T) {
	large := bytes.Repeat([]byte("a line of text\r\n"), 1<<20)
	j := newJob(t, [][]byte{large})
	dir := t.TempDir()
	j.Sink = fetch.Maildir{Dir: dir}
	require.NoError(t, fetch.Maildir{Dir: dir}.Create())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	assert.Equal(t, int64(len(large)), j.mustRun().Octets)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	assert.Equal(t, string(large), readDir(t, filepath.Join(dir, "new"))[0])
}

func TestOutcomes(t *testing.T) {
	for o := fetch.Delivered; o <= fetch.Pending; o++ {
		assert.NotEqual(t, "unknown", o.String())
	}
	assert.Equal(t, "unknown", fetch.Outcome(0).String())
	assert.Equal(t, "unknown", fetch.Outcome(99).String())
	assert.Equal(t, "unknown", fetch.Outcome(-1).String())
}
