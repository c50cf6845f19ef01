//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package fetch

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// These tests check what happens if a file system fails, and which files are synced. They replace variables of the
// package.

// replace sets a variable until the test ends.
func replace[T any](t *testing.T, variable *T, value T) {
	old := *variable
	*variable = value
	t.Cleanup(func() { *variable = old })
}

// failFolderSync makes the sync of folders fail.
func failFolderSync(t *testing.T, err error) {
	syncFile := fsync
	replace(t, &fsync, func(f *os.File) error {
		if info, errStat := f.Stat(); errStat != nil || info.IsDir() {
			return err
		}
		return syncFile(f)
	})
}

type sinkWithCreate interface {
	CheckedSink
	Create() error
}

// fileSinks contains the sinks of this package. Each function also returns the folder in which the sink stores
// messages.
var fileSinks = map[string]func(dir string) (sink sinkWithCreate, messages string){
	"Maildir":   func(dir string) (sinkWithCreate, string) { return Maildir{Dir: dir}, filepath.Join(dir, "new") },
	"EMLFolder": func(dir string) (sinkWithCreate, string) { return EMLFolder{Dir: dir}, dir },
	"Mbox":      func(dir string) (sinkWithCreate, string) { return Mbox{Path: filepath.Join(dir, "mbox")}, dir },
}

func deliver(t *testing.T, sink Sink, text string) error {
	return sink.Deliver(t.Context(), Item{UID: text}, strings.NewReader(text))
}

// C-081: if a folder cannot be synced, messages are stored nevertheless. The log contains one warning.
func TestFoldersThatCannotBeSynced(t *testing.T) {
	for name, make := range fileSinks {
		for _, errSync := range []error{syscall.EINVAL, syscall.ENOTSUP, syscall.ENOSYS} {
			t.Run(name+" "+errSync.Error(), func(t *testing.T) {
				var log bytes.Buffer
				logger := slog.Default()
				slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
				defer slog.SetDefault(logger)
				failFolderSync(t, errSync)
				replace(t, &warnUnsyncable, new(sync.Once))
				dir := filepath.Join(t.TempDir(), "mail")
				sink, _ := make(dir)
				require.NoError(t, sink.Create())
				require.NoError(t, sink.Check(t.Context()))
				for _, text := range []string{"one", "two", "three"} {
					require.NoError(t, deliver(t, sink, text))
				}
				seen := FileSeen{Dir: dir}
				h, err := seen.Open(t.Context(), "a")
				require.NoError(t, err)
				require.NoError(t, h.Close())
				assert.Equal(t, 1, strings.Count(log.String(), "cannot sync folders"), log.String())
			})
		}
	}
}

// If the sync of a folder fails for another reason, Deliver fails, because the message may be lost in a power cut.
func TestFoldersWhoseSyncFails(t *testing.T) {
	for _, name := range []string{"Maildir", "EMLFolder"} {
		t.Run(name, func(t *testing.T) {
			sink, messages := fileSinks[name](t.TempDir())
			require.NoError(t, sink.Create())
			failFolderSync(t, syscall.EIO)
			require.ErrorIs(t, deliver(t, sink, "one"), syscall.EIO)
			if name == "Maildir" { // the file must be removed, because the message will be delivered again
				left, err := os.ReadDir(messages)
				require.NoError(t, err)
				assert.Empty(t, left)
			}
			require.ErrorIs(t, sink.(UnsyncedSink).Sync(t.Context()), syscall.EIO)
		})
	}
}

// C-110: each sink syncs what is necessary, and not more often than necessary.
func TestSyncs(t *testing.T) {
	var synced []string
	syncFile := fsync
	replace(t, &fsync, func(f *os.File) error {
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			synced = append(synced, "folder")
		} else {
			synced = append(synced, "file")
		}
		return errors.Join(err, syncFile(f))
	})
	for name, want := range map[string][]string{
		"Maildir":   {"file", "folder"},
		"EMLFolder": {"file", "folder"},
		"Mbox":      {"file"},
	} {
		t.Run(name, func(t *testing.T) {
			sink, _ := fileSinks[name](t.TempDir())
			require.NoError(t, sink.Create())
			synced = nil
			require.NoError(t, sink.Check(t.Context()))
			assert.Empty(t, synced)
			require.NoError(t, deliver(t, sink, "one"))
			assert.Equal(t, want, synced)
			unsynced, ok := sink.(UnsyncedSink)
			if !ok {
				return
			}
			synced = nil
			for _, text := range []string{"two", "three"} {
				require.NoError(t, unsynced.DeliverUnsynced(t.Context(), Item{UID: text}, strings.NewReader(text)))
			}
			require.NoError(t, unsynced.Sync(t.Context()))
			assert.Equal(t, []string{"file", "file", "folder"}, synced)
		})
	}
	t.Run("FileSeen", func(t *testing.T) {
		synced = nil
		h, err := FileSeen{Dir: t.TempDir()}.Open(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, []string{"file", "folder"}, synced)
		synced = nil
		require.NoError(t, h.Save(t.Context(), Entry{UID: "1"}))
		require.NoError(t, h.Save(t.Context(), Entry{UID: "2"}, Entry{UID: "3"}))
		require.NoError(t, h.Forget(t.Context(), Entry{UID: "3"}))
		assert.Equal(t, []string{"file", "file"}, synced)
		require.NoError(t, h.Close())
	})
}

