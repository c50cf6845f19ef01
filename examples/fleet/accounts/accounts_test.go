package accounts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAccountsFileErrors(t *testing.T) {
	tests := []struct{ name, text, err string }{
		{"no JSON", "{\n", "account 1"},
		{"no name", `{"name":"a","addr":"h"}` + "\n" + `{"addr":"h"}`, "account 2: an account needs a name"},
		{"twice", `{"name":"a","addr":"h"}` + "\n" + `{"name":"a","addr":"i"}`,
			`account 2: the name "a" is not unique`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAccounts(strings.NewReader(tt.text), nil)
			require.ErrorContains(t, err, tt.err)
		})
	}
}

// replaceFile writes an accounts file and renames it, as an operator does.
func replaceFile(name string, all ...Account) error {
	var text []byte
	for _, a := range all {
		line, _ := json.Marshal(a)
		text = append(append(text, line...), '\n')
	}
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func TestAccountsFileIsReadAgain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "accounts.json")
	a, b := Account{Name: "a@x", Addr: "h"}, Account{Name: "b@x", Addr: "h:110"}
	require.NoError(t, replaceFile(name, a))
	f, err := Open(name, "")
	require.NoError(t, err)
	changed := a
	changed.Password = "new"
	tests := []struct {
		name   string
		change func() error
		a, b   bool // whether a and b are found
		pass   string
	}{
		{"unchanged", func() error { return nil }, true, false, ""},
		{"an account added", func() error { return replaceFile(name, a, b) }, true, true, ""},
		{"a changed password", func() error { return replaceFile(name, changed) }, true, false, "new"},
		{"a missing file, so the accounts stay", func() error { return os.Remove(name) }, true, false, "new"},
		{"the file with another account", func() error { return replaceFile(name, b) }, false, true, ""},
		{"half of a file, so the accounts stay", func() error {
			return os.WriteFile(name, []byte(`{"name":"a@x","addr":"h"}`+"\n"+`{"na`), 0o600)
		}, false, true, ""},
		{"the file written in place", func() error {
			return os.WriteFile(name, []byte(`{"name":"a@x","addr":"h"}`), 0o600)
		}, true, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, tt.change())
			got, ok := f.Lookup(KeyOf("a@x"))
			assert.Equal(t, tt.a, ok)
			assert.Equal(t, tt.pass, got.Password)
			got, ok = f.Lookup(KeyOf("b@x"))
			assert.Equal(t, tt.b, ok)
			if ok {
				assert.Equal(t, "h", got.Host())
			}
		})
	}
}

func TestAccountsFileIsPrivate(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o440: true, 0o640: true, 0o644: false,
		0o660: false, 0o604: false, 0o602: false} {
		t.Run("C-109 "+mode.String(), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "accounts.json")
			require.NoError(t, os.WriteFile(name, []byte(`{"name":"a","addr":"h"}`), 0o600))
			require.NoError(t, os.Chmod(name, mode))
			_, err := Open(name, "")
			if ok {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "run chmod 600 "+name)
		})
	}
}

func TestFingerprint(t *testing.T) {
	a := Account{Name: "a", Addr: "h", User: "u", Password: "p"}
	key := []byte("a secret of sixteen bytes")
	other := a
	other.Password = "q"
	assert.NotEqual(t, a.fingerprint(key), other.fingerprint(key))
	assert.Equal(t, a.fingerprint(nil), other.fingerprint(nil), "without a key the password would be easy to guess")
	other = a
	other.Addr = "h:995"
	assert.NotEqual(t, a.fingerprint(nil), other.fingerprint(nil))
	other = a
	other.Delete, other.Name = true, "b"
	assert.Equal(t, a.fingerprint(key), other.fingerprint(key), "only what a login needs counts")
}

func TestToken(t *testing.T) {
	tests := []struct {
		name    string
		command []string
		token   string
		err     string
	}{
		{"one line", []string{"echo", "ya29.token"}, "ya29.token", ""},
		{"more lines", []string{"printf", `token\nexpires 3600\n`}, "token", ""},
		{"nothing", []string{"true"}, "", "token command true failed: it printed nothing"},
		{"a failure that prints a secret", []string{"sh", "-c", "echo secret; echo secret >&2; exit 3"}, "",
			"token command sh failed: exit status 3"},
		{"no such program", []string{"/nowhere/token"}, "", "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			token, err := Account{TokenCommand: tt.command}.token(t.Context())
			assert.Equal(t, tt.token, token)
			if tt.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.err)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}
