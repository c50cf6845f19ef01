package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zalando/go-keyring"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// Popfetch fetches from two accounts at the same time, on two servers. One server uses TLS. Messages stay on the
// server, are not fetched again in the next run, and are deleted after the configuration is changed.
func TestTwoAccounts(t *testing.T) {
	plain := pop3test.NewServer(mailbox("ann", newMessages("one", "two")...))
	defer plain.Close()
	secure := pop3test.NewTLSServer(mailbox("bob", newMessages("three")...))
	defer secure.Close()
	p := newWorkspace(t)
	bob := p.account(secure, "bob", `tls = "implicit"`, p.trustLine(secure))
	config := p.configure(p.account(plain, "ann"), bob)
	r := p.run("-c", config)
	assert.Equal(t, exitDone, r.status, r)
	assert.ElementsMatch(t, []string{"ann: 2 new, 60 bytes", "bob: 1 new, 34 bytes"},
		strings.Split(strings.TrimSpace(r.out), "\n"))
	assert.Empty(t, r.err)
	assert.ElementsMatch(t, withLF(newMessages("one", "two")), p.stored("ann"))
	assert.ElementsMatch(t, withLF(newMessages("three")), p.stored("bob"))

	r = p.run("-c", config, "bob")
	assert.Equal(t, result{exitDone, "bob: nothing new\n", ""}, r)
	assert.Len(t, plain.Sessions(), 2)

	config = p.configure(p.account(plain, "ann", `delete = "after delivery"`), bob)
	assert.Equal(t, result{exitDone, "ann: nothing new, 2 deleted\n", ""}, p.run("-c", config, "ann"))
	assert.Empty(t, plain.Left("ann"))
	assert.Len(t, secure.Left("bob"), 1)
	r = p.run("-c", config, "zoe")
	assert.Equal(t, result{exitConfig, "", "popfetch: no account \"zoe\" in the configuration; it has ann, bob\n"},
		r)
}

// With parallel = 1, popfetch fetches from one account at a time.
func TestParallel(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...), mailbox("bob", newMessages("two")...))
	defer srv.Close()
	p := newWorkspace(t)
	text := "parallel = 1\n" + p.account(srv, "ann") + p.account(srv, "bob")
	config := p.configure(text)
	assert.Equal(t, exitDone, p.run("-c", config).status)
	assert.Len(t, p.stored("ann"), 1)
	assert.Len(t, p.stored("bob"), 1)
}

func TestSTLS(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	config := p.configure(p.account(srv, "ann", `tls = "starttls"`, p.trustLine(srv)))
	assert.Equal(t, exitDone, p.run("-c", config).status)
	assert.Contains(t, srv.Commands(), "STLS")

	r := p.run("-c", p.configure(p.account(srv, "ann", `tls = "starttls"`)))
	assert.Equal(t, exitFailed, r.status)
	assert.Equal(t, "ann: failed\n", r.out)
	assert.Contains(t, r.err, "certificate")
}

func TestDeletePolicies(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		left       int
	}{
		{"never", `delete = "never"`, 3}, {"after delivery", `delete = "after delivery"`, 0},
		{"14 days", `delete = "14 days"`, 3}, {"every second", "delete = \"after delivery\"\ncommit_every = 2", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one", "two", "three")...))
			defer srv.Close()
			p := newWorkspace(t)
			assert.Equal(t, exitDone, p.run("-c", p.configure(p.account(srv, "ann", tt.line))).status)
			assert.Len(t, p.stored("ann"), 3)
			assert.Len(t, srv.Left("ann"), tt.left)
		})
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name, line, out string
		stored          []string
	}{
		{"max_size", "max_size = 31",
			"ann: message 3 (34 bytes) skipped: message is larger than max_size\nann: 2 new, 60 bytes, 1 skipped\n",
			[]string{"one", "two"}},
		{"max_messages", "max_messages = 1", "ann: 1 new, 30 bytes, 2 skipped\n", []string{"one"}},
		{"max_octets", "max_octets = 60", "ann: 2 new, 60 bytes, 1 skipped\n", []string{"one", "two"}},
		{"newest_first", "max_messages = 1\nnewest_first = true", "ann: 1 new, 34 bytes, 2 skipped\n",
			[]string{"three"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one", "two", "three")...))
			defer srv.Close()
			p := newWorkspace(t)
			assert.Equal(t, result{exitDone, tt.out, ""}, p.run("-c", p.configure(p.account(srv, "ann", tt.line))))
			assert.ElementsMatch(t, withLF(newMessages(tt.stored...)), p.stored("ann"))
		})
	}
}

