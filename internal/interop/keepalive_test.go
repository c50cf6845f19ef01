package interop_test

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// TestKeepAlive keeps a session open much longer than the autologout time, while the program sends no commands.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	for _, kind := range []interop.Kind{interop.Mailutils, interop.Solid} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := servers.get(t, kind, "idle")
			a := s.Spare()
			c := loggedIn(t, s, a)
			require.NoError(t, c.Dele(t.Context(), 1, 2))
			ended := make(chan error)
			go func() { ended <- c.KeepAlive(t.Context(), idle/6) }()
			<-time.After(2 * idle)
			require.NoError(t, c.Noop(t.Context()))
			require.NoError(t, c.Quit(t.Context()))
			assert.NoError(t, <-ended)
			assertLeft(t, s, a, 3)
		})
	}
}

// TestKeepAliveBetweenCommands sends NOOP as often as possible between the commands of a session with Dovecot. Every
// message must arrive unchanged.
func TestKeepAliveBetweenCommands(t *testing.T) {
	t.Parallel()
	s := servers.get(t, interop.Dovecot, "")
	reserve(t, s, interop.Bob)
	c := loggedIn(t, s, interop.Bob)
	ended := make(chan error)
	go func() { ended <- c.KeepAlive(t.Context(), time.Microsecond) }()
	mails := interop.Corpus(interop.Bulk)
	for n := 1; n <= 300; n++ {
		m, err := c.Retr(t.Context(), n)
		assertSame(t, mails[n-1].Wire(), read(t, m, err), mails[n-1].Name)
	}
	nums := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for m, err := range c.Messages(t.Context(), nums...) {
		require.NoError(t, err)
		text, err := io.ReadAll(m)
		require.NoError(t, err)
		assertSame(t, mails[m.Num-1].Wire(), text, mails[m.Num-1].Name)
	}
	require.NoError(t, c.Quit(t.Context()))
	assert.NoError(t, <-ended)
}
