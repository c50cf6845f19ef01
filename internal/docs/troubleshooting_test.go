package docs_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// TestTroubleshooting checks the headings of TROUBLESHOOTING.md that are the text of an error. Each must be part of an
// error that the library returns.
func TestTroubleshooting(t *testing.T) {
	page, err := os.ReadFile("../../TROUBLESHOOTING.md")
	require.NoError(t, err)
	var headings []string
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(string(page), -1) {
		headings = append(headings, m[1])
	}
	require.Len(t, headings, len(causes), "causes must have one function for each heading")
	for _, heading := range headings {
		t.Run(heading, func(t *testing.T) {
			cause := causes[heading]
			require.NotNil(t, cause)
			assert.ErrorContains(t, cause(t), heading)
		})
	}
}

// causes maps each of these headings to a function that causes the error.
var causes = map[string]func(*testing.T) error{
	"certificate signed by unknown authority": func(t *testing.T) error {
		_, err := pop3.DialTLS(t.Context(), tlsServer(t).Addr, nil)
		return err
	},
	"certificate is valid for": func(t *testing.T) error {
		srv := tlsServer(t)
		config := srv.ClientTLS()
		config.ServerName = "mail.example.org"
		_, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: config})
		return err
	},
	"use DialTLS": func(t *testing.T) (err error) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			_, err = pop3.DialInsecure(t.Context(), "pop.example.org", &pop3.Options{DialContext: dialTo(here)})
		})
		return err
	},
	"try DialStartTLS": func(t *testing.T) error {
		_, err := pop3.DialTLS(t.Context(), clearServer(t).Addr, nil)
		return err
	},
	"TLS is required, but the server did not start it": func(t *testing.T) error {
		return dialScript(t, "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\n", pop3.DialStartTLS, nil)
	},
	"no complete reply within": func(t *testing.T) (err error) {
		synctest.Test(t, func(t *testing.T) { err = callScripted(t, "C: STAT\nHOLD", (*pop3.Client).Stat) })
		return err
	},
	"refusing to send a secret over a connection that is not verified TLS": func(t *testing.T) error {
		return login(t, "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\n", &pop3.Options{})
	},
	"the server lets nobody log in before TLS": func(t *testing.T) error {
		return login(t, "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\n", nil)
	},
	"the server offers nothing that Login knows": func(t *testing.T) error {
		return login(t, "S: +OK\nC: CAPA\nS: +OK\nS: SASL XOAUTH2\nS: .\n", nil)
	},
	"allows nothing that the server offers": func(t *testing.T) error {
		return login(t, "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\n",
			&pop3.Options{InsecureAuth: true, Mechanisms: []string{"PLAIN"}})
	},
	"[AUTH]": func(t *testing.T) error {
		return login(t, userLogin+"S: -ERR [AUTH] wrong password\n", nil)
	},
	"may have no keys for SCRAM": func(t *testing.T) error {
		c, err := pop3.DialInsecure(t.Context(), clearServer(t).Addr, nil)
		require.NoError(t, err)
		defer c.Close()
		return c.Login(t.Context(), "u", "wrong")
	},
	"no answer within Options.Timeout": func(t *testing.T) (err error) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			go io.Copy(io.Discard, there)
			_, err = pop3.DialTLS(t.Context(), "pop.example.org", &pop3.Options{DialContext: dialTo(here)})
		})
		return err
	},
	"context deadline exceeded": func(t *testing.T) (err error) {
		synctest.Test(t, func(t *testing.T) {
			err = callScripted(t, "C: STAT\nHOLD", func(c *pop3.Client, ctx context.Context) (pop3.DropListing, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return c.Stat(ctx)
			})
		})
		return err
	},
	"use of closed network connection": func(t *testing.T) error {
		c := loggedIn(t)
		c.Close()
		return c.Noop(t.Context())
	},
	"the server closed the connection instead of replying": func(t *testing.T) error {
		return callScripted(t, "C: STAT\nEOF", (*pop3.Client).Stat)
	},
	"in use by another run": func(*testing.T) error { return fetch.ErrLocked },
	"set aside":             func(*testing.T) error { return fetch.ErrSetAside },
	"[IN-USE]": func(t *testing.T) error {
		return login(t, userLogin+"S: -ERR [IN-USE] the maildrop is open elsewhere\n", nil)
	},
	"[LOGIN-DELAY]": func(t *testing.T) error {
		return login(t, userLogin+"S: -ERR [LOGIN-DELAY] too soon\n", nil)
	},
	"set Options.Compat.NoCapa": func(t *testing.T) error { return login(t, "S: +OK\nC: CAPA\nEOF", nil) },
	"set Options.Compat.NoInitialResponse": func(t *testing.T) error {
		return login(t, "S: +OK\nC: CAPA\nS: +OK\nS: SASL PLAIN\nS: .\nC: AUTH PLAIN AHUAcA==\nS: -ERR parameters\n",
			nil)
	},
	"client is busy": func(t *testing.T) error {
		c := loggedIn(t)
		_, err := c.Retr(t.Context(), 1)
		require.NoError(t, err)
		return c.Noop(t.Context())
	},
	"the command is not allowed in this state of the session": func(t *testing.T) error {
		return loggedIn(t).Login(t.Context(), "u", "p")
	},
	"left unread, so the connection was closed": func(t *testing.T) error {
		m, err := loggedIn(t).Retr(t.Context(), 2)
		require.NoError(t, err)
		return m.Close()
	},
	"the server closed the connection in the middle of the message": func(t *testing.T) error {
		return callScripted(t, "C: RETR 1\nS: +OK\nS: begun\nEOF", func(c *pop3.Client, ctx context.Context) (int,
			error) {
			m, err := c.Retr(ctx, 1)
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, m)
			return int(n), err
		})
	},
	"no such message": func(t *testing.T) error {
		_, err := loggedIn(t).Retr(t.Context(), 7)
		return err
	},
	"not sent, because the server had sent something that was not asked for": func(t *testing.T) error {
		return callScripted(t, "C: NOOP\nS: +OK\nS: -ERR idle for too long\nHOLD",
			func(c *pop3.Client, ctx context.Context) (int, error) {
				return 0, errors.Join(c.Noop(ctx), c.Noop(ctx))
			})
	},
	"set Options.Pipelining to PipeliningNever": func(t *testing.T) error {
		return callScripted(t, "C: DELE 1\nC: DELE 2\nS: +OK\nS: what?\nHOLD",
			func(c *pop3.Client, ctx context.Context) (int, error) {
				return 0, c.Dele(ctx, 1, 2)
			})
	},
	"deletions not confirmed": func(t *testing.T) error {
		return callScripted(t, "C: DELE 1\nS: +OK\nC: QUIT\nEOF", func(c *pop3.Client, ctx context.Context) (int,
			error) {
			return 0, errors.Join(c.Dele(ctx, 1), c.Quit(ctx))
		})
	},
	"shorter than the server claims": func(*testing.T) error { return fetch.ErrSizeShort },
}

