package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
