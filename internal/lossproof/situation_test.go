package lossproof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A situation has the messages, the settings and the faults of a sequence of runs.
type situation struct {
	messages        []*message // messages on the server at the beginning; one more arrives before each run
	habits          habits
	fetcher         fetch.Fetcher // the settings of the Fetcher
	storage         storageFaults
	removeBeforeRun int  // before this run another program deletes the first message; 0 for never
	equalSizes      bool // all messages have one size
}

// A storageFaults value has the faults of the sink and the record.
type storageFaults struct {
	sinkFull       int           // the sink refuses everything from this run on, 0 for never
	sinkFullUntil  int           // the last run in which the sink refuses everything; 0 for no end
	sinkDelay      time.Duration // time that the sink takes for each message
	noRecord       int           // the record can't be written from this run on, 0 for never
	noRecordUntil  int           // the last run in which the record can't be written; 0 for no end
	killAtDelivery int           // number of deliveries after which the program is killed, 0 for never
	killAtSave     int           // number of writes of the record after which the program is killed
	cancelIn       time.Duration // time after which the context of the second run ends, 0 for never
	clockError     time.Duration // error of the times in the record, as if the clock had been wrong
}

// A lastingFault is a fault that lasts for the whole sequence.
type lastingFault struct {
	name  string
	group string // a situation has at most one fault of a group; "" for faults of messages
	mild  bool   // the fault is no reason for an error
	apply func(s *situation, m *message)
}

// A chosenFault is a fault of a recipe. A fault of a message has the index of the message.
type chosenFault struct {
	*lastingFault
	message int
}

// A recipe describes a situation, and can be shrunk when a sequence fails.
type recipe struct {
	seed     uint64
	messages int // messages at the beginning
	runs     int
	interval time.Duration
	faults   []chosenFault
}

func (r recipe) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d messages, one more before each run, %d runs, one in %v",
		r.seed, r.messages, r.runs, r.interval)
	for _, f := range r.faults {
		b.WriteString("; " + f.name)
		if f.group == "" {
			fmt.Fprintf(&b, " (message %d)", f.message+1)
		}
	}
	return b.String()
}

// isMild reports whether no fault is a reason for an error.
func (r recipe) isMild() bool {
	return !slices.ContainsFunc(r.faults, func(f chosenFault) bool { return !f.mild })
}

// has reports whether the recipe has a fault with this name.
func (r recipe) has(name string) bool {
	return slices.ContainsFunc(r.faults, func(f chosenFault) bool { return f.name == name })
}

// lateMessages is the number of messages that arrive at the end, when all faults are gone.
const lateMessages = 2

// build makes a new situation for each sequence, because a sequence changes its situation.
func (r recipe) build() *situation {
	s := &situation{}
	for i := range r.messages + r.runs - 1 + lateMessages {
		s.messages = append(s.messages, &message{serial: i + 1, sent: map[string]bool{}})
	}
	for _, f := range r.faults {
		f.apply(s, s.messages[f.message])
	}
	for _, m := range s.messages {
		s.setText(m)
	}
	return s
}

// setText sets the text of a message, unless a fault has set it.
func (s *situation) setText(m *message) {
	if m.text != "" {
		return
	}
	lines := m.serial % 5
	if s.equalSizes {
		lines = 2
	}
	m.text = fmt.Sprintf("Subject: message %03d\r\nX-Keywords: a\r\n\r\n.%03d\r\n", m.serial, m.serial) +
		strings.Repeat("This is a line of a message that has some.\r\n", lines)
}

// messageFault makes a fault of a message.
func messageFault(name string, apply func(m *message)) *lastingFault {
	return &lastingFault{name: name, apply: func(_ *situation, m *message) { apply(m) }}
}

// otherFault makes a fault of the server, the sink or the record, or a setting.
func otherFault(group, name string, apply func(s *situation)) *lastingFault {
	return &lastingFault{name: name, group: group, apply: func(s *situation, _ *message) { apply(s) }}
}

// mildFault is like otherFault, for a fault that is no reason for an error.
func mildFault(group, name string, apply func(s *situation)) *lastingFault {
	f := otherFault(group, name, apply)
	f.mild = true
	return f
}

