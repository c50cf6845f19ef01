package pop3test_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestCapa(t *testing.T) {
	srv := pop3test.NewServer(newBox())
	defer srv.Close()
	overTCP(t, srv, func(k *client) {
		k.play("S: +OK *\nC: CAPA\nS: +OK\nS: TOP\nS: UIDL\nS: USER\nS: RESP-CODES\nS: AUTH-RESP-CODE\n" +
			"S: PIPELINING\nS: STLS\nS: SASL SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN\n" +
			"S: EXPIRE NEVER\nS: UTF8 USER\nS: LANG\nS: IMPLEMENTATION pop3test\nS: .\nC: STLS\nS: +OK *")
		k.upgrade(withName(srv.ClientTLS(), "localhost"))
		k.play("C: CAPA\nS: +OK\nS: TOP\nS: UIDL\nS: USER\nS: RESP-CODES\nS: AUTH-RESP-CODE\n" +
			"S: PIPELINING\nS: SASL SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS * OAUTHBEARER XOAUTH2")
	})
}

func TestCapsOverride(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.Caps = []string{"USER", ".dot", "EXPIRE 60"}
	overPipe(t, srv, func(k *client) { k.play("S: +OK *\nC: CAPA\nS: +OK\nS: USER\nS: ..dot\nS: EXPIRE 60\nS: .") })
	srv.Caps = []string{}
	overPipe(t, srv, func(k *client) { k.play("S: +OK *\nC: CAPA\nS: +OK\nS: .") })
}

func TestGrammar(t *testing.T) {
	long := func(n int) string { return "USER " + strings.Repeat("x", n-len("USER \r\n")) + "\r\n" }
	for _, tt := range []struct{ name, send, reply string }{
		{"R1-003 255 octets", long(255), "+OK send PASS"},
		{"R1-003 256 octets", long(256), "-ERR a command must not be longer than 255 octets"},
		{"R1-003 longer than any buffer", long(50_000), "-ERR a command must not be longer than 255 octets"},
		{"R1-001 bare LF", "USER x\n", "-ERR a command must end in CRLF"},
		{"R1-001 a space at the start", " USER x\r\n",
			"-ERR there must be one space before each argument, and no other"},
		{"R1-001 a space at the end", "USER x \r\n", "-ERR there must be one space before each argument, and no other"},
		{"R1-001 nothing", "\r\n", "-ERR there must be one space before each argument, and no other"},
		{"R1-002 NUL", "USER \x00\r\n", "-ERR a command must not contain control characters"},
		{"R1-002 CR", "USER a\rb\r\n", "-ERR a command must not contain control characters"},
		{"R1-002 DEL", "USER \x7f\r\n", "-ERR a command must not contain control characters"},
		{"R1-151 UTF-8", "USER ä\r\n", "+OK send PASS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overPipe(t, pop3test.NewUnstartedServer(newBox()), func(k *client) {
				k.expect("+OK *")
				k.send(tt.send)
				k.expect(tt.reply)
				k.play("C: CAPX\nS: -ERR unknown command")
			})
		})
	}
}

func TestLineWithoutEnd(t *testing.T) {
	overPipe(t, pop3test.NewUnstartedServer(newBox()), func(k *client) {
		k.expect("+OK *")
		go k.conn.Write(make([]byte, 1<<20))
		k.expect("-ERR line too long")
		_, err := k.readAll()
		assert.Equal(t, io.EOF, err)
	})
}

// R1-004: the length limit of commands does not apply to a response within AUTH.
func TestLongResponse(t *testing.T) {
	box := newBox()
	box.Password = strings.Repeat("p", 15_000)
	overPipe(t, pop3test.NewUnstartedServer(box), func(k *client) {
		k.play("S: +OK *\nC: AUTH PLAIN\nS: + \nC: " + b64("\x00mrose\x00"+box.Password) + "\nS: +OK *")
	})
}

func TestPasswordWithSpaces(t *testing.T) {
	box := newBox()
	box.Password = " pass  word "
	overPipe(t, pop3test.NewUnstartedServer(box), func(k *client) {
		k.play("S: +OK *\nC: USER mrose\nS: +OK *\nC: PASS  pass  word \nS: +OK *")
	})
}

