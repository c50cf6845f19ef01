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

// A situation is how a sequence of runs begins: the messages, the settings and the faults.
type situation struct {
	messages []*message // messages on the server at the beginning; one more arrives before each run
	habits   habits
	fetcher  fetch.Fetcher // the settings of the Fetcher
	place    place
	removes  int  // before this run another program deletes the first message; 0 for never
	equal    bool // all messages have one size
}

// A place has the faults of the sink and the record.
type place struct {
	full       int           // the sink refuses everything from this run on, 0 for never
	fullUntil  int           // the first run in which the sink works again; 0 for never
	delay      time.Duration // time that the sink takes for each message
	noRecord   int           // the record can't be written from this run on, 0 for never
	noRecTill  int           // the first run in which the record can be written again; 0 for never
	killSink   int           // number of deliveries after which the program is killed, 0 for never
	killRecord int           // number of writes of the record after which the program is killed
	cancelIn   time.Duration // time after which the context of the second run ends, 0 for never
	clock      time.Duration // error of the times in the record, as if the clock had been wrong
}

// A lasting fault is a fault that lasts for the whole sequence.
type lasting struct {
	name  string
	group string // a situation has at most one fault of a group; "" for faults of messages
	mild  bool   // it is no reason for an error
	apply func(s *situation, m *message)
}

// A chosen fault is a fault of a recipe; num is its message, from 0.
type chosen struct {
	*lasting
	num int
}

// A recipe describes a situation, and can be shrunk when a sequence fails.
type recipe struct {
	seed     uint64
	first    int // messages at the beginning
	runs     int
	interval time.Duration
	faults   []chosen
}

func (r recipe) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d messages, one more before each run, %d runs, one in %v",
		r.seed, r.first, r.runs, r.interval)
	for _, f := range r.faults {
		b.WriteString("; " + f.name)
		if f.group == "" {
			fmt.Fprintf(&b, " (message %d)", f.num+1)
		}
	}
	return b.String()
}

// mild reports whether no fault is a reason for an error.
func (r recipe) mild() bool {
	return !slices.ContainsFunc(r.faults, func(f chosen) bool { return !f.mild })
}

// has reports whether the recipe has a fault with this name.
func (r recipe) has(name string) bool {
	return slices.ContainsFunc(r.faults, func(f chosen) bool { return f.name == name })
}

// late is the number of messages that arrive at the end, when all faults are gone.
const late = 2

// build makes a new situation for each sequence, because a sequence changes its situation.
func (r recipe) build() *situation {
	s := &situation{}
	for i := range r.first + r.runs - 1 + late {
		s.messages = append(s.messages, &message{serial: i + 1, sent: map[string]bool{}})
	}
	for _, f := range r.faults {
		f.apply(s, s.messages[f.num])
	}
	for _, m := range s.messages {
		s.write(m)
	}
	return s
}

// write sets the text of a message, unless a fault has set it.
func (s *situation) write(m *message) {
	if m.text != "" {
		return
	}
	lines := m.serial % 5
	if s.equal {
		lines = 2
	}
	m.text = fmt.Sprintf("Subject: message %03d\r\nX-Keywords: a\r\n\r\n.%03d\r\n", m.serial, m.serial) +
		strings.Repeat("This is a line of a message that has some.\r\n", lines)
}

// about makes a fault of a message.
func about(name string, apply func(m *message)) *lasting {
	return &lasting{name: name, apply: func(_ *situation, m *message) { apply(m) }}
}

// with makes any other fault.
func with(group, name string, apply func(s *situation)) *lasting {
	return &lasting{name: name, group: group, apply: func(s *situation, _ *message) { apply(s) }}
}

// mildly is like with, for a fault that is no reason for an error.
func mildly(group, name string, apply func(s *situation)) *lasting {
	f := with(group, name, apply)
	f.mild = true
	return f
}

// ofMessages are the faults of single messages.
var ofMessages = []*lasting{
	about("RETR refused", func(m *message) { m.refused = true }),
	about("cut", func(m *message) { m.cut = true }),
	about("cut, and a reply too many", func(m *message) { m.cut, m.complains = true, true }),
	about("RETR hangs up", func(m *message) { m.hangsUp = true }),
	about("RETR stalls", func(m *message) { m.stalls = true }),
	about("slow", func(m *message) { m.slow = true }),
	about("too large", func(m *message) { m.large = true }),
	about("larger than listed and too large", func(m *message) { m.grows = true }),
	about("content differs each time", func(m *message) { m.changes = true }),
	about("size differs each time", func(m *message) { m.resized = true }),
	about("DELE refused", func(m *message) { m.undeletable = true }),
	about("odd line in LIST", func(m *message) { m.oddSize = true }),
	about("odd line in UIDL", func(m *message) { m.oddUID = true }),
	about("no line in UIDL", func(m *message) { m.unnamed = true }),
	about("sink refuses it", func(m *message) { m.unwanted = forever }),
	about("sink refuses it in two runs", func(m *message) { m.unwanted = 2 }),
	about("sink refuses it for good", func(m *message) { m.impossible = true }),
}

