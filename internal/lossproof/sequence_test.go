package lossproof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// A sequence is a series of runs of a Fetcher in one situation.
type sequence struct {
	recipe recipe
	*situation
	box   *mailbox
	other *mailbox   // the mailbox of another account; its server has no faults
	all   []*message // all messages that were ever on the server
	seen  fetch.MemorySeen
	run   int // the current run, from 1
	heals bool

	deliveries []string  // what the sink has stored
	copies     int       // number of extra copies in deliveries
	notes      int       // number of entries that the record has saved
	killed     bool      // the program was killed in this run
	kills      int       // how often the program was killed
	clockOff   time.Time // when it was noticed that the clock had been wrong
	fullRuns   int       // number of runs in which the sink refused everything
	ended      time.Time
	signals    int // number of signals that ended a run
	cancel     func()
	wires      []*wire
	sinkTime   time.Duration // time that the sink took in this run

	visit      account // the current run
	mu         sync.Mutex
	story      strings.Builder
	violations []violation
}

// An account is what the judge needs to know about one run.
type account struct {
	began   time.Time
	listed  []*message // listed by the first session
	present []*message // messages on the server when the run began
	fair    bool       // nothing prevents the run from handling all messages
	about   map[*message][]fetch.Outcome
	gone    int // messages that were gone before the run
	report  fetch.Report

	confirmed []*message // messages that the server says it has deleted
}

// play carries out all runs in a bubble of synctest. The last runs have no faults.
func (r recipe) play() *sequence {
	q := &sequence{recipe: r, situation: r.build()}
	q.box = &mailbox{habits: q.habits, note: q.note, broke: q.broke, onDele: q.onDele}
	q.other = &mailbox{note: func(string, ...any) {}, broke: q.broke, onDele: func(*message) {}}
	for _, m := range q.messages[:r.first] {
		q.arrive(m)
	}
	for n := 1; n <= r.runs; n++ {
		q.fetch(n)
		time.Sleep(r.interval)
	}
	q.heal()
	for n := range healthyRuns {
		time.Sleep(25 * time.Hour)
		q.fetch(r.runs + n + 1)
	}
	q.judgeEnd()
	time.Sleep(time.Hour) // goroutines of the server may still wait
	return q
}

// healthyRuns is the number of runs without faults: three to finish the job, one with new messages, and one after it.
const healthyRuns = 5

// change changes the maildrop before a run.
func (q *sequence) change(n int) {
	switch {
	case n == q.recipe.runs+healthyRuns-1:
		q.arrive(q.messages[len(q.messages)-2])
		q.arrive(q.messages[len(q.messages)-1])
		return
	case n == 1 || n > q.recipe.runs:
		return
	}
	if q.removes == n && len(q.box.messages) > 0 {
		m := q.box.messages[0]
		m.removed = true
		q.box.remove([]*message{m})
		q.note("\nAnother program deletes message %d.", m.serial)
	}
	q.arrive(q.messages[q.recipe.first+n-2])
}

func (q *sequence) arrive(m *message) {
	m.arrived = time.Now()
	q.box.messages = append(q.box.messages, m)
	q.all = append(q.all, m)
}

// heal removes all faults.
func (q *sequence) heal() {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	q.note("\nFrom now on all is well.")
	q.heals = true
	b := q.box
	b.close, b.size, b.delay, b.locks, b.window, b.quota, b.idle = closeWell, nil, 0, 0, 0, 0, 0
	b.lockedTo, b.drips, b.unopened, b.loginDelay = time.Time{}, false, 0, ""
	if b.uids == uidRenewed {
		b.uids = uidUnique
	}
	q.place = place{}
	q.fetcher.MaxMessages, q.fetcher.MaxOctets, q.fetcher.Select = 0, 0, nil
	for _, m := range q.all {
		healthy := message{serial: m.serial, text: m.text, sent: m.sent, removed: m.removed, arrived: m.arrived}
		healthy.retrieved, healthy.shown, healthy.halved = m.retrieved, m.shown, m.halved
		healthy.impossible, healthy.skipped, healthy.expired = m.impossible, m.skipped, m.expired
		healthy.resizes = m.resizes || m.resized
		if m.changes {
			healthy.text, _ = m.content()
		}
		healthy.delivered, healthy.latest, healthy.stored = m.delivered, m.latest, m.stored
		*m = healthy
	}
}

