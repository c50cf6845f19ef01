package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestSinks(t *testing.T) {
	tests := []struct {
		name, line string
		want       string
	}{
		{"Maildir", `maildir = "DIR/m"`, "Subject: one\n\nThis is one.\n"},
		{"Maildir, CRLF", "maildir = \"DIR/m\"\nline_ends = \"crlf\"", "Subject: one\r\n\r\nThis is one.\r\n"},
		{"mbox", `mbox = "DIR/out"`, "Subject: one\n\nThis is one.\n\n"},
		{"folder", `eml = "DIR/e"`, "Subject: one\r\n\r\nThis is one.\r\n"},
		{"command", `command = ["cp", "/dev/stdin", "DIR/out"]`, "Subject: one\n\nThis is one.\n"},
		{"command, CRLF", "command = [\"cp\", \"/dev/stdin\", \"DIR/out\"]\nline_ends = \"crlf\"",
			"Subject: one\r\n\r\nThis is one.\r\n"},
		{"shell", `shell_command = "tr a-z A-Z | cat > DIR/out"`, "SUBJECT: ONE\n\nTHIS IS ONE.\n"},
		{"no shell", `command = ["sh", "-c", "cat > \"$0\"", "DIR/out"]`, "Subject: one\n\nThis is one.\n"},
		{"environment", `shell_command = "echo $POPFETCH_ACCOUNT $POPFETCH_USER $POPFETCH_TEST_PASSWORD. > DIR/out"`,
			"ann ann .\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			p := newWorkspace(t)
			line := strings.ReplaceAll(tt.line, "DIR", p.dir)
			config := p.configure(p.account(srv, "ann", line, `delete = "after delivery"`))
			assert.Equal(t, exitDone, p.run("-c", config).status)
			got := strings.Join(p.stored("m"), "")
			if files, _ := filepath.Glob(p.path("e/*.eml")); len(files) == 1 {
				require.NoError(t, os.Rename(files[0], p.path("out")))
			}
			if file, err := os.ReadFile(p.path("out")); err == nil {
				got = string(file)
				if strings.HasPrefix(tt.line, "mbox") {
					_, got, _ = strings.Cut(got, "\n")
				}
			}
			assert.Equal(t, tt.want, got)
			assert.Empty(t, srv.Left("ann"))
		})
	}
}

// If two accounts store in the same mbox file, their messages do not get mixed up.
func TestSharedMbox(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", numberedMessages(20, 2000)...),
		mailbox("bob", numberedMessages(20, 2000)...))
	defer srv.Close()
	p := newWorkspace(t)
	line := `mbox = "` + p.path("box") + `"`
	config := p.configure(p.account(srv, "ann", line), p.account(srv, "bob", line))
	assert.Equal(t, exitDone, p.run("-c", config).status)
	text, err := os.ReadFile(p.path("box"))
	require.NoError(t, err)
	assert.Equal(t, 40, strings.Count(string(text), "\n\nFrom MAILER-DAEMON ")+1)
	for _, m := range withLF(numberedMessages(20, 2000)) {
		assert.Equal(t, 2, strings.Count(string(text), m))
	}
}

func TestFailingAgent(t *testing.T) {
	tests := []struct{ name, line, err string }{
		{"exit status", `shell_command = "cat > /dev/null; printf 'no\nspace' >&2; exit 75"`,
			"command /bin/sh: exit status 75: no space"},
		{"killed", `shell_command = "kill -9 $$"`, "command /bin/sh: signal: killed"},
		{"too slow", "shell_command = \"sleep 100\"\ncommand_timeout = \"1s\"",
			"it took longer than 1s (command_timeout)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			p := newWorkspace(t)
			r := p.run("-c", p.configure(p.account(srv, "ann", tt.line, `delete = "after delivery"`)))
			assert.Equal(t, exitFailed, r.status)
			assert.Contains(t, r.err, tt.err)
			assert.Len(t, srv.Left("ann"), 1)
			assert.Equal(t, "ann: nothing new, 1 with trouble\n", r.out)
		})
	}
}

// C-084: a missing command or server is found before a message is retrieved.
func TestNonexistentCommandOrServer(t *testing.T) {
	tests := []struct{ name, line, err string }{
		{"C-084 command", `command = ["/nonexistent/mda"]`, "command /nonexistent/mda: "},
		{"C-084 command in no folder of PATH", `command = ["procmai"]`, `"procmai": executable file not found`},
		{"C-084 LMTP", `lmtp = "/nonexistent/socket"`, "lmtp /nonexistent/socket: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one", "two")...))
			defer srv.Close()
			p := newWorkspace(t)
			r := p.run("-c", p.configure(p.account(srv, "ann", tt.line)))
			assert.Equal(t, exitFailed, r.status)
			assert.Equal(t, 1, strings.Count(r.err, tt.err), r.err)
			assert.Empty(t, srv.Commands())
		})
	}
}

// deliver passes a message to an agent, as a run of popfetch does.
func deliver(ctx context.Context, a *agent, r io.Reader) error {
	return spooled{lf: true, deliver: a.deliver}.Deliver(ctx, fetch.Item{}, r)
}

