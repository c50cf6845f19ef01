package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stored returns the messages of a Maildir.
func stored(t *testing.T, dir string) [][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "new", "*"))
	require.NoError(t, err)
	var messages [][]byte
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		messages = append(messages, content)
	}
	return messages
}

// stdinFile returns an open file, which replaces a standard input that is not a terminal.
func stdinFile(t *testing.T, content string) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stdin")
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSampleServer(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out, errs bytes.Buffer
	require.NoError(t, run(t.Context(), nil, stdinFile(t, ""), &out, &errs))
	assert.Empty(t, errs.String())
	assert.NotContains(t, out.String(), "\r")

	dir := regexp.MustCompile(`stored in (\S+)`).FindStringSubmatch(out.String())
	require.NotNil(t, dir, out.String())
	assert.ElementsMatch(t, samples(), stored(t, dir[1]))
}

func TestFetchFromServer(t *testing.T) {
	messages := [][]byte{[]byte("Subject: 1\r\n\r\none\r\n"), []byte("Subject: 2\r\n\r\n.two\r\n")}
	tests := []struct {
		name  string
		tls   string
		args  []string
		env   bool
		stdin string
		left  int
	}{
		{name: "implicit TLS, messages stay", tls: "implicit", env: true, left: 2},
		{name: "STLS, messages are deleted", tls: "starttls", env: true, args: []string{"-delete"}},
		{name: "in clear, password from the standard input", tls: "none", stdin: "secret\nmore\n", left: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := pop3test.NewServer
			if tt.tls == "implicit" {
				start = pop3test.NewTLSServer
			}
			server := start(&pop3test.Mailbox{User: "bob", Password: "secret", Messages: messages})
			defer server.Close()
			if tt.env {
				t.Setenv("POP3_PASSWORD", "secret")
			}
			dir := filepath.Join(t.TempDir(), "Mail")
			args := append([]string{"-addr", server.Addr, "-user", "bob", "-tls", tt.tls, "-o", dir}, tt.args...)
			j, err := parse(args, new(bytes.Buffer))
			require.NoError(t, err)
			j.opts.TLSConfig = server.ClientTLS()
			var out, errs bytes.Buffer
			require.NoError(t, j.start(t.Context(), stdinFile(t, tt.stdin), &out, &errs))
			assert.Equal(t, messages, stored(t, dir))
			assert.Len(t, server.Left("bob"), tt.left)
			assert.NotContains(t, out.String()+errs.String(), "secret")
		})
	}
}

func TestUnstoredMessageIsNotDeleted(t *testing.T) {
	messages := [][]byte{[]byte("Subject: 1\r\n\r\none\r\n"), []byte("Subject: 2\r\n\r\ntwo\r\n")}
	server := pop3test.NewServer(&pop3test.Mailbox{User: "bob", Password: "secret", Messages: messages})
	defer server.Close()
	server.SetFaults(pop3test.Fault{At: "RETR 2", Drop: pop3test.InBody, Octets: 5})
	t.Setenv("POP3_PASSWORD", "secret")
	dir := t.TempDir()
	var out, errs bytes.Buffer
	args := []string{"-addr", server.Addr, "-user", "bob", "-tls", "none", "-o", dir, "-delete"}
	require.ErrorIs(t, run(t.Context(), args, stdinFile(t, ""), &out, &errs), io.ErrUnexpectedEOF)
	assert.Equal(t, messages[:1], stored(t, dir))
	assert.Equal(t, messages[1:], server.Left("bob"))
	assert.Contains(t, out.String(), "failed: ")
}

func TestArguments(t *testing.T) {
	tests := []struct {
		name string
		args []string
		err  string
	}{
		{"user without a server", []string{"-user", "bob"}, "-addr and -user must both be set"},
		{"server without a user", []string{"-addr", "localhost"}, "-addr and -user must both be set"},
		{"unknown value of -tls", []string{"-tls", "maybe"}, "implicit, starttls, none"},
		{"argument that is not a flag", []string{"bob"}, `unexpected argument "bob"`},
		{"password as an argument", []string{"-password", "x"}, "not defined: -password"},
		{"no password", []string{"-addr", "localhost", "-user", "bob"}, "set POP3_PASSWORD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			err := run(t.Context(), tt.args, stdinFile(t, "\n"), &out, &errs)
			require.ErrorContains(t, err, tt.err)
			assert.Empty(t, out.String())
		})
	}
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, nil, new(bytes.Buffer), new(bytes.Buffer)), flag.ErrHelp)
}

func TestWrongPassword(t *testing.T) {
	server := pop3test.NewServer(&pop3test.Mailbox{User: "bob", Password: "secret"})
	defer server.Close()
	t.Setenv("POP3_PASSWORD", "wrong-one")
	args := []string{"-addr", server.Addr, "-user", "bob", "-tls", "none"}
	var out, errs bytes.Buffer
	err := run(t.Context(), args, stdinFile(t, ""), &out, &errs)
	var refusal *pop3.Error
	require.ErrorAs(t, err, &refusal)
	assert.Empty(t, out.String())
	assert.NotContains(t, err.Error()+out.String()+errs.String(), "wrong-one")
}

func TestUntrustedCertificate(t *testing.T) {
	server := pop3test.NewTLSServer(&pop3test.Mailbox{User: "bob", Password: "secret"})
	defer server.Close()
	t.Setenv("POP3_PASSWORD", "secret")
	t.Setenv("TMPDIR", t.TempDir())
	args := []string{"-addr", server.Addr, "-user", "bob"}
	err := run(t.Context(), args, stdinFile(t, ""), new(bytes.Buffer), new(bytes.Buffer))
	require.ErrorContains(t, err, "examples/connect")
	var untrusted *tls.CertificateVerificationError
	require.ErrorAs(t, err, &untrusted)
}

// If the standard input is the null device, there is no prompt, although the null device is a character device like a
// terminal. The test opens the null device by another name.
func TestDevNullIsNotATerminal(t *testing.T) {
	link := filepath.Join(t.TempDir(), "stdin")
	if err := os.Symlink(os.DevNull, link); err != nil {
		t.Skip("NOT RUN: this system has no symbolic links: ", err)
	}
	null, err := os.Open(link)
	require.NoError(t, err)
	defer null.Close()
	assert.False(t, isTerminal(null))
	_, err = readPassword(t.Context(), null, new(bytes.Buffer))
	require.ErrorContains(t, err, "set POP3_PASSWORD, or write the password to the standard input")
}

func TestInterruptedPrompt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	cancel()
	_, err := untilDone(ctx, func() (string, error) { <-release; return "", nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestSizesAndCounts(t *testing.T) {
	for n, want := range map[int64]string{0: "   0 octets", 999: " 999 octets", 1500: "   1.5 kB",
		4_300_000: "   4.3 MB"} {
		assert.Equal(t, want, formatSize(n))
	}
	assert.Equal(t, "1 message", countMessages(1))
	assert.Equal(t, "0 messages", countMessages(0))
}
