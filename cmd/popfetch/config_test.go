package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// minimal is the smallest configuration of an account. It has five lines.
const minimal = "[[account]]\nserver = \"pop.example.org\"\nuser = \"me\"\npassword_env = \"P\"\nmaildir = \"/m\"\n"

// withLines returns the minimal account with more lines. The first of them is line 6.
func withLines(lines ...string) string { return minimal + strings.Join(lines, "\n") + "\n" }

// withoutKey returns the minimal account without the keys that begin with key, and with more lines at the end.
func withoutKey(key string, lines ...string) string {
	var others []string
	for line := range strings.Lines(minimal) {
		if !strings.HasPrefix(line, key+" =") {
			others = append(others, line)
		}
	}
	return strings.Join(others, "") + strings.Join(lines, "\n") + "\n"
}

// withValue returns the minimal account with another value for a key.
func withValue(key, value string) string {
	lines := strings.Split(minimal, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, key+" =") {
			lines[i] = key + " = " + value
		}
	}
	return strings.Join(lines, "\n")
}

// The error for a mistake contains its line, its account, its key and what to write. The exit status is 3.
func TestMistakes(t *testing.T) {
	const (
		me     = `account "me": `
		server = me + `server is a host, as in "pop.example.org" or "pop.example.org:995"`
		text   = `text in quotes, as in key = "text"`
		aList  = `a list, as in ["pass", "show", "x"]`
		aTime  = `a time above zero, as in "30s", "5m", "1h30m" or "2 days"`
		aSize  = `a number of bytes, as in 100000, "25 MB" or "25 MiB"`
		aPath  = `a path that begins with / or ~/, in quotes`

		noControls = "text without control characters, such as a tab or a line break\n"
		delete     = `delete is "never", "after delivery" or a time in quotes, as in "14 days" or "2 weeks"`
	)
	tests := []struct{ name, text, want string }{
		// These are errors of syntax.
		{"empty", "", "no account; an account is a table that begins with [[account]]"},
		{"text without quotes", "a = 1\nuser = me\n", `line 2: unexpected character U+006D 'm' at start of value; ` +
			`text is in quotes, as in user = "me"`},
		{"yes without quotes", withValue("user", "yes"),
			`line 3: unexpected character U+0079 'y' at start of value; text is in quotes`},
		{"time without quotes", withLines("interval = 5m"), `line 6: strings must be quoted; text is in quotes`},
		{"quotes of a word processor", withValue("user", "“me”"),
			`line 3: unexpected character U+00E2 'â' at start of value; text is`},
		{"colon", "user: \"me\"\n", `line 1: expected '=' after key; a key is followed by =, as in user = "me"`},
		{"no equals sign", "user \"me\"\n", `line 1: expected '=' after key; a key is followed by =`},
		{"no quote at the end", withValue("user", `"me`),
			`line 3: basic strings cannot have new lines; the quote after the text`},
		{"no quote at the end of the file", `user = "me`,
			`line 1: unterminated basic string; the quote after the text is missing`},
		{"single quote", withValue("user", `'me`),
			`line 3: literal strings cannot have new lines; the quote after the text`},
		{"backslash", withValue("maildir", `"C:\Users\me"`),
			`in double quotes, \ begins a code; use single quotes`},
		{"key twice", withLines(`user = "you"`), `line 6: key user is already defined`},
		{"two keys on a line", withValue("user", `"me" tls = "none"`),
			`line 3: expected newline but got U+0074 't'; each key has a line of its own`},
		{"list without comma", withLines(`mechanisms = ["A" "B"]`),
			`line 6: expected ',' or ']' after array value; a list is written as in ["a", "b"]`},
		{"list without end", withLines(`mechanisms = ["A"`), `; a list is written as in ["a", "b"]`},
		{"brackets", "[[account]\n",
			`line 1: expected ']]' to close array table name; an account begins with [[account]]`},
		{"comment of C", "// me\n" + minimal,
			`line 1: invalid character at start of key: U+002F '/'; a line has a key, or a table in brackets, or a ` +
				`comment that begins with #`},
		{"comment of getmail", "; me\n" + minimal,
			`line 1: invalid character at start of key: U+003B ';'; a line has a key`},
		{"UTF-16", "\xff\xfe[\x00",
			"line 1: invalid character at start of key: U+00FF 'ÿ'; the file is not UTF-8; save it as UTF-8"},
		{"single brackets", "[account]\nserver = \"x\"\n",
			"line 1: no account; an account is a table that begins with [[account]]"},
		{"account with a name in brackets", "[account.work]\nserver = \"x\"\n",
			"no account; an account is a table that begins with [[account]]"},
		{"account that is a number", "account = 1\n", "line 1: no account; an account is a table"},
		{"account that is a list of names", "account = [\"work\"]\n", "line 1: no account; an account is a table"},

		// These are errors in keys.
		{"unknown key", withLines(`maildr = "/x"`), "line 6: " + me + "unknown key maildr; did you mean maildir?"},
		{"unknown key at the top", "paralel = 2\n" + minimal, "line 1: unknown key paralel; did you mean parallel?"},
		{"unknown key that is similar to no key", withLines(`zzz = 1`), "line 6: " + me + "unknown key zzz\n"},
		{"key of mpop", withLines(`passwordeval = "x"`),
			me + "unknown key passwordeval; did you mean password_command?"},
		{"key of getmail", withLines(`username = "x"`), me + "unknown key username; did you mean user?"},
		{"key of fetchmail", withLines(`mda = "x"`), me + "unknown key mda; did you mean command?"},
		{"port", withLines(`port = 995`),
			`line 6: ` + me + `unknown key port; did you mean server, as in server = "pop.example.org:995"?`},
		{"capital letters", withLines(`Host = "x"`), me + "unknown key Host; did you mean server?"},
		{"minus sign", withLines(`max-size = 1`), me + "unknown key max-size; did you mean max_size?"},
		{"key of an account at the top", "maildir = \"/m\"\n" + minimal, "line 1: unknown key maildir"},
		{"key of the top in an account", withLines("parallel = 2"), "line 6: " + me + "unknown key parallel"},

		// These are errors in types.
		{"user, a number", withValue("user", "7"), "line 3: account number 1: user is " + text},
		{"user, empty", withValue("user", `""`), "line 3: account number 1: user is " + text},
		{"password, a number", withoutKey("password_env", "password = 1234"), "line 5: " + me + "password is " + text},
		{"password, a list", withoutKey("password_env", `password = ["tanstaaf-canary"]`),
			"line 5: " + me + "password is " + text},
		{"password_command, text", withoutKey("password_env", `password_command = "pass show x"`),
			"line 5: " + me + "password_command is " + aList},
		{"password_command, empty", withoutKey("password_env", `password_command = []`),
			"line 5: " + me + "password_command is " + aList},
		{"password_command, numbers", withoutKey("password_env", `password_command = ["x", 1]`),
			me + "password_command is " + aList},
		{"command, text", withoutKey("maildir", `command = "procmail -d me"`), me + "command is " + aList},
		{"mechanisms, text", withLines(`mechanisms = "PLAIN"`), me + "mechanisms is " + aList},
		{"shell_command, a list", withoutKey("maildir", `shell_command = ["a"]`), me + "shell_command is " + text},
		{"newest_first, text", withLines(`newest_first = "yes"`), me + "newest_first is true or false, without quotes"},
		{"insecure_auth, a number", withLines(`insecure_auth = 1`),
			me + "insecure_auth is true or false, without quotes"},
		{"max_messages, text", withLines(`max_messages = "many"`),
			"line 6: " + me + "max_messages is a number, 0 or more"},
		{"max_messages below zero", withLines(`max_messages = -1`), me + "max_messages is a number, 0 or more"},
		{"max_messages, a fraction", withLines(`max_messages = 1.5`), me + "max_messages is a number, 0 or more"},
		{"commit_every, huge", withLines(`commit_every = 99999999999`), me + "commit_every is a number"},
		{"parallel, 0", "parallel = 0\n" + minimal, "line 1: parallel is at least 1"},
		{"parallel, text", "parallel = \"all\"\n" + minimal, "line 1: parallel is a number, 0 or more"},
		{"tls, another word", withLines(`tls = "ssl"`),
			`line 6: ` + me + `tls is one of "implicit", "starttls", "none"`},
		{"tls, misspelled", withLines(`tls = "startls"`),
			`tls is one of "implicit", "starttls", "none"; did you mean "starttls"?`},
		{"tls, true", withLines(`tls = true`), me + `tls is one of "implicit", "starttls", "none"`},
		{"tls_min", withLines(`tls_min = 1.5`), me + `tls_min is one of "1.0", "1.1", "1.2", "1.3"`},
		{"line_ends", withLines(`line_ends = "cr"`), me + `line_ends is one of "lf", "crlf"`},
		{"pipelining", withLines(`pipelining = "fast"`), me + `pipelining is one of "auto", "never", "always"`},
		{"delete, a number", withLines(`delete = 14`), "line 6: " + me + delete},
		{"delete, a number in quotes", withLines(`delete = "14"`), me + delete},
		{"delete, true", withLines(`delete = true`), me + delete},
		{"delete, 0 days", withLines(`delete = "0 days"`), me + delete},
		{"delete, months", withLines(`delete = "2 months"`), me + delete},
		{"delete, too long", withLines(`delete = "99999999 weeks"`), me + delete},
		{"interval, a number", withLines(`interval = 300`), "line 6: " + me + `interval is text, as in "30s" or "5m"`},
		{"interval, a number in quotes", withLines(`interval = "300"`), me + "interval is " + aTime},
		{"interval, a word", withLines(`interval = "soon"`), me + "interval is " + aTime},
		{"interval below zero", withLines(`interval = "-1m"`), me + "interval is " + aTime},
		{"interval, 0", withLines(`interval = "0s"`), me + "interval is " + aTime},
		{"timeout, a fraction", withLines(`timeout = "1.5m"`), me + "timeout is " + aTime},
		{"max_size, unknown unit", withLines(`max_size = "25 TB"`), me + "max_size is " + aSize},
		{"max_size, no digits", withLines(`max_size = "MB"`), me + "max_size is " + aSize},
		{"max_size below zero", withLines(`max_size = -1`), me + "max_size is " + aSize},
		{"max_octets, too large", withLines(`max_octets = "99999999999 GB"`), me + "max_octets is " + aSize},
		{"maildir, relative", withValue("maildir", `"Mail"`), "line 5: " + me + "maildir is " + aPath},
		{"mbox, a variable", withoutKey("maildir", `mbox = "$HOME/mbox"`), me + "mbox is " + aPath},
		{"ca_file, relative", withLines(`ca_file = "ca.pem"`), me + "ca_file is " + aPath},
		{"maildir of another user", withValue("maildir", `"~bob/Mail"`), me + "maildir is " + aPath},
		{"state, relative", "state = \"s\"\n" + minimal, "line 1: state is " + aPath},
		{"fingerprint, SHA-1", withLines(`fingerprint = "aa:bb"`),
			me + "fingerprint is the SHA-256 of a certificate in hexadecimal"},
		{"proxy, no URL", withLines(`proxy = "localhost:1080"`),
			me + `proxy is a URL with a port, as in "socks5://localhost:1080"`},
		{"proxy, no port", withLines(`proxy = "http://localhost"`), me + "proxy is a URL with a port"},
		{"proxy, SOCKS4", withLines(`proxy = "socks4://localhost:1080"`), me + "proxy is a URL with a port"},
		{"lmtp, no port", withoutKey("maildir", `lmtp = "localhost"`),
			me + "lmtp is the path of a socket or a host with a port"},
		{"filter, no table", withLines(`filter = "x"`), me + "a filter is a table that begins with [[account.filter]]"},
		{"filter, unknown key", withLines("[[account.filter]]", `do = "skip"`, `form = "x"`),
			"line 8: " + me + "filter number 1: unknown key form; did you mean from?"},
		{"filter, without do", withLines("[[account.filter]]", `from = "x"`), "line 6: " + me +
			`filter number 1: add do = "fetch", "skip" or "leave"`},
		{"filter, delete", withLines("[[account.filter]]", `do = "delete"`), me +
			`filter number 1: do is one of "fetch", "skip", "leave"`},
		{"filter, header", withLines("[[account.filter]]", `do = "skip"`, `header = "List-Id"`),
			`header is a field and what it contains, as in "List-Id: golang-nuts"`},

		// These are control characters in a text. Only a command may contain line breaks.
		{"user, line break", withValue("user", `"me\r\nQUIT"`), `line 3: account "me\r\nQUIT": user is ` + noControls},
		{"user, DEL", withValue("user", `"me\u007f"`), `line 3: account "me\x7f": user is ` + noControls},
		{"user, C1 character", withValue("user", `"me\u0085"`), `line 3: account "me\u0085": user is ` + noControls},
		{"password, tab", withoutKey("password_env", `password = "tanstaaf\tcanary"`),
			"line 5: " + me + "password is " + noControls},
		{"password, line break in the file", withoutKey("password_env", "password = \"\"\"tanstaaf-\ncanary\"\"\""),
			"line 5: " + me + "password is " + noControls},
		{"name, escape sequence", withLines(`name = "\u001b[2Jme"`),
			`line 6: account "\x1b[2Jme": name is ` + noControls},
		{"id, NUL", withLines(`id = "a\u0000"`), "line 6: " + me + "id is " + noControls},
		{"server, line break", withValue("server", `"pop.example.org\n"`), "line 2: " + me + "server is " + noControls},
		{"certificate_name, tab", withLines(`certificate_name = "a\tb"`),
			"line 6: " + me + "certificate_name is " + noControls},
		{"password_env, tab", withValue("password_env", `"P\t"`), "line 4: " + me + "password_env is " + noControls},
		{"password_keyring, line break", withoutKey("password_env", `password_keyring = "mail\n"`),
			"line 5: " + me + "password_keyring is " + noControls},
		{"maildir, line break", withValue("maildir", `"/m\n"`), "line 5: " + me + "maildir is " + noControls},
		{"ca_file, NUL", withLines(`ca_file = "/c\u0000"`), "line 6: " + me + "ca_file is " + noControls},
		{"lmtp, tab", withoutKey("maildir", `lmtp = "local\thost:24"`), "line 5: " + me + "lmtp is " + noControls},
		{"recipient, line break", withoutKey("maildir", `lmtp = "localhost:24"`, `recipient = "a\nb"`),
			"line 6: " + me + "recipient is " + noControls},
		{"proxy, line break", withLines(`proxy = "socks5://localhost:1080\n"`),
			"line 6: " + me + "proxy is " + noControls},
		{"state, tab", "state = \"/s\\t\"\n" + minimal, "line 1: state is " + noControls},
		{"filter, tab", withLines("[[account.filter]]", `do = "skip"`, `subject = "a\tb"`),
			"line 8: " + me + "filter number 1: subject is " + noControls},
		{"filter, header with a line break", withLines("[[account.filter]]", `do = "skip"`, `header = "List-Id: a\nb"`),
			"line 8: " + me + "filter number 1: header is " + noControls},
		{"server of the defaults, line break", "[defaults]\nserver = \"a\\n\"\n" + minimal,
			"line 2: defaults: server is " + noControls},
		{"shell_command, NUL", withoutKey("maildir", `shell_command = "a\u0000"`),
			"line 5: " + me + "shell_command is a command, which cannot contain NUL"},
		{"command, NUL", withoutKey("maildir", `command = ["a\u0000"]`),
			"line 5: " + me + "command is a command, which cannot contain NUL"},

		// These are errors in the server.
		{"server, a URL", withValue("server", `"pops://pop.example.org"`),
			"line 2: " + me + "server is a host, not a URL"},
		{"server, a mail address", withValue("server", `"me@example.org"`), "line 2: " + server},
		{"server, a blank", withValue("server", `"pop.example.org 995"`), "line 2: " + server},
		{"server, no host", withValue("server", `":995"`), "line 2: " + server},
		{"server, two hosts", withValue("server", `"a.example.org,b.example.org"`), "line 2: " + server},
		{"port 99500", withValue("server", `"pop.example.org:99500"`),
			`line 2: ` + me + `the port of server is a number from 1 to 65535, not "99500"`},
		{"port 0", withValue("server", `"pop.example.org:0"`), `number from 1 to 65535, not "0"`},
		{"port without a number", withValue("server", `"pop.example.org:"`), `number from 1 to 65535, not ""`},
		{"port, a name", withValue("server", `"pop.example.org:pop3s"`), `number from 1 to 65535, not "pop3s"`},

		// These are errors in keys that depend on each other.
		{"no server", withoutKey("server"),
			"line 1: " + me + `no server; add its name, as in server = "pop.example.org"`},
		{"no user", withoutKey("user"), "line 1: account number 1: no user; add the name to log in with"},
		{"no password", withoutKey("password_env"), me + "no password; add one of password, password_env, " +
			"password_command, password_keyring, password_prompt"},
		{"two passwords", withLines(`password_keyring = "mail"`), "line 6: " + me + "more than one password: " +
			"password_env and password_keyring; keep one of them"},
		{"no destination", withoutKey("maildir"),
			me + "no destination; add one of maildir, mbox, eml, command, shell_command, lmtp"},
		{"two destinations", withLines(`command = ["cat"]`),
			"line 6: " + me + "more than one destination: maildir and command"},
		{"mbox with CRLF", withoutKey("maildir", `mbox = "/m"`, `line_ends = "crlf"`),
			me + "lines of an mbox file end in LF"},
		{"token and password", withLines(`mechanisms = ["PLAIN", "xoauth2"]`),
			"line 6: " + me + "XOAUTH2 must be the only one in mechanisms: it takes no password"},
		{"misspelled mechanism", withLines(`mechanisms = ["SCRAM-SHA256"]`), "line 6: " + me +
			`mechanisms has "SCRAM-SHA256"; each name is one of "SCRAM-SHA-512-PLUS", `},
		{"mechanism without its certificate", withoutKey("password_env", `mechanisms = ["EXTERNAL"]`),
			"line 5: " + me + "EXTERNAL needs client_certificate and client_key"},
		{"client certificate without its key", withLines(`client_certificate = "/c"`),
			me + "client_certificate and client_key must both be set"},
		{"insecure_auth with TLS", withLines(`insecure_auth = true`), me + `insecure_auth needs tls = "none"`},
		{"ca_file without TLS", withLines(`tls = "none"`, `ca_file = "/dev/null"`),
			me + `ca_file has no effect with tls = "none"`},
		{"recipient without LMTP", withLines(`recipient = "me"`), me + "recipient can be used with lmtp only"},
		{"two accounts with the same name", minimal + minimal, `line 6: ` + me + `two accounts have this name`},
		{"two accounts with the same maildrop", minimal + withLines(`name = "again"`, `tls = "starttls"`),
			`line 6: account "again": account "me" has the same maildrop; remove one of them`},
		{"user in the defaults", "[defaults]\nuser = \"me\"\n" + minimal,
			"line 2: defaults: user can be set in an account only"},
		{"mistake in the defaults", "[defaults]\ninterval = 5\n" + minimal, `line 2: defaults: interval is text`},
		{"defaults that are no table", "defaults = 1\n" + minimal,
			"line 1: defaults is a table that begins with [defaults]"},

		// These are errors in files.
		{"ca_file without certificates", withLines(`ca_file = "/dev/null"`),
			me + "ca_file: there is no certificate in /dev/null; it must be a PEM file"},
		{"ca_file that does not exist", withLines(`ca_file = "/nonexistent"`),
			me + "ca_file: open /nonexistent: no such file"},
		{"client certificate that does not exist",
			withLines(`client_certificate = "/nonexistent"`, `client_key = "/nonexistent"`),
			me + "client_certificate and client_key: open /nonexistent"},

		// No error may contain a secret.
		{"secret in a line without a closing quote", withLines("password = \"tanstaaf-canary"), "line 6: "},
		{"secret without quotes", withLines("password = tanstaaf-canary"), "line 6: "},
		{"secret in the place of a key", withLines("tanstaaf = \"canary\""), "unknown key tanstaaf"},
	}
	assert.Greater(t, len(tests), 85)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newWorkspace(t)
			file := p.path("c.toml")
			require.NoError(t, os.WriteFile(file, []byte(tt.text), 0o600))
			r := p.run("--check", "--config", file)
			assert.Equal(t, exitConfig, r.status)
			assert.Contains(t, r.err, tt.want)
			assert.True(t, strings.HasPrefix(r.err, "popfetch: "+file+": "), r.err)
			assert.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
		})
	}
}