// A dry run shows the sender, the subject and the size of each message, and what a run would do with it. It changes
// nothing.
func TestDryRun(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	lines := []string{"[[account.filter]]", `do = "leave"`, `subject = "LATER"`}
	config := p.configure(p.account(srv, "ann", `delete = "1 day"`))
	require.Equal(t, exitDone, p.run("-c", config).status)
	srv.Deliver("ann", []byte("From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: "+
		"=?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nx\r\n"),
		[]byte("From: a\r\nSubject: later\x1b[2J\r\n\r\nx\r\n"))
	text := p.account(srv, "ann", append([]string{`delete = "after delivery"`,
		fmt.Sprintf("maildir = %q", p.path("ann")),
		`tls = "none"`}, lines...)...)
	r := p.run("-c", p.configure(text), "--dry-run")
	assert.Equal(t, exitDone, r.status, r.err)
	assert.ElementsMatch(t, strings.Split(`ann: would delete message 1 (30 bytes), which is stored
ann: would fetch message 2 (90 bytes) from Jürgen <j@example.org>, "Grüße"
ann: message 3 (34 bytes) from a, "later[2J" skipped: by a filter
ann: would fetch 1 and delete 1 of 3 messages, and leave 1 out
`, "\n"), strings.Split(r.out, "\n"))
	assert.Len(t, p.stored("ann"), 1)
	assert.Len(t, srv.Left("ann"), 3)
	again := p.run("-c", p.configure(text), "--dry-run")
	assert.ElementsMatch(t, strings.Split(r.out, "\n"), strings.Split(again.out, "\n"))
}

// A dry run of a new account makes no file, so the next run is the first one and makes the Maildir.
func TestDryRunOfNewAccount(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	config := p.configure(p.account(srv, "ann"))
	r := p.run("-c", config, "--dry-run")
	assert.Equal(t, exitDone, r.status, r.err)
	assert.Contains(t, r.out, "ann: would fetch 1 and delete 0 of 1 message, and leave 0 out")
	assert.NoDirExists(t, p.path("state"))
	assert.NoDirExists(t, p.path("ann"))
	assert.Equal(t, result{exitDone, "ann: 1 new, 30 bytes\n", ""}, p.run("-c", config))
}

