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
	"path/filepath"
	"sync"
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

// A fileAccounts is all accounts of a file, in memory, by their keys.
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

// saveAccounts writes such a file, which only its owner can read. It takes the place of the old one when it is
// complete, so that nobody reads half of it.
func saveAccounts(name string, accounts []Account) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, a := range accounts {
		if err = errors.Join(err, lines.Encode(a)); err != nil {
			break
		}
	}
	if err = errors.Join(err, w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// An accountsFile is the accounts of a file as it is now: whoever asks has it read again if it has changed.
type accountsFile struct {
	name string

	mu   sync.Mutex
	all  fileAccounts
	read os.FileInfo // what they were read from
}

func openAccounts(name string) (*accountsFile, error) {
	f := &accountsFile{name: name}
	_, err := f.refresh()
	return f, err
}

// refresh reads the file if it has changed. If that fails, what was read before stays.
func (f *accountsFile) refresh() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.name) // before it is read: what is written meanwhile will be seen the next time
	if err != nil || f.read != nil && sameFile(info, f.read) {
		return false, err
	}
	all, err := loadAccounts(f.name)
	if err != nil {
		return false, err
	}
	f.all, f.read = all, info
	return true, nil
}

func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// accounts gives those that were read last. Nobody changes them any more.
func (f *accountsFile) accounts() fileAccounts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

// Lookup implements [Accounts]. While the file can't be read no account is said to be gone.
func (f *accountsFile) Lookup(ctx context.Context, key string) (Account, error) {
	_, broken := f.refresh()
	a, err := f.accounts().Lookup(ctx, key)
	if err != nil && broken != nil {
		err = broken
	}
	return a, err
}
