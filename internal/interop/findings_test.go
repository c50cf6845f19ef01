package interop_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// TestLoginWaits checks that the client waits for the reply to PASS, APOP and AUTH, even if it may send commands
// ahead. Three servers discard commands that arrive before these replies, although one of them announces PIPELINING.
func TestLoginWaits(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		for _, m := range methods[f.kind] {
			if m.cert || m.tls12 || m.reason != "" || m.secrets != nil {
				continue // these methods need TLS, where the test cannot record the commands
			}
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				var log recorder
				a := s.Spare()
				opts := &pop3.Options{Pipelining: pop3.PipeliningAlways, DialContext: log.dialer}
				c := dial(t, s, inClear, opts)
				require.NoError(t, m.try(t, c, a.Name, a.Password))
				_, err := c.Listing(t.Context())
				require.NoError(t, err)
				require.NoError(t, c.Quit(t.Context()))

				for _, e := range log.log() {
					if e.client && !strings.HasPrefix(e.octets, "LIST\r\nUIDL") {
						assert.Equal(t, 1, strings.Count(e.octets, "\r\n"), "one by one: %q", e.octets)
					}
				}
			})
		}
	})
}

// TestNoDelay retrieves messages one by one. Most servers send each message in two writes, with Nagle's algorithm on.
// If the client's kernel delays its acknowledgements, every message takes 40 ms longer (finding 3). The test is not
// parallel, because it measures times.
func TestNoDelay(t *testing.T) {
	const count, delayed = 100, 40 * time.Millisecond
	for _, f := range mainServers {
		t.Run(string(f.kind), func(t *testing.T) {
			s := servers.get(t, f.kind, "")
			c := loggedIn(t, s, interop.Bob)
			durations := make([]time.Duration, count)
			for n := range count {
				begin := time.Now()
				m, err := c.Retr(t.Context(), n+1)
				read(t, m, err)
				durations[n] = time.Since(begin)
			}
			require.NoError(t, c.Quit(t.Context()))
			slices.Sort(durations)
			assert.Less(t, durations[count/2], delayed/2, "the median")
			t.Logf("one message by itself takes %v", durations[count/2].Round(time.Microsecond))
		})
	}
}

// TestFrozen makes the store immutable between DELE and QUIT. Half of the servers still reply +OK, so a nil error of
// Quit does not prove that anything was deleted. One server replies -ERR and deletes.
func TestFrozen(t *testing.T) {
	mbox := dovecot
	mbox.frozenQuit = &refusal{pop3.CodeSysTemp, `Internal error occurred\. Refer to server log .*`}
	mbox.frozenLeft = 3 // with an mbox, Dovecot replies -ERR but deletes
	rows := []struct {
		name, variant string
		facts         *facts
	}{
		{"dovecot maildir", "frozen", &dovecot},
		{"dovecot mbox", "mbox", &mbox},
		{"courier", "frozen", &courier},
		{"cyrus", "frozen", &cyrus},
		{"mailutils", "frozen", &mailutils},
		{"popa3d", "frozen", &popa3d},
		{"solid", "frozen", &solid},
	}
	t.Parallel()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := servers.get(t, row.facts.kind, row.variant)
			a := s.Spare()
			c := loggedIn(t, s, a)
			require.NoError(t, c.Dele(t.Context(), 1, 2))
			if err := s.Freeze(a.Name); errors.Is(err, interop.ErrUnavailable) {
				t.Skipf("NOT RUN: %v", err)
			} else {
				require.NoError(t, err)
			}
			err := c.Quit(t.Context())
			require.NoError(t, s.Thaw(a.Name))
			if row.facts.frozenQuit == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, pop3.ErrCommitUnknown)
				assertRefused(t, *row.facts.frozenQuit, err)
			}
			assertLeft(t, s, a, row.facts.frozenLeft)
		})
	}
}