// The first filter that matches decides. A skipped message is never fetched later, even without the filter. A message
// for which do is "leave" is considered again in the next run.
func TestFilters(t *testing.T) {
	mail := func(header string) []byte {
		return []byte(strings.ReplaceAll(header, "\n", "\r\n") + "\r\n\r\n" + strings.Repeat("x", 100) + "\r\n")
	}
	messages := [][]byte{
		mail("From: Ann <ann@Example.org>\nSubject: one"), mail("From: news@shop.example\nSubject: two"),
		mail(">From bob\nFrom: bob\nSubject:\n three\nno field\nX-Spam-Flag : YES"),
		mail("From: bob\nCc: Golang <go@lists.example>\nSubject: four"),
		mail("From: bob\nDate: Mon, 02 Jan 2006 15:04:05 -0700\nSubject: five"), mail("no header"),
	}
	for _, tt := range []struct{ name, filter, left string }{
		{"from", `from = "@EXAMPLE.org"`, "one"}, {"to, in Cc", `to = "lists.example"`, "four"},
		{"subject", `subject = "thr"`, "three"}, {"header", `header = "x-spam-flag: yes"`, "three"},
		{"older", `older = "10 weeks"`, "five"}, {"larger", `larger = 100`, "one two three four five"},
		{"two conditions", "from = \"bob\"\nolder = \"1 day\"", "five"},
		{"two conditions, one is met", "from = \"ann\"\nolder = \"1 day\"", ""},
		{"the first filter that matches", "from = \"bob\"\nsubject = \"four\"\n" +
			"[[account.filter]]\ndo = \"fetch\"\nfrom = \"bob\"", "four"},
	} {
		for _, do := range []string{"skip", "leave"} {
			t.Run(tt.name+", "+do, func(t *testing.T) {
				srv := pop3test.NewServer(mailbox("ann", messages...))
				defer srv.Close()
				p := newWorkspace(t)
				base := []string{`delete = "after delivery"`, `tls = "none"`,
					fmt.Sprintf("maildir = %q", p.path("ann"))}
				filter := []string{"[[account.filter]]", fmt.Sprintf("do = %q", do), tt.filter}
				r := p.run("-c", p.configure(p.account(srv, "ann", append(base, filter...)...)))
				assert.Equal(t, exitDone, r.status, r.err)
				left := ""
				for _, m := range srv.Left("ann") {
					if _, subject, ok := strings.Cut(string(m), "Subject:"); ok {
						left = strings.TrimSpace(left + " " + strings.Fields(subject)[0])
					}
				}
				assert.Equal(t, tt.left, left)
				stored := len(p.stored("ann"))
				r = p.run("-c", p.configure(p.account(srv, "ann", base...))) // this run has no filter
				assert.Equal(t, exitDone, r.status, r.err)
				if do == "skip" {
					assert.Len(t, p.stored("ann"), stored)
				} else {
					assert.Len(t, p.stored("ann"), len(messages))
				}
			})
		}
	}
}

func TestPasswords(t *testing.T) {
	keyring.MockInit()
	require.NoError(t, keyring.Set("mail", "ann", password))
	tests := []struct{ name, line, err string }{
		{"environment", `password_env = "POPFETCH_TEST_PASSWORD"`, ""},
		{"empty environment", `password_env = "POPFETCH_TEST_NONE"`,
			"no password: the environment variable POPFETCH_TEST_NONE is not set"},
		{"command", `password_command = ["printf", "tanstaaf-canary\nmore\n"]`, ""},
		{"command with CRLF", `password_command = ["printf", "tanstaaf-canary\r\n"]`, ""},
		{"command that fails", `password_command = ["sh", "-c", "echo tanstaaf-canary; echo canary >&2; exit 3"]`,
			"no password: password_command sh: exit status 3; its output is not shown, because it " +
				"contains the password"},
		{"command that says why it fails",
			`password_command = ["sh", "-c", "printf 'gpg: no\nkey\\033[2J' >&2; exit 2"]`,
			"no password: password_command sh: exit status 2: gpg: no key[2J"},
		{"command that says nothing", `password_command = ["true"]`, "password_command true wrote nothing"},
		{"command that is not there", `password_command = ["/nonexistent/pass"]`,
			"password_command /nonexistent/pass: "},
		{"keyring", `password_keyring = "mail"`, ""},
		{"keyring without it", `password_keyring = "other"`,
			`no password: service "other", user "ann" in the system keyring: secret not found in keyring`},
		{"file", `password = "tanstaaf-canary"`, ""},
		{"wrong", `password = "wrong-canary"`, "AUTH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			p := newWorkspace(t)
			text := strings.Replace(p.account(srv, "ann"), `password_env = "POPFETCH_TEST_PASSWORD"`, tt.line, 1)
			r := p.run("-v", "-c", p.configure(text))
			if tt.err == "" {
				assert.Equal(t, exitDone, r.status, r)
				assert.Len(t, p.stored("ann"), 1)
				return
			}
			assert.Equal(t, exitFailed, r.status)
			assert.Contains(t, r.err, tt.err)
			assert.Equal(t, "ann: failed\n", r.out)
		})
	}
}

func TestKeyringUnavailable(t *testing.T) {
	keyring.MockInitWithError(errors.New("no bus"))
	a := &account{settings: settings{User: "ann", PasswordKeyring: "mail", PasswordTimeout: span{time.Minute}}}
	_, err := a.secret(t.Context(), false)
	require.EqualError(t, err, `no password: service "mail", user "ann" in the system keyring: no bus`)
}