// If an agent exits while one of its children still holds the output open, popfetch does not wait for the child.
func TestAgentLeavesAChild(t *testing.T) {
	a := &agent{argv: list{"/bin/sh", "-c", "sleep 5 & exit 0"}, timeout: time.Minute}
	start := time.Now()
	require.NoError(t, deliver(t.Context(), a, strings.NewReader("text")))
	assert.Less(t, time.Since(start), 4*time.Second)
}

// If a message is cut off, the agent is not started.
func TestAgentNotStartedForIncompleteMessage(t *testing.T) {
	p := newWorkspace(t)
	a := &agent{argv: list{"touch", p.path("ran")}, timeout: time.Minute}
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("lost")))
	require.EqualError(t, deliver(t.Context(), a, broken), "lost")
	assert.NoFileExists(t, p.path("ran"))
}

// A second signal kills an agent and its children.
func TestAgentCancelled(t *testing.T) {
	a := &agent{argv: list{"/bin/sh", "-c", "sleep 100; true"}, timeout: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, deliver(ctx, a, strings.NewReader("text")), context.Canceled)
}

// C-082: while an agent works, the message is in a file that has already been removed from its folder. So if popfetch
// is killed, no file is left.
func TestNoFileInTemporaryFolder(t *testing.T) {
	p := newWorkspace(t)
	t.Setenv("TMPDIR", p.dir)
	script := `test -z "$(ls -A "$TMPDIR")"`
	a := &agent{argv: list{"sh", "-c", script}, env: []string{"PATH=/bin:/usr/bin", "TMPDIR=" + p.dir},
		timeout: time.Minute}
	require.NoError(t, deliver(t.Context(), a, strings.NewReader("text")))
}

// An agent gets the envelope in its arguments and in its environment, never in a shell command.
func TestEnvelope(t *testing.T) {
	const evil = "$(touch pwned)@example.org"
	for _, tt := range []struct{ name, header, sender, recipient string }{
		{"both", "Return-Path: <ann@example.org>\nDelivered-To: bob@example.net\n", "ann@example.org",
			"bob@example.net"},
		{"X-Original-To first", "X-Original-To: list@example.net\nDelivered-To: bob@example.net\n", "",
			"list@example.net"},
		{"the latest server", "Delivered-To: <new@example.net>\nDelivered-To: old@example.net\n", "",
			"new@example.net"},
		{"a bounce", "Return-Path: <>\n", "", "me"},
		{"neither", "Subject: x\n", "", "me"},
		{"in the body", "Subject: x\n\nReturn-Path: <ann@example.org>\n", "", "me"},
		{"an option", "Return-Path: <-oQ/tmp@example.org>\n", "", "me"},
		{"a command", "Return-Path: <\"$(touch pwned)\"@example.org>\n", evil, "me"},
		{"no address", "Return-Path: me; rm -r /\n", "", "me"},
		{"CRLF", "Return-Path: <ann@example.org>\r\n\r\n", "ann@example.org", "me"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newWorkspace(t)
			out := p.path("out")
			a := &agent{user: "me", timeout: time.Minute, argv: list{"sh", "-c",
				`cat > /dev/null; printf '%s|%s|%s|%s' "$1" "$2" "$POPFETCH_SENDER" "$POPFETCH_RECIPIENT" > "$0"`,
				out, "-f{sender}", "{recipient}"}, env: []string{"PATH=/bin:/usr/bin"}}
			require.NoError(t, deliver(t.Context(), a, strings.NewReader(tt.header)))
			got, err := os.ReadFile(out)
			require.NoError(t, err)
			fields := strings.Split(string(got), "|")
			require.Len(t, fields, 4)
			assert.Equal(t, []string{"-f" + tt.sender, tt.recipient, tt.sender}, fields[:3])
		})
	}
}

// C-074: the Maildir is created in the first run. If it is missing in a later run, popfetch fails before it retrieves
// anything.
func TestMissingDestination(t *testing.T) {
	for _, tt := range []struct{ key, command string }{
		{"maildir", "mkdir -p DIR/cur DIR/new DIR/tmp"}, {"mbox", "touch DIR"}, {"eml", "mkdir -p DIR"},
	} {
		t.Run("C-074 "+tt.key, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			p := newWorkspace(t)
			destination := p.path("place")
			config := p.configure(p.account(srv, "ann", fmt.Sprintf("%s = %q", tt.key, destination),
				`delete = "after delivery"`))
			require.Equal(t, exitDone, p.run("-c", config).status)
			require.NoError(t, os.RemoveAll(destination))
			srv.Deliver("ann", newMessages("two")...)
			r := p.run("-c", config)
			assert.Equal(t, exitFailed, r.status)
			command := strings.ReplaceAll(tt.command, "DIR", destination)
			assert.Contains(t, r.err,
				destination+" does not exist; mount its file system, or create it if it is new: "+command+"\n")
			assert.Len(t, srv.Left("ann"), 1)
			assert.NoFileExists(t, destination)
			require.NoError(t, exec.Command("sh", "-c", command).Run())
			assert.Equal(t, exitDone, p.run("-c", config).status, "the advice works")
			assert.Empty(t, srv.Left("ann"))
		})
	}
}