// All mistakes are reported together, in the order of the file.
func TestAllMistakesAtOnce(t *testing.T) {
	p := newWorkspace(t)
	file := p.path("c.toml")
	text := "paralel = 2\n" + withLines("interval = 5", "max_size = \"big\"") + withoutKey("server", `user_name = "x"`)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var got []string
	for line := range strings.Lines(p.run("-c", file).err) {
		got = append(got, strings.TrimPrefix(strings.TrimSpace(line), "popfetch: "+file+": "))
	}
	assert.Equal(t, []string{
		`line 1: unknown key paralel; did you mean parallel?`,
		`line 7: account "me": interval is text, as in "30s" or "5m"`,
		`line 8: account "me": max_size is a number of bytes, as in 100000, "25 MB" or "25 MiB"`,
		`line 9: account "me": no server; add its name, as in server = "pop.example.org"`,
		`line 9: account "me": two accounts have this name; give each account a name of its own`,
		`line 13: account "me": unknown key user_name; did you mean user?`,
	}, got)
}

// Values may be written in several forms.
func TestValueForms(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	const day = 24 * time.Hour
	after := func(d time.Duration) deletePolicy { return deletePolicy{delete: true, after: d} }
	tests := []struct {
		line string
		get  func(settings) any
		want any
	}{
		{`max_size = 100000`, func(s settings) any { return s.MaxSize }, amount(1e5)},
		{`max_size = 1_000`, func(s settings) any { return s.MaxSize }, amount(1e3)},
		{`max_size = "3kB"`, func(s settings) any { return s.MaxSize }, amount(3e3)},
		{`max_size = "25 MB"`, func(s settings) any { return s.MaxSize }, amount(25e6)},
		{`max_size = "25 MiB"`, func(s settings) any { return s.MaxSize }, amount(25 << 20)},
		{`max_size = "25m"`, func(s settings) any { return s.MaxSize }, amount(25e6)},
		{`max_size = "2GiB"`, func(s settings) any { return s.MaxSize }, amount(2 << 30)},
		{`max_size = 0`, func(s settings) any { return s.MaxSize }, amount(0)},
		{`max_octets = "3000000000"`, func(s settings) any { return s.MaxOctets }, amount(3e9)},
		{`max_messages = "100"`, func(s settings) any { return s.MaxMessages }, 100},
		{`delete = "never"`, func(s settings) any { return s.Delete }, deletePolicy{}},
		{`delete = "after delivery"`, func(s settings) any { return s.Delete }, after(0)},
		{`delete = "14 days"`, func(s settings) any { return s.Delete }, after(14 * day)},
		{`delete = "1 day"`, func(s settings) any { return s.Delete }, after(day)},
		{`delete = "14d"`, func(s settings) any { return s.Delete }, after(14 * day)},
		{`delete = "2 weeks"`, func(s settings) any { return s.Delete }, after(14 * day)},
		{`delete = "after 36h"`, func(s settings) any { return s.Delete }, after(36 * time.Hour)},
		{`interval = "1h30m"`, func(s settings) any { return s.Interval.Duration }, 90 * time.Minute},
		{`interval = "90 seconds"`, func(s settings) any { return s.Interval.Duration }, 90 * time.Second},
		{`interval = "10 min"`, func(s settings) any { return s.Interval.Duration }, 10 * time.Minute},
		{`tls = "STARTTLS"`, func(s settings) any { return s.TLS }, tlsStart},
		{`tls_min = 1.1`, func(s settings) any { return s.TLSMin }, "1.1"},
		{`after_new = ["~/bin/x", "~/y", "~"]`, func(s settings) any { return s.AfterNew },
			list{home + "/bin/x", home + "/y", "~"}},
		{`after_new = ["sh", "-c", "a\n\tb"]`, func(s settings) any { return s.AfterNew }, list{"sh", "-c", "a\n\tb"}},
		{"on_failure = ['''\na\nb''']", func(s settings) any { return s.OnFailure }, list{"a\nb"}},
		{`ca_file = "~/ca.pem"`, func(s settings) any { return s.CAFile }, path(home + "/ca.pem")},
		{`name = "büro"`, func(s settings) any { return s.Name }, "büro"},
		{`[[account.filter]]` + "\n" + `do = "skip"` + "\n" + `header = "X-Spam-Flag: YES"`,
			func(s settings) any { return s.Filters[0].Header }, headerField{"X-Spam-Flag", "YES"}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.toml")
			require.NoError(t, os.WriteFile(file, []byte("\ufeff"+withLines(tt.line)), 0o600))
			c, err := readConfig(file)
			require.NoError(t, err)
			assert.Equal(t, tt.want, tt.get(c.accounts[0]))
		})
	}
}

