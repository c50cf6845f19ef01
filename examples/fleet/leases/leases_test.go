package leases

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A process that was stopped for a while writes nothing to the server, even if no timer has run yet.
func TestNothingIsWrittenWithoutLease(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go io.Copy(io.Discard, server)
	tests := map[time.Duration]bool{0: true, 9 * time.Second: true, 10 * time.Second: false, time.Hour: false}
	for ago, ok := range tests {
		lease := New(t.Context(), time.Now(), time.Hour)
		renewed := time.Now().Add(-ago)
		lease.use = 10 * time.Second
		lease.renewed.Store(&renewed)
		_, err := conn{client, lease}.Write([]byte("QUIT\r\n"))
		assert.Equal(t, ok, lease.Renew(time.Now()), "a lost lease is not renewed")
		if ok {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrLost, ago)
	}
}

// The connection is closed as soon as the lease is lost, although the poll may still be storing its history. So the
// server unlocks the maildrop.
func TestConnectionEndsWithLease(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	New(ctx, time.Now(), time.Hour).Conn(client)
	cancel()
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// A lease lasts two thirds of its time, from the moment when it was requested.
func TestLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		lease := New(t.Context(), begin, 30*time.Second)
		time.Sleep(15 * time.Second)
		assert.True(t, lease.Renew(begin.Add(10*time.Second)))
		time.Sleep(15*time.Second - 1)
		assert.True(t, lease.Valid())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.Equal(t, 30*time.Second, time.Since(begin))
		assert.False(t, lease.Valid())
		require.ErrorIs(t, lease.ctx.Err(), context.Canceled)
		assert.False(t, lease.Renew(time.Now()))
	})
}
