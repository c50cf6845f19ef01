//go:build unix

package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// stagedServer serves 50 small messages to a Fetcher that stores them in a Maildir.
func stagedServer(t *testing.T) (*pop3test.Server, *Fetcher, string) {
	t.Helper()
	var messages [][]byte
	for i := range 50 {
		messages = append(messages, fmt.Appendf(nil, "Subject: %d\r\n\r\ntext\r\n", i+1))
	}
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "ann", Password: "secret", Messages: messages})
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	sink := Maildir{Dir: filepath.Join(dir, "mail")}
	require.NoError(t, sink.Create())
	return srv, &Fetcher{Sink: sink, Seen: FileSeen{Dir: filepath.Join(dir, "seen")}, Account: "ann", Delete: true,
		Connect: func(ctx context.Context) (*pop3.Client, error) {
			c, err := pop3.DialInsecure(ctx, srv.Addr, &pop3.Options{InsecureAuth: true})
			if err == nil {
				if err = c.User(ctx, "ann"); err == nil {
					err = c.Pass(ctx, "secret")
				}
			}
			return c, err
		}}, sink.Dir
}

// Messages that are synced together are reported in order and one by one, even if some of them fail. A message that is
// not stored is not deleted.
func TestStagedMessages(t *testing.T) {
	full := errors.New("no space left on device")
	tests := []struct {
		name   string
		enough int // number of messages after which the caller leaves the loop
		fails  int // number of the file whose sync fails
		cut    int // number of the message at which the connection is lost
		stored int
	}{
		{name: "all", stored: 50},
		{name: "the caller leaves the loop", enough: 20, stored: 20},
		{name: "the caller leaves the loop at once", enough: 2, stored: 2},
		{name: "one cannot be synced", fails: 20, stored: 49},
		{name: "the connection is lost", cut: 20, stored: 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, f, dir := stagedServer(t)
			if tt.cut > 0 {
				srv.SetFaults(pop3test.Fault{At: fmt.Sprintf("RETR %d", tt.cut), Times: 1,
					Drop: pop3test.InBody, Octets: 5})
			}
			syncFile := fsync
			var synced atomic.Int32
			replace(t, &fsync, func(file *os.File) error {
				if filepath.Base(filepath.Dir(file.Name())) == "tmp" && int(synced.Add(1)) == tt.fails {
					return full
				}
				return syncFile(file)
			})
			var report Report
			var delivered []int
			for res, err := range f.Results(t.Context(), &report) {
				if err == nil && res.Outcome == Delivered {
					delivered = append(delivered, res.Num)
				}
				if tt.enough > 0 && len(delivered) == tt.enough {
					break
				}
			}
			if tt.fails > 0 {
				require.ErrorIs(t, report.Err, full)
				require.Len(t, report.Problems, 1)
			}
			assert.Len(t, delivered, tt.stored)
			if tt.cut == 0 { // otherwise the messages come from several sessions, in which they have different numbers
				assert.IsIncreasing(t, delivered)
			}
			assert.Equal(t, tt.stored, report.Delivered)
			for folder, want := range map[string]int{"new": tt.stored, "tmp": 0} {
				files, err := os.ReadDir(filepath.Join(dir, folder))
				require.NoError(t, err)
				assert.Len(t, files, want, folder)
			}
			assert.Len(t, srv.Left("ann"), 50-tt.stored)
		})
	}
}
