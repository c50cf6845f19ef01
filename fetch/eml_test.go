package fetch_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

func newEMLFolder(t *testing.T) fetch.EMLFolder {
	t.Helper()
	d := fetch.EMLFolder{Dir: filepath.Join(t.TempDir(), "archive", "2026")}
	require.NoError(t, d.Create())
	return d
}

// names returns the names of the files in a folder.
func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

const date = "Date: Tue, 24 Nov 2026 09:30:00 +0100\r\n"

func TestEMLFolderNames(t *testing.T) {
	tests := []struct{ name, uid, message, want string }{
		{"plain", "0000001a5f3c", date + "\r\nx\r\n", `20261124T083000Z-0000001a5f3c`},
		{"no Date", "1", "Subject: x\r\n\r\n" + date, `undated-1`},
		{"a Date that is none", "1", "Date: soon\r\n\r\nx", `undated-1`},
		{"no header", "1", "\r\nx", `undated-1`},
		{"a header without end", "1", "Subject: x\r\n" + date, `20261124T083000Z-1`},
		{"a Date of year 0", "1", "Date: Tue, 24 Nov 0000 09:30:00 +0100\r\n\r\n", `undated-1`},
		{"empty", "1", "", `undated-1`},
		{"no unique-id", "", date + "\r\n", `20261124T083000Z-[0-9a-f]{24}`},
		{"H-119: a path", "../../etc/passwd", date + "\r\n", `20261124T083000Z-______etc_passwd-[0-9a-f]{12}`},
		{"H-119: dots", "..", date + "\r\n", `20261124T083000Z-__-[0-9a-f]{12}`},
		{"H-119: of Windows", `C:\nul`, date + "\r\n", `20261124T083000Z-c__nul-[0-9a-f]{12}`},
		{"H-119: controls and more", "a\x00\x1b[31m\u202e\xff", date + "\r\n",
			`20261124T083000Z-a___31m__-[0-9a-f]{12}`},
		{"capitals", "GmailId18C", date + "\r\n", `20261124T083000Z-gmailid18c-[0-9a-f]{12}`},
		{"long", strings.Repeat("u", 1024), date + "\r\n", `20261124T083000Z-u{40}-[0-9a-f]{12}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newEMLFolder(t)
			item := fetch.Item{UID: tt.uid}
			require.NoError(t, d.Check(t.Context()))
			require.NoError(t, d.Deliver(t.Context(), item, iotest.OneByteReader(strings.NewReader(tt.message))))
			require.NoError(t, d.Deliver(t.Context(), item, strings.NewReader(tt.message)), "again")
			got := names(t, d.Dir)
			require.Len(t, got, 1, "the same message twice is one file")
			assert.Regexp(t, regexp.MustCompile("^"+tt.want+`\.eml$`), got[0])
			assert.Equal(t, []string{tt.message}, readDir(t, d.Dir))
			info, err := os.Stat(filepath.Join(d.Dir, got[0]))
			require.NoError(t, err)
			assert.Zero(t, info.Mode().Perm()&0o077)
		})
	}
}

// Names that file systems without regard for case take for one.
func TestEMLFolderCase(t *testing.T) {
	d := newEMLFolder(t)
	for _, uid := range []string{"ab", "aB", "Ab", "AB"} {
		require.NoError(t, d.Deliver(t.Context(), fetch.Item{UID: uid}, strings.NewReader(uid)))
	}
	folded := make(map[string]bool)
	for _, name := range names(t, d.Dir) {
		folded[strings.ToLower(name)] = true
	}
	assert.Len(t, folded, 4)
}

// A unique-id that the server gives to another message: both are kept, and a file is never replaced.
func TestEMLFolderSameName(t *testing.T) {
	d := newEMLFolder(t)
	for range 2 {
		for _, text := range []string{"one", "two", "three"} {
			require.NoError(t, d.Deliver(t.Context(), fetch.Item{UID: "7"}, strings.NewReader(text)))
		}
	}
	assert.ElementsMatch(t, []string{"one", "two", "three"}, readDir(t, d.Dir))

	for _, name := range names(t, d.Dir) { // their owner has changed them
		require.NoError(t, os.WriteFile(filepath.Join(d.Dir, name), []byte("changed"), 0o600))
	}
	require.NoError(t, d.Deliver(t.Context(), fetch.Item{UID: "7"}, strings.NewReader("two")))
	assert.ElementsMatch(t, []string{"changed", "changed", "changed", "two"}, readDir(t, d.Dir))
}

func TestEMLFolderStoresNothingOfACutMessage(t *testing.T) {
	d := newEMLFolder(t)
	cut := io.MultiReader(strings.NewReader("half a mess"), iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{UID: "1"}, cut), io.ErrUnexpectedEOF)
	assert.Empty(t, names(t, d.Dir))
}

// C-074, C-084: a folder that is not there is not made by a delivery.
func TestEMLFolderWithoutAPlace(t *testing.T) {
	d := newEMLFolder(t)
	require.NoError(t, os.Remove(d.Dir))
	for _, err := range []error{
		d.Check(t.Context()),
		d.Deliver(t.Context(), fetch.Item{UID: "1"}, strings.NewReader("x")),
	} {
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, "make it with EMLFolder.Create")
	}
	assert.NoDirExists(t, d.Dir)
}

// What killed processes have left is removed when no process can be at work on it any more.
func TestStaleFilesAreRemoved(t *testing.T) {
	d := newEMLFolder(t)
	b := fetch.Mbox{Path: filepath.Join(d.Dir, "mbox")}
	require.NoError(t, b.Create())
	for name, age := range map[string]time.Duration{
		".eml-old": 37, ".eml-new": 35, ".mbox.spool-old": 37, ".mbox.spool-new": 35, "old.eml": 1000, ".other": 1000,
	} {
		name = filepath.Join(d.Dir, name)
		require.NoError(t, os.WriteFile(name, nil, 0o600))
		then := time.Now().Add(-age * time.Hour)
		require.NoError(t, os.Chtimes(name, then, then))
	}
	require.NoError(t, d.Check(t.Context()))
	require.NoError(t, b.Check(t.Context()))
	assert.Equal(t, []string{".eml-new", ".mbox.spool-new", ".other", "mbox", "old.eml"}, names(t, d.Dir))
}
