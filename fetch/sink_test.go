package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// readDir returns the contents of the files in a folder, in the order of their names.
func readDir(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var files []string
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		files = append(files, string(content))
	}
	return files
}

func TestMaildir(t *testing.T) {
	tests := []struct {
		name, message, want string
		lf                  bool
	}{
		{
			name:    "byte for byte",
			message: "a: b\r\n\r\n\x00\xff.\r\n.\r\r\n\n",
			want:    "a: b\r\n\r\n\x00\xff.\r\n.\r\r\n\n",
		},
		{name: "empty"},
		{name: "LF", lf: true, message: "a: b\r\n\r\n.\r\r\nx\ry\n\r\n", want: "a: b\n\n.\r\nx\ry\n\n"},
		{name: "LF and a CR at the end", lf: true, message: "a\r\nb\r", want: "a\nb\r"},
		{name: "LF, empty", lf: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "down")
			d := fetch.Maildir{Dir: dir, LF: tt.lf}
			require.NoError(t, d.Create())
			require.NoError(t, d.Check(t.Context()))
			readers := []io.Reader{
				strings.NewReader(tt.message),
				iotest.OneByteReader(strings.NewReader(tt.message)),
				iotest.DataErrReader(strings.NewReader(tt.message)),
			}
			for _, r := range readers {
				require.NoError(t, d.Deliver(t.Context(), fetch.Item{UID: "../x"}, r))
			}
			assert.Equal(t, []string{tt.want, tt.want, tt.want}, readDir(t, filepath.Join(dir, "new")))
			assert.Empty(t, readDir(t, filepath.Join(dir, "tmp")))
			assert.Empty(t, readDir(t, filepath.Join(dir, "cur")))
		})
	}
}

func TestMaildirCutMessage(t *testing.T) {
	dir := t.TempDir()
	d := fetch.Maildir{Dir: dir}
	require.NoError(t, d.Create())
	cut := io.MultiReader(strings.NewReader("half a mess"), iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{}, cut), io.ErrUnexpectedEOF)
	assert.Empty(t, readDir(t, filepath.Join(dir, "new")))
	assert.Empty(t, readDir(t, filepath.Join(dir, "tmp")))
}

// C-074, C-084: a delivery does not make a missing Maildir or a missing folder of it.
func TestMaildirMissing(t *testing.T) {
	for _, removed := range []string{"", "new", "tmp", "cur"} {
		t.Run("lost "+removed, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "mail")
			d := fetch.Maildir{Dir: dir}
			require.NoError(t, d.Create())
			require.NoError(t, os.RemoveAll(filepath.Join(dir, removed)))
			err := d.Check(t.Context())
			require.ErrorIs(t, err, os.ErrNotExist)
			require.ErrorContains(t, err, "fetch: maildir "+dir+": ")
			require.ErrorContains(t, err, "mount its file system, or make it with Maildir.Create")
			if removed != "cur" { // a delivery does not use cur
				require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{}, strings.NewReader("x")), os.ErrNotExist)
			}
			assert.NoDirExists(t, filepath.Join(dir, removed))
			require.NoError(t, d.Create())
			require.NoError(t, d.Check(t.Context()))
			assert.Empty(t, readDir(t, filepath.Join(dir, "tmp")))
			assert.Empty(t, readDir(t, filepath.Join(dir, "new")))
		})
	}
}

func TestMaildirCreateFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, fetch.Maildir{Dir: file}.Create(), "fetch: maildir "+file+": ")
}

// Names must be unique and have the form of the specification. Only the owner may read the files.
func TestMaildirNames(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, fetch.Maildir{Dir: dir}.Create())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				err := fetch.Maildir{Dir: dir}.Deliver(t.Context(), fetch.Item{}, bytes.NewReader([]byte("x")))
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	require.NoError(t, err)
	assert.Len(t, entries, 100)
	for _, e := range entries {
		assert.Regexp(t, `^\d{10,}\.M\d{1,6}P\d+Q\d+R[0-9a-f]{16}\.[^/:]+$`, e.Name())
		info, err := e.Info()
		require.NoError(t, err)
		assert.Zero(t, info.Mode().Perm()&0o077)
	}
}