// messageFaults are the faults of single messages.
var messageFaults = []*lastingFault{
	messageFault("RETR refused", func(m *message) { m.refused = true }),
	messageFault("cut", func(m *message) { m.cut = true }),
	messageFault("cut, and an extra reply", func(m *message) { m.cut, m.extraRefusal = true, true }),
	messageFault("RETR hangs up", func(m *message) { m.hangsUp = true }),
	messageFault("RETR stalls", func(m *message) { m.stalls = true }),
	messageFault("slow", func(m *message) { m.slow = true }),
	messageFault("too large", func(m *message) { m.large = true }),
	messageFault("larger than listed and too large", func(m *message) { m.largerThanListed = true }),
	messageFault("content differs each time", func(m *message) { m.contentVaries = true }),
	messageFault("size differs each time", func(m *message) { m.sizeVaries = true }),
	messageFault("DELE refused", func(m *message) { m.undeletable = true }),
	messageFault("malformed line in LIST", func(m *message) { m.badListLine = true }),
	messageFault("malformed line in UIDL", func(m *message) { m.badUidlLine = true }),
	messageFault("no line in UIDL", func(m *message) { m.noUID = true }),
	messageFault("sink refuses the message", func(m *message) { m.refusedUntil = forever }),
	messageFault("sink refuses the message in two runs", func(m *message) { m.refusedUntil = 2 }),
	messageFault("sink refuses the message for good", func(m *message) { m.neverStored = true }),
}

const forever = 1 << 30

// caseFaults are faults that only TestLivenessOfCases uses.
var caseFaults = []*lastingFault{
	otherFault("capa", "the reply to CAPA never ends", func(s *situation) { s.habits.endlessCapa = true }),
	otherFault("folded", "the fourth message differs from the first in folded lines of a note", func(s *situation) {
		const text = "Subject: message 001\r\nX-Keywords: a\r\n %s\r\n\r\nThis is a message.\r\n"
		s.messages[0].text, s.messages[3].text = fmt.Sprintf(text, "first"), fmt.Sprintf(text, "fourth")
	}),
}

// These faults change what the rules expect.
const (
	uidsArePositions = "unique-ids are positions"
	uidsChange       = "unique-ids change in each session"
	windowed         = "a session lists three messages"
)

