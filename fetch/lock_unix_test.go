//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package fetch_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

func init() {
	helpers["hold-mbox"] = holdMbox
	helpers["hold-seen"] = holdSeen
}

// holdMbox keeps the lock in the midst of a message.
func holdMbox(name string) {
	r := io.MultiReader(strings.NewReader("From another process"), readerFunc(func([]byte) (int, error) {
		say("locked")
		return os.Stdin.Read(make([]byte, 1)) // for ever
	}))
	(&fetch.Mbox{Path: name}).Deliver(context.Background(), fetch.Item{}, r)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// holdSeen keeps a history open.
func holdSeen(dir string) {
	h, err := fetch.FileSeen{Dir: dir}.Open(context.Background(), account)
	if err == nil {
		err = h.Save(context.Background(), fetch.Entry{UID: "from another process"})
	}
	if err == nil {
		say("locked")
	}
	os.Stdin.Read(make([]byte, 1))
}

// The lock is held against other processes: this test is its own other process.
func TestMboxLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mbox")
	b := &fetch.Mbox{Path: name}
	require.NoError(t, b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("one\r\n")))
	other := startHelper(t, "hold-mbox", name)
	other.await("locked")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Deliver(ctx, fetch.Item{}, strings.NewReader("two\r\n")), context.Canceled)
	done := make(chan error)
	go func() { done <- b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("three\r\n")) }()
	other.kill()
	require.NoError(t, <-done)
	assert.Equal(t, []string{"one\n", "From another process\n", "three\n"}, readMbox(t, name), "a part of one is left")
}

func TestFileSeenLock(t *testing.T) {
	seen := fetch.FileSeen{Dir: t.TempDir()}
	other := startHelper(t, "hold-seen", seen.Dir)
	other.await("locked")
	_, err := seen.Open(t.Context(), account)
	require.ErrorIs(t, err, fetch.ErrLocked)
	h, err := seen.Open(t.Context(), "another account")
	require.NoError(t, err)
	require.NoError(t, h.Close())

	other.kill()
	h, err = seen.Open(t.Context(), account)
	require.NoError(t, err)
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []fetch.Entry{{UID: "from another process"}}, entries)
	_, err = seen.Open(t.Context(), account)
	require.ErrorIs(t, err, fetch.ErrLocked, "within a process too")
	require.NoError(t, h.Close())
}