func TestMechanisms(t *testing.T) {
	for _, tt := range []struct{ name, line, sent string }{
		{"PLAIN", `mechanisms = ["PLAIN"]`, "AUTH PLAIN"},
		{"USER", `mechanisms = ["USER"]`, "USER ann"},
		{"SCRAM by itself", "", "AUTH SCRAM-SHA-512"},
		{"XOAUTH2", `mechanisms = ["XOAUTH2"]`, "AUTH XOAUTH2"},
		{"OAUTHBEARER", `mechanisms = ["oauthbearer"]`, "AUTH OAUTHBEARER"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewTLSServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			p := newWorkspace(t)
			r := p.run("-v", "-c", p.configure(p.account(srv, "ann", tt.line, `tls = "implicit"`, p.trustLine(srv))))
			assert.Equal(t, exitDone, r.status, r.err)
			assert.Contains(t, strings.Join(srv.Commands(), "\n"), tt.sent)
			assert.Contains(t, r.err, "RETR 1", "the trace")
		})
	}
}

// A message that cannot be fetched is reported, and the others are fetched.
func TestOneMessageFails(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one", "two")...))
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR 1", Reply: "-ERR [SYS/TEMP] disk"})
	p := newWorkspace(t)
	r := p.run("-c", p.configure(p.account(srv, "ann")))
	assert.Equal(t, exitFailed, r.status)
	assert.Equal(t, "ann: 1 new, 30 bytes, 1 with trouble\n", r.out)
	assert.Equal(t, "popfetch: ann: message 1 (30 bytes) failed: RETR 1: -ERR [SYS/TEMP] disk\n", r.err)
}

func TestQuiet(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	assert.Equal(t, result{status: exitDone}, p.run("-q", "-c", p.configure(p.account(srv, "ann"))))
}

func TestEvents(t *testing.T) {
	ann := mailbox("ann", newMessages("one", "two")...)
	ann.UIDs = []string{"a", "<b>"}
	srv := pop3test.NewServer(ann)
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR 2", Reply: "-ERR no"})
	p := newWorkspace(t)
	r := p.run("--json", "-c", p.configure(p.account(srv, "ann")))
	assert.Equal(t, exitFailed, r.status)
	var got []string
	for line := range strings.Lines(r.out) {
		var e event
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		assert.NotZero(t, e.Time)
		switch {
		case e.Message != nil:
			got = append(got, fmt.Sprint(e.Account, " ", e.Event, " ", *e.Message, e.Error != ""))
		case e.Report != nil:
			got = append(got,
				fmt.Sprint(e.Account, " ", e.Event, " ", e.Report.Delivered, e.Report.Problems, e.Error != ""))
		default:
			got = append(got, e.Account+" "+e.Event)
		}
	}
	assert.Equal(t, []string{"ann begin", "ann message {1 a 30 30 delivered } false",
		"ann message {2 <b> 30 0 failed } true",
		"ann end 1 1 true"}, got)
}

// If a file has the name of the state folder, the error names that file.
func TestStateFolderIsAFile(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	config := p.configure(p.account(srv, "ann"))
	require.NoError(t, os.WriteFile(p.path("state"), nil, 0o600))
	r := p.run("-c", config)
	assert.Equal(t, exitFailed, r.status)
	assert.Contains(t, r.err, p.path("state"))
	assert.Empty(t, srv.Sessions())
}

// If all messages fail for the same reason, only the first errors are shown. The other messages are counted.
func TestAllMessagesFail(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", numberedMessages(50, 100)...))
	defer srv.Close()
	p := newWorkspace(t)
	config := p.configure(p.account(srv, "ann", `command = ["false"]`))
	r := p.run("-c", config)
	assert.Equal(t, exitFailed, r.status)
	assert.Equal(t, maxShown, strings.Count(r.err, "\n"))
	assert.Contains(t, r.out, "50 with trouble")
	r = p.run("--json", "-c", p.configure(p.account(srv, "ann", `id = "again"`, `command = ["false"]`)))
	assert.Equal(t, 50, strings.Count(r.out, `"outcome":"failed"`))
}
