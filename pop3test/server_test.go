package pop3test_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

const xs = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

// dialogues are complete sessions with the mailbox of newBox. left has the sizes of the messages that are left after
// the session.
var dialogues = []struct {
	name, transcript string
	left             []int
}{
	{"the transaction state, RFC 1939 section 5", login + `
		C: STAT
		S: +OK 2 320
		C: LIST
		S: +OK 2 messages (320 octets)
		S: 1 120
		S: 2 200
		S: .
		C: LIST 2
		S: +OK 2 200
		C: LIST 3
		S: -ERR no such message, only 2 messages in maildrop
		C: RETR 1
		S: +OK 120 octets
		S: Subject: test
		S: 
		S: ..dot
		S: ` + xs + `
		S: .
		C: DELE 2
		S: +OK message 2 deleted
		C: DELE 2
		S: -ERR message 2 already deleted
		C: STAT
		S: +OK 1 120
		C: LIST
		S: +OK 1 messages (120 octets)
		S: 1 120
		S: .
		C: NOOP
		S: +OK
		C: RSET
		S: +OK maildrop has 2 messages (320 octets)
		C: STAT
		S: +OK 2 320
		C: QUIT
		S: +OK pop3test server signing off
	`, []int{120, 200}},
	{"UIDL and TOP, RFC 1939 section 7", login + `
		C: UIDL
		S: +OK 2 messages (320 octets)
		S: 1 whqtswO00WBw418f9t5JxYwZ
		S: 2 QhdPYR:00WBw1Ph7x7
		S: .
		C: UIDL 2
		S: +OK 2 QhdPYR:00WBw1Ph7x7
		C: UIDL 3
		S: -ERR no such message, only 2 messages in maildrop
		C: TOP 1 1
		S: +OK top of message follows
		S: Subject: test
		S: 
		S: ..dot
		S: .
		C: TOP 1 0
		S: +OK top of message follows
		S: Subject: test
		S: 
		S: .
		C: TOP 1 99
		S: +OK top of message follows
		S: Subject: test
		S: 
		S: ..dot
		S: ` + xs + `
		S: .
		C: TOP 3 1
		S: -ERR no such message, only 2 messages in maildrop
		C: TOP 1
		S: -ERR wrong number of arguments to TOP
		C: TOP 1 -1
		S: -ERR not a number of lines
		C: QUIT
		S: +OK *
	`, []int{120, 200}},
	{"UPDATE on QUIT", login + `
		C: DELE 1
		S: +OK *
		C: QUIT
		S: +OK *
	`, []int{200}},
	{"no UPDATE without QUIT", login + `
		C: DELE 1
		S: +OK *
	`, []int{120, 200}},
	{"no UPDATE on half a QUIT", login + `
		C: DELE 1
		S: +OK *
		c: QUIT
	`, []int{120, 200}},
	{"no UPDATE on QUIT before login", `
		S: +OK *
		C: QUIT
		S: +OK *
	`, []int{120, 200}},
	{"a batch is answered in order", `
		S: +OK *
		C: USER mrose
		C: PASS tanstaaf
		C: DELE 1
		C: RETR 1
		C: LIST
		C: QUIT
		S: +OK send PASS
		S: +OK maildrop has 2 messages (320 octets)
		S: +OK message 1 deleted
		S: -ERR message 1 already deleted
		S: +OK 1 messages (200 octets)
		S: 2 200
		S: .
		S: +OK pop3test server signing off
	`, []int{200}},
	{"commands in the wrong state", `
		S: +OK *
		C: STAT
		S: -ERR STAT is not allowed in this state
		C: NOOP
		S: -ERR NOOP is not allowed in this state
		C: USER mrose
		S: +OK *
		C: PASS tanstaaf
		S: +OK *
		C: USER mrose
		S: -ERR USER is not allowed in this state
		C: STLS
		S: -ERR STLS is not allowed in this state
		C: UTF8
		S: -ERR UTF8 is not allowed in this state
		C: AUTH PLAIN
		S: -ERR AUTH is not allowed in this state
	`, []int{120, 200}},
	{"PASS belongs after USER", `
		S: +OK *
		C: PASS tanstaaf
		S: -ERR USER comes first
		C: USER mrose
		S: +OK *
		C: CAPX
		S: -ERR unknown command
		C: PASS tanstaaf
		S: -ERR USER comes first
		C: USER mrose
		S: +OK *
		C: PASS wrong
		S: -ERR [AUTH] invalid user name or password
		C: PASS tanstaaf
		S: -ERR USER comes first
		C: USER nobody
		S: +OK *
		C: PASS tanstaaf
		S: -ERR [AUTH] invalid user name or password
	`, []int{120, 200}},
	{"arguments", login + `
		C: RETR
		S: -ERR wrong number of arguments to RETR
		C: RETR 0
		S: -ERR not a message number
		C: RETR +1
		S: -ERR not a message number
		C: RETR one
		S: -ERR not a message number
		C: RETR 99999999999999999999
		S: -ERR not a message number
		C: RETR  1
		S: -ERR there must be one space before each argument, and no other
		C: STAT 1
		S: -ERR wrong number of arguments to STAT
		C: list 2
		S: +OK 2 200
	`, []int{120, 200}},
	{"LANG, RFC 6856 section 3", `
		S: +OK *
		C: LANG
		S: +OK
		S: en English
		S: .
		C: LANG en
		S: +OK en Language changed
		C: LANG *
		S: +OK en Language changed
		C: LANG xx
		S: -ERR no such language, only en
	`, []int{120, 200}},
}

func TestDialogues(t *testing.T) {
	for _, d := range dialogues {
		t.Run(d.name, func(t *testing.T) {
			t.Run("net.Pipe", func(t *testing.T) {
				srv := pop3test.NewUnstartedServer(newBox())
				overPipe(t, srv, func(k *client) { k.play(d.transcript) })
				assert.Equal(t, d.left, leftSizes(srv))
			})
			t.Run("TCP", func(t *testing.T) {
				srv := pop3test.NewServer(newBox())
				defer srv.Close()
				overTCP(t, srv, func(k *client) { k.play(d.transcript) })
				srv.Close()
				assert.Equal(t, d.left, leftSizes(srv))
			})
			t.Run("TLS", func(t *testing.T) {
				srv := pop3test.NewTLSServer(newBox())
				defer srv.Close()
				conn, err := tls.Dial("tcp", srv.Addr, srv.ClientTLS())
				require.NoError(t, err)
				defer conn.Close()
				newClient(t, conn).play(d.transcript)
				srv.Close()
				assert.Equal(t, d.left, leftSizes(srv))
			})
		})
	}
}

// A connection that DialContext makes reaches the server, whatever name was dialed. It looks like a connection to
// another machine.
func TestDialContext(t *testing.T) {
	srv := pop3test.NewServer(newBox())
	defer srv.Close()
	for addr, port := range map[string]int{"pop.example.com:110": 110, srv.Addr: 0} {
		conn, err := srv.DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err, addr)
		remote := conn.RemoteAddr().(*net.TCPAddr)
		assert.False(t, remote.IP.IsLoopback(), addr)
		if port > 0 {
			assert.Equal(t, port, remote.Port, addr)
		}
		newClient(t, conn).play("S: +OK *\nC: QUIT\nS: +OK *")
		require.NoError(t, conn.Close())
	}
	_, err := srv.DialContext(t.Context(), "tcp", "pop.example.com")
	require.Error(t, err, "no port")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = srv.DialContext(ended, "tcp", "pop.example.com:110")
	require.ErrorIs(t, err, context.Canceled)
}
