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

// A kvSeen is a [fetch.Seen] in a JetStream bucket, so that any worker can go on where another one has ended. What
// is kept is as safe as the bucket: on one server it needs sync always, on a cluster replicas.
type kvSeen struct {
	kv     jetstream.KeyValue
	leases leases
	owner  string // of the leases, for people
}

func (s kvSeen) Open(ctx context.Context, account string) (fetch.History, error) {
	key := keyOf(account)
	var held *lease
	err := insist(ctx, func(ctx context.Context) (err error) {
		held, err = s.leases.take(ctx, key, s.owner)
		return err
	})
	if errors.Is(err, errHeld) {
		return nil, fmt.Errorf("fleet: seen messages of %q: %w", account, fetch.ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet: seen messages of %q: %w", account, err)
	}
	h := &kvHistory{kv: s.kv, lease: held, key: key, account: account, byID: make(map[entryID]place)}
	if err := h.loadPages(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("fleet: seen messages of %q: %w", account, err), held.release())
	}
	return h, nil
}

// pageSize is how many entries a page has: a save writes a page, an open reads all of them one after the other.
const pageSize = 100

// A page is one value of the bucket. It is written only over the revision that was read, so a worker that was taken
// for dead and lives can't undo what its successor did.
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
	kv      jetstream.KeyValue
	lease   *lease
	key     string
	account string
	pages   []*page
	byID    map[entryID]place
}

func (h *kvHistory) pageKey(n int) string { return fmt.Sprintf("%s.%d", h.key, n) }

func (h *kvHistory) loadPages(ctx context.Context) error {
	for n := 0; ; n++ {
		kve, err := getKey(ctx, h.kv, h.pageKey(n))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		p := &page{revision: kve.Revision()}
		if err := json.Unmarshal(kve.Value(), p); err != nil {
			return fmt.Errorf("page %d is damaged; delete key %s to forget it: %w", n, h.pageKey(n), err)
		}
		h.pages = append(h.pages, p)
		h.index(n)
	}
}

// index takes note of where the entries of a page are.
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

func (h *kvHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
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
	return h.write(ctx)
}

// room gives the place for a new entry. Pages that have lost entries are filled again.
func (h *kvHistory) room() place {
	for n, p := range h.pages {
		if len(p.Entries) < pageSize {
			return place{n, len(p.Entries)}
		}
	}
	h.pages = append(h.pages, &page{Account: h.account})
	return place{len(h.pages) - 1, 0}
}

func (h *kvHistory) Forget(ctx context.Context, entries ...fetch.Entry) error {
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
	return h.write(ctx)
}

// write brings the pages that have changed to the bucket. A page that is empty stays, since the search for pages ends
// where there is none. When the lease is lost this run has to end, but the note comes first: it goes over the revision
// that was read, so it harms nobody, and without it the message would be delivered again.
func (h *kvHistory) write(ctx context.Context) error {
	for n, p := range h.pages {
		if !p.changed {
			continue
		}
		if err := h.writePage(ctx, n, p); err != nil {
			return fmt.Errorf("fleet: seen messages of %q: %w", h.account, err)
		}
	}
	if !h.lease.held() {
		return fmt.Errorf("fleet: seen messages of %q: the lease was lost: %w", h.account, fetch.ErrLocked)
	}
	return nil
}

func (h *kvHistory) writePage(ctx context.Context, n int, p *page) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	revision, err := updateKey(ctx, h.kv, h.pageKey(n), value, p.revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return fmt.Errorf("%w: %w", fetch.ErrLocked, err) // by a successor, which took us for dead
	}
	if err != nil {
		return err
	}
	p.revision, p.changed = revision, false
	return nil
}

// Close lets go of the lease. If that does not reach NATS it runs out by itself, and what was saved is safe.
func (h *kvHistory) Close() error {
	h.lease.release()
	return nil
}
