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
	box    *mailbox
	other  *mailbox   // the mailbox of another account; its server has no faults
	all    []*message // all messages that were ever on the server
	seen   fetch.MemorySeen
	run    int // the current run, from 1
	healed bool

	deliveries []string  // messages that the sink has stored
	copies     int       // number of extra copies in deliveries
	saves      int       // number of writes to the record
	killed     bool      // the program was killed in this run
	kills      int       // how often the program was killed
	clockOff   time.Time // when the wrong times in the record were read
	fullRuns   int       // number of runs in which the sink refused everything
	signalTime time.Time
	signals    int // number of signals that ended a run
	cancel     func()
	wires      []*wire
	sinkTime   time.Duration // time that the sink took in this run

	current    runState // the current run
	mu         sync.Mutex
	log        strings.Builder
	violations []violation
}

// A runState is what the rules need to know about one run.
type runState struct {
	began         time.Time
	listed        []*message // listed by the first session
	present       []*message // messages on the server when the run began
	fair          bool       // nothing prevents the run from handling all messages
	outcomes      map[*message][]fetch.Outcome
	removedBefore int // messages that were gone before the run
	report        fetch.Report

	confirmed []*message // messages that the server says it has deleted
}

// run carries out all runs in a bubble of synctest. The last runs have no faults.
func (r recipe) run() *sequence {
	q := &sequence{recipe: r, situation: r.build()}
	q.box = &mailbox{habits: q.habits, logf: q.logf, addViolation: q.addViolation, onDele: q.onDele}
	q.other = &mailbox{logf: func(string, ...any) {}, addViolation: q.addViolation, onDele: func(*message) {}}
	for _, m := range q.messages[:r.messages] {
		q.addMessage(m)
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
	q.checkEnd()
	time.Sleep(time.Hour) // goroutines of the server may still wait
	return q
}

// healthyRuns is the number of runs without faults: three to finish the job, one with new messages, and one after it.
const healthyRuns = 5

// change changes the maildrop before a run.
func (q *sequence) change(n int) {
	switch {
	case n == q.recipe.runs+healthyRuns-1:
		q.addMessage(q.messages[len(q.messages)-2])
		q.addMessage(q.messages[len(q.messages)-1])
		return
	case n == 1 || n > q.recipe.runs:
		return
	}
	if q.removeBeforeRun == n && len(q.box.messages) > 0 {
		m := q.box.messages[0]
		m.removed = true
		q.box.remove([]*message{m})
		q.logf("\nAnother program deletes message %d.", m.serial)
	}
	q.addMessage(q.messages[q.recipe.messages+n-2])
}

func (q *sequence) addMessage(m *message) {
	m.arrived = time.Now()
	q.box.messages = append(q.box.messages, m)
	q.all = append(q.all, m)
}

// heal removes all faults.
func (q *sequence) heal() {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	q.logf("\nFrom now on there are no faults.")
	q.healed = true
	b := q.box
	b.quit, b.listedSize, b.loginDelay, b.lockTime, b.window, b.quota, b.idle = quitNormal, nil, 0, 0, 0, 0, 0
	b.lockedUntil, b.endlessCapa, b.unopened, b.delayArg = time.Time{}, false, 0, ""
	if b.uids == uidRenewed {
		b.uids = uidUnique
	}
	q.storage = storageFaults{}
	q.fetcher.MaxMessages, q.fetcher.MaxOctets, q.fetcher.Select = 0, 0, nil
	for _, m := range q.all {
		healthy := message{serial: m.serial, text: m.text, sent: m.sent, removed: m.removed, arrived: m.arrived}
		healthy.retrieved, healthy.retrievedBefore = m.retrieved, m.retrievedBefore
		healthy.deliveredCut = m.deliveredCut
		healthy.neverStored, healthy.skippedBySelect, healthy.expired = m.neverStored, m.skippedBySelect, m.expired
		healthy.sizeVaried = m.sizeVaried || m.sizeVaries
		if m.contentVaries {
			healthy.text, _ = m.content()
		}
		healthy.delivered, healthy.lastDelivered, healthy.stored = m.delivered, m.lastDelivered, m.stored
		*m = healthy
	}
}

// fetch carries out one run.
func (q *sequence) fetch(n int) {
	q.begin(n)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	q.cancel = cancel
	if q.storage.cancelIn > 0 && n == 2 {
		defer time.AfterFunc(q.storage.cancelIn, q.signal).Stop()
	}
	other := make(chan time.Duration, 1)
	go q.fetchOther(other)
	f := q.fetcher
	f.Connect, f.Sink, f.Seen, f.Account, f.MaxSize = q.connect, q, q, "fred@example.org", maxSize
	for res, err := range f.Results(ctx, &q.current.report) {
		if err == nil {
			q.onResult(res)
		}
	}
	took := time.Since(q.current.began)
	synctest.Wait()
	q.logReport()
	q.checkRun(took)
	if took := <-other; took > time.Second {
		q.addViolation("L4", "the other account took %v", took)
	}
}

// begin prepares a run.
func (q *sequence) begin(n int) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	q.change(n)
	q.run, q.box.run, q.killed, q.signalTime = n, n, false, time.Time{}
	q.sinkTime, q.box.paused = 0, 0
	q.current = runState{began: time.Now(), outcomes: map[*message][]fetch.Outcome{}, removedBefore: len(q.box.removed)}
	q.current.present = append(q.current.present, q.box.messages...)
	q.current.fair = q.isFair()
	if q.isDuring(q.storage.sinkFull, q.storage.sinkFullUntil) {
		q.fullRuns++
	}
	q.logf("\nRun %d (%v):", n, time.Now().Format("Jan 2 15:04"))
}

