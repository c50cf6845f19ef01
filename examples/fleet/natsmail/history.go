// Package natsmail keeps in NATS JetStream what package fetch needs: the history of each account in a bucket, and mail
// in a stream.
package natsmail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// A History is the history of one account, as a [fetch.Seen] and a [fetch.History]. Any process can continue where
// another one has stopped.
type History struct {
	Bucket   jetstream.KeyValue
	Requests *natsretry.Retrier
	Key      string // key of the account in the bucket

	// Lease is the right to poll the account. If it was lost, the history is still stored, because otherwise the
	// messages would be delivered again. That does no harm: a page replaces only the revision that was read. But the
	// error then wraps [leases.ErrLost].
	Lease *leases.Lease
	// StoreContext ends when the history must not be stored any more.
	StoreContext context.Context

	account string
	pages   []*page
	byID    map[entryID]*page // nil until Open was called
}

// pageSize is the number of entries in a page. Save writes one page, and Open reads all of them.
const pageSize = 100

// A page is one value of the bucket. It replaces only the revision that was read, so a process that lost its lease
// cannot overwrite what its successor has written.
type page struct {
	Account  string        `json:"account"`
	Entries  []fetch.Entry `json:"entries"`
	Last     bool          `json:"last"` // there is no next page; false if that is not known
	revision uint64
	changed  bool
}

// index returns the index of an entry, or -1.
func (p *page) index(id entryID) int {
	return slices.IndexFunc(p.Entries, func(e fetch.Entry) bool { return idOf(e) == id })
}

type entryID struct {
	uid  string
	copy int
}

func idOf(e fetch.Entry) entryID { return entryID{e.UID, e.Copy} }

// PageKey returns the key of page n of an account.
func PageKey(key string, n int) string { return fmt.Sprintf("%s.%d", key, n) }

// Open reads the history of an account, unless it was read before, and returns h.
func (h *History) Open(ctx context.Context, account string) (fetch.History, error) {
	if h.byID != nil {
		return h, nil
	}
	h.account, h.pages = account, nil
	byID := make(map[entryID]*page)
	for n := 0; n == 0 || !h.pages[n-1].Last; n++ {
		var kve jetstream.KeyValueEntry
		err := h.Requests.Do(ctx, func(ctx context.Context) (err error) {
			kve, err = h.Bucket.Get(ctx, PageKey(h.Key, n))
			return err
		})
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			break
		}
		if err != nil {
			return nil, h.wrap(err)
		}
		p := &page{revision: kve.Revision()}
		if err := json.Unmarshal(kve.Value(), p); err != nil {
			return nil, h.wrap(fmt.Errorf("key %s is damaged; delete it to forget its entries: %w", kve.Key(), err))
		}
		h.pages = append(h.pages, p)
		for _, e := range p.Entries {
			byID[idOf(e)] = p
		}
	}
	h.byID = byID
	return h, nil
}

// IsNew reports whether no history of the account was stored when it was opened.
func (h *History) IsNew() bool { return len(h.pages) == 0 }

func (h *History) wrap(err error) error {
	return fmt.Errorf("fleet: history of %q: %w", h.account, err)
}

// Load returns all entries.
func (h *History) Load(context.Context) (entries []fetch.Entry, err error) {
	for _, p := range h.pages {
		entries = append(entries, p.Entries...)
	}
	return entries, nil
}

// Save adds or replaces entries, and stores the pages that contain them.
func (h *History) Save(_ context.Context, entries ...fetch.Entry) error {
	for _, e := range entries {
		p := h.byID[idOf(e)]
		if p == nil {
			p = h.pageWithRoom()
			p.Entries = append(p.Entries, e)
			h.byID[idOf(e)] = p
		}
		p.Entries[p.index(idOf(e))] = e
		p.changed = true
	}
	return h.store()
}

// pageWithRoom returns a page that has room for a new entry.
func (h *History) pageWithRoom() *page {
	for _, p := range h.pages {
		if len(p.Entries) < pageSize {
			return p
		}
	}
	for _, p := range h.pages { // before the new page is stored, no page may claim to be the last one
		p.changed = p.changed || p.Last
		p.Last = false
	}
	p := &page{Account: h.account, Last: true}
	h.pages = append(h.pages, p)
	return p
}

// Forget removes entries, and stores the pages that contained them.
func (h *History) Forget(_ context.Context, entries ...fetch.Entry) error {
	for _, e := range entries {
		if p := h.byID[idOf(e)]; p != nil {
			i := p.index(idOf(e))
			p.Entries, p.changed = slices.Delete(p.Entries, i, i+1), true
			delete(h.byID, idOf(e))
		}
	}
	return h.store()
}

// store stores the pages that have changed. An empty page stays, because Open stops where a page is missing.
func (h *History) store() error {
	for n, p := range h.pages {
		if !p.changed {
			continue
		}
		value, err := json.Marshal(p)
		if err == nil {
			err = h.Requests.Do(h.StoreContext, func(ctx context.Context) error {
				revision, err := h.Bucket.Update(ctx, PageKey(h.Key, n), value, p.revision)
				if err == nil {
					p.revision = revision
				}
				return err
			})
		}
		// Usually another process has stored the page. Or this process has, and the answer was lost; then the next poll
		// continues.
		if natsretry.IsConflict(err) {
			err = fmt.Errorf("%w: another process has stored the history: %w", leases.ErrLost, err)
		}
		if err != nil {
			return h.wrap(err)
		}
		p.changed = false
	}
	if !h.Lease.Valid() {
		return h.wrap(leases.ErrLost)
	}
	return nil
}

// Purge deletes the history of an account from a bucket.
func Purge(ctx context.Context, js jetstream.JetStream, bucket jetstream.KeyValue, key string) error {
	stream, err := js.Stream(ctx, "KV_"+bucket.Bucket())
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+bucket.Bucket()+"."+key+".*"))
}

// Close does nothing.
func (h *History) Close() error { return nil }