// TestSTLSAlone checks the octets around STLS. Nothing is sent together with STLS, and nothing is sent in clear after
// it.
func TestSTLSAlone(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		var log recorder
		opts := &pop3.Options{TLSConfig: s.TLSConfig(), DialContext: log.dialer, Timeout: maxWait}
		c, err := pop3.DialStartTLS(t.Context(), s.Addr, opts)
		var sent []string
		for _, e := range log.log() {
			if e.client {
				sent = append(sent, e.octets)
			}
		}
		if !f.stls {
			require.ErrorIs(t, err, pop3.ErrTLSRequired)
			assert.NotContains(t, strings.Join(sent, ""), "USER")
			return
		}
		require.NoError(t, err)
		defer c.Close()
		require.NotEmpty(t, sent)
		last := sent[len(sent)-1]
		for _, octets := range sent {
			if strings.HasPrefix(octets, "STLS") {
				assert.Equal(t, "STLS\r\n", octets)
			}
		}
		const handshake, applicationData = "\x16\x03", "\x17\x03"
		assert.True(t, strings.HasPrefix(last, handshake) || strings.HasPrefix(last, applicationData) ||
			strings.HasPrefix(last, "\x14\x03"), "TLS records: %q", last[:min(len(last), 20)])
	})
}

// TestUntrusted connects to a server whose certificate it does not trust. No secret is sent, and the error says that
// the authority is unknown.
func TestUntrusted(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		for _, via := range f.transports() {
			if !via.tls {
				continue
			}
			opts := &pop3.Options{TLSConfig: &tls.Config{RootCAs: x509.NewCertPool()}, Timeout: maxWait}
			_, err := via.dial(t.Context(), s, opts)
			var untrusted *tls.CertificateVerificationError
			assert.ErrorAs(t, err, &untrusted, via.name)
		}
		c := dial(t, s, inClear, nil) // the server can be used by other clients afterwards
		require.NoError(t, c.Quit(t.Context()))
	})
}

// TestSizes lists a maildrop before and after UIDL. One server writes the unique-ids into the messages, so sizes grow
// within the session. A client must not rely on sizes.
func TestSizes(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		c := loggedIn(t, s, s.Spare())
		before, err := c.ListAll(t.Context())
		require.NoError(t, err)
		_, err = c.UidlAll(t.Context())
		require.NoError(t, err)
		after, err := c.ListAll(t.Context())
		require.NoError(t, err)
		if f.sizesGrow {
			assert.Greater(t, after[0].Size, before[0].Size)
		} else {
			assert.Equal(t, before, after)
		}
		m, err := c.Retr(t.Context(), 1)
		assert.Len(t, read(t, m, err), int(after[0].Size))
		require.NoError(t, c.Quit(t.Context()))
	})
}

// TestSecondSession logs in to a maildrop that another session uses. If the login is accepted, the first session
// deletes a message, and then the second one retrieves the same message.
func TestSecondSession(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		a := s.Spare()
		first := loggedIn(t, s, a)
		second := dial(t, s, inClear, nil)
		require.NoError(t, second.User(t.Context(), a.Name))
		err := second.Pass(t.Context(), a.Password)
		if f.secondLogin != nil {
			assertRefused(t, *f.secondLogin, err)
			assertTemporary(t, err)
			require.NoError(t, first.Quit(t.Context()))
			return
		}
		require.NoError(t, err)
		_, err = second.ListAll(t.Context())
		require.NoError(t, err)
		require.NoError(t, first.Dele(t.Context(), 1))
		require.NoError(t, first.Quit(t.Context()))

		m, err := second.Retr(t.Context(), 1)
		if err == nil {
			_, err = io.Copy(io.Discard, m)
		}
		switch {
		case f.expunged.refused != nil:
			assertRefused(t, *f.expunged.refused, err)
		case f.expunged.closed:
			require.Error(t, err)
			assert.Equal(t, pop3.StateClosed, second.State())
		default:
			assert.NoError(t, err)
		}
	})
}

func assertTemporary(t *testing.T, err error) {
	t.Helper()
	var refused *pop3.Error
	require.ErrorAs(t, err, &refused)
	assert.True(t, refused.Temporary())
}

