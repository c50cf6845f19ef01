package fetch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// C-064: a disk that is full is found when the record is opened, before a message is retrieved.
func TestNoRoomForSeen(t *testing.T) {
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

// What a killed process has not synced counts until the machine is started anew.
func TestFileSeenUnsynced(t *testing.T) {
	tests := []struct {
		name, boot string
		want       []string
	}{
		{"killed", bootID(), []string{"synced", "unsynced"}},
		{"power cut", "another", []string{"synced"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NotEmpty(t, bootID())
			seen := FileSeen{Dir: t.TempDir()}
			lines := []string{`{"fetch":1,"account":"a"}`, `{"uid":"synced"}`, `{"uid":"unsynced","boot":"` + tt.boot + `"}`, ""}
			require.NoError(t, os.WriteFile(seen.Path("a"), []byte(strings.Join(lines, "\n")), 0o600))
			for range 2 { // as it was, and as it was written anew
				assert.ElementsMatch(t, tt.want, uids(t, seen))
			}
			content, err := os.ReadFile(filepath.Join(seen.Path("a")))
			require.NoError(t, err)
			assert.NotContains(t, string(content), "boot", "it was synced when it was read")
		})
	}
}
