//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package fetch_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

func init() {
	helpers["hold-mbox"] = lockMboxForever
	helpers["hold-seen"] = lockSeenForever
	helpers["add-to-mbox"] = addToMbox
}

// lockMboxForever locks an mbox as a mail program does, and keeps the lock.
func lockMboxForever(name string) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		err = syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart})
	}
	if err == nil {
		sendWord("locked")
	}
	os.Stdin.Read(make([]byte, 1)) // wait until this process is killed
}

// lockSeenForever keeps a history open.
func lockSeenForever(dir string) {
	h, err := fetch.FileSeen{Dir: dir}.Open(context.Background(), account)
	if err == nil {
		err = h.Save(context.Background(), fetch.Entry{UID: "from another process"})
	}
	if err == nil {
		sendWord("locked")
	}
	os.Stdin.Read(make([]byte, 1))
}

const addedMessages = 30

// addToMbox delivers some messages.
func addToMbox(name string) {
	for i := range addedMessages {
		text := strings.Repeat(fmt.Sprintf("process %d message %d\r\n", os.Getpid(), i), 300)
		err := fetch.Mbox{Path: name}.Deliver(context.Background(), fetch.Item{}, strings.NewReader(text))
		if err != nil {
			panic(err)
		}
	}
	sendWord("done")
}

func newMbox(t *testing.T) fetch.Mbox {
	b := fetch.Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	return b
}

func TestMboxLock(t *testing.T) {
	b := newMbox(t)
	require.NoError(t, b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("one\r\n")))
	other := startHelper(t, "hold-mbox", b.Path)
	require.True(t, other.await("locked"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Deliver(ctx, fetch.Item{}, strings.NewReader("two\r\n")), context.Canceled)
	require.ErrorIs(t, b.Check(ctx), context.Canceled)
	done := make(chan error)
	go func() { done <- b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("three\r\n")) }()
	other.kill()
	require.NoError(t, <-done)
	assert.Equal(t, []string{"one\n", "three\n"}, readMbox(t, b.Path))
	assert.Len(t, readDir(t, filepath.Dir(b.Path)), 1)
}

// C-076: the wait for a lock is limited.
func TestMboxLockTimeout(t *testing.T) {
	b := newMbox(t)
	other := startHelper(t, "hold-mbox", b.Path)
	require.True(t, other.await("locked"))
	synctest.Test(t, func(t *testing.T) {
		err := b.Deliver(t.Context(), fetch.Item{}, strings.NewReader("one\r\n"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorContains(t, err, "another program has locked it")
	})
	assert.Len(t, readDir(t, filepath.Dir(b.Path)), 1, "the spool is gone")
}

// C-075: several accounts use one mbox under different names.
func TestMboxUnderSeveralNames(t *testing.T) {
	dir := t.TempDir()
	names := []string{filepath.Join(dir, "mbox"), filepath.Join(dir, "symbolic"), filepath.Join(dir, "hard")}
	require.NoError(t, fetch.Mbox{Path: names[0]}.Create())
	require.NoError(t, os.Symlink("mbox", names[1]))
	require.NoError(t, os.Link(names[0], names[2]))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			for j := range 30 {
				text := strings.Repeat(fmt.Sprintf("account %d message %d\r\n", i, j), 300)
				err := fetch.Mbox{Path: name}.Deliver(t.Context(), fetch.Item{}, strings.NewReader(text))
				assert.NoError(t, err)
				assert.NoError(t, fetch.Mbox{Path: name}.Check(t.Context()))
			}
		})
	}
	wg.Wait()
	assert.Len(t, readRepeatedLines(t, names[0]), 90)
}

// C-075: several processes use one mbox under different names.
func TestMboxUnderSeveralNamesInSeveralProcesses(t *testing.T) {
	dir := t.TempDir()
	names := []string{filepath.Join(dir, "mbox"), filepath.Join(dir, "symbolic"), filepath.Join(dir, "hard")}
	require.NoError(t, fetch.Mbox{Path: names[0]}.Create())
	require.NoError(t, os.Symlink("mbox", names[1]))
	require.NoError(t, os.Link(names[0], names[2]))
	var others []*helper
	for _, name := range names {
		others = append(others, startHelper(t, "add-to-mbox", name))
	}
	for _, other := range others {
		require.True(t, other.await("done"))
	}
	assert.Len(t, readRepeatedLines(t, names[0]), len(names)*addedMessages)
}

// readRepeatedLines returns the messages of an mbox. Each must consist of one line that is repeated.
func readRepeatedLines(t *testing.T, name string) []string {
	t.Helper()
	messages := readMbox(t, name)
	for _, m := range messages {
		line, _, _ := strings.Cut(m, "\n")
		assert.Equal(t, strings.Repeat(line+"\n", 300), m)
	}
	return messages
}