const forever = 1 << 30

// rare are faults that are used only in rows.
var rare = []*lasting{
	with("capa", "CAPA drips without end", func(s *situation) { s.habits.drips = true }),
	with("folded", "the fourth message differs from the first in folded lines of a note", func(s *situation) {
		const text = "Subject: message 001\r\nX-Keywords: a\r\n %s\r\n\r\nThis is a message.\r\n"
		s.messages[0].text, s.messages[3].text = fmt.Sprintf(text, "first"), fmt.Sprintf(text, "fourth")
	}),
}

// Faults that the judge looks for.
const (
	uidsArePositions = "unique-ids are positions"
	uidsChange       = "unique-ids change in each session"
	windowed         = "a session shows three messages"
)

// ofOthers are the faults of maildrops, sinks and records, and the settings of the Fetcher.
var ofOthers = []*lasting{
	mildly("uid", "no UIDL", func(s *situation) { s.habits.uids = uidNone }),
	mildly("uid", "all unique-ids equal", func(s *situation) { s.habits.uids = uidEqual }),
	mildly("uid", "unique-ids equal in pairs", func(s *situation) { s.habits.uids = uidTwins }),
	with("uid", uidsArePositions, func(s *situation) { s.habits.uids = uidPosition }),
	mildly("uid", "unique-ids change once", func(s *situation) { s.habits.uids = uidMigrated }),
	with("uid", uidsChange, func(s *situation) { s.habits.uids = uidRenewed }),
	mildly("removed", "another program deletes", func(s *situation) { s.removes = 3 }),
	mildly("equal", "all sizes equal", func(s *situation) { s.equal = true }),

	mildly("capa", "UIDL not announced", func(s *situation) { s.habits.hidesUIDL = true }),
	mildly("capa", "no CAPA", func(s *situation) { s.habits.noCapa = true }),
	mildly("pipelining", "no PIPELINING", func(s *situation) { s.habits.sequential = true }),
	mildly("expire", "EXPIRE NEVER", func(s *situation) { s.habits.expire = "EXPIRE NEVER\r\n" }),
	mildly("expire", "EXPIRENEVER", func(s *situation) { s.habits.expire = "EXPIRENEVER\r\n" }),
	mildly("expire", "EXPIRE 0", func(s *situation) { s.habits.expire, s.habits.expires = "EXPIRE 0\r\n", true }),
	mildly("expire", "EXPIRE 0 not announced", func(s *situation) { s.habits.expires = true }),

	with("close", "QUIT removes and is not answered", func(s *situation) { s.habits.close = closeSilent }),
	with("close", "QUIT does nothing and is not answered", func(s *situation) { s.habits.close = closeDeaf }),
	with("close", "QUIT removes and hangs up", func(s *situation) { s.habits.close = closeHangup }),
	with("close", "QUIT lies", func(s *situation) { s.habits.close = closeReadOnly }),
	with("close", "QUIT refused", func(s *situation) { s.habits.close = closeRefused }),
	with("close", "QUIT does half", func(s *situation) { s.habits.close = closeHalf }),

	mildly("size", "LIST counts LF", func(s *situation) {
		s.habits.size = func(text string) int { return len(text) - strings.Count(text, "\n") }
	}),
	with("size", "LIST counts two more", func(s *situation) {
		s.habits.size = func(text string) int { return len(text) + 2 }
	}),
	with("size", "LIST counts a line end as three", func(s *situation) {
		s.habits.size = func(text string) int { return len(text) + strings.Count(text, "\n") }
	}),

	with("login", "LOGIN-DELAY", func(s *situation) { s.habits.delay, s.habits.announced = 5*time.Minute, true }),
	with("login", "a delay between logins", func(s *situation) { s.habits.delay = 5 * time.Minute }),
	with("login", "a delay between logins, refused in words", func(s *situation) {
		s.habits.delay, s.habits.inWords = 5*time.Minute, true
	}),
	with("login", "lock after a session without QUIT", func(s *situation) { s.habits.locks = 5 * time.Minute }),
	with("login", "lock in words after a session without QUIT", func(s *situation) {
		s.habits.locks, s.habits.inWords = 5*time.Minute, true
	}),
	with("login", "LOGIN-DELAY of ages", func(s *situation) { s.habits.loginDelay = "9223372036" }),
	with("open", "the maildrop can't be opened in two runs", func(s *situation) { s.habits.unopened = 2 }),
	mildly("window", windowed, func(s *situation) { s.habits.window = 3 }),
	with("quota", "hangs up after four messages", func(s *situation) { s.habits.quota = 4 }),
	mildly("list", "empty lists refused", func(s *situation) { s.habits.emptyErr = true }),
	mildly("list", "LIST with a number refused", func(s *situation) { s.habits.noListOne = true }),

	with("place", "sink full from the second run on", func(s *situation) { s.place.full = 2 }),
	with("place", "sink full in two runs", func(s *situation) { s.place.full, s.place.fullUntil = 2, 3 }),
	with("place", "record full from the second run on", func(s *situation) { s.place.noRecord = 2 }),
	with("place", "record full in two runs", func(s *situation) { s.place.noRecord, s.place.noRecTill = 2, 3 }),
	with("place", "record never written", func(s *situation) { s.place.noRecord = 1 }),
	with("place", "killed after the third delivery", func(s *situation) { s.place.killSink = 3 }),
	with("place", "killed after the fifth note", func(s *situation) { s.place.killRecord = 5 }),
	mildly("slow", "slow sink, and a server that hangs up when idle", func(s *situation) {
		s.place.delay, s.habits.idle = 40*time.Second, 30*time.Second
	}),
	mildly("slow", "slow sink", func(s *situation) { s.place.delay = 5 * time.Minute }),
	with("cancel", "signal in the second run", func(s *situation) { s.place.cancelIn = 30 * time.Second }),

	mildly("delete", "Delete", func(s *situation) { s.fetcher.Delete = true }),
	mildly("delete", "Delete after two hours", func(s *situation) {
		s.fetcher.Delete, s.fetcher.KeepFor = true, 2*time.Hour
	}),
	with("clock", "the clock was thirty years slow", func(s *situation) { s.place.clock = -30 * 365 * 24 * time.Hour }),
	with("clock", "the clock was thirty years fast", func(s *situation) { s.place.clock = 30 * 365 * 24 * time.Hour }),
	mildly("commit", "CommitEvery 1", func(s *situation) { s.fetcher.CommitEvery = 1 }),
	mildly("commit", "CommitEvery 3", func(s *situation) { s.fetcher.CommitEvery = 3 }),
	with("limit", "MaxMessages 3", func(s *situation) { s.fetcher.MaxMessages = 3 }),
	with("limit", "MaxOctets", func(s *situation) { s.fetcher.MaxOctets = 500 }),
	mildly("order", "NewestFirst", func(s *situation) { s.fetcher.NewestFirst = true }),
	mildly("select", "Select skips every third", func(s *situation) { s.choose(fetch.Skip) }),
	mildly("select", "Select leaves every third", func(s *situation) { s.choose(fetch.Leave) }),
}

