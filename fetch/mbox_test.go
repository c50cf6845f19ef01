package fetch_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

var fromLine = regexp.MustCompile(`(?m)^From MAILER-DAEMON \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n`)

// readMbox is a simple reader of mboxrd: it splits at lines that begin with "From ", removes the blank line at the end
// of each message, and undoes the quoting.
func readMbox(t *testing.T, name string) []string {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	text := string(content)
	require.Equal(
		t,
		len(regexp.MustCompile(`(?m)^From `).FindAllString(text, -1)),
		len(fromLine.FindAllString(text, -1)),
	)
	var messages []string
	for _, part := range fromLine.Split(text, -1)[1:] {
		require.True(t, strings.HasSuffix(part, "\n"))
		messages = append(messages, regexp.MustCompile(`(?m)^>(>*From )`).ReplaceAllString(part[:len(part)-1], "$1"))
	}
	return messages
}

var mboxTests = []struct{ name, message, want string }{
	{"a message", "a: b\r\n\r\ntext\r\n", "a: b\n\ntext\n"},
	{"empty", "", ""},
	{"no line end", "a: b", "a: b\n"},
	{"From at the start", "From a\r\n", "From a\n"},
	{"From in the text", "a: b\r\n\r\nFrom me\r\n>From you\r\n>>>From all\r\n> From\r\n>From\r\nFrom",
		"a: b\n\nFrom me\n>From you\n>>>From all\n> From\n>From\nFrom\n"},
	{"nearly From", "Fro\r\nFrom\r\nF\r\nFFrom x\r\nFrFrom \r\n>F>From x\r\n from x\r\n",
		"Fro\nFrom\nF\nFFrom x\nFrFrom \n>F>From x\n from x\n"},
	{"blank lines at the end", "a: b\r\n\r\n\r\n\r\n", "a: b\n\n\n\n"},
	{"CR and LF alone", "a\rb\nFrom c\r\r\nd\r", "a\rb\nFrom c\r\nd\r\n"},
	{"octets of all kinds", "\x00\xff\r\n\x80From \r\n", "\x00\xff\n\x80From \n"},
}

func TestMbox(t *testing.T) {
	for _, tt := range mboxTests {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "deep", "mbox")
			b := fetch.Mbox{Path: name}
			require.NoError(t, b.Create())
			require.NoError(t, b.Check(t.Context()))
			for _, r := range []io.Reader{
				strings.NewReader(tt.message),
				iotest.OneByteReader(strings.NewReader(tt.message)),
				iotest.HalfReader(strings.NewReader(tt.message)),
			} {
				require.NoError(t, b.Deliver(t.Context(), fetch.Item{}, r))
			}
			assert.Equal(t, []string{tt.want, tt.want, tt.want}, readMbox(t, name))
			assert.Len(t, readDir(t, filepath.Dir(name)), 1, "no other file is left")
		})
	}
}

func TestMboxCutMessage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mbox")
	b := fetch.Mbox{Path: name}
	require.NoError(t, b.Create())
	require.NoError(t, b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("one\r\n")))
	before, err := os.ReadFile(name)
	require.NoError(t, err)
	half := strings.NewReader(strings.Repeat("half a mess\r\n", 10000))
	cut := io.MultiReader(half, iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, b.Deliver(t.Context(), fetch.Item{}, cut), io.ErrUnexpectedEOF)
	after, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	assert.Len(t, readDir(t, filepath.Dir(name)), 1, "no other file is left")
}

// Another program or a crash has left the file without a line end or without a blank line at its end.
func TestMboxAfterMissingBlankLine(t *testing.T) {
	const old = "From MAILER-DAEMON Tue Nov 24 08:00:00 2026\n"
	for _, end := range []string{"\n\n", "text\n\n", "text\n", "text", "text\r\n"} {
		name := filepath.Join(t.TempDir(), "mbox")
		require.NoError(t, os.WriteFile(name, []byte(old+end), 0o644))
		b := fetch.Mbox{Path: name}
		require.NoError(t, b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("two\r\n")))
		got := readMbox(t, name)
		require.Len(t, got, 2, "%q", end)
		assert.Equal(t, strings.TrimRight(end, "\n"), strings.TrimRight(got[0], "\n"))
		assert.Equal(t, "two\n", got[1])
	}
}

// C-074, C-084: a delivery does not make a missing mbox.
func TestMboxErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	tests := []struct{ name, path, err string }{
		{"a folder", dir, "is a directory"},
		{"not there", filepath.Join(dir, "mbox"), "make it with Mbox.Create"},
		{"no folder either", filepath.Join(dir, "deep", "mbox"), "make it with Mbox.Create"},
		{"below a file", filepath.Join(file, "mbox"), "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := fetch.Mbox{Path: tt.path}
			for _, err := range []error{
				b.Check(t.Context()),
				b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("x")),
			} {
				require.ErrorContains(t, err, "fetch: mbox "+tt.path+": ")
				require.ErrorContains(t, err, tt.err)
			}
		})
	}
	assert.Len(t, readDir(t, dir), 1)
}

// Create does not change an existing mbox.
func TestMboxCreate(t *testing.T) {
	b := fetch.Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	require.NoError(t, b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("one\r\n")))
	require.NoError(t, b.Create())
	assert.Equal(t, []string{"one\n"}, readMbox(t, b.Path))
}