// otherFaults are the faults of maildrops, sinks and records, and the settings of the Fetcher.
var otherFaults = []*lastingFault{
	mildFault("uid", "no UIDL", func(s *situation) { s.habits.uids = uidNone }),
	mildFault("uid", "all unique-ids equal", func(s *situation) { s.habits.uids = uidEqual }),
	mildFault("uid", "unique-ids equal in pairs", func(s *situation) { s.habits.uids = uidTwins }),
	otherFault("uid", uidsArePositions, func(s *situation) { s.habits.uids = uidPosition }),
	mildFault("uid", "unique-ids change once", func(s *situation) { s.habits.uids = uidMigrated }),
	otherFault("uid", uidsChange, func(s *situation) { s.habits.uids = uidRenewed }),
	mildFault("removed", "another program deletes", func(s *situation) { s.removeBeforeRun = 3 }),
	mildFault("equal", "all sizes equal", func(s *situation) { s.equalSizes = true }),

	mildFault("capa", "UIDL not announced", func(s *situation) { s.habits.hidesUIDL = true }),
	mildFault("capa", "no CAPA", func(s *situation) { s.habits.noCapa = true }),
	mildFault("pipelining", "no PIPELINING", func(s *situation) { s.habits.sequential = true }),
	mildFault("expire", "EXPIRE NEVER", func(s *situation) { s.habits.expire = "EXPIRE NEVER\r\n" }),
	mildFault("expire", "EXPIRENEVER", func(s *situation) { s.habits.expire = "EXPIRENEVER\r\n" }),
	mildFault("expire", "EXPIRE 0", func(s *situation) { s.habits.expire, s.habits.expires = "EXPIRE 0\r\n", true }),
	mildFault("expire", "EXPIRE 0 not announced", func(s *situation) { s.habits.expires = true }),

	otherFault("close", "QUIT removes and is not answered", func(s *situation) {
		s.habits.quit = quitNoReply
	}),
	otherFault("close", "QUIT removes nothing and is not answered", func(s *situation) {
		s.habits.quit = quitIgnored
	}),
	otherFault("close", "QUIT removes and hangs up", func(s *situation) { s.habits.quit = quitHangup }),
	otherFault("close", "QUIT falsely confirms", func(s *situation) { s.habits.quit = quitFalseOK }),
	otherFault("close", "QUIT refused", func(s *situation) { s.habits.quit = quitRefused }),
	otherFault("close", "QUIT removes half", func(s *situation) { s.habits.quit = quitHalf }),

	mildFault("size", "LIST counts LF", func(s *situation) {
		s.habits.listedSize = func(text string) int { return len(text) - strings.Count(text, "\n") }
	}),
	otherFault("size", "LIST counts two more", func(s *situation) {
		s.habits.listedSize = func(text string) int { return len(text) + 2 }
	}),
	otherFault("size", "LIST counts a line end as three", func(s *situation) {
		s.habits.listedSize = func(text string) int { return len(text) + strings.Count(text, "\n") }
	}),

	otherFault("login", "LOGIN-DELAY", func(s *situation) {
		s.habits.loginDelay, s.habits.announced = 5*time.Minute, true
	}),
	otherFault("login", "a delay between logins", func(s *situation) { s.habits.loginDelay = 5 * time.Minute }),
	otherFault("login", "a delay between logins, refused without code", func(s *situation) {
		s.habits.loginDelay, s.habits.noCode = 5*time.Minute, true
	}),
	otherFault("login", "lock after a session without QUIT", func(s *situation) {
		s.habits.lockTime = 5 * time.Minute
	}),
	otherFault("login", "lock without code after a session without QUIT", func(s *situation) {
		s.habits.lockTime, s.habits.noCode = 5*time.Minute, true
	}),
	otherFault("login", "LOGIN-DELAY of 292 years", func(s *situation) { s.habits.delayArg = "9223372036" }),
	otherFault("open", "the maildrop can't be opened in two runs", func(s *situation) { s.habits.unopened = 2 }),
	mildFault("window", windowed, func(s *situation) { s.habits.window = 3 }),
	otherFault("quota", "hangs up after four messages", func(s *situation) { s.habits.quota = 4 }),
	mildFault("list", "empty lists refused", func(s *situation) { s.habits.emptyErr = true }),
	mildFault("list", "LIST with a number refused", func(s *situation) { s.habits.noListOne = true }),

	otherFault("place", "sink full from the second run on", func(s *situation) { s.storage.sinkFull = 2 }),
	otherFault("place", "sink full in two runs", func(s *situation) {
		s.storage.sinkFull, s.storage.sinkFullUntil = 2, 3
	}),
	otherFault("place", "record full from the second run on", func(s *situation) { s.storage.noRecord = 2 }),
	otherFault("place", "record full in two runs", func(s *situation) {
		s.storage.noRecord, s.storage.noRecordUntil = 2, 3
	}),
	otherFault("place", "record never written", func(s *situation) { s.storage.noRecord = 1 }),
	otherFault("place", "killed after the third delivery", func(s *situation) { s.storage.killAtDelivery = 3 }),
	otherFault("place", "killed after the fifth write to the record", func(s *situation) { s.storage.killAtSave = 5 }),
	mildFault("slow", "slow sink, and a server that hangs up when idle", func(s *situation) {
		s.storage.sinkDelay, s.habits.idle = 40*time.Second, 30*time.Second
	}),
	mildFault("slow", "slow sink", func(s *situation) { s.storage.sinkDelay = 5 * time.Minute }),
	otherFault("cancel", "signal in the second run", func(s *situation) { s.storage.cancelIn = 30 * time.Second }),

	mildFault("delete", "Delete", func(s *situation) { s.fetcher.Delete = true }),
	mildFault("delete", "Delete after two hours", func(s *situation) {
		s.fetcher.Delete, s.fetcher.KeepFor = true, 2*time.Hour
	}),
	otherFault("clock", "the clock was thirty years slow", func(s *situation) {
		s.storage.clockError = -30 * 365 * 24 * time.Hour
	}),
	otherFault("clock", "the clock was thirty years fast", func(s *situation) {
		s.storage.clockError = 30 * 365 * 24 * time.Hour
	}),
	mildFault("commit", "CommitEvery 1", func(s *situation) { s.fetcher.CommitEvery = 1 }),
	mildFault("commit", "CommitEvery 3", func(s *situation) { s.fetcher.CommitEvery = 3 }),
	otherFault("limit", "MaxMessages 3", func(s *situation) { s.fetcher.MaxMessages = 3 }),
	otherFault("limit", "MaxOctets", func(s *situation) { s.fetcher.MaxOctets = 500 }),
	mildFault("order", "NewestFirst", func(s *situation) { s.fetcher.NewestFirst = true }),
	mildFault("select", "Select skips every third", func(s *situation) { s.setSelect(fetch.Skip) }),
	mildFault("select", "Select leaves every third", func(s *situation) { s.setSelect(fetch.Leave) }),
}

