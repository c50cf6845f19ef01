package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAccountsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "accounts.json")
	all := []Account{
		{Name: "a@x", Addr: "pop.x", User: "a", Password: `p "p`},
		{Name: "b@x", Addr: "pop.x:1110", User: "b", Security: "none", Delete: true},
	}
	require.NoError(t, saveAccounts(name, all))
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077, "it has passwords")
	accounts, err := loadAccounts(name)
	require.NoError(t, err)
	for _, a := range all {
		got, err := accounts.Lookup(t.Context(), a.Key())
		require.NoError(t, err)
		assert.Equal(t, a, got)
		assert.Equal(t, "pop.x", got.Host())
	}
	_, err = accounts.Lookup(t.Context(), keyOf("c@x"))
	require.ErrorIs(t, err, errNoAccount)
}

func TestAccountsFileErrors(t *testing.T) {
	tests := []struct{ name, text, err string }{
		{"no JSON", "{\n", "line 1"},
		{"no name", `{"name":"a","addr":"h"}` + "\n" + `{"addr":"h"}`, "line 2: an account needs a name"},
		{"twice", `{"name":"a","addr":"h"}` + "\n" + `{"name":"a","addr":"i"}`, `line 2: the name "a" comes twice`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAccounts(strings.NewReader(tt.text))
			require.ErrorContains(t, err, tt.err)
		})
	}
}

func TestAccountsFileIsReadAgain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "accounts.json")
	a, b := Account{Name: "a@x", Addr: "h"}, Account{Name: "b@x", Addr: "h"}
	require.NoError(t, saveAccounts(name, []Account{a}))
	f, err := openAccounts(name)
	require.NoError(t, err)
	fresh := a
	fresh.Password = "new"
	tests := []struct {
		name   string
		change func() error
		a, b   error // of looking them up, by what the error is
		pass   string
	}{
		{"as it was", func() error { return nil }, nil, errNoAccount, ""},
		{"one more", func() error { return saveAccounts(name, []Account{a, b}) }, nil, nil, ""},
		{"a new password", func() error { return saveAccounts(name, []Account{fresh}) }, nil, errNoAccount, "new"},
		{"gone", func() error { return os.Remove(name) }, nil, os.ErrNotExist, "new"},
		{"there again", func() error { return saveAccounts(name, []Account{b}) }, errNoAccount, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, tt.change())
			got, err := f.Lookup(t.Context(), a.Key())
			require.ErrorIs(t, err, tt.a)
			assert.Equal(t, tt.pass, got.Password)
			_, err = f.Lookup(t.Context(), b.Key())
			require.ErrorIs(t, err, tt.b)
		})
	}
	require.NoError(t, os.WriteFile(name, []byte(`{"name":"a@x","addr":"h"}`+"\n"+`{"na`), 0o600))
	_, err = f.Lookup(t.Context(), a.Key())
	require.ErrorContains(t, err, "line 2", "half a file says nothing about who is gone")
	_, err = f.Lookup(t.Context(), b.Key())
	require.NoError(t, err)
}

// Accounts that come while all runs are polled, and those that go are forgotten.
func TestAccountsComeAndGo(t *testing.T) {
	fleet := newFleet(t, 3, 1)
	name := filepath.Join(t.TempDir(), "accounts.json")
	save := func(boxes ...int) {
		fleet.accounts = make(fileAccounts)
		var all []Account
		for _, n := range boxes {
			a := Account{Name: labUser(n), Addr: fleet.pop3.Addr, User: labUser(n), Password: labPassword(n), Security: "none"}
			fleet.add(a)
			all = append(all, a)
		}
		require.NoError(t, saveAccounts(name, all))
	}
	save(0, 1)
	f, err := openAccounts(name)
	require.NoError(t, err)
	fleet.enlist(t)
	w := fleet.worker(fleet.bus, "w", quick)
	w.Accounts = f
	start(t, w.Run)
	s := fleet.scheduler(fleet.bus, Policy{})
	start(t, s.Run)
	start(t, func(ctx context.Context) error { s.Follow(ctx, f, testAckWait/100); return nil })
	eventually(t, "the first are polled", fleet.polled)
	save(1, 2)
	eventually(t, "the new one is polled", fleet.polled)
	require.NoError(t, releaseAccount(t.Context(), fleet.bus.schedules, keyOf(labUser(0))))
	eventually(t, "the old one is forgotten", func() bool {
		_, err := fleet.bus.schedules.Get(t.Context(), keyOf(labUser(0)))
		return errors.Is(err, jetstream.ErrKeyNotFound)
	})
}
