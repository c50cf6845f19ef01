package lossproof

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// A talker carries a session of the model over a TCP connection and says one reply too many, in a segment of its own:
// at once, or late, when the client has read the one before it. It is there by the time that idle returns.
type talker struct {
	late    bool
	conn    net.Conn
	session *session
	after   int    // the number of replies, with the greeting, behind which it comes
	extra   string // the reply
	replies int

	mu       sync.Mutex
	changed  *sync.Cond
	commands int // that the client has written
	answered int
}

func (k *talker) serve(conn net.Conn) {
	k.conn = conn
	defer func() {
		conn.Close()
		k.count(&k.answered, 1<<30) // nobody waits any more
	}()
	k.say(conn, k.session.greet())
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		replies, next := k.session.feed(buf[:n])
		for _, reply := range replies {
			k.say(conn, reply)
		}
		k.count(&k.answered, len(replies))
		if err != nil || next == hangUp {
			return
		}
	}
}

func (k *talker) say(conn net.Conn, reply string) {
	conn.Write([]byte(reply))
	if k.replies++; k.replies == k.after && !k.late {
		conn.Write([]byte(k.extra))
	}
}

func (k *talker) count(n *int, by int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*n += by
	k.changed.Broadcast()
}

// idle waits until every command has its reply.
func (k *talker) idle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.answered < k.commands {
		k.changed.Wait()
	}
	if k.late && k.commands > 0 && k.replies == k.after {
		k.late = false
		k.conn.Write([]byte(k.extra))
	}
}

// TestReplyTooManyOverTCP: in clear the kernel shows a reply that nobody has asked for, so that the next command is not
// written. A program that takes its time is never a reply behind.
func TestReplyTooManyOverTCP(t *testing.T) {
	const replies = 20 // greeting, CAPA, USER, PASS, CAPA, LIST, UIDL, four or five of RETR, four of DELE, QUIT
	for _, s := range []server{{name: "pipelining"}, {name: "no pipelining", sequential: true}} {
		for _, p := range programs[:2] {
			for after := 1; after < replies; after++ {
				for _, late := range []bool{false, true} {
					for _, extra := range []string{"+OK\r\n", "-ERR\r\n"} {
						name := fmt.Sprintf("%s/%s/%.3s behind reply %d, late %v", s.name, p.name, extra, after, late)
						t.Run(name, func(t *testing.T) {
							overTCP(t, s, p, &talker{after: after, extra: extra, late: late})
						})
					}
				}
			}
		}
	}
}

func overTCP(t *testing.T, s server, p program, k *talker) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	p.slow = true // it looks around between its steps
	r := &run{experiment: experiment{server: s, program: p, at: -1}, drop: newMaildrop(), w: newWire(),
		store: &store{record: map[string]bool{}}}
	r.plain = &plainFault{insert: k.extra}
	r.session = newSession(r.drop, s, r.onDele)
	k.session, k.changed = r.session, sync.NewCond(&k.mu)
	late := k.late
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := ln.Accept(); err == nil {
			k.serve(conn)
		}
	}()
	trace := &pop3.Trace{WroteCommand: func(context.Context, string) { k.count(&k.commands, 1) }}
	r.first = &visit{program: p, w: r.w, store: r.store, look: r.look, ready: func(*pop3.Client) {}}
	r.first.sleep = func(d time.Duration) { k.idle() }
	r.first.got = func(int, string) {}
	r.first.dial = func(ctx context.Context) (*pop3.Client, error) {
		return pop3.DialInsecure(ctx, ln.Addr().String(), &pop3.Options{Trace: trace})
	}
	r.err = r.first.run()
	<-served
	for i, m := range mails {
		r.judgeMail(m, r.first.outcome(i+1))
	}
	assert.Empty(t, r.violations)
	if said := !k.late && k.after <= k.replies; said && (late || s.sequential && k.after > 4) {
		assert.Error(t, r.err, "the reply too many was not noticed")
	}
}