const userLogin = "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\nC: USER u\nS: +OK\nC: PASS p\n"

func dialTo(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

func newBox() *pop3test.Mailbox {
	large := "Subject: large\r\n\r\n" + strings.Repeat("x\r\n", 1<<18)
	return &pop3test.Mailbox{User: "u", Password: "p", Messages: [][]byte{[]byte("Subject: 1\r\n\r\n"), []byte(large)}}
}

func tlsServer(t *testing.T) *pop3test.Server {
	srv := pop3test.NewTLSServer(newBox())
	t.Cleanup(srv.Close)
	return srv
}

func clearServer(t *testing.T) *pop3test.Server {
	srv := pop3test.NewServer(newBox())
	t.Cleanup(srv.Close)
	return srv
}

// loggedIn returns a client that is logged in to a server without faults.
func loggedIn(t *testing.T) *pop3.Client {
	c, err := pop3.DialInsecure(t.Context(), clearServer(t).Addr, nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.Login(t.Context(), "u", "p"))
	return c
}

type dialer func(context.Context, string, *pop3.Options) (*pop3.Client, error)

// dialScript dials a server that plays a script, and logs in. opts may be nil.
func dialScript(t *testing.T, script string, dial dialer, opts *pop3.Options) error {
	conn, _ := pop3test.Script(script)
	o := pop3.Options{}
	if opts != nil {
		o = *opts
	}
	o.DialContext = dialTo(conn)
	c, err := dial(t.Context(), "pop.example.org", &o)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Login(t.Context(), "u", "p")
}

func login(t *testing.T, script string, opts *pop3.Options) error {
	if opts == nil {
		opts = &pop3.Options{InsecureAuth: true}
	}
	return dialScript(t, script, pop3.DialInsecure, opts)
}

// callScripted makes a call in a session whose server plays script, and returns the error of the call.
func callScripted[T any](t *testing.T, script string, do func(*pop3.Client, context.Context) (T, error)) error {
	conn, _ := pop3test.Script("S: +OK\nC: USER u\nS: +OK\nC: PASS p\nS: +OK\n" + script)
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Pipelining: pop3.PipeliningAlways})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, errors.Join(c.User(t.Context(), "u"), c.Pass(t.Context(), "p")))
	_, err = do(c, t.Context())
	return err
}