// setSelect makes Select decide about every third message, by its header.
func (s *situation) setSelect(d fetch.Decision) {
	chosen := make(map[string]bool)
	for _, m := range s.messages {
		if m.serial%3 == 0 {
			m.skippedBySelect, m.leftBySelect = d == fetch.Skip, d == fetch.Leave
			chosen[fmt.Sprintf("Subject: message %03d", m.serial)] = true
		}
	}
	s.fetcher.Select = func(_ context.Context, _ fetch.Item, header []byte) fetch.Decision {
		subject, _, _ := strings.Cut(string(header), "\r\n")
		switch {
		case header == nil:
			return fetch.WantHeader
		case chosen[subject]:
			return d
		}
		return fetch.Fetch
	}
}

// drawRecipe makes a recipe. Some recipes have few faults, and some have many.
func drawRecipe(seed uint64) recipe {
	d := rand.New(rand.NewPCG(seed, 16))
	r := recipe{seed: seed, messages: 3 + d.IntN(12), runs: 5 + d.IntN(6)}
	r.interval = []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour}[d.IntN(3)]
	messageFaultRate := d.Float64() * 0.5
	kind := messageFaults[d.IntN(len(messageFaults))]
	for num := range r.messages + r.runs - 1 {
		if d.Float64() < messageFaultRate {
			if d.IntN(2) == 0 { // often keep the kind, because many faults of one kind are the hardest
				kind = messageFaults[d.IntN(len(messageFaults))]
			}
			r.faults = append(r.faults, chosenFault{kind, num})
		}
	}
	otherFaultRate := d.Float64() * 0.15
	taken := map[string]bool{}
	for _, i := range d.Perm(len(otherFaults)) {
		f := otherFaults[i]
		if !taken[f.group] && (d.Float64() < otherFaultRate || f.group == "delete" && d.IntN(3) == 0) {
			taken[f.group] = true
			r.faults = append(r.faults, chosenFault{f, 0})
		}
	}
	return r
}

// shrink makes the recipe as small as possible, as long as the sequence fails.
func (r recipe) shrink(fails func(recipe) bool) recipe {
	for again := true; again; {
		again = false
		for i := len(r.faults) - 1; i >= 0; i-- {
			smaller := r
			if smaller.faults = slices.Delete(slices.Clone(r.faults), i, i+1); fails(smaller) {
				r, again = smaller, true
			}
		}
		for _, smaller := range []recipe{r.shorter(), r.fewer()} {
			if smaller.runs > 0 && smaller.messages > 0 && fails(smaller) {
				r, again = smaller, true
			}
		}
	}
	return r
}

// shorter returns the recipe with one run fewer.
func (r recipe) shorter() recipe {
	r.runs--
	return r.withoutUnusedFaults()
}

// fewer returns the recipe with one message fewer.
func (r recipe) fewer() recipe {
	r.messages--
	return r.withoutUnusedFaults()
}

// withoutUnusedFaults removes the faults of messages that do not exist.
func (r recipe) withoutUnusedFaults() recipe {
	r.faults = slices.DeleteFunc(slices.Clone(r.faults), func(f chosenFault) bool {
		return f.message >= r.messages+r.runs-1
	})
	return r
}