// C-081: the file system has no flock, like NFS without lockd and some CIFS.
func TestNoLockForSeen(t *testing.T) {
	replace(t, &flock, func(int, int) error { return syscall.ENOLCK })
	seen := FileSeen{Dir: t.TempDir()}
	h, err := seen.Open(t.Context(), "a")
	require.NoError(t, err)
	_, err = seen.Open(t.Context(), "a")
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "if it was killed, remove "+strings.TrimSuffix(seen.Path("a"), ".seen")+".lock.held")
	require.NoError(t, h.Close())
	h, err = seen.Open(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, h.Close())
}

// C-081: the file system has no locks of fcntl.
func TestNoLockForMbox(t *testing.T) {
	replace(t, &fcntlLock, func(uintptr, int, *syscall.Flock_t) error { return syscall.ENOLCK })
	b := Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	require.NoError(t, deliver(t, b, "one"))
	lock := b.Path + ".lock"
	require.NoFileExists(t, lock)
	require.NoError(t, os.WriteFile(lock, nil, 0o600))
	synctest.Test(t, func(t *testing.T) {
		err := deliver(t, b, "two")
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorContains(t, err, "if it was killed, remove "+lock)
	})
	require.NoError(t, os.Remove(lock))
	require.NoError(t, deliver(t, b, "three"))
}

// C-075: an old kernel has no locks that belong to an open file. Goroutines of one process still exclude each other.
func TestLockWithinProcess(t *testing.T) {
	lock := fcntlLock
	replace(t, &fcntlLock, func(fd uintptr, command int, l *syscall.Flock_t) error {
		if command != syscall.F_SETLK {
			return syscall.EINVAL
		}
		return lock(fd, command, l)
	})
	dir := t.TempDir()
	names := []string{filepath.Join(dir, "mbox"), filepath.Join(dir, "symbolic"), filepath.Join(dir, "hard")}
	require.NoError(t, Mbox{Path: names[0]}.Create())
	require.NoError(t, os.Symlink("mbox", names[1]))
	require.NoError(t, os.Link(names[0], names[2]))
	var inside, together atomic.Int32
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			for range 100 {
				_, unlock, err := Mbox{Path: name}.open(t.Context())
				if !assert.NoError(t, err) {
					return
				}
				together.Add(inside.Add(1) - 1)
				runtime.Gosched()
				inside.Add(-1)
				assert.NoError(t, unlock())
			}
		})
	}
	wg.Wait()
	assert.Zero(t, together.Load(), "several goroutines locked the file at the same time")
}

// A mail program replaces the mbox while a delivery waits for its lock.
func TestMboxIsReplaced(t *testing.T) {
	b := Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	require.NoError(t, deliver(t, b, "one"))
	lock := fcntlLock
	replaced := false
	replace(t, &fcntlLock, func(fd uintptr, command int, l *syscall.Flock_t) error {
		if !replaced {
			replaced = true
			assert.NoError(t, os.WriteFile(b.Path+".new", []byte("From a b\n\nzero\n"), 0o600))
			assert.NoError(t, os.Rename(b.Path+".new", b.Path))
		}
		return lock(fd, command, l)
	})
	require.NoError(t, deliver(t, b, "two"))
	content, err := os.ReadFile(b.Path)
	require.NoError(t, err)
	assert.Regexp(t, "^From a b\n\nzero\n\nFrom MAILER-DAEMON .*\ntwo\n\n$", string(content))
}