// TestLocked configures Dovecot so that only one session at a time can use a maildrop. The login of the second session
// is refused after twelve seconds.
func TestLocked(t *testing.T) {
	t.Parallel()
	s := servers.get(t, interop.Dovecot, "lock")
	a := s.Spare()
	first := loggedIn(t, s, a)
	second := dial(t, s, overTLS, nil)
	err := second.Login(t.Context(), a.Name, a.Password)
	assertRefused(t, refusal{pop3.CodeInUse, `Mailbox is locked by another POP3 session\.`}, err)
	assertTemporary(t, err)
	require.NoError(t, first.Quit(t.Context()))
	assertLeft(t, s, a, 5)
}

// TestPlaintextRefused connects from an address that Dovecot treats as another machine. Dovecot then accepts no
// password in clear, and Login chooses a method that does not send the password.
func TestPlaintextRefused(t *testing.T) {
	t.Parallel()
	s := servers.get(t, interop.Dovecot, "")
	remote := &pop3.Options{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		return d.DialContext(ctx, network, addr)
	}}
	c := dial(t, s, inClear, remote)
	caps, err := c.Capa(t.Context())
	require.NoError(t, err)
	assert.False(t, caps.Has("USER"))
	assert.NotContains(t, caps.SASL(), "PLAIN")
	assertRefused(t, refusal{pop3.CodeAuth,
		`Plaintext authentication disallowed on non-secure \(SSL/TLS\) connections\.`},
		c.User(t.Context(), interop.Dave.Name))
	require.NoError(t, c.Login(t.Context(), interop.Dave.Name, interop.Dave.Password))
	require.NoError(t, c.Quit(t.Context()))
}

// idle is the autologout time of the servers in this test, the shortest that they accept.
const idle = 3 * time.Second

// TestAutologout marks messages and waits for the autologout, over each transport. The next call fails with an error
// that contains the text of the server. No message is deleted. The client must not read that text as the reply to a
// command (C-002).
func TestAutologout(t *testing.T) {
	const silent = "the server had closed the connection"
	rows := []struct {
		facts *facts
		text  string // a text in the error
	}{
		{&mailutils, "Session timed out"},
		{&solid, silent},
		{&nginx, silent},
		{&wildDuck, "Disconnected for inactivity"},
		{&inbucket, "Idle timeout, bye bye"},
	}
	t.Parallel()
	for _, row := range rows {
		for _, via := range row.facts.transports() {
			t.Run("C-002 "+string(row.facts.kind)+"/"+via.name, func(t *testing.T) {
				t.Parallel()
				s := servers.get(t, row.facts.kind, "idle")
				a := s.Spare()
				c := dial(t, s, via, nil)
				login(t, c, a)
				require.NoError(t, c.Dele(t.Context(), 1, 2))
				<-time.After(idle + 2*time.Second)
				err := c.Noop(t.Context())
				require.ErrorContains(t, err, row.text)
				assert.Equal(t, pop3.StateClosed, c.State())
				err = c.Quit(t.Context())
				require.ErrorIs(t, err, net.ErrClosed)
				require.NotErrorIs(t, err, pop3.ErrCommitUnknown)
				assertLeft(t, s, a, 5)
			})
		}
	}
}

// TestIdleQuit waits for the autologout before it calls Quit. Nothing was deleted, and the error says so.
func TestIdleQuit(t *testing.T) {
	t.Parallel()
	for _, f := range []*facts{&nginx, &wildDuck, &inbucket} {
		for _, via := range f.transports() {
			t.Run("C-002 "+string(f.kind)+"/"+via.name, func(t *testing.T) {
				t.Parallel()
				s := servers.get(t, f.kind, "idle")
				a := s.Spare()
				c := dial(t, s, via, nil)
				login(t, c, a)
				require.NoError(t, c.Dele(t.Context(), 1, 2))
				<-time.After(idle + 2*time.Second)
				err := c.Quit(t.Context())
				require.Error(t, err)
				require.NotErrorIs(t, err, pop3.ErrCommitUnknown)
				assertLeft(t, s, a, 5)
			})
		}
	}
}