// choose makes Select decide about every third message, by its header.
func (s *situation) choose(d fetch.Decision) {
	chosen := make(map[string]bool)
	for _, m := range s.messages {
		if m.serial%3 == 0 {
			m.skipped, m.left = d == fetch.Skip, d == fetch.Leave
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

// draw makes a recipe. Some recipes have few faults, and some have many.
func draw(seed uint64) recipe {
	d := rand.New(rand.NewPCG(seed, 16))
	r := recipe{seed: seed, first: 3 + d.IntN(12), runs: 5 + d.IntN(6)}
	r.interval = []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour}[d.IntN(3)]
	trouble := d.Float64() * 0.5
	kind := ofMessages[d.IntN(len(ofMessages))]
	for num := range r.first + r.runs - 1 {
		if d.Float64() < trouble {
			if d.IntN(2) == 0 { // half of the time, many faults of one kind: they are worse than one of each
				kind = ofMessages[d.IntN(len(ofMessages))]
			}
			r.faults = append(r.faults, chosen{kind, num})
		}
	}
	others := d.Float64() * 0.15
	taken := map[string]bool{}
	for _, i := range d.Perm(len(ofOthers)) {
		f := ofOthers[i]
		if !taken[f.group] && (d.Float64() < others || f.group == "delete" && d.IntN(3) == 0) {
			taken[f.group] = true
			r.faults = append(r.faults, chosen{f, 0})
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
			if smaller.runs > 0 && smaller.first > 0 && fails(smaller) {
				r, again = smaller, true
			}
		}
	}
	return r
}

// shorter returns the recipe with one run fewer.
func (r recipe) shorter() recipe {
	r.runs--
	return r.within()
}

// fewer returns the recipe with one message fewer.
func (r recipe) fewer() recipe {
	r.first--
	return r.within()
}

// within removes the faults of messages that do not exist.
func (r recipe) within() recipe {
	r.faults = slices.DeleteFunc(slices.Clone(r.faults), func(f chosen) bool { return f.num >= r.first+r.runs-1 })
	return r
}
