package docs_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// TestMigratingNotes checks each point of the list "What changes for every program" in MIGRATING.md.
func TestMigratingNotes(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "alice", Password: "secret"})
	t.Cleanup(srv.Close)
	dial := func(t *testing.T, opts *pop3.Options) (*pop3.Client, error) {
		opts.TLSConfig = srv.ClientTLS()
		return pop3.DialTLS(t.Context(), srv.Addr, opts)
	}

	t.Run("ALL_PROXY", func(t *testing.T) {
		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, nobody.Close())
		t.Setenv("ALL_PROXY", "socks5://"+nobody.Addr().String())
		t.Setenv("NO_PROXY", "")
		_, err = dial(t, new(pop3.Options))
		require.Error(t, err, "the proxy is not there")
		c, err := dial(t, &pop3.Options{DialContext: new(net.Dialer).DialContext})
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})

	t.Run("without a login", func(t *testing.T) {
		c, err := dial(t, new(pop3.Options))
		require.NoError(t, err)
		assert.Contains(t, c.Greeting(), "ready")
		require.ErrorIs(t, c.Noop(t.Context()), pop3.ErrState)
		_, err = c.Capa(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Quit(t.Context()))
	})

	t.Run("a parser that goes on after errors", func(t *testing.T) {
		cut := io.MultiReader(strings.NewReader("Subject: x\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF))
		m := pop3.NewMessage(1, cut)
		_, err := io.ReadAll(m)
		for range 3 {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			_, err = m.Read(make([]byte, 1))
		}
	})

	t.Run("a message of a server that is cut", func(t *testing.T) {
		srv := pop3test.NewTLSServer(&pop3test.Mailbox{
			User: "alice", Password: "secret", Messages: [][]byte{[]byte("Subject: x\r\n\r\nbody\r\n")},
		})
		defer srv.Close()
		srv.SetFaults(pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 12})
		ctx := context.Background()
		c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
		require.NoError(t, err)
		require.NoError(t, c.Login(ctx, "alice", "secret"))
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		_, err = io.ReadAll(m)
		for range 3 {
			require.True(t, errors.Is(err, io.ErrUnexpectedEOF))
			_, err = m.Read(make([]byte, 1))
		}
	})
}
