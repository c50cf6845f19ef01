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
// when it is printed. It may be used by many goroutines at once. A nil *ScramKeys remembers nothing,
// and neither does the zero value.
type ScramKeys struct {
	max   int
	mu    sync.Mutex
	known secret[map[scramAccount]scramKey] // nil in the zero value
}

// NewScramKeys remembers the keys of at most max accounts, less than 2 KiB for each, and none if max
// is below 1. With one more it forgets those of another.
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
	return len(k.accounts())
}

// accounts gives what is remembered, under mu.
func (k *ScramKeys) accounts() map[scramAccount]scramKey {
	if k.known == nil {
		return nil
	}
	return k.known()
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
	return k.accounts()[account]
}

// maxSalt is the longest salt, in octets of base64 with the iterations, whose key is remembered. Salts
// have 16 to 64 octets; a server could have a program keep 64 KiB for each account otherwise.
const maxSalt = 256

// put remembers the key of an account. Nobody else may have its client yet: one that is shared may
// have derived keys for other salts by now.
func (k *ScramKeys) put(account scramAccount, key scramKey) {
	if k == nil || k.max < 1 || len(key.salt) > maxSalt {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.accounts()
	if _, ok := known[account]; !ok && len(known) >= k.max {
		for other := range known {
			delete(known, other)
			break
		}
	}
	known[account] = key
}

// forget drops the key of an account if it is that of client, which is about to derive another one.
func (k *ScramKeys) forget(account scramAccount, client *scram.Client) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if known := k.accounts(); known[account].client == client {
		delete(known, account)
	}
}

// saltOf cuts the salt and the iterations out of a server's first message that has been checked. It
// copies them, since what is kept of them would keep the whole message.
func saltOf(msg string) string {
	_, salt, _ := strings.Cut(msg, ",")
	return strings.Clone(salt)
}