// fetch carries out one run.
func (q *sequence) fetch(n int) {
	q.begin(n)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	q.cancel = cancel
	if q.place.cancelIn > 0 && n == 2 {
		defer time.AfterFunc(q.place.cancelIn, q.signal).Stop()
	}
	other := make(chan time.Duration, 1)
	go q.fetchOther(other)
	f := q.fetcher
	f.Connect, f.Sink, f.Seen, f.Account, f.MaxSize = q.connect, q, q, "fred@example.org", maxSize
	for res, err := range f.Results(ctx, &q.visit.report) {
		if err == nil {
			q.onResult(res)
		}
	}
	took := time.Since(q.visit.began)
	synctest.Wait()
	q.tell()
	q.judge(took)
	if took := <-other; took > time.Second {
		q.broke("L4", "the other account took %v", took)
	}
}

// begin prepares a run.
func (q *sequence) begin(n int) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	q.change(n)
	q.run, q.box.run, q.killed, q.ended = n, n, false, time.Time{}
	q.sinkTime, q.box.paused = 0, 0
	q.visit = account{began: time.Now(), about: map[*message][]fetch.Outcome{}, gone: len(q.box.gone)}
	q.visit.present = append(q.visit.present, q.box.messages...)
	q.visit.fair = q.fair()
	if q.within(q.place.full, q.place.fullUntil) {
		q.fullRuns++
	}
	q.note("\nRun %d (%v):", n, time.Now().Format("Jan 2 15:04"))
}

// signal ends the context of the run.
func (q *sequence) signal() {
	q.mu.Lock()
	q.ended = time.Now()
	q.signals++
	q.mu.Unlock()
	q.note("SIGNAL")
	q.cancel()
}

// kill ends the program at once: its later actions have no effect.
func (q *sequence) kill() {
	q.note("KILLED.")
	q.killed = true
	q.kills++
	q.wires[len(q.wires)-1].shut()
	q.cancel()
}

var (
	errKilled  = errors.New("the program has been killed")
	errEndless = errors.New("the run does not end")
)

// connect returns a client that is logged in, for the Fetcher.
func (q *sequence) connect(ctx context.Context) (*pop3.Client, error) {
	if q.killed {
		return nil, errKilled
	}
	if len(q.wires) > 3*len(q.visit.present)+20 {
		q.broke("L4", "the run has had %d sessions, and goes on", len(q.wires))
		return nil, errEndless
	}
	synctest.Wait() // the server must first see the end of the previous session
	w := newWire()
	q.wires = append(q.wires, w)
	c, err := q.login(ctx, q.box, w)
	if err != nil {
		return nil, err
	}
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	if q.visit.listed == nil {
		q.visit.listed = append([]*message{}, q.box.view...)
	}
	return c, nil
}

// login logs in to a mailbox.
func (q *sequence) login(ctx context.Context, box *mailbox, w *wire) (*pop3.Client, error) {
	w.log.quitting = true // the Fetcher may quit at any time
	w.log.broke = func(invariant, what string) { q.broke(invariant, "%s", what) }
	t := &talk{box: box, w: w}
	go t.serve()
	c, err := pop3.NewClient(ctx, clientEnd{w: w}, &pop3.Options{InsecureAuth: true})
	if err != nil {
		return nil, err
	}
	if err = c.User(ctx, user); err == nil {
		err = c.Pass(ctx, password)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// fetchOther fetches for a second account, whose server has no faults and has a new message. It shares the record and
// the process with the first account, and must not be delayed by it.
func (q *sequence) fetchOther(over chan<- time.Duration) {
	q.other.run = q.run
	text := fmt.Sprintf("Subject: to the other, %03d\r\n\r\nHello.\r\n", q.run)
	q.other.messages = append(q.other.messages, &message{serial: q.run, text: text, sent: map[string]bool{}})
	stored := 0
	f := fetch.Fetcher{Seen: &q.seen, Account: "wilma@example.org", Delete: true}
	f.Connect = func(ctx context.Context) (*pop3.Client, error) { return q.login(ctx, q.other, newWire()) }
	f.Sink = fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
		stored++
		_, err := io.Copy(io.Discard, r)
		return err
	})
	began := time.Now()
	report, err := f.Run(context.Background())
	if err != nil || stored != 1 || report.Deleted != 1 {
		q.broke("L4", "the other account: %d messages stored, %d deleted, %v", stored, report.Deleted, err)
	}
	over <- time.Since(began)
}

