package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// readDir gives the contents of the files in a folder, in the order of their names.
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
			name:    "octet for octet",
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

func TestMaildirStoresNothingOfACutMessage(t *testing.T) {
	dir := t.TempDir()
	d := fetch.Maildir{Dir: dir}
	require.NoError(t, d.Create())
	cut := io.MultiReader(strings.NewReader("half a mess"), iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{}, cut), io.ErrUnexpectedEOF)
	assert.Empty(t, readDir(t, filepath.Join(dir, "new")))
	assert.Empty(t, readDir(t, filepath.Join(dir, "tmp")))
}

// C-074, C-084: a Maildir that is not there, or has lost a folder, is not made by a delivery.
func TestMaildirWithoutAPlace(t *testing.T) {
	for _, lost := range []string{"", "new", "tmp", "cur"} {
		t.Run("lost "+lost, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "mail")
			d := fetch.Maildir{Dir: dir}
			require.NoError(t, d.Create())
			require.NoError(t, os.RemoveAll(filepath.Join(dir, lost)))
			err := d.Check(t.Context())
			require.ErrorIs(t, err, os.ErrNotExist)
			require.ErrorContains(t, err, "fetch: maildir "+dir+": ")
			require.ErrorContains(t, err, "mount its file system, or make it with Maildir.Create")
			if lost != "cur" { // which a delivery does not need
				require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{}, strings.NewReader("x")), os.ErrNotExist)
			}
			assert.NoDirExists(t, filepath.Join(dir, lost))
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

// Names must differ, be of the form that the specification gives, and be no more readable than mail should be.
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

// C-084: a run finds out that it cannot store anything before it connects.
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
