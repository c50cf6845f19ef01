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

// A kvHistory is the history of one account, as a [fetch.Seen] and a [fetch.History], in the bucket of the bus. Any
// worker can continue where another one has stopped.
type kvHistory struct {
	bus   *Bus
	life  context.Context // the history can be written until life ends
	held  *lease
	name  string
	key   string
	pages []*page
	byID  map[entryID]*page
}

// pageSize is the number of entries in a page. A save writes one page, and an open reads all of them.
const pageSize = 100

// A page is one value of the bucket. It replaces only the revision that was read, so a worker that was taken for dead
// cannot overwrite what its successor has written.
type page struct {
	Account  string        `json:"account"`
	Entries  []fetch.Entry `json:"entries"`
	Last     bool          `json:"last"` // there is no next page; false if that is not known
	revision uint64
	changed  bool
}

// find returns the index of an entry, or -1.
func (p *page) find(id entryID) int {
	return slices.IndexFunc(p.Entries, func(e fetch.Entry) bool { return idOf(e) == id })
}

type entryID struct {
	uid  string
	copy int
}

func idOf(e fetch.Entry) entryID { return entryID{e.UID, e.Copy} }

func pageKey(key string, n int) string { return fmt.Sprintf("%s.%d", key, n) }

// openSeen reads the history of an account.
func openSeen(ctx context.Context, b *Bus, life context.Context, held *lease, a Account) (*kvHistory, error) {
	h := &kvHistory{bus: b, life: life, held: held, name: a.Name, key: a.Key(), byID: make(map[entryID]*page)}
	for n := 0; n == 0 || !h.pages[n-1].Last; n++ {
		var kve jetstream.KeyValueEntry
		err := b.insist(ctx, func(ctx context.Context) (err error) {
			kve, err = b.seen.Get(ctx, pageKey(h.key, n))
			return err
		})
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			break
		}
		if err != nil {
			return nil, h.failed(err)
		}
		p := &page{revision: kve.Revision()}
		if err := json.Unmarshal(kve.Value(), p); err != nil {
			return nil, h.failed(fmt.Errorf("key %s is damaged; delete it to forget what it says: %w", kve.Key(), err))
		}
		h.pages = append(h.pages, p)
		for _, e := range p.Entries {
			h.byID[idOf(e)] = p
		}
	}
	return h, nil
}

func (h *kvHistory) failed(err error) error {
	return fmt.Errorf("fleet: seen messages of %q: %w", h.name, err)
}

// Open returns h, which is already open.
func (h *kvHistory) Open(context.Context, string) (fetch.History, error) { return h, nil }

func (h *kvHistory) Load(context.Context) (entries []fetch.Entry, err error) {
	for _, p := range h.pages {
		entries = append(entries, p.Entries...)
	}
	return entries, nil
}

func (h *kvHistory) Save(_ context.Context, entries ...fetch.Entry) error {
	for _, e := range entries {
		p := h.byID[idOf(e)]
		if p == nil {
			p = h.room()
			p.Entries = append(p.Entries, e)
			h.byID[idOf(e)] = p
		}
		p.Entries[p.find(idOf(e))] = e
		p.changed = true
	}
	return h.write()
}

// room returns a page that has room for a new entry.
func (h *kvHistory) room() *page {
	for _, p := range h.pages {
		if len(p.Entries) < pageSize {
			return p
		}
	}
	for _, p := range h.pages { // before the new page is written, no page may claim to be the last one
		p.changed = p.changed || p.Last
		p.Last = false
	}
	p := &page{Account: h.name, Last: true}
	h.pages = append(h.pages, p)
	return p
}

func (h *kvHistory) Forget(_ context.Context, entries ...fetch.Entry) error {
	for _, e := range entries {
		if p := h.byID[idOf(e)]; p != nil {
			i := p.find(idOf(e))
			p.Entries, p.changed = slices.Delete(p.Entries, i, i+1), true
			delete(h.byID, idOf(e))
		}
	}
	return h.write()
}

// write stores the pages that have changed. An empty page stays, because openSeen stops where a page is missing.
// After the lease is lost the run still stores its history, because otherwise the messages would be delivered again.
// That does no harm: a page replaces only the revision that was read.
func (h *kvHistory) write() error {
	for n, p := range h.pages {
		if !p.changed {
			continue
		}
		value, err := json.Marshal(p)
		if err == nil {
			err = h.bus.insist(h.life, func(ctx context.Context) error {
				revision, err := h.bus.seen.Update(ctx, pageKey(h.key, n), value, p.revision)
				if err == nil {
					p.revision = revision
				}
				return err
			})
		}
		// Usually another worker has written the page. Or this worker has, and the answer was lost; then the next poll
		// continues.
		if isConflict(err) {
			err = fmt.Errorf("%w: another worker has written: %w", errLeaseLost, err)
		}
		if err != nil {
			return h.failed(err)
		}
		p.changed = false
	}
	if !h.held.valid() {
		return h.failed(errLeaseLost)
	}
	return nil
}

// Close does nothing.
func (h *kvHistory) Close() error { return nil }
