//go:build unix

package lossproof

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// An extraReply is a reply that belongs to no command. It arrives directly after a reply of the model. If it is late,
// it arrives after the client has read that reply.
type extraReply struct {
	after   int    // the number of replies before it, including the greeting
	text    string // the reply
	late    bool
	joined  bool // the extra reply is in the same segment, or TLS record, as the reply before it
	hangsUp bool // the server hangs up after it
}

// A tcpServer carries a session of the model over a TCP connection, and sends an extra reply. A late extra reply has
// arrived when waitUntilIdle returns.
type tcpServer struct {
	extraReply
	conn    net.Conn
	session *session
	replies int

	mu       sync.Mutex
	changed  *sync.Cond
	commands int // number of commands that the client has written
	answered int
}

func newTCPServer(extra extraReply, s *session) *tcpServer {
	k := &tcpServer{extraReply: extra, session: s}
	k.changed = sync.NewCond(&k.mu)
	return k
}

func (k *tcpServer) serve(conn net.Conn) {
	k.conn = conn
	defer func() {
		conn.Close()
		k.add(&k.answered, 1<<30) // releases waitUntilIdle, because no more replies follow
	}()
	k.sendReply(k.session.greet())
	buf := make([]byte, 4096)
	for {
		n, err := k.conn.Read(buf)
		replies, next := k.session.receive(buf[:n])
		for _, reply := range replies {
			k.sendReply(reply)
		}
		k.add(&k.answered, len(replies))
		if err != nil || next == hangUp {
			return
		}
		if next == startTLS {
			k.conn = tls.Server(conn, serverTLS())
		}
	}
}

func (k *tcpServer) sendReply(reply string) {
	k.replies++
	now := k.replies == k.after && !k.late
	if now && k.joined {
		reply += k.text
	}
	io.WriteString(k.conn, reply)
	if now && !k.joined {
		io.WriteString(k.conn, k.text)
	}
	if now && k.hangsUp {
		k.conn.Close()
	}
}

func (k *tcpServer) add(n *int, by int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*n += by
	k.changed.Broadcast()
}

// waitUntilIdle waits until every command has its reply, and then sends a late extra reply.
func (k *tcpServer) waitUntilIdle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.answered < k.commands {
		k.changed.Wait()
	}
	if k.late && k.commands > 0 && k.replies == k.after {
		k.late = false
		io.WriteString(k.conn, k.text)
		if k.hangsUp {
			k.conn.Close()
		}
	}
}

// extraSent reports whether the extra reply has been sent.
func (k *tcpServer) extraSent() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.late && k.after <= k.replies
}

// A listener is a server that accepts one session after another over TCP.
type listener struct {
	net.Listener
	security security
	served   sync.WaitGroup
}

func listen(t *testing.T, security security) *listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return &listener{Listener: ln, security: security}
}

// connect connects to a tcpServer.
func (l *listener) connect(ctx context.Context, k *tcpServer) (*pop3.Client, error) {
	l.served.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if l.security >= implicitTLS {
			conn = tls.Server(conn, serverTLS())
		}
		k.serve(conn)
	})
	opts := &pop3.Options{TLSConfig: clientTLS(), InsecureAuth: l.security == inClear}
	opts.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
	}
	opts.Trace = &pop3.Trace{WroteCommand: func(context.Context, string) { k.add(&k.commands, 1) }}
	return l.security.dial(ctx, opts)
}

// allReplies is the number of replies in a session: greeting, CAPA, USER, PASS, CAPA, LIST, UIDL, four or five to RETR,
// four to DELE, QUIT.
const allReplies = 20

// allExtraReplies returns an extra reply at every position, in every way.
func allExtraReplies() (all []extraReply) {
	for after := 1; after < allReplies; after++ {
		for _, extra := range []string{"+OK\r\n", "-ERR failed to retrieve that message\r\n"} {
			all = append(all,
				extraReply{after: after, text: extra},
				extraReply{after: after, text: extra, joined: true},
				extraReply{after: after, text: extra, late: true})
		}
	}
	return all
}

func (k extraReply) String() string {
	how := "on its own"
	if k.joined {
		how = "joined"
	} else if k.late {
		how = "late"
	}
	return fmt.Sprintf("%.4s after reply %d, %s", k.text, k.after, how)
}

// TestExtraReplyOverTCP checks that the client notices an extra reply and does not write the next command.
// A program that waits between commands never gets the reply to an earlier command (C-001).
func TestExtraReplyOverTCP(t *testing.T) {
	for _, security := range []security{inClear, implicitTLS} {
		for _, s := range []server{{name: "pipelining"}, {name: "no pipelining", sequential: true}} {
			for _, p := range programs[:2] {
				for _, k := range allExtraReplies() {
					t.Run(fmt.Sprintf("C-001 %v/%s/%s/%v", security, s.name, p.name, k), func(t *testing.T) {
						runOverTCP(t, security, s, p, k)
					})
				}
			}
		}
	}
}

