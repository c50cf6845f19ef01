// Package accounts reads the accounts of the fleet from a file, and logs in to their servers. To keep the accounts in a
// vault or a database, replace [File] by a type with the same two methods.
package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
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

	// Fingerprint is a digest of everything that a login needs. [File] computes it.
	Fingerprint string `json:"-"`
}

// Key returns the key of the account in NATS. Not every name can be a key.
func (a Account) Key() string { return KeyOf(a.Name) }

// Host returns the host of the server. Limits apply to each host.
func (a Account) Host() string {
	if host, _, err := net.SplitHostPort(a.Addr); err == nil {
		return host
	}
	return a.Addr
}

// KeyOf returns the key for a name. It contains only hexadecimal digits.
func KeyOf(name string) string {
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

// dials are the functions to connect, by Account.Security.
var dials = map[string]func(context.Context, string, *pop3.Options) (*pop3.Client, error){
	"": pop3.DialTLS, "tls": pop3.DialTLS, "starttls": pop3.DialStartTLS, "none": pop3.DialInsecure,
}

// Dial connects to the server of the account.
func (a Account) Dial(ctx context.Context, opts *pop3.Options) (*pop3.Client, error) {
	dial := dials[a.Security]
	if dial == nil {
		return nil, fmt.Errorf("account %q: security is %q; it must be tls, starttls or none", a.Name, a.Security)
	}
	return dial(ctx, a.Addr, opts)
}

// Login logs in with the password, or with a token from the command of the account.
func (a Account) Login(ctx context.Context, c *pop3.Client) error {
	if len(a.TokenCommand) == 0 {
		return c.Login(ctx, a.User, a.Password)
	}
	token, err := a.token(ctx)
	if err != nil {
		return err
	}
	capabilities, err := c.Capa(ctx)
	if err != nil {
		return err
	}
	mechanism := sasl.XOAuth2(a.User, token)
	if slices.Contains(capabilities.SASL(), "OAUTHBEARER") {
		mechanism = sasl.OAuthBearer(a.User, token)
	}
	return c.Auth(ctx, mechanism)
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
		a.Fingerprint = a.fingerprint(fingerprintKey)
		accounts[a.Key()] = a
	}
}

// A File is a file with one account in JSON on each line. It is read again when it has changed. Its methods can be
// called concurrently.
type File struct {
	name string
	key  []byte // of fingerprints

	mu   sync.Mutex
	all  map[string]Account
	read os.FileInfo // state of the file when it was read last
}

// Open reads the accounts in a file. keyFile names the file with the key of fingerprints; without one ("") fingerprints
// leave out the passwords.
func Open(name, keyFile string) (*File, error) {
	f := &File{name: name}
	if keyFile != "" {
		if _, err := StatPrivate(keyFile); err != nil {
			return nil, err
		}
		var err error
		if f.key, err = os.ReadFile(keyFile); err != nil {
			return nil, err
		}
		if len(f.key) < 16 {
			return nil, fmt.Errorf("%s: a secret needs at least 16 bytes", keyFile)
		}
	}
	_, _, err := f.All()
	return f, err
}

// All returns all accounts, by key, and reports whether the file has changed since the last call. If it cannot be
// read, the accounts stay as they were. The map must not be changed.
func (f *File) All() (all map[string]Account, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := StatPrivate(f.name) // before reading, so that the next call sees any later change
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

// Lookup returns the account with this key, as it is in the file now.
func (f *File) Lookup(key string) (a Account, ok bool) {
	all, _, _ := f.All() // if that fails, the old accounts are used; the caller compares fingerprints
	a, ok = all[key]
	return a, ok
}

// StatPrivate is like [os.Stat], and refuses a file with secrets that others can read or write.
func StatPrivate(name string) (os.FileInfo, error) {
	info, err := os.Stat(name)
	if err == nil && info.Mode().Perm()&0o027 != 0 {
		err = fmt.Errorf("%s has mode %#o, so others can read or change it; run chmod 600 %[1]s", name,
			info.Mode().Perm())
	}
	return info, err
}
