package fetch

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A record is what a run knows of messages that were stored: the history of the account in memory. Whatever changes
// is saved before it counts.
type record struct {
	history History
	byUID   map[string][]*Entry
}

// openRecord opens the history of an account. Without a place to remember it is empty, and ends with the run.
func openRecord(ctx context.Context, seen Seen, account string) (*record, error) {
	if seen == nil {
		seen = new(MemorySeen)
	}
	h, err := seen.Open(ctx, account)
	if err != nil {
		return nil, err
	}
	rec := &record{history: h, byUID: make(map[string][]*Entry)}
	entries, err := h.Load(ctx)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("fetch: loading what was seen: %w", err)
	}
	for _, e := range entries {
		rec.byUID[e.UID] = append(rec.byUID[e.UID], &e)
	}
	for _, copies := range rec.byUID {
		slices.SortFunc(copies, func(a, b *Entry) int { return a.Copy - b.Copy })
	}
	return rec, nil
}

// hasUIDs reports whether the server has given unique-ids.
func (rec *record) hasUIDs() bool {
	_, unnamed := rec.byUID[""]
	return len(rec.byUID) > 1 || len(rec.byUID) == 1 && !unnamed
}

// save makes the present values of entries last.
func (rec *record) save(ctx context.Context, entries ...*Entry) error {
	if len(entries) == 0 {
		return nil
	}
	values := make([]Entry, len(entries))
	for i, e := range entries {
		values[i] = *e
	}
	if err := rec.history.Save(ctx, values...); err != nil {
		return fmt.Errorf("fetch: remembering what was stored: %w", err)
	}
	return nil
}

// add makes a new entry last.
func (rec *record) add(ctx context.Context, e *Entry) error {
	copies := rec.byUID[e.UID]
	if n := len(copies); n > 0 {
		e.Copy = copies[n-1].Copy + 1
	}
	rec.byUID[e.UID] = append(copies, e)
	return rec.save(ctx, e)
}

// keepMissing is how long an entry is kept whose message is not listed though it was not deleted. A server that
// shows an empty maildrop for a day must not make everything new.
const keepMissing = 30 * 24 * time.Hour

// miss takes note that the messages of entries are not on the server. One that was to be deleted is forgotten, since
// that is what should be.
func (rec *record) miss(ctx context.Context, now time.Time, entries ...*Entry) error {
	var missing, gone []*Entry
	for _, e := range entries {
		switch {
		case !e.Deleted.IsZero() || !e.Missing.IsZero() && now.Sub(e.Missing) > keepMissing:
			gone = append(gone, e)
		case e.Missing.IsZero():
			e.Missing = now
			missing = append(missing, e)
		}
	}
	if err := rec.forget(ctx, gone...); err != nil {
		return err
	}
	return rec.save(ctx, missing...)
}

// forget drops entries.
func (rec *record) forget(ctx context.Context, entries ...*Entry) error {
	if len(entries) == 0 {
		return nil
	}
	values := make([]Entry, len(entries))
	for i, e := range entries {
		values[i] = *e
		rest := without(rec.byUID[e.UID], e)
		rec.byUID[e.UID] = rest
		if len(rest) == 0 {
			delete(rec.byUID, e.UID)
		}
	}
	if err := rec.history.Forget(ctx, values...); err != nil {
		return fmt.Errorf("fetch: forgetting what is gone: %w", err)
	}
	return nil
}

// without gives the entries other than e.
func without(entries []*Entry, e *Entry) []*Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(other *Entry) bool { return other == e })
}