func TestBodies(t *testing.T) {
	for _, tt := range []struct{ name, stored, sent string }{
		{"empty", "", ""},
		{"a dot", ".\r\n", "..\r\n"},
		{"dots at line starts", "..\r\n.a\r\nb.\r\n", "...\r\n..a\r\nb.\r\n"},
		{"dots and blank lines", "\r\n.\r\n\r\n.", "\r\n..\r\n\r\n..\r\n"},
		{"no line end at the end", "a", "a\r\n"},
		{"CR at the end", "a\r", "a\r\r\n"},
		{"a bare LF and a dot are no line start", "a\n.\nb\r\n", "a\n.\nb\r\n"},
		{"every octet", "\x00\x01\x80\xff\r\n", "\x00\x01\x80\xff\r\n"},
		{"a line of 100,000 octets", strings.Repeat("x", 100_000) + "\r\n", strings.Repeat("x", 100_000) + "\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "mrose", Password: "tanstaaf",
				Messages: [][]byte{[]byte(tt.stored)}})
			stored := "\r\n" + tt.stored
			size := len(tt.sent) - (len(strings.ReplaceAll(stored, "\r\n.", "\r\n..")) - len(stored))
			overPipe(t, srv, func(k *client) {
				k.play(login + fmt.Sprintf("C: LIST 1\nS: +OK 1 %d\nC: RETR 1\nC: TOP 1 99\nC: QUIT\nS: +OK %[1]d "+
					"octets", size))
				got, _ := k.readAll()
				want := tt.sent + ".\r\n+OK top of message follows\r\n" + tt.sent +
					".\r\n+OK pop3test server signing off\r\n"
				assert.True(t, want == got, "%.100q", got)
			})
			assert.Equal(t, tt.stored, string(srv.Left("mrose")[0]))
		})
	}
}

func TestTop(t *testing.T) {
	for _, tt := range []struct {
		name, stored string
		lines        int
		want         string
	}{
		{"no body", "a: b\r\n\r\n", 1, "a: b\r\n\r\n"},
		{"no blank line", "a: b\r\nc: d\r\n", 0, "a: b\r\nc: d\r\n"},
		{"no header", "\r\nbody\r\nmore\r\n", 1, "\r\nbody\r\n"},
		{"no line end", "a: b\r\n\r\nbody", 1, "a: b\r\n\r\nbody\r\n"},
		{"blank lines in the body", "a: b\r\n\r\n\r\n\r\nx\r\n", 2, "a: b\r\n\r\n\r\n\r\n"},
		{"LF lines", "a: b\n\nx\ny\n", 1, "a: b\n\nx\n\r\n"},
		{"nothing", "", 3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "mrose", Password: "tanstaaf",
				Messages: [][]byte{[]byte(tt.stored)}})
			overPipe(t, srv, func(k *client) {
				k.play(login + fmt.Sprintf("C: TOP 1 %d\nC: QUIT\nS: +OK top of message follows", tt.lines))
				got, _ := k.readAll()
				assert.Equal(t, tt.want+".\r\n+OK pop3test server signing off\r\n", got)
			})
		})
	}
}

// Unique-ids are made from the content and differ between copies. They stay with their message and are not used again.
func TestUniqueIDs(t *testing.T) {
	ids := func(srv *pop3test.Server) (ids []string) {
		overPipe(t, srv, func(k *client) {
			k.play(login + "C: UIDL\nC: DELE 1\nC: QUIT\nS: +OK *")
			got, _ := k.readAll()
			for line := range strings.Lines(got) {
				if line == ".\r\n" {
					break
				}
				ids = append(ids, strings.Fields(line)[1])
			}
		})
		return ids
	}
	box := func() *pop3test.Mailbox {
		return &pop3test.Mailbox{User: "mrose", Password: "tanstaaf",
			Messages: [][]byte{message(50), message(50), message(60)}, UIDs: []string{"given"}}
	}
	srv := pop3test.NewUnstartedServer(box())
	first := ids(srv)
	require.Len(t, first, 3)
	assert.Equal(t, "given", first[0])
	assert.Equal(t, first, ids(pop3test.NewUnstartedServer(box())), "the same in each run")
	assert.Equal(t, first[1:], ids(srv), "the same in the next session")
	require.True(t, srv.Deliver("mrose", message(50)))
	assert.False(t, srv.Deliver("nobody", message(50)))
	third := ids(srv)
	assert.Equal(t, first[2], third[0])
	assert.NotContains(t, first, third[1])
	for _, id := range append(first, third...) {
		assert.Regexp(t, "^[!-~]{1,70}$", id)
	}
}