// C-075: the lock must not end when another part of the process opens and closes the file.
func TestMboxLockSurvivesClose(t *testing.T) {
	if ofdSetLock == syscall.F_SETLK {
		t.Skip("NOT RUN: this system has no locks of an open file")
	}
	b := Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	_, unlock, err := b.open(t.Context())
	require.NoError(t, err)
	for _, want := range []int16{syscall.F_RDLCK, syscall.F_UNLCK} {
		f, err := os.Open(b.Path)
		require.NoError(t, err)
		got := syscall.Flock_t{Type: syscall.F_RDLCK}
		require.NoError(t, syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &got))
		require.NoError(t, f.Close())
		assert.Equal(t, want == syscall.F_UNLCK, got.Type == syscall.F_UNLCK)
		if want == syscall.F_RDLCK {
			require.NoError(t, unlock())
		}
	}
}

// C-076: the wait for another goroutine ends when the context is done.
func TestMboxWaitEndsWithContext(t *testing.T) {
	b := Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	_, unlock, err := b.open(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Deliver(ctx, Item{}, strings.NewReader("x")), context.Canceled)
	require.NoError(t, unlock())
	require.NoError(t, b.Deliver(t.Context(), Item{}, strings.NewReader("x")))
}

// C-085: a process was killed while it added a message. Check removes the part of the message that was written.
func TestMboxIncompleteMessage(t *testing.T) {
	const old = "From a b\n\nfirst\n"
	const added = "\nFrom MAILER-DAEMON Tue Nov 24 08:00:00 2026\nlost\n\n"
	note := func(end, message string) string { return end + "\n" + strings.TrimPrefix(message, "\n") }
	end := "00000000000000000016"
	tests := []struct{ name, mbox, note, want string }{
		{"nothing was written", old, note(end, added), old},
		{"the whole message", old + added, note(end, added), old + added},
		{"another program has written after the part", old + added[:20] + "From c d\n\n", note(end, added),
			old + added[:20] + "From c d\n\n"},
		{"another program has written after the message", old + added + "From c d\n\n", note(end, added),
			old + added + "From c d\n\n"},
		{"another program has written in place of the message", old + "\nFrom c d\n\n", note(end, added),
			old + "\nFrom c d\n\n"},
		{"shorter than the note says", old[:5], note(end, added), old[:5]},
		{"a note of zeros, after a power cut", old + added[:20], string(make([]byte, 100)), old + added[:20]},
		{"no note", old + added[:20], "", old + added[:20]},
		{"a message that is not whole, after a power cut", old + added[:20], note(end, added)[:noteLen+10],
			old + added[:20]},
		{"negative", old + added[:20], note("-0000000000000000001", added), old + added[:20]},
	}
	for i := range len(added) - 1 {
		part := old + added[:i+1]
		tests = append(tests, struct{ name, mbox, note, want string }{"a part", part, note(end, added), old})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
			require.NoError(t, os.WriteFile(b.Path, []byte(tt.mbox), 0o600))
			require.NoError(t, os.WriteFile(b.noteName(), []byte(tt.note), 0o600))
			require.NoError(t, b.Check(t.Context()))
			got, err := os.ReadFile(b.Path)
			require.NoError(t, err)
			assert.Equal(t, tt.want, string(got))
			assert.NoFileExists(t, b.noteName())
		})
	}
}

// C-085: this test uses the note that Deliver itself writes. It takes the note and the mbox after the message was
// written and before the sync, which fails.
func TestMboxNoteOfDeliver(t *testing.T) {
	b := Mbox{Path: filepath.Join(t.TempDir(), "mbox")}
	require.NoError(t, b.Create())
	require.NoError(t, deliver(t, b, "one\r\n"))
	before, err := os.ReadFile(b.Path)
	require.NoError(t, err)
	var note, written []byte
	replace(t, &fsync, func(*os.File) error {
		note, _ = os.ReadFile(b.noteName())
		written, _ = os.ReadFile(b.Path)
		return syscall.EIO
	})
	require.ErrorIs(t, deliver(t, b, "two\r\n"), syscall.EIO)
	got, err := os.ReadFile(b.Path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(got), "truncated to its previous size")
	require.NoFileExists(t, b.noteName())

	require.Greater(t, len(written), len(before)+10)
	require.NoError(t, os.WriteFile(b.Path, written[:len(before)+10], 0o600))
	require.NoError(t, os.WriteFile(b.noteName(), note, 0o600))
	require.NoError(t, b.Check(t.Context()))
	got, err = os.ReadFile(b.Path)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(got))
}

// A faultyFile fails at a chosen call.
type faultyFile struct {
	appendFile
	shortWrite                       int // number of bytes that the next Write writes before it fails, or 0
	syncErr, truncateErr, reserveErr error
	syncs, truncates, reserves       int
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if f.shortWrite > 0 {
		n, _ := f.appendFile.Write(p[:f.shortWrite])
		f.shortWrite = 0
		return n, syscall.ENOSPC
	}
	return f.appendFile.Write(p)
}

