package pop3_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// TestCloseBesideKeepAlive: a NOOP of KeepAlive has to wait until Close has set the clock right again, which the race
// detector sees.
func TestCloseBesideKeepAlive(t *testing.T) {
	result, _ := keptAlive(t, func(ctx context.Context, _ func(), c *pop3.Client) {
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, m.Close())
		time.Sleep(90 * time.Second)
		require.NoError(t, c.Close())
	})
	require.NoError(t, result)
}
