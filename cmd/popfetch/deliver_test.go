package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
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
			srv := pop3test.NewServer(box("ann", mails("one")...))
			defer srv.Close()
			p := newPlace(t)
			line := strings.ReplaceAll(tt.line, "DIR", p.dir)
			config := p.configure(p.account(srv, "ann", line, `delete = "after delivery"`))
			assert.Equal(t, exitDone, p.run("-c", config).status)
			got := strings.Join(p.stored("m"), "")
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

// Accounts that share an mbox file do not mix their messages.
func TestSharedMbox(t *testing.T) {
	srv := pop3test.NewServer(box("ann", numbered(20, 2000)...), box("bob", numbered(20, 2000)...))
	defer srv.Close()
	p := newPlace(t)
	line := `mbox = "` + p.path("box") + `"`
	config := p.configure(p.account(srv, "ann", line), p.account(srv, "bob", line))
	assert.Equal(t, exitDone, p.run("-c", config).status)
	text, err := os.ReadFile(p.path("box"))
	require.NoError(t, err)
	assert.Equal(t, 40, strings.Count(string(text), "\n\nFrom MAILER-DAEMON ")+1)
	for _, m := range lf(numbered(20, 2000)) {
		assert.Equal(t, 2, strings.Count(string(text), m))
	}
}

func TestAgentThatFails(t *testing.T) {
	tests := []struct{ name, line, err string }{
		{"exit status", `shell_command = "cat > /dev/null; printf 'no\nspace' >&2; exit 75"`,
			"command /bin/sh: exit status 75: no space"},
		{"killed", `shell_command = "kill -9 $$"`, "command /bin/sh: signal: killed"},
		{"not there", `command = ["/nonexistent/mda"]`, "command /nonexistent/mda: "},
		{"too slow", "shell_command = \"sleep 100\"\ncommand_timeout = \"50ms\"",
			"it did not end within 50ms (command_timeout)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(box("ann", mails("one")...))
			defer srv.Close()
			p := newPlace(t)
			r := p.run("-c", p.configure(p.account(srv, "ann", tt.line, `delete = "after delivery"`)))
			assert.Equal(t, exitTrouble, r.status)
			assert.Contains(t, r.err, tt.err)
			assert.Len(t, srv.Left("ann"), 1)
			assert.Equal(t, "ann: nothing new, 1 with trouble\n", r.out)
		})
	}
}

// An agent that leaves a child behind, which holds its output open, is not waited for.
func TestAgentWithAChild(t *testing.T) {
	a := &agent{argv: []string{"/bin/sh", "-c", "sleep 5 & exit 0"}, timeout: time.Minute}
	start := time.Now()
	require.NoError(t, a.Deliver(t.Context(), fetch.Item{}, strings.NewReader("text")))
	assert.Less(t, time.Since(start), 4*time.Second)
}

// An agent sees whole messages only.
func TestAgentAndAMessageThatIsCut(t *testing.T) {
	p := newPlace(t)
	a := &agent{argv: []string{"touch", p.path("ran")}, timeout: time.Minute}
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("lost")))
	require.EqualError(t, a.Deliver(t.Context(), fetch.Item{}, broken), "lost")
	assert.NoFileExists(t, p.path("ran"))
}

// The second signal ends an agent, with its children.
func TestAgentThatIsCut(t *testing.T) {
	a := &agent{argv: []string{"/bin/sh", "-c", "sleep 100; true"}, timeout: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, a.Deliver(ctx, fetch.Item{}, strings.NewReader("text")), context.Canceled)
}

func TestLineEnds(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"CRLF", "a\r\nb\r\n", "a\nb\n"}, {"LF", "a\nb", "a\nb"}, {"a CR at the end", "a\r", "a\r"},
		{"two CRs", "a\r\r\nb", "a\r\nb"}, {"CRs", "\r\r\r", "\r\r\r"}, {"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.text), iotest.OneByteReader(strings.NewReader(tt.text))} {
				var out bytes.Buffer
				w := &lfWriter{w: &out}
				n, err := io.Copy(w, r)
				require.NoError(t, err)
				require.NoError(t, w.flush())
				assert.Equal(t, int64(len(tt.text)), n)
				assert.Equal(t, tt.want, out.String())
			}
		})
	}
}
