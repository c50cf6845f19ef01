package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// An Account is a maildrop to poll and what is needed for it. It never goes to NATS, since it has the password.
type Account struct {
	Name     string `json:"name"`               // "user@host", unique
	Addr     string `json:"addr"`               // "host:port" or "host"
	User     string `json:"user"`               // what the server knows the user by
	Password string `json:"password"`           //
	Security string `json:"security,omitempty"` // "tls" (or ""), "starttls", or "none"
	Delete   bool   `json:"delete,omitempty"`   // delete from the server what was delivered
}

// Key names the account in NATS, where the octets of names are not free.
func (a Account) Key() string { return keyOf(a.Name) }

// Host is the provider: what a rate limit is for.
func (a Account) Host() string {
	if host, _, err := net.SplitHostPort(a.Addr); err == nil {
		return host
	}
	return a.Addr
}

func keyOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// errNoAccount: the account is not, or no longer, one of ours.
var errNoAccount = errors.New("no such account")

// Accounts is where accounts are kept: a file here, a database or a vault elsewhere.
type Accounts interface {
	// Lookup gives the account with a key. If there is none the error wraps errNoAccount.
	Lookup(ctx context.Context, key string) (Account, error)
}

// A fileAccounts is all accounts of a file, in memory.
type fileAccounts map[string]Account

func (f fileAccounts) Lookup(_ context.Context, key string) (Account, error) {
	a, ok := f[key]
	if !ok {
		return Account{}, errNoAccount
	}
	return a, nil
}

// loadAccounts reads a file that has an account in JSON on each line.
func loadAccounts(name string) (fileAccounts, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	accounts, err := readAccounts(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return accounts, nil
}

func readAccounts(r io.Reader) (fileAccounts, error) {
	accounts := make(fileAccounts)
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		var a Account
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if a.Name == "" || a.Addr == "" {
			return nil, fmt.Errorf("line %d: an account needs a name and an addr", n)
		}
		if _, twice := accounts[a.Key()]; twice {
			return nil, fmt.Errorf("line %d: the name %q comes twice; each maildrop needs one of its own", n, a.Name)
		}
		accounts[a.Key()] = a
	}
	return accounts, lines.Err()
}

// saveAccounts writes such a file, which only its owner can read.
func saveAccounts(name string, accounts []Account) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, a := range accounts {
		if err = errors.Join(err, lines.Encode(a)); err != nil {
			break
		}
	}
	return errors.Join(err, w.Flush(), f.Close())
}
