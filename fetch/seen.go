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

// An Entry is what is remembered of a message that was stored. A [History] keeps it as it is and looks at nothing
// in it but UID and Copy, by which it is told from others. While it is Short and not Looked, Unsure, Deleted or
// Missing, the message is retrieved again if it is listed, and compared.
type Entry struct {
	UID     string    `json:"uid"`              // unique-id, "" on a server that has none
	Copy    int       `json:"copy,omitzero"`    // tells apart the messages that have the same UID
	Size    int64     `json:"size"`             // octets, as the server claimed
	Octets  int64     `json:"octets"`           // that came
	Digest  string    `json:"sha256"`           // SHA-256 of the message without notes of the server, in hexadecimal
	Short   bool      `json:"short,omitzero"`   // fewer came than were claimed
	Looked  bool      `json:"looked,omitzero"`  // and a second look gave the same
	Unsure  bool      `json:"unsure,omitzero"`  // replies may have been mixed up, so it may be another message
	Stored  time.Time `json:"stored"`           // when it was delivered
	Deleted time.Time `json:"deleted,omitzero"` // when QUIT was last sent with the message marked as deleted
	Answers int       `json:"answers,omitzero"` // how often the server answered such a QUIT
	Missing time.Time `json:"missing,omitzero"` // since when the server does not list it, though it was not deleted
}

// entryKey is what tells entries apart.
type entryKey struct {
	uid  string
	copy int
}

func (e Entry) key() entryKey { return entryKey{e.UID, e.Copy} }

// A Seen is where a [Fetcher] remembers which messages of an account it has stored, from run to run.
type Seen interface {
	// Open gives the history of an account, for this caller alone until it is closed. If it is open
	// elsewhere, in another process too, the error wraps [ErrLocked].
	Open(ctx context.Context, account string) (History, error)
}

// A History is what is remembered of one account.
type History interface {
	// Load gives all entries, in any order.
	Load(ctx context.Context) ([]Entry, error)

	// Save adds entries, in the place of those with the same UID and Copy. A nil error says that they are kept
	// for good, power cuts included. After an error each of them may be kept or not.
	Save(ctx context.Context, entries ...Entry) error

	// Forget removes the entries with the UID and Copy of the given ones. It need not be for good at once.
	Forget(ctx context.Context, entries ...Entry) error

	// Close ends the use of the history, for another to open it.
	Close() error
}

// ErrLocked: another run is at work on the same account.
var ErrLocked = errors.New("in use by another run for the same account; wait for it to end")

// A MemorySeen is a [Seen] in memory, for programs that run for as long as they need to remember. The zero value
// remembers nothing yet. It must not be copied.
type MemorySeen struct {
	mu       sync.Mutex
	accounts map[string]map[entryKey]Entry
	open     map[string]bool
}

// Open gives the history of an account.
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

// A memoryHistory has its entries to itself while it is open.
type memoryHistory struct {
	seen    *MemorySeen
	account string
	entries map[entryKey]Entry
}

func (h *memoryHistory) Load(context.Context) ([]Entry, error) {
	return slices.Collect(maps.Values(h.entries)), nil
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
