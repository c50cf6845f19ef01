package sasl

import (
	"strings"
	"sync"

	"github.com/xdg-go/scram"
)

// ScramKeys remembers the keys that SCRAM derives from passwords (RFC 5802 section 3), for programs that
// log in to the same accounts again and again: deriving them is nearly all of the processor time of a
// login, and they stay the same until the server changes the salt. They are remembered after the
// server has proved that it has them too.
//
// It holds passwords, and what is as good as a password, for as long as it lives, and shows neither
// when it is printed. It may be used by many goroutines at once. A nil *ScramKeys remembers nothing.
type ScramKeys struct {
	max   int
	mu    sync.Mutex
	known secret[map[scramAccount]scramKey]
}

// NewScramKeys remembers the keys of at most max accounts, less than 2 KiB for each. Beyond that it
// forgets those of another one.
func NewScramKeys(max int) *ScramKeys {
	return &ScramKeys{max: max, known: keep(map[scramAccount]scramKey{})}
}

// Len is the number of accounts whose keys are remembered.
func (k *ScramKeys) Len() int {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.known())
}

// Scram is [Scram] with the keys that are remembered.
func (k *ScramKeys) Scram(mech, name, password string) (Client, error) {
	c, err := newScram(k, mech, name, password)
	if err != nil {
		return nil, err // not c: a nil pointer in a Client is not a nil Client
	}
	return c, nil
}

// ScramNoPlus is [ScramNoPlus] with the keys that are remembered.
func (k *ScramKeys) ScramNoPlus(mech, name, password string) (Client, error) {
	c, err := newScram(k, mech, name, password)
	switch {
	case err != nil:
		return nil, err
	case c.plus:
		return nil, unusable("mechanism", "ends in -PLUS, which is what the server does not have")
	}
	c.noPlus = true
	return c, nil
}

// A scramAccount is what the keys depend on, on this side.
type scramAccount struct {
	hash           string // "SCRAM-SHA-256"
	name, password string
}

// A scramKey is a client of package scram, which holds what it derived, for one salt.
type scramKey struct {
	client *scram.Client
	salt   string // and iterations, as the server sent them
}

// get gives the key of an account; its client is nil if there is none.
func (k *ScramKeys) get(account scramAccount) scramKey {
	if k == nil {
		return scramKey{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known()[account]
}

func (k *ScramKeys) put(account scramAccount, key scramKey) {
	if k == nil || k.max < 1 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.known()[account]; !ok && len(k.known()) >= k.max {
		for other := range k.known() {
			delete(k.known(), other)
			break
		}
	}
	k.known()[account] = key
}

// forget drops the key of an account, whose client is about to derive another one.
func (k *ScramKeys) forget(account scramAccount) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known(), account)
}

// saltOf cuts the salt and the iterations out of a server's first message that has been checked.
func saltOf(msg string) string {
	_, salt, _ := strings.Cut(msg, ",")
	return salt
}
