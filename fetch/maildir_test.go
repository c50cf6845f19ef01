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
		{name: "octet for octet", message: "a: b\r\n\r\n\x00\xff.\r\n.\r\r\n\n", want: "a: b\r\n\r\n\x00\xff.\r\n.\r\r\n\n"},
		{name: "empty"},
		{name: "LF", lf: true, message: "a: b\r\n\r\n.\r\r\nx\ry\n\r\n", want: "a: b\n\n.\r\nx\ry\n\n"},
		{name: "LF and a CR at the end", lf: true, message: "a\r\nb\r", want: "a\nb\r"},
		{name: "LF, empty", lf: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "down")
			d := fetch.Maildir{Dir: dir, LF: tt.lf}
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
	cut := io.MultiReader(strings.NewReader("half a mess"), iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{}, cut), io.ErrUnexpectedEOF)
	assert.Empty(t, readDir(t, filepath.Join(dir, "new")))
	assert.Empty(t, readDir(t, filepath.Join(dir, "tmp")))
}

func TestMaildirWithoutAPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	err := fetch.Maildir{Dir: file}.Deliver(t.Context(), fetch.Item{}, strings.NewReader("x"))
	require.Error(t, err)
	assert.True(t, strings.HasPrefix(err.Error(), "fetch: maildir: "), err)

	dir := t.TempDir()
	d := fetch.Maildir{Dir: dir}
	require.NoError(t, d.Deliver(t.Context(), fetch.Item{}, strings.NewReader("x")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "new")))
	require.ErrorIs(t, d.Deliver(t.Context(), fetch.Item{}, strings.NewReader("x")), os.ErrNotExist)
	assert.Empty(t, readDir(t, filepath.Join(dir, "tmp")))
}

// Names must differ, be of the form that the specification gives, and be no more readable than mail should be.
func TestMaildirNames(t *testing.T) {
	dir := t.TempDir()
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
