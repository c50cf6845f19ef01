package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// envMain is an environment variable that makes the test binary run as popfetch.
const envMain = "POPFETCH_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(envMain) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

const password = "tanstaaf-canary"

// newMessages returns a message for each text.
func newMessages(texts ...string) [][]byte {
	messages := make([][]byte, len(texts))
	for i, text := range texts {
		messages[i] = fmt.Appendf(nil, "Subject: %s\r\n\r\nThis is %s.\r\n", text, text)
	}
	return messages
}

// numberedMessages returns n different messages of about size bytes each.
func numberedMessages(n, size int) [][]byte {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("%d%s", i, strings.Repeat("\r\nfill", (size-60)/12))
	}
	return newMessages(texts...)
}

// mailbox returns the maildrop of a user.
func mailbox(user string, messages ...[]byte) *pop3test.Mailbox {
	return &pop3test.Mailbox{User: user, Password: password, Messages: messages}
}

// A workspace is a temporary folder with a configuration and with everything that popfetch writes.
type workspace struct {
	t   *testing.T
	dir string
}

func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	t.Setenv("POPFETCH_TEST_PASSWORD", password)
	return &workspace{t, t.TempDir()}
}

// path returns the path of a file in the folder.
func (p *workspace) path(name string) string { return filepath.Join(p.dir, name) }

// account returns an account table for the configuration. The account does not use TLS unless extraLines set the key
// tls.
func (p *workspace) account(srv *pop3test.Server, user string, extraLines ...string) string {
	lines := append([]string{
		"[[account]]", fmt.Sprintf("server = %q", srv.Addr), fmt.Sprintf("user = %q", user),
		`password_env = "POPFETCH_TEST_PASSWORD"`,
	}, extraLines...)
	text := strings.Join(lines, "\n") + "\n"
	if !strings.Contains(text, "tls =") {
		text += "tls = \"none\"\n"
	}
	for _, key := range []string{"maildir =", "mbox =", "eml =", "lmtp =", "command ="} {
		if strings.Contains(strings.ReplaceAll(text, "password_command", ""), key) {
			return text
		}
	}
	return text + fmt.Sprintf("maildir = %q\n", p.path(user))
}

// configure writes the configuration and returns its name.
func (p *workspace) configure(tables ...string) string {
	p.t.Helper()
	text := fmt.Sprintf("state = %q\n", p.path("state")) + strings.Join(tables, "\n")
	require.NoError(p.t, os.WriteFile(p.path("config.toml"), []byte(text), 0o600))
	return p.path("config.toml")
}

// trustLine writes the certificate of a server to a file. It returns the line of the configuration that makes popfetch
// trust the certificate.
func (p *workspace) trustLine(srv *pop3test.Server) string {
	return fmt.Sprintf("ca_file = %q", p.writeCA(srv))
}

func (p *workspace) writeCA(srv *pop3test.Server) string {
	p.t.Helper()
	chain := srv.ServerTLS().Certificates[0].Certificate
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[len(chain)-1]})
	require.NoError(p.t, os.WriteFile(p.path("ca.pem"), text, 0o600))
	return p.path("ca.pem")
}

// stored returns the messages in a Maildir below the folder.
func (p *workspace) stored(name string) (messages []string) {
	p.t.Helper()
	names, err := filepath.Glob(filepath.Join(p.path(name), "new", "*"))
	require.NoError(p.t, err)
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(p.t, err)
		messages = append(messages, string(content))
	}
	return messages
}

// A result is the result of a popfetch command.
type result struct {
	status   int
	out, err string
}

// run runs popfetch in this process.
func (p *workspace) run(args ...string) result {
	p.t.Helper()
	var out, errs bytes.Buffer
	status := run(fakeSignals(p.t.Context(), p.t.Context()), args, &out, &errs)
	return p.checkNoPassword(result{status, out.String(), errs.String()})
}