// Servers and fingerprints may be written in several forms.
func TestServerAndFingerprintForms(t *testing.T) {
	for _, server := range []string{"pop.example.org", "pop.example.org:995", "[::1]:995", "::1", "192.0.2.1",
		"büro.example"} {
		file := filepath.Join(t.TempDir(), "c.toml")
		require.NoError(t, os.WriteFile(file, []byte(withValue("server", `"`+server+`"`)), 0o600))
		_, err := readConfig(file)
		require.NoError(t, err, server)
	}
	sum := strings.Repeat("ab", 32)
	for _, text := range []string{sum, strings.ToUpper(sum), "SHA256:" + sum, strings.Repeat("AB:", 31) + "AB"} {
		var f fingerprint
		require.NoError(t, f.read(text), text)
		assert.Equal(t, strings.Repeat("AB:", 31)+"AB", f.String())
	}
}

// [defaults] applies to each account that does not have the key.
func TestDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	require.NoError(t, os.WriteFile(file, []byte(`
[defaults]
server = "pop.example.org"
ca_file = "/dev/null"
insecure_auth = true
password_keyring = "mail"
maildir = "/m"
delete = "14 days"
interval = "5m"

[[account]]
user = "ann"

[[account]]
user = "bob"
server = "pop.example.net"
password_env = "BOB"
mbox = "/bob"
tls = "none"
interval = "1h"
`), 0o600))
	c, err := readConfig(file)
	require.NoError(t, err)
	ann, bob := c.accounts[0], c.accounts[1]
	assert.Equal(t, []any{"pop.example.org", "mail", path("/m"), 5 * time.Minute},
		[]any{ann.Server, ann.PasswordKeyring, ann.Maildir, ann.Interval.Duration})
	assert.Equal(t, []any{"pop.example.net", "", "BOB", path(""), path("/bob"), time.Hour},
		[]any{bob.Server, bob.PasswordKeyring, bob.PasswordEnv, bob.Maildir, bob.Mbox, bob.Interval.Duration})
	assert.Equal(t, ann.Delete, bob.Delete)
}

