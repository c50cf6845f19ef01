package main

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// An Account is a maildrop to poll, with everything that a login needs. It is never sent to NATS, because it contains
// the password.
type Account struct {
	Name         string   `json:"name"`                    // "user@host", unique
	Addr         string   `json:"addr"`                    // "host:port" or "host"
	User         string   `json:"user"`                    // user name for the server
	Password     string   `json:"password,omitempty"`      //
	TokenCommand []string `json:"token_command,omitempty"` // program that prints an OAuth access token
	Security     string   `json:"security,omitempty"`      // "tls" (or ""), "starttls", or "none"
	Delete       bool     `json:"delete,omitempty"`        // delete delivered messages from the server

	print string // the result of fingerprint
}

// Key returns the key of the account in NATS. Not every name can be a key.
func (a Account) Key() string { return keyOf(a.Name) }

// Host returns the host of the server. Limits apply to each host.
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

// fingerprint returns a digest of everything that a login needs. If key is empty it leaves out the password, because
// whoever can read the records could then guess it.
func (a Account) fingerprint(key []byte) string {
	if len(key) == 0 {
		a.Password = ""
	}
	text, _ := json.Marshal([]any{a.Addr, a.User, a.Password, a.TokenCommand, a.Security})
	sum := hmac.New(sha256.New, key)
	sum.Write(text)
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

// token runs the command of the account and returns the first line of its output. The output is not shown in errors,
// because it may contain secrets.
func (a Account) token(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.TokenCommand[0], a.TokenCommand[1:]...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	token, _, _ := strings.Cut(string(out), "\n")
	if token = strings.TrimSpace(token); err == nil && token == "" {
		err = errors.New("it printed nothing")
	}
	if err != nil {
		return "", fmt.Errorf("token command %s failed: %w", a.TokenCommand[0], err)
	}
	return token, nil
}

func readAccounts(r io.Reader, fingerprintKey []byte) (map[string]Account, error) {
	accounts := make(map[string]Account)
	lines := json.NewDecoder(r)
	for n := 1; ; n++ {
		var a Account
		err := lines.Decode(&a)
		if err == io.EOF {
			return accounts, nil
		}
		if err == nil && (a.Name == "" || a.Host() == "") {
			err = errors.New("an account needs a name and an addr")
		}
		if _, twice := accounts[a.Key()]; err == nil && twice {
			err = fmt.Errorf("the name %q is not unique; give each maildrop its own", a.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("account %d: %w", n, err)
		}
		a.print = a.fingerprint(fingerprintKey)
		accounts[a.Key()] = a
	}
}

// An accountsFile is a file with one account in JSON on each line. It is read again when it has changed. It can be
// replaced by a vault or a database with the same two methods.
type accountsFile struct {
	name string
	key  []byte // of fingerprints

	mu   sync.Mutex
	all  map[string]Account
	read os.FileInfo // state of the file when it was read last
}

// openAccounts reads the accounts. key is the key of fingerprints; its file name is empty if there is none.
func openAccounts(name string, key file) (*accountsFile, error) {
	if key.Filename != "" {
		if _, err := statPrivate(key.Filename); err != nil {
			return nil, err
		}
		if len(key.Contents) < 16 {
			return nil, fmt.Errorf("%s: a secret needs at least 16 bytes", key.Filename)
		}
	}
	f := &accountsFile{name: name, key: key.Contents}
	_, _, err := f.accounts()
	return f, err
}

// accounts returns all accounts, by key, and reports whether the file has changed since the last call. If it cannot be
// read, the accounts stay as they were. The map must not be changed.
func (f *accountsFile) accounts() (all map[string]Account, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := statPrivate(f.name) // before reading, so that the next call sees any later change
	if err != nil || f.read != nil && os.SameFile(info, f.read) && info.ModTime().Equal(f.read.ModTime()) &&
		info.Size() == f.read.Size() {
		return f.all, false, err
	}
	text, err := os.Open(f.name)
	if err != nil {
		return f.all, false, err
	}
	defer text.Close()
	if all, err = readAccounts(text, f.key); err != nil {
		return f.all, false, fmt.Errorf("%s: %w", f.name, err)
	}
	f.all, f.read = all, info
	return all, true, nil
}

// lookup returns the account with this key, as it is in the file now.
func (f *accountsFile) lookup(key string) (a Account, ok bool) {
	all, _, _ := f.accounts() // if that fails, the old accounts are used; the caller compares fingerprints
	a, ok = all[key]
	return a, ok
}

// statPrivate refuses a file with secrets that others can read or write.
func statPrivate(name string) (os.FileInfo, error) {
	info, err := os.Stat(name)
	if err == nil && info.Mode().Perm()&0o027 != 0 {
		err = fmt.Errorf("%s has mode %#o, so others can read or change it; run chmod 600 %[1]s", name,
			info.Mode().Perm())
	}
	return info, err
}

// reconcile makes the records follow the accounts file, in the background, when the file has changed and every five
// seconds.
func (s *Scheduler) reconcile(ctx context.Context) {
	accounts, changed, err := s.accounts.accounts()
	if err != nil || !s.leads() {
		s.refuse(err)
		return
	}
	if !changed && time.Since(s.reconciled) < 5*time.Second || !s.changing.CompareAndSwap(false, true) {
		return
	}
	s.reconciled = time.Now()
	all, drop := s.changes(accounts, s.bus.clock.now())
	err = tooMany(drop, len(s.planner.entries))
	if s.refuse(err); err != nil {
		all = slices.DeleteFunc(all, func(w write) bool { return !w.record.Removed.IsZero() })
	}
	go func() {
		defer s.changing.Store(false)
		if n := s.bus.writeAll(ctx, all); n > 0 {
			slog.Info("the records follow the accounts file", "changed", n)
		}
	}()
}

// refuse logs why the accounts file is not followed. It logs each reason once.
func (s *Scheduler) refuse(err error) {
	if err != nil && (s.refused == nil || s.refused.Error() != err.Error()) {
		slog.Error("the accounts file is not followed", "error", err)
	}
	s.refused = err
}

// tooMany refuses to remove more than a tenth of the accounts, if that is more than ten. An accounts file that was cut
// is more likely than the removal of so many accounts.
func tooMany(drop, all int) error {
	if drop > 10 && drop*10 > all || drop > 0 && drop == all {
		return fmt.Errorf("the accounts file lacks %d of %d accounts; "+
			"if that is right, run fleet remove --missing-in FILE", drop, all)
	}
	return nil
}

// changes returns the writes that make the records agree with the accounts, and the number of removals among them.
func (s *Scheduler) changes(accounts map[string]Account, now time.Time) (all []write, drop int) {
	for key, a := range accounts {
		e := cmp.Or(s.planner.entries[key], new(entry))
		switch r := e.record; {
		case r.Account == "": // there is none, or it is damaged
			all = append(all, write{key, s.Policy.New(a, now, rand.Float64()), e.revision})
		case !r.Removed.IsZero() || r.Fingerprint != a.print:
			// Otherwise an earlier version wrote the record.
			if r.Fingerprint != "" || !r.Removed.IsZero() || r.Host != a.Host() {
				r = r.Again()
			}
			r.Host, r.Fingerprint, r.Removed = a.Host(), a.print, time.Time{}
			all = append(all, write{key, r, e.revision})
		}
	}
	for key, e := range s.planner.entries {
		_, known := accounts[key]
		switch r := e.record; {
		case known:
		case r.Account == "" || !r.Removed.IsZero() && now.Sub(r.Removed) > s.KeepRemoved:
			if s.planner.held[key] == 0 {
				all = append(all, write{key, Record{}, e.revision})
			}
		case r.Removed.IsZero():
			r.Removed = now
			all = append(all, write{key, r, e.revision})
			drop++
		}
	}
	return all, drop
}

// A write replaces one revision of a record. If record is empty, all data of the account is deleted.
type write struct {
	key    string
	record Record
	over   uint64
}

// writeAll writes records, 64 at a time, and returns how many were written. Records that could not be written are left
// for the next time: NATS is away, or another process has changed them.
func (b *Bus) writeAll(ctx context.Context, all []write) int {
	var written atomic.Int64
	var group errgroup.Group
	group.SetLimit(64)
	for _, w := range all {
		group.Go(func() error {
			if err := b.write(ctx, w); err == nil {
				written.Add(1)
			} else if ctx.Err() == nil && !isConflict(err) {
				slog.Warn("a record could not be changed; trying again", "key", w.key, "error", err)
			}
			return nil
		})
	}
	group.Wait()
	return int(written.Load())
}

func (b *Bus) write(ctx context.Context, w write) (err error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	switch {
	case w.record.Account == "":
		// The record is deleted last, so that an interrupted deletion is repeated.
		var seen jetstream.Stream
		if seen, err = b.js.Stream(ctx, "KV_seen"); err == nil {
			err = seen.Purge(ctx, jetstream.WithPurgeSubject("$KV.seen."+w.key+".*"))
		}
		if err == nil {
			err = b.records.Purge(ctx, w.key, jetstream.LastRevision(w.over), jetstream.PurgeTTL(time.Hour))
		}
	case w.over == 0: // Create also replaces the marker of a deleted record
		_, err = b.records.Create(ctx, w.key, w.record.value())
	default:
		_, err = b.records.Update(ctx, w.key, w.record.value(), w.over)
	}
	return err
}
