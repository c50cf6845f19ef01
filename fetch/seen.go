package fetch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// An Entry is what is remembered of a message. A [History] saves it unchanged. UID and Copy together identify an entry.
// A History need not know the other fields.
//
// If Stored is set, the message was delivered. If Skipped is set, the message is never retrieved and never deleted. The
// same is true if Stored is set and Digest is not. If neither is set, the message was not delivered yet.
type Entry struct {
	UID       string    `json:"uid"`                // unique-id, "" if the server has none
	Copy      int       `json:"copy,omitzero"`      // distinguishes messages with the same UID
	Size      int64     `json:"size,omitzero"`      // bytes, as the server claimed
	Octets    int64     `json:"octets,omitzero"`    // bytes that were received
	Lines     int64     `json:"lines,omitzero"`     // line ends in these bytes
	Digest    string    `json:"sha256,omitzero"`    // SHA-256, without the fields in which servers keep notes
	Header    string    `json:"header,omitzero"`    // SHA-256 of the header without MIME fields
	Short     bool      `json:"short,omitzero"`     // fewer bytes were received than claimed
	Checked   time.Time `json:"checked,omitzero"`   // last comparison after a wrong size or a wrong confirmation
	Unsure    bool      `json:"unsure,omitzero"`    // what was stored may be another message
	Varies    bool      `json:"varies,omitzero"`    // the message has different content each time
	Listed    time.Time `json:"listed,omitzero"`    // when the message was first listed, if it was not fetched
	Stored    time.Time `json:"stored,omitzero"`    // when it was delivered
	Skipped   time.Time `json:"skipped,omitzero"`   // when it was skipped or imported
	Deleted   time.Time `json:"deleted,omitzero"`   // when QUIT was last sent with the message marked
	Quits     int       `json:"quits,omitzero"`     // how often QUIT was sent with the message marked
	Confirmed bool      `json:"confirmed,omitzero"` // the server confirmed the last of these QUITs
	Missing   time.Time `json:"missing,omitzero"`   // since when the message is not listed, if it was not deleted

	Failures   int       `json:"failures,omitzero"`  // runs in a row in which the message was not delivered
	Failed     time.Time `json:"failed,omitzero"`    // when the message last failed
	Reason     string    `json:"reason,omitzero"`    // why it failed
	NoneStored bool      `json:"alone,omitzero"`     // no other message was delivered in that run
	Permanent  bool      `json:"permanent,omitzero"` // the reason was ErrPermanent
	Owed       bool      `json:"owed,omitzero"`      // the last run did not try it again
}

// isKnown reports whether the message must not be delivered any more.
func (e *Entry) isKnown() bool { return !e.Stored.IsZero() || !e.Skipped.IsZero() }

// isSurelyDeleted reports whether the server has confirmed that it deleted the message, and has never confirmed it
// wrongly.
func (e *Entry) isSurelyDeleted() bool { return e.Confirmed && e.Checked.IsZero() }

// entryKey identifies an entry.
type entryKey struct {
	uid  string
	copy int
}

func (e Entry) key() entryKey { return entryKey{e.UID, e.Copy} }

// A Seen stores what a [Fetcher] remembers of accounts between runs.
type Seen interface {
	// Open returns the history of an account. Until the history is closed, it cannot be opened again,
	// in this process or another one. Open then fails with an error that wraps [ErrLocked].
	Open(ctx context.Context, account string) (History, error)
}

// A History is what is remembered of one account. If it also has the methods of [UnsyncedHistory], a [Fetcher] uses
// them.
type History interface {
	// Load returns all entries, in any order.
	Load(ctx context.Context) ([]Entry, error)

	// Save adds entries and replaces those with the same UID and Copy. After a nil error they
	// survive a power cut. After an error each of them may be saved or not.
	Save(ctx context.Context, entries ...Entry) error

	// Forget removes the entries with the same UID and Copy. After a power cut they may be there
	// again.
	Forget(ctx context.Context, entries ...Entry) error

	// Close closes the history, so that it can be opened again.
	Close() error
}