// C-109: it is a mistake if other users can write to the configuration, because they can make popfetch run their
// commands. It is also a mistake if other users can read a configuration that contains a password.
func TestConfigFileMode(t *testing.T) {
	const secret = `password = "tanstaaf-canary"`
	for _, tt := range []struct {
		name         string
		mode, folder os.FileMode
		password     string
		want         string
	}{
		{"password, readable for the owner", 0o600, 0o700, secret, ""},
		{"password, readable for the group", 0o640, 0o700, secret,
			"other users can read it (mode 640); run chmod 600, or use password_command"},
		{"password, readable for all", 0o604, 0o700, secret, "other users can read it (mode 604)"},
		{"no password", 0o644, 0o755, `password_env = "P"`, ""},
		{"C-109 writable for all", 0o666, 0o755, `password_env = "P"`,
			"other users can write to it, and can so make popfetch run commands (mode 666)"},
		{"C-109 writable for the group", 0o664, 0o755, `password_env = "P"`, "run chmod go-w"},
		{"C-109 folder writable for all", 0o644, 0o777, `password_env = "P"`, "other users can replace it"},
		{"folder with the sticky bit, such as /tmp", 0o644, 0o777 | os.ModeSticky, `password_env = "P"`, ""},
		{"proxy with a password", 0o644, 0o755, "password_env = \"P\"\nproxy = \"http://me:canary@proxy:1\"",
			"it contains a password"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "c.toml")
			text := strings.Replace(minimal, `password_env = "P"`, tt.password, 1)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			require.NoError(t, os.Chmod(file, tt.mode))
			require.NoError(t, os.Chmod(dir, tt.folder))
			_, err := readConfig(file)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}

// --check only checks the configuration.
func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	require.NoError(t, os.WriteFile(file, []byte(minimal), 0o600))
	r := newWorkspace(t).run("--check", "-c", file)
	assert.Equal(t, result{exitDone, file + " has no mistakes: 1 account\n", ""}, r)
	assert.NoDirExists(t, "/m")
}