func (f *faultyFile) Sync() error {
	f.syncs++
	return errors.Join(f.appendFile.Sync(), f.syncErr)
}

func (f *faultyFile) Truncate(size int64) error {
	f.truncates++
	if f.truncateErr != nil {
		return f.truncateErr
	}
	return f.appendFile.Truncate(size)
}

func (f *faultyFile) reserve(end, bytes int64) error {
	f.reserves++
	if f.reserveErr != nil {
		return f.reserveErr
	}
	return f.appendFile.reserve(end, bytes)
}

func openFaulty(t *testing.T, seen FileSeen) (*fileHistory, *faultyFile) {
	h, err := seen.Open(t.Context(), "a")
	require.NoError(t, err)
	if synced, ok := h.(syncedHistory); ok {
		h = synced.History
	}
	file := h.(*fileHistory)
	faulty := &faultyFile{appendFile: file.file}
	file.file = faulty
	return file, faulty
}

func uids(t *testing.T, seen FileSeen) []string {
	h, err := seen.Open(t.Context(), "a")
	require.NoError(t, err)
	defer h.Close()
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	var uids []string
	for _, e := range entries {
		uids = append(uids, e.UID)
	}
	return uids
}

// C-110: a write that fails in the middle leaves the file unchanged, so that it can be read and written again.
func TestFileSeenShortWrite(t *testing.T) {
	seen := FileSeen{Dir: t.TempDir()}
	h, file := openFaulty(t, seen)
	require.NoError(t, h.Save(t.Context(), Entry{UID: "one"}))
	file.shortWrite = 10
	require.ErrorIs(t, h.Save(t.Context(), Entry{UID: "two"}), syscall.ENOSPC)
	require.NoError(t, h.Save(t.Context(), Entry{UID: "three"}), "there is room again")
	require.NoError(t, h.Close())
	assert.ElementsMatch(t, []string{"one", "three"}, uids(t, seen))

	h, file = openFaulty(t, seen)
	file.shortWrite, file.truncateErr = 10, syscall.EIO
	require.ErrorIs(t, h.Save(t.Context(), Entry{UID: "four"}), syscall.ENOSPC)
	err := h.Save(t.Context(), Entry{UID: "five"})
	require.ErrorIs(t, err, syscall.EIO, "a line after an incomplete one could not be read")
	require.NoError(t, h.Close())
	assert.ElementsMatch(t, []string{"one", "three"}, uids(t, seen))
}

// C-110: after a failed sync no later sync reports success.
func TestFileSeenSyncFails(t *testing.T) {
	seen := FileSeen{Dir: t.TempDir()}
	h, file := openFaulty(t, seen)
	file.syncErr = syscall.EIO
	require.ErrorIs(t, h.Save(t.Context(), Entry{UID: "one"}), syscall.EIO)
	file.syncErr = nil
	require.ErrorIs(t, h.Save(t.Context(), Entry{UID: "two"}), syscall.EIO)
	assert.Equal(t, 1, file.syncs)
	require.NoError(t, h.Close())
}

// C-064: room for the entry of a message is reserved before the message is stored.
func TestFileSeenReserve(t *testing.T) {
	seen := FileSeen{Dir: t.TempDir()}
	h, file := openFaulty(t, seen)
	saved := 0
	big := strings.Repeat("u", 1000)
	for file.reserves == 0 { // the reserved room is enough for some entries
		saved++
		require.NoError(t, h.Save(t.Context(), Entry{UID: big, Copy: saved}))
		require.GreaterOrEqual(t, h.reserved-h.size, int64(minReserved))
	}
	assert.Greater(t, saved, 100)
	file.reserveErr = syscall.ENOSPC
	for range 10 * saved {
		saved++
		if err := h.Save(t.Context(), Entry{UID: big, Copy: saved}); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC, "no message is delivered after that")
			break
		}
	}
	assert.Equal(t, 2, file.reserves)
	require.NoError(t, h.Close())
	assert.Len(t, uids(t, seen), saved, "the entry itself was written")
	info, err := os.Stat(seen.Path("a"))
	require.NoError(t, err)
	assert.Less(t, info.Sys().(*syscall.Stat_t).Blocks*512, info.Size()+16<<10, "the reserved room is freed")
}

// If the file system cannot reserve room, checkSpace checks whether there is room.
func TestCheckSpace(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("line\n")
	require.NoError(t, err)
	require.NoError(t, checkSpace(f, 5, 1000))
	content, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	assert.Equal(t, "line\n", string(content))
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		require.ErrorIs(t, checkSpace(full, 0, 1000), syscall.ENOSPC)
		full.Close()
	}
}