// fakeSignals returns a function that replaces handleSignals. Its contexts replace the signals.
func fakeSignals(stop, cut context.Context) func(bool) signals {
	return func(bool) signals {
		return signals{stop, cut, make(chan os.Signal, 1), make(chan os.Signal, 1)}
	}
}

// checkNoPassword checks that neither the output nor any file of the state folder contains the password.
func (p *workspace) checkNoPassword(r result) result {
	p.t.Helper()
	assert.NotContains(p.t, r.out+r.err, "canary")
	require.NoError(p.t, filepath.WalkDir(p.path("state"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			content, err := os.ReadFile(name)
			require.NoError(p.t, err)
			assert.NotContains(p.t, string(content), "canary", name)
		}
		return nil
	}))
	return r
}

// withLF returns the messages as popfetch stores them by default, with LF line ends.
func withLF(messages [][]byte) (texts []string) {
	for _, m := range messages {
		texts = append(texts, strings.ReplaceAll(string(m), "\r\n", "\n"))
	}
	return texts
}

func TestCommandLine(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		status int
		out    string
		err    string
	}{
		{"help", []string{"--help"}, exitDone, "popfetch --diagnose HOST[:PORT]", ""},
		{"short help", []string{"-h"}, exitDone, "Exit status: 0 all done", ""},
		{"version", []string{"--version"}, exitDone, "popfetch ", ""},
		{"unknown flag", []string{"--fast"}, exitUsage, "", "unknown flag: --fast; see popfetch --help"},
		{"daemon and dry run", []string{"-d", "-n"}, exitUsage, "", "--daemon and --dry-run cannot be used together"},
		{"diagnose with accounts", []string{"--diagnose", "h", "a"}, exitUsage, "", "--diagnose can be used with"},
		{"ca-file alone", []string{"--ca-file", "x"}, exitUsage, "", "write ca_file in the configuration"},
		{"ca-file that does not exist", []string{"--diagnose", "h", "--ca-file", "/nonexistent"}, exitConfig, "",
			"--ca-file: open /nonexistent"},
		{"no configuration", []string{"-c", "/nonexistent/config"}, exitConfig, "",
			"there is no configuration at /nonexistent/config; popfetch --help shows one to begin with"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newWorkspace(t).run(tt.args...)
			assert.Equal(t, tt.status, r.status)
			assert.Contains(t, r.out, tt.out)
			assert.Contains(t, r.err, tt.err)
			assert.Equal(t, tt.out == "", r.out == "")
			assert.Equal(t, tt.err == "", r.err == "")
		})
	}
}

// Without --config, popfetch reads the configuration in the usual folder.
func TestDefaultConfiguration(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann"))
	defer srv.Close()
	p := newWorkspace(t)
	t.Setenv("XDG_CONFIG_HOME", p.dir)
	t.Setenv("XDG_STATE_HOME", p.path("xdg"))
	t.Setenv("HOME", p.dir)
	require.NoError(t, os.Mkdir(p.path("popfetch"), 0o700))
	config := p.account(srv, "ann", `mbox = "~/box"`)
	require.NoError(t, os.WriteFile(p.path("popfetch/config.toml"), []byte(config), 0o644))
	srv.Deliver("ann", newMessages("one")...)
	r := p.run()
	assert.Equal(t, result{exitDone, "ann: 1 new, 30 bytes\n", ""}, r)
	assert.FileExists(t, p.path("box"))
	assert.DirExists(t, p.path("xdg/popfetch"))
	t.Setenv("XDG_STATE_HOME", "")
	p.run()
	assert.DirExists(t, p.path(".local/state/popfetch"))
}

// If a signal arrives before the first session, the run ends without a connection.
func TestSignalBeforeFirstSession(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	args := []string{"-c", p.configure(p.account(srv, "ann"))}
	assert.Equal(t, exitStopped, run(fakeSignals(ctx, t.Context()), args, &out, &errs))
	assert.Empty(t, srv.Sessions())
}