func TestDeliverDuringSession(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	overPipe(t, srv, func(k *client) {
		k.play(login)
		srv.Deliver("mrose", message(30))
		k.play("C: STAT\nS: +OK 2 320\nC: DELE 1\nS: +OK *\nC: QUIT\nS: +OK *")
	})
	assert.Equal(t, []int{200, 30}, leftSizes(srv))
}

func TestLeft(t *testing.T) {
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "empty"})
	assert.Equal(t, [][]byte{}, srv.Left("empty"))
	assert.Nil(t, srv.Left("nobody"))
}

func TestLog(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	assert.Empty(t, srv.Sessions())
	overPipe(t, srv, func(k *client) {
		k.play("S: +OK *\nC: AUTH PLAIN\nS: + \nC: *\nS: -ERR *\nC: noop  1 \nS: -ERR *\nc: half")
	})
	overPipe(t, srv, func(k *client) { k.play("S: +OK *") })
	overPipe(t, srv, func(k *client) { k.play("S: +OK *\nC: USER mrose\nC: PASS secret\nS: +OK *\nS: -ERR *") })
	assert.Equal(t, []string{"AUTH PLAIN", "*", "noop  1 ", "USER mrose", "PASS secret"}, srv.Commands())
	assert.Equal(t, [][]string{{"AUTH PLAIN", "*", "noop  1 "}, nil, {"USER mrose", "PASS secret"}}, srv.Sessions())
}

func TestAutologout(t *testing.T) {
	for _, tt := range []struct {
		name      string
		set, want time.Duration
	}{
		{"R1-039 the default", 0, 10 * time.Minute},
		{"set", time.Minute, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.Autologout = tt.set
			overPipe(t, srv, func(k *client) {
				k.play(login + "C: DELE 1\nS: +OK *")
				<-time.After(tt.want - time.Second)
				k.play("C: NOOP\nS: +OK")
				began := time.Now()
				k.conn.SetReadDeadline(time.Time{})
				_, err := k.in.ReadByte()
				assert.Equal(t, io.EOF, err, "no reply")
				assert.Equal(t, tt.want, time.Since(began))
			})
			assert.Equal(t, []int{120, 200}, leftSizes(srv), "R1-040 no UPDATE")
		})
	}
	t.Run("never", func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(newBox())
		srv.Autologout = -1
		overPipe(t, srv, func(k *client) {
			k.play(login)
			<-time.After(1000 * time.Hour)
			k.play("C: NOOP\nS: +OK")
		})
	})
}

func TestClose(t *testing.T) {
	srv := pop3test.NewServer(newBox())
	conn, err := net.Dial("tcp", srv.Addr)
	require.NoError(t, err)
	defer conn.Close()
	k := newClient(t, conn)
	k.play(login + "C: DELE 1\nS: +OK *")
	srv.Close()
	srv.Close()
	_, err = k.readAll()
	assert.Error(t, err)
	assert.Equal(t, []int{120, 200}, leftSizes(srv))
	_, err = net.Dial("tcp", srv.Addr)
	assert.Error(t, err)

	client, server := net.Pipe()
	srv.ServeConn(server)
	_, err = client.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err, "a closed server hangs up at once")
}

// Close does not wait for a delay. A QUIT that is delayed is not carried out.
func TestCloseDuringDelay(t *testing.T) {
	srv := pop3test.NewServer(newBox())
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "QUIT", Delay: time.Hour})
	overTCP(t, srv, func(k *client) {
		k.play(login + "C: DELE 1\nS: +OK *\nC: QUIT")
		for len(srv.Commands()) < 4 {
			k.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			k.conn.Read(make([]byte, 1))
		}
		srv.Close()
	})
	assert.Equal(t, []int{120, 200}, leftSizes(srv))
}

func TestCloseDuringPace(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	synctest.Test(t, func(t *testing.T) {
		srv.SetFaults(pop3test.Fault{Chunk: 1, Pace: time.Hour})
		k := startSession(t, srv)
		began := time.Now()
		_, err := k.in.ReadByte()
		require.NoError(t, err)
		srv.Close()
		_, err = k.readAll()
		assert.Error(t, err)
		assert.Equal(t, time.Hour, time.Since(began))
	})
}

func TestStartTwice(t *testing.T) {
	srv := pop3test.NewServer()
	defer srv.Close()
	assert.Panics(t, srv.Start)
}

func TestOwnListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := pop3test.NewUnstartedServer(newBox())
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	assert.Equal(t, l.Addr().String(), srv.Addr)
	overTCP(t, srv, func(k *client) { k.play(login + "C: QUIT\nS: +OK *") })
}