// signal ends the context of the run.
func (q *sequence) signal() {
	q.mu.Lock()
	q.signalTime = time.Now()
	q.signals++
	q.mu.Unlock()
	q.logf("SIGNAL")
	q.cancel()
}

// kill ends the program at once: its later actions have no effect.
func (q *sequence) kill() {
	q.logf("KILLED.")
	q.killed = true
	q.kills++
	q.wires[len(q.wires)-1].end()
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
	if len(q.wires) > 3*len(q.current.present)+20 {
		q.addViolation("L4", "the run has had %d sessions, and goes on", len(q.wires))
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
	if q.current.listed == nil {
		q.current.listed = append([]*message{}, q.box.listed...)
	}
	return c, nil
}

// login logs in to a mailbox.
func (q *sequence) login(ctx context.Context, box *mailbox, w *wire) (*pop3.Client, error) {
	w.log.quitting = true // the Fetcher may quit at any time
	w.log.addViolation = func(invariant, what string) { q.addViolation(invariant, "%s", what) }
	t := &mailboxSession{box: box, w: w}
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
func (q *sequence) fetchOther(done chan<- time.Duration) {
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
		q.addViolation("L4", "the other account: %d messages stored, %d deleted, %v", stored, report.Deleted, err)
	}
	done <- time.Since(began)
}

// Deliver implements fetch.Sink: the sequence is the sink of its Fetcher.
func (q *sequence) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	if err := q.refusal(item); err != nil {
		return err
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if q.storage.sinkDelay > 0 {
		q.sinkTime += q.storage.sinkDelay
		select {
		case <-time.After(q.storage.sinkDelay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	q.store(item, string(content))
	if len(q.deliveries) == q.storage.killAtDelivery {
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
	case q.isDuring(q.storage.sinkFull, q.storage.sinkFullUntil):
		return errFull
	case q.box.listed[item.Num-1].neverStored:
		return fmt.Errorf("the sink can't store this message: %w", fetch.ErrPermanent)
	case q.run <= q.box.listed[item.Num-1].refusedUntil:
		return errors.New("the sink does not like this message")
	}
	return nil
}

func (q *sequence) store(item fetch.Item, content string) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	m := q.box.listed[item.Num-1]
	q.deliveries = append(q.deliveries, content)
	m.stored++
	m.lastDelivered = time.Now()
	m.deliveredCut = m.deliveredCut || m.cut
	if m.delivered.IsZero() && m.sent[content] {
		m.delivered = time.Now()
	}
	q.logf("Stored %d.", m.serial)
}

// isDuring reports whether the current run is one of the runs from first to last. first is 0 for none, last is 0 for no
// end.
func (q *sequence) isDuring(first, last int) bool {
	return first > 0 && q.run >= first && (last == 0 || q.run <= last)
}

// Open implements fetch.Seen: the sequence is the record of its Fetcher.
func (q *sequence) Open(ctx context.Context, account string) (fetch.History, error) {
	h, err := q.seen.Open(ctx, account)
	return unreliableHistory{h, q}, err
}

// An unreliableHistory is a record that cannot always be written.
type unreliableHistory struct {
	fetch.History
	q *sequence
}

func (h unreliableHistory) Load(ctx context.Context) ([]fetch.Entry, error) {
	entries, err := h.History.Load(ctx)
	if h.q.run != 2 || h.q.storage.clockError == 0 {
		return entries, err
	}
	for i := range entries {
		if !entries[i].Stored.IsZero() {
			entries[i].Stored = entries[i].Stored.Add(h.q.storage.clockError)
		}
	}
	h.q.clockOff = time.Now()
	return entries, h.History.Save(ctx, entries...)
}

func (h unreliableHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
	return h.write(func() error { return h.History.Save(ctx, entries...) })
}

func (h unreliableHistory) Forget(ctx context.Context, entries ...fetch.Entry) error {
	return h.write(func() error { return h.History.Forget(ctx, entries...) })
}

func (h unreliableHistory) write(do func() error) error {
	q := h.q
	switch {
	case q.killed:
		return errKilled
	case q.isDuring(q.storage.noRecord, q.storage.noRecordUntil):
		return errFull
	}
	err := do()
	if q.saves++; q.saves == q.storage.killAtSave {
		q.kill()
	}
	return err
}

// logf writes to the log.
func (q *sequence) logf(format string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fmt.Fprintf(&q.log, format+" ", args...)
}

// logReport writes the report of the run to the log.
func (q *sequence) logReport() {
	r := q.current.report
	q.logf("\n  -> listed %d, known %d, delivered %d, deleted %d, unconfirmed %d, sessions %d, err: %v",
		r.Listed, r.Known, r.Delivered, r.Deleted, r.Unconfirmed, r.Sessions,
		strings.ReplaceAll(fmt.Sprint(r.Err), "\n", " / "))
	for _, res := range append(r.Skipped, r.Problems...) {
		q.logf("\n     %d %s %v: %v", res.Num, res.UID, res.Outcome, res.Err)
	}
}

func (q *sequence) addViolation(rule, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	q.logf("\n  ** %s: %s", rule, what)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.violations = append(q.violations, violation{rule, fmt.Sprintf("run %d: %s", q.run, what)})
}