func TestUnknownAccount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	text := withValue("user", `"work"`) + withValue("user", `"home"`)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	r := newWorkspace(t).run("-c", file, "wrok")
	assert.Equal(t,
		result{exitConfig, "", "popfetch: no account \"wrok\" in the configuration; did you mean \"work\"?\n"}, r)
	r = newWorkspace(t).run("-c", file, "zoe")
	assert.Equal(t, "popfetch: no account \"zoe\" in the configuration; it has work, home\n", r.err)
}

// example.toml is the same as the example in README.md.
func TestExampleConfiguration(t *testing.T) {
	text, err := os.ReadFile("example.toml")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "c.toml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	c, err := readConfig(file)
	require.NoError(t, err)
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

// README and the manual page explain each key and each flag.
func TestDocsExplainEveryKey(t *testing.T) {
	all := append(configKeys(t), "--config", "--dry-run", "--daemon", "--check", "catch-up", "import", "--from",
		"--diagnose", "--ca-file", "--json", "--quiet", "--verbose", "--version", "--help")
	for file, plain := range map[string]*strings.Replacer{
		"README.md": strings.NewReplacer("`", ""), "popfetch.1": strings.NewReplacer("Fl -", "--"),
	} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Empty(t, slices.DeleteFunc(slices.Clone(all), func(word string) bool {
			return regexp.MustCompile(`(^|[^\w-])` + word + `($|\W)`).MatchString(plain.Replace(string(text)))
		}), file)
	}
}

// The name of a maildrop stays the same when TLS is switched on. If the port is unusual, the name differs.
func TestMaildropKey(t *testing.T) {
	for server, want := range map[string]string{
		"pop.Example.org": "me@pop.example.org", "pop.example.org:110": "me@pop.example.org",
		"pop.example.org:995": "me@pop.example.org", "localhost:1110": "me@localhost:1110", "[::1]:995": "me@::1",
	} {
		assert.Equal(t, want, (&settings{Server: server, User: "me"}).key())
	}
	assert.Equal(t, "mine", (&settings{Server: "pop.example.org", User: "me", ID: "mine"}).key())
}

// configKeys returns all keys of the configuration.
func configKeys(t *testing.T) (all []string) {
	t.Helper()
	for _, file := range []string{"config.go", "filter.go"} {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, part := range strings.Split(string(source), "`toml:\"")[1:] {
			key, _, _ := strings.Cut(part, `"`)
			all = append(all, key)
		}
	}
	require.Greater(t, len(all), 45)
	return all
}