// An UnsyncedHistory is a [History] that saves entries faster if it need not sync each time. A run calls Sync before it
// deletes messages, after every hundred messages, and at its end.
type UnsyncedHistory interface {
	History

	// SaveUnsynced is like Save, but after a power cut the entries must be gone, unless Sync has
	// returned nil before the power cut. The entries survive the end of the process.
	SaveUnsynced(ctx context.Context, entries ...Entry) error

	// Sync makes sure that all entries that SaveUnsynced has saved survive a power cut.
	Sync(ctx context.Context) error
}

// Import adds messages to the history of an account by their unique-ids, for instance from the records of another
// program. A run neither retrieves nor deletes them. Entries of messages that were delivered or skipped are not
// changed.
func Import(ctx context.Context, seen Seen, account string, uids ...string) (err error) {
	rec, err := openRecord(ctx, seen, account)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rec.history.Close()) }()
	now := time.Now()
	var entries []*Entry
	for _, uid := range uids {
		switch known := rec.byUID[uid]; {
		case uid == "" || uid == surplusUID:
			return fmt.Errorf("fetch: import: %q is not a unique-id", uid)
		case len(known) == 0:
			entries = append(entries, &Entry{UID: uid, Skipped: now})
			rec.byUID[uid] = []*Entry{entries[len(entries)-1]}
		case !known[0].isKnown():
			known[0].Skipped = now
			entries = append(entries, known[0])
		}
	}
	if err := rec.save(ctx, entries...); err != nil {
		return err
	}
	return rec.sync(ctx)
}

// ErrLocked means that another run uses the same account.
var ErrLocked = errors.New("in use by another run for the same account; wait for it to end")

// A MemorySeen is a [Seen] in memory, for programs that need to remember messages only as long as they run. The zero
// value is empty and can be used. It must not be copied.
type MemorySeen struct {
	mu       sync.Mutex
	accounts map[string]map[entryKey]Entry
	open     map[string]bool
}

// Open returns the history of an account.
func (s *MemorySeen) Open(_ context.Context, account string) (History, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[account] {
		return nil, fmt.Errorf("fetch: seen messages of %q: %w", account, ErrLocked)
	}
	if s.accounts == nil {
		s.accounts = make(map[string]map[entryKey]Entry)
		s.open = make(map[string]bool)
	}
	if s.accounts[account] == nil {
		s.accounts[account] = make(map[entryKey]Entry)
	}
	s.open[account] = true
	return &memoryHistory{seen: s, account: account, entries: s.accounts[account]}, nil
}

// A memoryHistory is the only user of its entries while it is open.
type memoryHistory struct {
	seen    *MemorySeen
	account string
	entries map[entryKey]Entry
}

func (h *memoryHistory) Load(context.Context) ([]Entry, error) {
	return slices.AppendSeq(make([]Entry, 0, len(h.entries)), maps.Values(h.entries)), nil
}

func (h *memoryHistory) Save(_ context.Context, entries ...Entry) error {
	for _, e := range entries {
		h.entries[e.key()] = e
	}
	return nil
}

func (h *memoryHistory) Forget(_ context.Context, entries ...Entry) error {
	for _, e := range entries {
		delete(h.entries, e.key())
	}
	return nil
}

func (h *memoryHistory) Close() error {
	h.seen.mu.Lock()
	defer h.seen.mu.Unlock()
	delete(h.seen.open, h.account)
	return nil
}

// A record is the history of an account in memory. A change is saved before the run relies on it.
type record struct {
	history   History
	byUID     map[string][]*Entry
	surplus   *Entry   // entry with the rule that learnSurplus has found, or nil
	corrected []*Entry // entries whose times were wrong
	unsynced  bool     // entries were saved and not synced
}

