package sasl

import (
	"strings"
	"sync"

	"github.com/xdg-go/scram"
)

// ScramKeys remembers the keys that SCRAM derives from passwords (RFC 5802 section 3), for programs
// that log in to the same accounts repeatedly. Deriving them takes nearly all of the processor time
// of a login, and they stay the same until the server changes the salt. The keys are remembered only
// after the server has proved that it has them too.
//
// A ScramKeys holds passwords, and keys that are as good as passwords, as long as it exists. It does
// not show them when it is printed. Its methods may be called concurrently. A nil *ScramKeys and the
// zero value remember nothing.
type ScramKeys struct {
	max  int
	mu   sync.Mutex
	keys secret[map[scramAccount]scramKey] // the remembered keys; nil in the zero value
}

// NewScramKeys returns a ScramKeys that remembers the keys of at most max accounts, and none if max
// is below 1. Each account takes less than 2 KiB. When the limit is reached, a new account replaces
// another one.
func NewScramKeys(max int) *ScramKeys {
	return &ScramKeys{max: max, keys: newSecret(map[scramAccount]scramKey{})}
}

// Len returns the number of accounts whose keys are remembered.
func (k *ScramKeys) Len() int {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.accounts())
}

// accounts returns the remembered keys. mu must be held.
func (k *ScramKeys) accounts() map[scramAccount]scramKey {
	if k.keys == nil {
		return nil
	}
	return k.keys()
}

// Scram is like the function [Scram], but uses the remembered keys.
func (k *ScramKeys) Scram(mech, name, password string) (Client, error) {
	c, err := newScram(k, mech, name, password)
	if err != nil {
		return nil, err // not c, because an interface that holds a nil pointer is not nil
	}
	return c, nil
}

// ScramNoPlus is like the function [ScramNoPlus], but uses the remembered keys.
func (k *ScramKeys) ScramNoPlus(mech, name, password string) (Client, error) {
	c, err := newScram(k, mech, name, password)
	switch {
	case err != nil:
		return nil, err
	case c.plus:
		return nil, argumentError("mechanism", "ends in -PLUS, which is what the server does not have")
	}
	c.noPlus = true
	return c, nil
}

// A scramAccount has the values of the client on which the keys depend.
type scramAccount struct {
	hash           string // "SCRAM-SHA-256"
	name, password string
}

// A scramKey is a client of package scram that holds derived keys for one salt.
type scramKey struct {
	client *scram.Client
	salt   string // the salt and the iterations, as the server sent them
}

// get returns the key of an account. Its client is nil if there is none.
func (k *ScramKeys) get(account scramAccount) scramKey {
	if k == nil {
		return scramKey{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.accounts()[account]
}

// maxSalt is the longest salt whose key is remembered, in bytes of base64, iterations included.
// Usual salts have 16 to 64 bytes. Without the limit a server could make a program keep 64 KiB for
// each account.
const maxSalt = 256

// put remembers the key of an account. No other session must have used the client of the key, because it could have
// made the client derive keys for other salts.
func (k *ScramKeys) put(account scramAccount, key scramKey) {
	if k == nil || k.max < 1 || len(key.salt) > maxSalt {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := k.accounts()
	if _, ok := keys[account]; !ok && len(keys) >= k.max {
		for other := range keys {
			delete(keys, other)
			break
		}
	}
	keys[account] = key
}

// forget is called when client is about to derive a key for another salt. It removes the key of the
// account, unless that key belongs to another client.
func (k *ScramKeys) forget(account scramAccount, client *scram.Client) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if keys := k.accounts(); keys[account].client == client {
		delete(keys, account)
	}
}

// saltOf returns the salt and the iterations in the server's first message msg, which must have been checked. It copies
// them, so that the whole message is not kept in memory.
func saltOf(msg string) string {
	_, salt, _ := strings.Cut(msg, ",")
	return strings.Clone(salt)
}
