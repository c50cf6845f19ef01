package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// minimal is the least that an account needs.
const minimal = "[[account]]\nserver = \"pop.example.org\"\nuser = \"me\"\npassword_env = \"P\"\nmaildir = \"/m\"\n"

func TestBadConfigurations(t *testing.T) {
	with := func(line string) string { return minimal + line + "\n" }
	without := func(key string) string {
		var kept []string
		for line := range strings.Lines(minimal) {
			if !strings.HasPrefix(line, key+" =") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	tests := []struct{ name, text, want string }{
		{"empty", "", ": no account; each one is a table [[account]]"},
		{"no TOML", "account\n", ":1: expected '=' after key"},
		{"unknown key", with(`maildr = "/x"`), ":6: unknown key account.maildr"},
		{"unknown keys", "paralel = 2\n" + with("delet = 1"),
			":1: unknown key paralel; line 7: unknown key account.delet"},
		{"wrong type", with("max_messages = \"many\""), ":6: account.max_messages: "},
		{"tls", with(`tls = "ssl"`), `:6: account.tls: it is one of ["implicit" "starttls" "none"]`},
		{"line_ends", with(`line_ends = "cr"`), `:6: account.line_ends: it is one of ["lf" "crlf"]`},
		{"pipelining", with(`pipelining = "fast"`), `:6: account.pipelining: it is one of ["auto" "never" "always"]`},
		{"delete", with(`delete = "14"`), `:6: account.delete: it is "never", "after delivery" or as in "14 days"`},
		{"delete, a number", with(`delete = 14`), `: it is "never", "after delivery" or as in "14 days"`},
		{"delete, 0 days", with(`delete = "0 days"`), `:6: account.delete: it is "never"`},
		{"delete, weeks", with(`delete = "2 weeks"`), `:6: account.delete: it is "never"`},
		{"interval", with(`interval = "soon"`),
			`:6: account.interval: it is a time above zero, as in "30s", "10m" or "1h30m"`},
		{"interval below zero", with(`interval = "-1m"`), ":6: account.interval: it is a time above zero"},
		{"size", with(`max_size = "25 TB"`), `:6: account.max_size: it is a number of octets, as in 100000 or "25 MB"`},
		{"size without digits", with(`max_size = "MB"`), ":6: account.max_size: it is a number of octets"},
		{"limit below zero", with(`max_messages = -1`), `: account "me": limits are not below zero`},
		{"parallel", "parallel = 0\n" + minimal, ": parallel is at least 1"},
		{"no server", without("server"), `: account "me": no server`},
		{"no user", without("user"), ": account number 1: no user"},
		{"no password", without("password_env"),
			`: account "me": it needs one of password_command, password_env, password_keyring, password`},
		{"two passwords", with(`password_keyring = "mail"`), ": it needs one of password_command"},
		{"no sink", without("maildir"), `: account "me": it needs one of maildir, mbox, command, shell_command`},
		{"two sinks", with(`command = ["cat"]`), ": it needs one of maildir, mbox, command, shell_command"},
		{"mbox with CRLF", without("maildir") + "mbox = \"/m\"\nline_ends = \"crlf\"\n",
			": lines of an mbox file end in LF"},
		{"relative path", without("maildir") + "maildir = \"Mail\"\n",
			`: account "me": maildir: a path begins with / or ~/`},
		{"relative state", "state = \"s\"\n" + minimal, ": state: a path begins with / or ~/"},
		{"token and password", with(`mechanisms = ["XOAUTH2", "PLAIN"]`), "a token is no password"},
		{"same name", minimal + minimal, `: account "me" is there twice; give each one a name of its own`},
		{"same maildrop", minimal + with("name = \"again\"\ntls = \"starttls\"\n"),
			`: accounts "me" and "again" are the same maildrop`},
		{"ca_file", with(`ca_file = "/dev/null"`),
			`: account "me": ca_file: no certificate in /dev/null; it should have them in PEM`},
		{"secret in a broken line", with("password = \"tanstaaf-canary"), ":6: "},
		{"secret of a wrong type", with("password = [\"tanstaaf-canary\"]"), ":6: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			file := p.path("c.toml")
			require.NoError(t, os.WriteFile(file, []byte(tt.text), 0o600))
			r := p.run("--config", file)
			assert.Equal(t, exitConfig, r.status)
			assert.Contains(t, r.err, tt.want)
			assert.True(t, strings.HasPrefix(r.err, "popfetch: "+file), r.err)
			assert.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
		})
	}
}

func TestFileWithAPasswordThatOthersCanRead(t *testing.T) {
	for _, tt := range []struct {
		name     string
		mode     os.FileMode
		password string
		refused  bool
	}{
		{"for the owner", 0o600, `password = "tanstaaf-canary"`, false},
		{"for the group", 0o640, `password = "tanstaaf-canary"`, true},
		{"for all", 0o604, `password = "tanstaaf-canary"`, true},
		{"no password in it", 0o644, `password_env = "P"`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.toml")
			text := strings.Replace(minimal, `password_env = "P"`, tt.password, 1)
			require.NoError(t, os.WriteFile(file, []byte(text), tt.mode))
			_, err := readConfig(file)
			if !tt.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "others may read it (mode 6")
			require.ErrorContains(t, err, "run chmod 600, or use password_command")
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}

// The example has every key, and is what the README shows.
func TestExampleConfiguration(t *testing.T) {
	text, err := os.ReadFile("example.toml")
	require.NoError(t, err)
	c, err := parseConfig(text)
	require.NoError(t, err)
	require.NoError(t, c.check())
	accounts, err := c.build()
	require.NoError(t, err)
	require.Len(t, accounts, 3)
	assert.Equal(t, deletePolicy{delete: true, after: 14 * 24 * time.Hour}, accounts[0].Delete)
	assert.Equal(t, amount(25e6), accounts[0].MaxSize)
	assert.Equal(t, 5*time.Minute, accounts[0].Interval.Duration)

	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	assert.Contains(t, string(readme), "```toml\n"+string(text)+"```\n")
}

// Each key is in the README, in the manual page, and set to something in a test of the parser.
func TestEveryKeyIsExplained(t *testing.T) {
	for _, file := range []string{"README.md", "popfetch.1"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, key := range keys(t) {
			assert.Contains(t, string(text), key, file)
		}
		for _, flag := range []string{"config", "dry-run", "daemon", "diagnose", "ca-file", "json", "quiet", "verbose",
			"log-format", "version", "help"} {
			assert.Contains(t, string(text), flag, file)
		}
	}
}

// A maildrop stays the same when TLS is switched on, and is another one behind another port.
func TestNamesOfMaildrops(t *testing.T) {
	for server, want := range map[string]string{
		"pop.Example.org": "me@pop.example.org", "pop.example.org:110": "me@pop.example.org",
		"pop.example.org:995": "me@pop.example.org", "localhost:1110": "me@localhost:1110", "[::1]:995": "me@::1",
	} {
		assert.Equal(t, want, (&settings{Server: server, User: "me"}).key())
	}
}

// keys are all that there are in the configuration.
func keys(t *testing.T) (all []string) {
	t.Helper()
	source, err := os.ReadFile("config.go")
	require.NoError(t, err)
	for _, part := range strings.Split(string(source), "`toml:\"")[1:] {
		key, _, _ := strings.Cut(part, `"`)
		all = append(all, key)
	}
	require.Greater(t, len(all), 25)
	return all
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]amount{
		"1": 1, "100000": 1e5, "3kB": 3e3, "3 KB": 3e3, "25 MB": 25e6, "2GB": 2e9,
	} {
		var got amount
		require.NoError(t, got.UnmarshalText([]byte(text)), text)
		assert.Equal(t, want, got, text)
	}
	c, err := parseConfig([]byte(minimal + "max_size = 100000\n"))
	require.NoError(t, err)
	assert.Equal(t, amount(1e5), c.Accounts[0].MaxSize)
}