// TestCutWithRefusal retrieves a message with a line of 100 KiB from Inbucket. Inbucket sends the beginning of the
// message, the end-of-message line, and then a refusal. The client must not read the refusal as the reply to the next
// command, over any transport (C-001).
func TestCutWithRefusal(t *testing.T) {
	const long = 6 // the number of the message with the long line
	next := map[string]func(context.Context, *pop3.Client) error{
		"NOOP": func(ctx context.Context, c *pop3.Client) error { return c.Noop(ctx) },
		"STAT": func(ctx context.Context, c *pop3.Client) error { _, err := c.Stat(ctx); return err },
		"DELE": func(ctx context.Context, c *pop3.Client) error { return c.Dele(ctx, long) },
		"RETR": func(ctx context.Context, c *pop3.Client) error { _, err := c.Retr(ctx, long+1); return err },
		"QUIT": func(ctx context.Context, c *pop3.Client) error { return c.Quit(ctx) },
	}
	t.Parallel()
	s := servers.get(t, interop.Inbucket, "")
	for _, via := range inbucket.transports() {
		for verb, call := range next {
			t.Run("C-001 "+via.name+"/"+verb, func(t *testing.T) {
				t.Parallel()
				c := dial(t, s, via, nil)
				login(t, c, interop.Alice)
				m, err := c.Retr(t.Context(), long)
				text := read(t, m, err)
				assert.Less(t, len(text), 64<<10, "it is cut")
				<-time.After(pause) // wait until the refusal has arrived
				err = call(t.Context(), c)
				var broken *pop3.ProtocolError
				require.ErrorAs(t, err, &broken)
				assert.True(t, broken.Fatal)
				require.ErrorContains(t, err, "Failed to RETR that message")
				require.NotErrorIs(t, err, pop3.ErrCommitUnknown)
				assert.Equal(t, pop3.StateClosed, c.State())
			})
		}
	}
}

// TestFetchCutWithRefusal runs package fetch on the same maildrop until it lists nothing new. Every message is stored
// once, with its own unique-id. Of the message that Inbucket cannot send completely, the beginning is stored.
func TestFetchCutWithRefusal(t *testing.T) {
	t.Parallel()
	s := servers.get(t, interop.Inbucket, "")
	for _, via := range inbucket.transports() {
		t.Run("C-001 "+via.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s, via, nil)
			login(t, c, interop.Alice)
			infos, err := c.Listing(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Quit(t.Context()))

			var stored []string
			connect := func(ctx context.Context) (*pop3.Client, error) {
				c := dial(t, s, via, nil)
				return c, errors.Join(c.User(ctx, interop.Alice.Name), c.Pass(ctx, interop.Alice.Password))
			}
			sink := fetch.SinkFunc(func(_ context.Context, item fetch.Item, r io.Reader) error {
				text, err := io.ReadAll(r)
				if err == nil {
					stored = append(stored, item.UID+" "+subject(text))
				}
				return err
			})
			f := fetch.Fetcher{Connect: connect, Sink: sink, Seen: new(fetch.MemorySeen), Account: "alice"}
			for range 4 { // four runs, because the refusal ends two of them early
				_, err = f.Run(t.Context())
			}
			require.NoError(t, err)
			var want []string
			for i, m := range interop.Corpus(interop.Awkward) {
				want = append(want, infos[i].UID+" "+subject(m.Stored))
			}
			assert.ElementsMatch(t, want, stored)
		})
	}
}

// subject returns the subject line of a message.
func subject(text []byte) string {
	return strings.TrimSpace(regexp.MustCompile(`(?m)^Subject: .*$`).FindString(string(text)))
}

// TestTooManyRefusals uses a server that hangs up, without a reply, after the fifth command that it refuses.
func TestTooManyRefusals(t *testing.T) {
	t.Parallel()
	s := servers.get(t, interop.Solid, "")
	c := loggedIn(t, s, s.Spare())
	for range 5 {
		_, err := c.Retr(t.Context(), 99)
		assertRefused(t, solid.noMessage, err)
	}
	err := c.Noop(t.Context())
	require.Error(t, err)
	var refused *pop3.Error
	assert.False(t, errors.As(err, &refused))
	assert.Equal(t, pop3.StateClosed, c.State())
}
