package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// A leasedSeen is a [fetch.Seen] in a JetStream bucket, for the one account whose lease is held. Any worker can go on
// where another one has ended.
type leasedSeen struct {
	kv   jetstream.KeyValue
	held *lease
	gate *gate
	life context.Context // for as long as it lasts, notes are stored
}

func (s leasedSeen) Open(ctx context.Context, account string) (fetch.History, error) {
	h := &kvHistory{leasedSeen: s, account: account, byID: make(map[entryID]place)}
	if err := h.loadPages(ctx); err != nil {
		return nil, fmt.Errorf("fleet: seen messages of %q: %w", account, err)
	}
	return h, nil
}

// pageSize is the number of entries in a page. A save writes one page, and an open reads all of them.
const pageSize = 100

// A page is one value of the bucket. It replaces only the revision that was read, so a worker that was taken for dead
// cannot undo what its successor did.
type page struct {
	Account  string        `json:"account"`
	Entries  []fetch.Entry `json:"entries"`
	revision uint64
	changed  bool
}

type entryID struct {
	uid  string
	copy int
}

type place struct{ page, index int }

func idOf(e fetch.Entry) entryID { return entryID{e.UID, e.Copy} }

// A kvHistory is the history of one account.
type kvHistory struct {
	leasedSeen
	account string
	pages   []*page
	byID    map[entryID]place
}

func pageKey(key string, n int) string { return fmt.Sprintf("%s.%d", key, n) }

func (h *kvHistory) loadPages(ctx context.Context) error {
	for n := 0; ; n++ {
		kve, err := getKey(ctx, h.kv, pageKey(h.held.key, n))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		p := &page{revision: kve.Revision()}
		if err := json.Unmarshal(kve.Value(), p); err != nil {
			return fmt.Errorf("page %d is damaged; delete key %s to forget it: %w", n, pageKey(h.held.key, n), err)
		}
		h.pages = append(h.pages, p)
		h.index(n)
	}
}

// index notes where the entries of a page are.
func (h *kvHistory) index(n int) {
	for i, e := range h.pages[n].Entries {
		h.byID[idOf(e)] = place{n, i}
	}
}

func (h *kvHistory) Load(context.Context) ([]fetch.Entry, error) {
	var entries []fetch.Entry
	for _, p := range h.pages {
		entries = append(entries, p.Entries...)
	}
	return entries, nil
}

func (h *kvHistory) Save(_ context.Context, entries ...fetch.Entry) error {
	for _, e := range entries {
		at, known := h.byID[idOf(e)]
		if !known {
			at = h.room()
			h.byID[idOf(e)] = at
			h.pages[at.page].Entries = append(h.pages[at.page].Entries, e)
		}
		h.pages[at.page].Entries[at.index] = e
		h.pages[at.page].changed = true
	}
	return h.write()
}

// room returns the place for a new entry. Pages that have lost entries are filled again.
func (h *kvHistory) room() place {
	for n, p := range h.pages {
		if len(p.Entries) < pageSize {
			return place{n, len(p.Entries)}
		}
	}
	h.pages = append(h.pages, &page{Account: h.account})
	return place{len(h.pages) - 1, 0}
}

func (h *kvHistory) Forget(_ context.Context, entries ...fetch.Entry) error {
	for _, e := range entries {
		at, known := h.byID[idOf(e)]
		if !known {
			continue
		}
		delete(h.byID, idOf(e))
		p := h.pages[at.page]
		p.Entries = slices.Delete(p.Entries, at.index, at.index+1)
		p.changed = true
		h.index(at.page)
	}
	return h.write()
}

// write stores the pages that have changed. An empty page stays, because loadPages ends where a page is missing. When
// the lease is lost the run has to end, but the notes are stored first: they replace only the revision that was read,
// so they harm nobody, and without them the messages would be delivered again.
func (h *kvHistory) write() error {
	for n, p := range h.pages {
		if !p.changed {
			continue
		}
		if err := h.gate.store(h.life, func() error { return h.writePage(n, p) }); err != nil {
			return fmt.Errorf("fleet: seen messages of %q: %w", h.account, err)
		}
	}
	if !h.held.valid() {
		return fmt.Errorf("fleet: seen messages of %q: %w", h.account, errLeaseLost)
	}
	return nil
}

func (h *kvHistory) writePage(n int, p *page) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	revision, err := updateKey(h.life, h.kv, pageKey(h.held.key, n), value, p.revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return fmt.Errorf("%w: another worker has written: %w", errLeaseLost, err)
	}
	if err != nil {
		return err
	}
	p.revision, p.changed = revision, false
	return nil
}

// Close has nothing to do: who has taken the lease releases it.
func (h *kvHistory) Close() error { return nil }