// openRecord opens the history of an account. If seen is nil, the history is empty, and is not saved.
func openRecord(ctx context.Context, seen Seen, account string) (*record, error) {
	if seen == nil {
		seen = new(MemorySeen)
	}
	h, err := seen.Open(ctx, account)
	if err != nil {
		return nil, err
	}
	rec := &record{history: h, byUID: make(map[string][]*Entry)}
	if err := rec.load(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return rec, nil
}

// load reads all entries. A time that cannot be right, because a clock was wrong, is replaced by the current time.
func (rec *record) load(ctx context.Context) error {
	entries, err := rec.history.Load(ctx)
	if err != nil {
		return fmt.Errorf("fetch: reading the history: %w", err)
	}
	now := time.Now()
	for _, e := range entries {
		if e.Digest == "" && !e.Stored.IsZero() { // another program wrote the entry
			e.Stored, e.Skipped = time.Time{}, e.Stored
		}
		if e.correctTimes(now) {
			rec.corrected = append(rec.corrected, &e)
		}
		if e.UID == surplusUID {
			rec.surplus = &e
			continue
		}
		rec.byUID[e.UID] = append(rec.byUID[e.UID], &e)
	}
	for _, copies := range rec.byUID {
		slices.SortFunc(copies, func(a, b *Entry) int { return a.Copy - b.Copy })
	}
	return nil
}

// earliest is earlier than all times that this package can have saved.
var earliest = time.Date(1999, time.January, 1, 0, 0, 0, 0, time.UTC)

// correctTimes replaces times that are too early or in the future, and reports whether there were any.
func (e *Entry) correctTimes(now time.Time) (corrected bool) {
	for _, t := range []*time.Time{&e.Listed, &e.Stored, &e.Skipped, &e.Deleted, &e.Missing,
		&e.Checked, &e.Failed} {
		if !t.IsZero() && (t.Before(earliest) || t.Sub(now) > 24*time.Hour) {
			*t, corrected = now, true
		}
	}
	return corrected
}

// hasUIDs reports whether the server has sent unique-ids.
func (rec *record) hasUIDs() bool {
	_, unnamed := rec.byUID[""]
	return len(rec.byUID) > 1 || len(rec.byUID) == 1 && !unnamed
}

// save saves the current values of entries, so that they survive the end of the process.
func (rec *record) save(ctx context.Context, entries ...*Entry) (err error) {
	if len(entries) == 0 {
		return nil
	}
	if h, ok := rec.history.(UnsyncedHistory); ok {
		rec.unsynced = true
		err = h.SaveUnsynced(ctx, valuesOf(entries)...)
	} else {
		err = rec.history.Save(ctx, valuesOf(entries)...)
	}
	if err != nil {
		return fmt.Errorf("fetch: writing to the history: %w", err)
	}
	return nil
}

func valuesOf(entries []*Entry) []Entry {
	values := make([]Entry, len(entries))
	for i, e := range entries {
		values[i] = *e
	}
	return values
}

// sync makes all saved entries survive a power cut.
func (rec *record) sync(ctx context.Context) error {
	if !rec.unsynced {
		return nil
	}
	if err := rec.history.(UnsyncedHistory).Sync(ctx); err != nil {
		return fmt.Errorf("fetch: writing to the history: %w", err)
	}
	rec.unsynced = false
	return nil
}

// add adds a new entry. It does not save it.
func (rec *record) add(e *Entry) {
	copies := rec.byUID[e.UID]
	if n := len(copies); n > 0 {
		e.Copy = copies[n-1].Copy + 1
	}
	rec.byUID[e.UID] = append(copies, e)
}

// surplusUID is the UID of the entry with the rule of learnSurplus. It contains spaces, so no unique-id of a message is
// the same.
const surplusUID = "surplus of octets"

// These are the conditions under which learnSurplus accepts a rule.
const (
	minSizes   = 3   // how many different sizes are needed
	maxSurplus = 128 // in octets; a larger constant difference is not a rule
)

// learnSurplus finds out whether all sizes of the server are too large in the same way. Each size is too large by the
// same number of octets, or by the number of lines of the message. If there is such a rule, the messages were not cut.
func (rec *record) learnSurplus(ctx context.Context) error {
	sizes := make(map[int64]bool)
	var surplus int64
	isConstant, isPerLine := true, true
	for _, entries := range rec.byUID {
		for _, e := range entries {
			if e.Stored.IsZero() || e.Digest == "" || e.Size < 0 || !e.Missing.IsZero() {
				continue
			}
			if e.Size <= e.Octets {
				return rec.forgetSurplus(ctx)
			}
			if len(sizes) == 0 {
				surplus = e.Size - e.Octets
			}
			sizes[e.Octets] = true
			isConstant = isConstant && e.Size-e.Octets == surplus && surplus <= maxSurplus
			isPerLine = isPerLine && e.Size-e.Octets == e.Lines
		}
	}
	if rec.surplus != nil || len(sizes) < minSizes || !isConstant && !isPerLine {
		return nil
	}
	rec.surplus = &Entry{UID: surplusUID, Size: surplus}
	if !isConstant {
		rec.surplus.Size = perLine
	}
	return rec.save(ctx, rec.surplus)
}

// perLine stands for a surplus that equals the number of lines.
const perLine = -1

func (rec *record) forgetSurplus(ctx context.Context) error {
	if rec.surplus == nil {
		return nil
	}
	rule := *rec.surplus
	rec.surplus = nil
	return rec.history.Forget(ctx, rule)
}

// hasSurplus reports whether the size of a message is too large only because of the rule.
func (rec *record) hasSurplus(e *Entry) bool {
	if rec.surplus == nil {
		return false
	}
	surplus := e.Size - e.Octets
	return surplus == rec.surplus.Size || rec.surplus.Size == perLine && surplus == e.Lines
}

// keepMissing is how long an entry is kept if its message is not listed and was not deleted. A server may wrongly list
// an empty maildrop for a day; afterwards its messages must not count as new.
const keepMissing = 30 * 24 * time.Hour

// recordMissing records that the messages of entries are not on the server. It removes the entries of messages that
// were deleted or never stored. Entries of failed messages are kept for a day, because the messages may be listed
// again.
func (rec *record) recordMissing(ctx context.Context, now time.Time, entries ...*Entry) error {
	var missing, outdated []*Entry
	for _, e := range entries {
		keepFor := keepMissing
		if !e.isKnown() {
			keepFor = retryInterval
		}
		switch {
		case !e.isKnown() && e.Failures == 0, e.isSurelyDeleted(), !e.Missing.IsZero() && now.Sub(e.Missing) > keepFor:
			outdated = append(outdated, e)
		case e.Missing.IsZero():
			e.Missing = now
			missing = append(missing, e)
		}
	}
	if err := rec.forget(ctx, outdated...); err != nil {
		return err
	}
	return rec.save(ctx, missing...)
}

// forget removes entries.
func (rec *record) forget(ctx context.Context, entries ...*Entry) error {
	if len(entries) == 0 {
		return nil
	}
	forgotten := make(map[*Entry]bool, len(entries))
	uids := make(map[string]bool)
	for _, e := range entries {
		forgotten[e], uids[e.UID] = true, true
	}
	for uid := range uids {
		others := slices.DeleteFunc(rec.byUID[uid], func(e *Entry) bool { return forgotten[e] })
		if rec.byUID[uid] = others; len(others) == 0 {
			delete(rec.byUID, uid)
		}
	}
	if err := rec.history.Forget(ctx, valuesOf(entries)...); err != nil {
		return fmt.Errorf("fetch: writing to the history: %w", err)
	}
	return nil
}

// rename changes the unique-id of an entry, because its message has another one now. If that one is not known, uid is
// "".
func (rec *record) rename(ctx context.Context, e *Entry, uid string) error {
	old := *e
	if err := rec.forget(ctx, e); err != nil {
		return err
	}
	*e = old
	e.UID, e.Copy = uid, 0
	rec.add(e)
	return rec.save(ctx, e)
}
