package conformance_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// TestCloseBesideKeepAlive: a NOOP of KeepAlive has to wait until Close has set the clock right again, which the race
// detector sees.
func TestCloseBesideKeepAlive(t *testing.T) {
	_, result := keptAlive(t, func(ctx context.Context, _ func(), c *pop3.Client) {
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, m.Close())
		time.Sleep(90 * time.Second)
		require.NoError(t, c.Close())
	})
	require.NoError(t, result)
}

// TestDoneBesideKeepAlive: no hook runs while a NOOP of KeepAlive may have its hooks run, which the race detector
// sees.
func TestDoneBesideKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script(in().then(`
			C: RETR 1
			S: -ERR
			C: RETR 2
			S: +OK
			S: .
			C: NOOP
			S: +OK`).String())
		hooks := 0
		trace := &pop3.Trace{Done: func(context.Context, string, int64, error) { hooks++ }}
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Trace: trace})
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))
		go c.KeepAlive(t.Context(), time.Minute)
		_, err = c.Retr(t.Context(), 1)
		require.Error(t, err)
		m, err := c.Retr(t.Context(), 2)
		require.NoError(t, err)
		_, err = io.ReadAll(m)
		require.NoError(t, err)
		time.Sleep(90 * time.Second)
		require.NoError(t, c.Close())
		synctest.Wait()
		assert.Equal(t, 5, hooks)
		require.NoError(t, done())
	})
}
