package fetch

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// C-064: Open notices that the disk is full, so no message is retrieved.
func TestDiskFullForSeen(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		t.Run(err.Error(), func(t *testing.T) {
			replace(t, &fallocate, func(int, uint32, int64, int64) error { return err })
			f := Fetcher{Seen: FileSeen{Dir: t.TempDir()}, Account: "a", Sink: SinkFunc(nil)}
			f.Connect = func(context.Context) (*pop3.Client, error) {
				t.Error("connected")
				return nil, os.ErrInvalid
			}
			_, got := f.Run(t.Context())
			require.ErrorIs(t, got, err)
		})
	}
	for _, err := range []error{syscall.ENOTSUP, syscall.ENOSYS} {
		t.Run(err.Error(), func(t *testing.T) {
			replace(t, &fallocate, func(int, uint32, int64, int64) error { return err })
			seen := FileSeen{Dir: t.TempDir()}
			h, err := seen.Open(t.Context(), "a")
			require.NoError(t, err)
			require.NoError(t, h.Save(t.Context(), Entry{UID: "1"}))
			require.NoError(t, h.Close())
			assert.Equal(t, []string{"1"}, uids(t, seen))
		})
	}
}

// Entries that are not synced are valid until the machine is restarted.
func TestFileSeenUnsynced(t *testing.T) {
	boot := "first"
	replace(t, &bootID, func() string { return boot })
	seen := FileSeen{Dir: t.TempDir()}
	h, err := seen.Open(t.Context(), "a")
	require.NoError(t, err)
	synced := 0
	sync := fsync
	replace(t, &fsync, func(f *os.File) error { synced++; return sync(f) })
	file := h.(*fileHistory)
	for _, uid := range []string{"1", "2", "3"} {
		require.NoError(t, file.SaveUnsynced(t.Context(), Entry{UID: uid}))
	}
	require.NoError(t, file.Forget(t.Context(), Entry{UID: "2"}))
	assert.Zero(t, synced)
	require.NoError(t, file.Sync(t.Context()))
	assert.Equal(t, 1, synced)
	require.NoError(t, file.SaveUnsynced(t.Context(), Entry{UID: "1", Octets: 7}, Entry{UID: "4"}))
	require.NoError(t, file.Forget(t.Context(), Entry{UID: "3"}))
	require.NoError(t, file.Close())
	content, err := os.ReadFile(seen.Path("a"))
	require.NoError(t, err)

	tests := []struct {
		name, boot string
		want       []Entry
	}{
		{"killed", "first", []Entry{{UID: "1", Octets: 7}, {UID: "4"}}},
		{"power cut", "second", []Entry{{UID: "1"}, {UID: "3"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(seen.Path("a"), content, 0o600))
			// The first Open syncs the entries, so the third boot changes nothing.
			for _, boot = range []string{tt.boot, "third"} {
				h, err := seen.Open(t.Context(), "a")
				require.NoError(t, err)
				entries, err := h.Load(t.Context())
				require.NoError(t, err)
				require.NoError(t, h.Close())
				assert.ElementsMatch(t, tt.want, entries)
			}
		})
	}
}

// Without a boot ID a power cut cannot be noticed, so everything is synced.
func TestFileSeenWithoutBootID(t *testing.T) {
	replace(t, &bootID, func() string { return "" })
	h, err := FileSeen{Dir: t.TempDir()}.Open(t.Context(), "a")
	require.NoError(t, err)
	_, unsynced := h.(interface {
		SaveUnsynced(ctx context.Context, entries ...Entry) error
	})
	assert.False(t, unsynced)
	require.NoError(t, h.Close())
}

// Programs that watch new see no file while Check runs. Nevertheless, Check fails if no file can be moved to new.
func TestMaildirCheck(t *testing.T) {
	d := Maildir{Dir: t.TempDir()}
	require.NoError(t, d.Create())
	watch, err := syscall.InotifyInit1(syscall.IN_NONBLOCK)
	require.NoError(t, err)
	defer syscall.Close(watch)
	inNew := filepath.Join(d.Dir, "new")
	_, err = syscall.InotifyAddWatch(watch, inNew, syscall.IN_CREATE|syscall.IN_MOVED_TO)
	require.NoError(t, err)
	event := make([]byte, 4096)

	require.NoError(t, d.Check(t.Context()))
	_, err = syscall.Read(watch, event)
	require.Equal(t, syscall.EAGAIN, err, "no file appeared in new")
	require.NoError(t, deliver(t, d, "one"))
	_, err = syscall.Read(watch, event)
	require.NoError(t, err, "the watch works")

	t.Run("access denies what the kernel allows", func(t *testing.T) {
		replace(t, &access, func(string, uint32) error { return syscall.EACCES })
		require.NoError(t, d.Check(t.Context()))
	})
	t.Run("another file system", func(t *testing.T) {
		require.NoError(t, os.RemoveAll(inNew))
		require.NoError(t, os.Symlink("/proc/self", inNew))
		require.ErrorIs(t, d.Check(t.Context()), syscall.EXDEV)
		replace(t, &access, func(string, uint32) error { return nil })
		require.ErrorIs(t, d.Check(t.Context()), syscall.EXDEV)
	})
	left, err := os.ReadDir(filepath.Join(d.Dir, "tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}