// Deliver makes the sequence the sink.
func (q *sequence) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	if err := q.refusal(item); err != nil {
		return err
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if q.place.delay > 0 {
		q.sinkTime += q.place.delay
		select {
		case <-time.After(q.place.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	q.store(item, string(content))
	if len(q.deliveries) == q.place.killSink {
		q.kill()
	}
	return nil
}

// refusal returns the error with which the sink refuses a message, or nil.
func (q *sequence) refusal(item fetch.Item) error {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	switch {
	case q.killed:
		return errKilled
	case q.within(q.place.full, q.place.fullUntil):
		return errFull
	case q.box.view[item.Num-1].impossible:
		return fmt.Errorf("the sink can't store this message: %w", fetch.ErrPermanent)
	case q.run <= q.box.view[item.Num-1].unwanted:
		return errors.New("the sink does not like this message")
	}
	return nil
}

func (q *sequence) store(item fetch.Item, content string) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	m := q.box.view[item.Num-1]
	q.deliveries = append(q.deliveries, content)
	m.stored++
	m.latest = time.Now()
	m.halved = m.halved || m.cut
	if m.delivered.IsZero() && m.sent[content] {
		m.delivered = time.Now()
	}
	q.note("Stored %d.", m.serial)
}

// within reports whether the current run is at or after from, and before until.
func (q *sequence) within(from, until int) bool {
	return from > 0 && q.run >= from && (until == 0 || q.run <= until)
}

// Open makes the sequence the record, a fetch.Seen.
func (q *sequence) Open(ctx context.Context, account string) (fetch.History, error) {
	h, err := q.seen.Open(ctx, account)
	return fickleHistory{h, q}, err
}

// A fickleHistory is a record that cannot always be written.
type fickleHistory struct {
	fetch.History
	q *sequence
}

func (h fickleHistory) Load(ctx context.Context) ([]fetch.Entry, error) {
	entries, err := h.History.Load(ctx)
	if h.q.run != 2 || h.q.place.clock == 0 {
		return entries, err
	}
	for i := range entries {
		if !entries[i].Stored.IsZero() {
			entries[i].Stored = entries[i].Stored.Add(h.q.place.clock)
		}
	}
	h.q.clockOff = time.Now()
	return entries, h.History.Save(ctx, entries...)
}

func (h fickleHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
	return h.write(func() error { return h.History.Save(ctx, entries...) })
}

func (h fickleHistory) Forget(ctx context.Context, entries ...fetch.Entry) error {
	return h.write(func() error { return h.History.Forget(ctx, entries...) })
}

func (h fickleHistory) write(do func() error) error {
	q := h.q
	switch {
	case q.killed:
		return errKilled
	case q.within(q.place.noRecord, q.place.noRecTill):
		return errFull
	}
	err := do()
	if q.notes++; q.notes == q.place.killRecord {
		q.kill()
	}
	return err
}

// note writes to the log.
func (q *sequence) note(format string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fmt.Fprintf(&q.story, format+" ", args...)
}

// tell writes the report of the run to the log.
func (q *sequence) tell() {
	r := q.visit.report
	q.note("\n  -> listed %d, known %d, delivered %d, deleted %d, unconfirmed %d, sessions %d, err: %v",
		r.Listed, r.Known, r.Delivered, r.Deleted, r.Unconfirmed, r.Sessions,
		strings.ReplaceAll(fmt.Sprint(r.Err), "\n", " / "))
	for _, res := range append(r.Skipped, r.Problems...) {
		q.note("\n     %d %s %v: %v", res.Num, res.UID, res.Outcome, res.Err)
	}
}

func (q *sequence) broke(rule, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	q.note("\n  ** %s: %s", rule, what)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.violations = append(q.violations, violation{rule, fmt.Sprintf("run %d: %s", q.run, what)})
}