func runOverTCP(t *testing.T, security security, s server, p program, row extraReply) {
	l := listen(t, security)
	defer l.Close()
	p.slow = true // the program waits between its steps, so it sees late data
	r := &run{experiment: experiment{server: s, program: p, faultAt: -1, security: security}, drop: newMaildrop(),
		w: newWire(), store: &store{record: map[string]bool{}}}
	r.plain = &plainFault{insert: row.text}
	r.session = newSession(r.drop, s, r.onDele)
	k := newTCPServer(row, r.session)
	r.firstSession = &programSession{program: p, w: r.w, store: r.store, checkErr: r.checkErr,
		onClient: func(*pop3.Client) {}}
	r.firstSession.sleep = func(d time.Duration) { k.waitUntilIdle() }
	r.firstSession.checkMessage = func(int, string) {}
	r.firstSession.dial = func(ctx context.Context) (*pop3.Client, error) { return l.connect(ctx, k) }
	r.err = r.firstSession.run()
	l.served.Wait()
	for i, m := range mails {
		r.checkMail(m, r.firstSession.outcome(i+1))
	}
	assert.Empty(t, r.violations)
	inStep := row.late || s.sequential && row.after > 4
	if k.extraSent() && inStep {
		assert.Error(t, r.err, "the extra reply was not noticed")
	}
	if inStep {
		assert.Subset(t, mails, r.store.mails, "something is stored that is not a message, or not under its unique-id")
	}
}

// TestFetchWithExtraReply checks that package fetch stores each message once, under its own unique-id, wherever an
// extra reply arrives (C-001).
func TestFetchWithExtraReply(t *testing.T) {
	for _, security := range []security{inClear, implicitTLS} {
		for _, s := range []server{{name: "pipelining"}, {name: "no pipelining", sequential: true}} {
			for _, k := range allExtraReplies() {
				if k.late && !s.sequential {
					continue // with pipelining, the server cannot know when the client is idle
				}
				t.Run(fmt.Sprintf("C-001 %v/%s/%v", security, s.name, k), func(t *testing.T) {
					fetchOverTCP(t, security, s, k)
				})
			}
		}
	}
}

func fetchOverTCP(t *testing.T, security security, s server, row extraReply) {
	l := listen(t, security)
	defer l.Close()
	drop := newMaildrop()
	var stored []mail
	var k *tcpServer
	f := &fetch.Fetcher{Account: "fred@example.org", Seen: new(fetch.MemorySeen), Delete: true}
	f.Connect = func(ctx context.Context) (*pop3.Client, error) {
		k = newTCPServer(row, newSession(drop, s, func(m mail) {
			assert.Contains(t, stored, m, "DELE of a message that is not stored under its unique-id")
		}))
		row.after = 0 // the next session has no extra reply
		c, err := l.connect(ctx, k)
		if err == nil {
			err = c.Login(ctx, user, password)
		}
		if err != nil && c != nil {
			c.Close()
		}
		return c, err
	}
	f.Sink = fetch.SinkFunc(func(_ context.Context, item fetch.Item, r io.Reader) error {
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if s.sequential {
			k.waitUntilIdle()
		}
		stored = append(stored, mail{item.UID, string(content)})
		return nil
	})
	for range 3 {
		f.Run(t.Context())
	}
	l.served.Wait()
	byUID := func(a, b mail) int { return strings.Compare(a.uid, b.uid) }
	slices.SortFunc(stored, byUID)
	assert.Equal(t, mails, stored)
	assert.Empty(t, drop.mails, "messages are still on the server")
}

// TestIdleTimeout checks the end of an idle session. The server sends a text and hangs up. The error of the next call
// contains that text, and nothing was deleted (C-002).
func TestIdleTimeout(t *testing.T) {
	const text = "Autologout; idle for too long"
	for _, security := range []security{inClear, startTLSLater, implicitTLS, implicitTLS12} {
		for name, next := range map[string]func(*pop3.Client) error{
			"NOOP": func(c *pop3.Client) error { return c.Noop(t.Context()) },
			"RETR": func(c *pop3.Client) error { _, err := c.Retr(t.Context(), 2); return err },
			"DELE": func(c *pop3.Client) error { return c.Dele(t.Context(), 2, 3) },
			"QUIT": func(c *pop3.Client) error { return c.Quit(t.Context()) },
		} {
			t.Run(fmt.Sprintf("C-002 %v/%s", security, name), func(t *testing.T) {
				l := listen(t, security)
				defer l.Close()
				s := newSession(newMaildrop(), server{}, func(mail) {})
				s.offersTLS = security == startTLSLater
				k := newTCPServer(extraReply{text: "-ERR " + text + "\r\n", late: true, hangsUp: true}, s)
				c, err := l.connect(t.Context(), k)
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.Login(t.Context(), user, password))
				require.NoError(t, c.Dele(t.Context(), 1))
				k.mu.Lock()
				k.after = k.replies
				k.mu.Unlock()
				k.waitUntilIdle()
				err = next(c)
				assert.ErrorContains(t, err, text)
				assert.NotErrorIs(t, err, pop3.ErrCommitUnknown, "nothing was deleted")
				assert.Equal(t, pop3.StateClosed, c.State())
				c.Close()
				l.served.Wait()
				assert.Len(t, s.drop.mails, len(mails))
			})
		}
	}
}