func TestSinkFunc(t *testing.T) {
	full := errors.New("full")
	var got string
	sink := fetch.SinkFunc(func(_ context.Context, item fetch.Item, r io.Reader) error {
		b, _ := io.ReadAll(r)
		got = item.UID + string(b)
		return full
	})
	require.Equal(t, full, sink.Deliver(t.Context(), fetch.Item{UID: "u"}, strings.NewReader("x")))
	assert.Equal(t, "ux", got)
}

// C-084: a run finds out before it connects that it cannot store anything.
func TestSinkIsCheckedFirst(t *testing.T) {
	d := newMaildrop(mails("one"))
	f := fetch.Fetcher{Sink: fetch.Maildir{Dir: filepath.Join(t.TempDir(), "mail")}}
	connected := 0
	f.Connect = func(ctx context.Context) (*pop3.Client, error) {
		connected++
		return d.connect(ctx)
	}
	report, err := f.Run(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, report.Aborted, os.ErrNotExist)
	assert.Zero(t, connected)
	assert.Len(t, d.Left(user), 1)

	f.DryRun = true
	_, err = f.Run(t.Context())
	require.NoError(t, err, "a dry run stores nothing")
	assert.Equal(t, 1, connected)
}

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
		{"an invalid Date", "1", "Date: soon\r\n\r\nx", `undated-1`},
		{"no header", "1", "\r\nx", `undated-1`},
		{"a header without end", "1", "Subject: x\r\n" + date, `20261124T083000Z-1`},
		{"a Date of year 0", "1", "Date: Tue, 24 Nov 0000 09:30:00 +0100\r\n\r\n", `undated-1`},
		{"Date after a malformed line", "1", "Subject: x\r\nno field\r\n" + date + "\r\nx", `20261124T083000Z-1`},
		{"empty", "1", "", `undated-1`},
		{"no unique-id", "", date + "\r\n", `20261124T083000Z-[0-9a-f]{24}`},
		{"H-119: a path", "../../etc/passwd", date + "\r\n", `20261124T083000Z-______etc_passwd-[0-9a-f]{12}`},
		{"H-119: dots", "..", date + "\r\n", `20261124T083000Z-__-[0-9a-f]{12}`},
		{"H-119: a path of Windows", `C:\nul`, date + "\r\n", `20261124T083000Z-c__nul-[0-9a-f]{12}`},
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
			require.Len(t, got, 1, "a message that is delivered twice makes one file")
			assert.Regexp(t, regexp.MustCompile("^"+tt.want+`\.eml$`), got[0])
			assert.Equal(t, []string{tt.message}, readDir(t, d.Dir))
			info, err := os.Stat(filepath.Join(d.Dir, got[0]))
			require.NoError(t, err)
			assert.Zero(t, info.Mode().Perm()&0o077)
		})
	}
}

// Unique-ids that differ only in case have different file names, even on file systems that ignore case.
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

// The server gives one unique-id to several messages. All of them are stored, and no file is replaced.
func TestEMLFolderSameName(t *testing.T) {
	d := newEMLFolder(t)
	for range 2 {
		for _, text := range []string{"one", "two", "three"} {
			require.NoError(t, d.Deliver(t.Context(), fetch.Item{UID: "7"}, strings.NewReader(text)))
		}
	}
	assert.ElementsMatch(t, []string{"one", "two", "three"}, readDir(t, d.Dir))

	for _, name := range names(t, d.Dir) { // the user changes the files
		require.NoError(t, os.WriteFile(filepath.Join(d.Dir, name), []byte("changed"), 0o600))
	}
	require.NoError(t, d.Deliver(t.Context(), fetch.Item{UID: "7"}, strings.NewReader("two")))
	assert.ElementsMatch(t, []string{"changed", "changed", "changed", "two"}, readDir(t, d.Dir))
}

func TestEMLFolderCutMessage(t *testing.T) {
	d := newEMLFolder(t)
	cut := io.MultiReader(strings.NewReader("half a mess"), iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{UID: "1"}, cut), io.ErrUnexpectedEOF)
	assert.Empty(t, names(t, d.Dir))
}

// C-074, C-084: a delivery does not make a missing folder.
func TestEMLFolderMissing(t *testing.T) {
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

// Files that killed processes have left are removed when they are so old that no process can still use them.
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
