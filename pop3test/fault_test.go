package pop3test_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// Each row is a fault in a session that marks message 1 and quits. want has the octets from the login to the end of the
// connection.
func TestFaults(t *testing.T) {
	const deleOK, quitOK = "+OK message 1 deleted\r\n", "+OK pop3test server signing off\r\n"
	allLeft, oneLeft := []int{120, 200}, []int{200}
	for _, tt := range []struct {
		name  string
		fault pop3test.Fault
		want  string
		left  []int
	}{
		{"none", pop3test.Fault{}, deleOK + quitOK, oneLeft},
		{"lost before DELE", pop3test.Fault{At: "DELE", Drop: pop3test.BeforeCommand}, "", allLeft},
		{"lost with the reply to DELE", pop3test.Fault{At: "DELE", Drop: pop3test.BeforeReply}, "", allLeft},
		{"lost in the reply to DELE", pop3test.Fault{At: "DELE", Drop: pop3test.InReply, Octets: 3}, "+OK", allLeft},
		{"lost after DELE", pop3test.Fault{At: "DELE", Drop: pop3test.AfterReply}, deleOK, allLeft},
		{"H-225 lost before QUIT", pop3test.Fault{At: "QUIT", Drop: pop3test.BeforeCommand}, deleOK, allLeft},
		{"H-226 lost after the commit", pop3test.Fault{At: "QUIT", Drop: pop3test.BeforeReply}, deleOK, oneLeft},
		{"H-231 reply to QUIT cut", pop3test.Fault{At: "QUIT", Drop: pop3test.InReply, Octets: 4}, deleOK + quitOK[:4],
			oneLeft},
		{"more octets than the reply to QUIT has", pop3test.Fault{At: "QUIT", Drop: pop3test.InReply, Octets: 400},
			deleOK + quitOK, oneLeft},
		{"H-230 two replies to QUIT", pop3test.Fault{At: "QUIT", Extra: "+OK again"}, deleOK + quitOK + "+OK again\r\n",
			oneLeft},
		{"H-228 QUIT refused, none removed", pop3test.Fault{At: "QUIT", Reply: "-ERR [SYS/TEMP] x"},
			deleOK + "-ERR [SYS/TEMP] x\r\n", allLeft},
		{"H-228 QUIT refused, all removed", pop3test.Fault{At: "QUIT", Reply: "-ERR x", Commit: pop3test.CommitAll},
			deleOK + "-ERR x\r\n", oneLeft},
		{"QUIT confirmed, none removed", pop3test.Fault{At: "QUIT", Commit: pop3test.CommitNone},
			deleOK + quitOK, allLeft},
		{"DELE refused", pop3test.Fault{At: "DELE 1", Reply: "-ERR [SYS/PERM] no"}, "-ERR [SYS/PERM] no\r\n" + quitOK,
			allLeft},
		{"another DELE refused", pop3test.Fault{At: "DELE 2", Reply: "-ERR no"}, deleOK + quitOK, oneLeft},
		{"DELE of a longer number refused", pop3test.Fault{At: "DELE 12", Reply: "-ERR no"}, deleOK + quitOK, oneLeft},
		{"another session", pop3test.Fault{Session: 2, At: "DELE", Reply: "-ERR no"}, deleOK + quitOK, oneLeft},
		{"LF line ends", pop3test.Fault{At: "DELE", LF: true}, "+OK message 1 deleted\n" + quitOK, oneLeft},
		{"one octet at a time", pop3test.Fault{Chunk: 1, Pace: time.Second}, deleOK + quitOK, oneLeft},
		{"lost after a number of sent octets", pop3test.Fault{Drop: pop3test.AfterSent, Octets: 100 + 10}, deleOK[:10],
			oneLeft},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.Greeting = strings.Repeat("g", 37)
			srv.SetFaults(tt.fault)
			overPipe(t, srv, func(k *client) {
				k.play(login + "C: DELE 1\nC: QUIT")
				got, err := k.readAll()
				assert.Equal(t, tt.want, got)
				assert.Equal(t, io.EOF, err)
			})
			assert.Equal(t, tt.left, leftSizes(srv))
		})
	}
}

func TestFaultsInBody(t *testing.T) {
	const status, head = "+OK 120 octets\r\n", "Subject: test\r\n\r\n..dot\r\n"
	whole := status + head + xs + "\r\n.\r\n"
	for _, tt := range []struct {
		name  string
		fault pop3test.Fault
		want  string
		lost  bool
	}{
		{"none", pop3test.Fault{}, whole, false},
		{"lost at its start", pop3test.Fault{At: "RETR", Drop: pop3test.InBody}, status, true},
		{"H-222 lost in it", pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 18}, status + head[:18], true},
		{"lost after it", pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 999}, whole, true},
		{"cut short and ended", pop3test.Fault{At: "RETR", Short: true, Octets: 4}, status + "Subj\r\n.\r\n", false},
		{"cut short before a dot", pop3test.Fault{At: "RETR", Short: true, Octets: 18}, status + head[:17] +
			"..\r\n.\r\n", false},
		{"cut short beyond the end", pop3test.Fault{At: "RETR", Short: true, Octets: 999}, whole, false},
		{"H-211 a wrong size", pop3test.Fault{At: "RETR", Lie: -20}, strings.Replace(whole, "120", "100", 1), false},
		{"H-072 LF line ends", pop3test.Fault{At: "RETR", LF: true}, strings.ReplaceAll(whole, "\r\n", "\n"), false},
		{"LF line ends, cut short", pop3test.Fault{At: "RETR", LF: true, Short: true, Octets: 4},
			"+OK 120 octets\nSubj\n.\n", false},
		{"a reply of several lines", pop3test.Fault{At: "RETR", Reply: "+OK\r\na\r\n."}, "+OK\r\na\r\n.\r\n", false},
		{"InBody of a one-line reply", pop3test.Fault{At: "NOOP", Drop: pop3test.InBody}, whole, false},
		{"two faults", pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 18, Chunk: 1}, status + head[:18],
			true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.SetFaults(tt.fault)
			overPipe(t, srv, func(k *client) {
				k.play(login + "C: RETR 1\nC: NOOP\nC: QUIT")
				if !tt.lost {
					tt.want += "+OK\r\n+OK pop3test server signing off\r\n"
				}
				got, err := k.readAll()
				assert.Equal(t, tt.want, got)
				assert.Equal(t, io.EOF, err)
			})
		})
	}
}

func TestFaultLie(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{Lie: 10})
	overPipe(t, srv, func(k *client) {
		k.play(login + "C: STAT\nS: +OK 2 340\nC: LIST 1\nS: +OK 1 130\nC: LIST\nS: +OK *\nS: 1 130\nS: 2 210\nS: .")
	})
}

// Skip and Times count the matching commands of all sessions together.
func TestFaultTimes(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{At: "NOOP", Skip: 1, Times: 2, Reply: "-ERR no"})
	overPipe(t, srv, func(k *client) { k.play(login + "C: NOOP\nS: +OK\nC: NOOP\nS: -ERR no\nC: STAT\nS: +OK 2 320") })
	overPipe(t, srv, func(k *client) { k.play(login + "C: NOOP\nS: -ERR no\nC: NOOP\nS: +OK") })
}

// A fault with a User happens only after that user has logged in.
func TestFaultUser(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(
		pop3test.Fault{User: "alice", At: "NOOP", Extra: "+OK extra"},
		pop3test.Fault{User: "mrose", Reply: "-ERR no"},
	)
	overPipe(t, srv, func(k *client) { k.play(login + "C: NOOP\nS: -ERR no\nC: STAT\nS: -ERR no") })
}

// A fault is pending until it happens. At selects the command, and Session or User the session. Skip is the number of
// matching commands before it happens.
func TestPendingFaults(t *testing.T) {
	happens := []pop3test.Fault{
		{At: "NOOP", Extra: "+OK extra"}, {At: "NOOP", Skip: 1, Pace: 1},
		{Session: 1, Drop: pop3test.AfterSent, Octets: 4096},
	}
	never := []pop3test.Fault{
		{At: "NOOP", Skip: 2, LF: true}, {At: "RETR", LF: true}, {Session: 2, LF: true}, {User: "alice", LF: true},
		{Session: 2, Drop: pop3test.AfterReceived},
	}
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(append(never, happens...)...)
	assert.Equal(t, append(never, happens...), srv.PendingFaults())
	overPipe(t, srv, func(k *client) {
		k.play(login + "C: NOOP\nS: +OK\nS: +OK extra\nC: NOOP\nS: +OK\nS: +OK extra")
	})
	assert.Equal(t, never, srv.PendingFaults())
	srv.SetFaults()
	assert.Empty(t, srv.PendingFaults())
}

func TestFaultsCombined(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(
		pop3test.Fault{At: "NOOP", Reply: "-ERR no"},
		pop3test.Fault{Reply: "-ERR never", At: "NOOP", Extra: "+OK extra"},
		pop3test.Fault{Drop: pop3test.AfterReply, At: "NOOP"},
	)
	overPipe(t, srv, func(k *client) {
		k.play(login + "C: NOOP\nS: -ERR no\nS: +OK extra")
		got, err := k.readAll()
		assert.Empty(t, got)
		assert.Equal(t, io.EOF, err)
	})
	srv.SetFaults()
	overPipe(t, srv, func(k *client) { k.play(login + "C: NOOP\nS: +OK") })
}

func TestFaultAtGreeting(t *testing.T) {
	for _, tt := range []struct {
		name, transcript string
		fault            pop3test.Fault
		lost             bool
	}{
		{"H-009 refused", "S: -ERR too busy", pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR too busy"}, true},
		{"H-010 another protocol", "S: 220 smtp\nC: CAPX\nS: -ERR unknown command",
			pop3test.Fault{At: pop3test.AtGreeting, Reply: "220 smtp"}, false},
		{"H-002 lost", "", pop3test.Fault{At: pop3test.AtGreeting, Drop: pop3test.BeforeReply}, true},
		{"lost after a number of octets", "", pop3test.Fault{Drop: pop3test.AfterSent}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.SetFaults(tt.fault)
			overPipe(t, srv, func(k *client) {
				k.play(tt.transcript)
				if tt.lost {
					got, err := k.readAll()
					assert.Empty(t, got)
					assert.Equal(t, io.EOF, err)
				}
			})
		})
	}
}

func TestFaultDelay(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{At: "NOOP", Delay: 5 * time.Second})
	overPipe(t, srv, func(k *client) {
		k.play(login)
		began := time.Now()
		k.play("C: STAT\nC: NOOP\nS: +OK 2 320")
		assert.Zero(t, time.Since(began), "earlier replies are not delayed")
		k.play("S: +OK")
		assert.Equal(t, 5*time.Second, time.Since(began))
	})
}

func TestFaultPace(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{At: "NOOP", Chunk: 2, Pace: time.Second})
	overPipe(t, srv, func(k *client) {
		k.play(login)
		began := time.Now()
		k.play("C: NOOP\nS: +OK")
		assert.Equal(t, 3*time.Second, time.Since(began))
	})
}

// readSizes returns the number of octets of each read from the server.
func readSizes(t *testing.T, f pop3test.Fault) (sizes []int) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.Greeting = strings.Repeat("g", 80)
	f.At = pop3test.AtGreeting
	srv.SetFaults(f)
	synctest.Test(t, func(t *testing.T) {
		k := startSession(t, srv)
		buf := make([]byte, 256)
		for left := 86; left > 0; {
			n, err := k.conn.Read(buf)
			require.NoError(t, err)
			sizes = append(sizes, n)
			left -= n
		}
	})
	return sizes
}

func TestFaultChunk(t *testing.T) {
	assert.Equal(t, []int{86}, readSizes(t, pop3test.Fault{Session: 1}))
	assert.Equal(t, []int{40, 40, 6}, readSizes(t, pop3test.Fault{Chunk: 40}))
	seed1 := readSizes(t, pop3test.Fault{Chunk: 7, Seed: 1})
	assert.Equal(t, seed1, readSizes(t, pop3test.Fault{Chunk: 7, Seed: 1}))
	assert.NotEqual(t, seed1, readSizes(t, pop3test.Fault{Chunk: 7, Seed: 2}))
}

func TestFaultDeaf(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{At: "STAT", Deaf: true})
	overPipe(t, srv, func(k *client) {
		k.play(login + "C: STAT\nC: NOOP\nC: LIST\nS: +OK 2 320\nC: NOOP\nS: +OK\nC: LIST 1\nS: +OK 1 120")
	})
}

// With AfterReceived, the session ends when the server has received that number of octets. The complete commands
// among them are answered.
func TestFaultAfterReceived(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{Drop: pop3test.AfterReceived,
		Octets: int64(len("USER mrose\r\nPASS tanstaaf\r\nDELE 1\r\nQUIT\r"))})
	overPipe(t, srv, func(k *client) {
		k.play(login)
		go k.conn.Write([]byte("DELE 1\r\nQUIT\r\n"))
		got, err := k.readAll()
		assert.Equal(t, "+OK message 1 deleted\r\n", got)
		assert.Equal(t, io.EOF, err)
	})
	assert.Equal(t, []int{120, 200}, leftSizes(srv))
}

// If the connection is lost at an octet, the client receives exactly the octets before it.
func TestFaultAfterSentEachOctet(t *testing.T) {
	const session = "USER mrose\r\nPASS tanstaaf\r\nUIDL\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n"
	run := func(octets int64) (got string) {
		srv := pop3test.NewUnstartedServer(newBox())
		srv.Greeting = "hello"
		srv.SetFaults(pop3test.Fault{Drop: pop3test.AfterSent, Octets: octets})
		overPipe(t, srv, func(k *client) {
			go k.conn.Write([]byte(session))
			got, _ = k.readAll()
		})
		return got
	}
	whole := run(1 << 20)
	require.True(t, strings.HasSuffix(whole, "signing off\r\n"))
	for n := range len(whole) {
		require.Equal(t, whole[:n], run(int64(n)))
	}
}

func TestFaultSilence(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.SetFaults(pop3test.Fault{Session: 1, At: "NOOP", Drop: pop3test.BeforeReply, By: pop3test.Silence})
	synctest.Test(t, func(t *testing.T) {
		k := startSession(t, srv)
		k.play(login + "C: NOOP")
		k.conn.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := k.in.ReadByte()
		assert.ErrorContains(t, err, "timeout")
		k.send("STAT\r\n")

		second := startSession(t, srv)
		second.play("S: +OK *\nC: USER mrose\nS: +OK *\nC: PASS tanstaaf\nS: -ERR [IN-USE] *")
		k.conn.Close()
		second.play("C: USER mrose\nS: +OK *\nC: PASS tanstaaf\nS: +OK *")
	})
}

func TestCommitHalf(t *testing.T) {
	box := newBox()
	box.Messages = [][]byte{message(30), message(40), message(50), message(60)}
	srv := pop3test.NewUnstartedServer(box)
	srv.SetFaults(pop3test.Fault{At: "QUIT", Reply: "-ERR some", Commit: pop3test.CommitHalf})
	overPipe(t, srv, func(k *client) {
		k.play(login + "C: DELE 1\nS: +OK *\nC: DELE 2\nS: +OK *\nC: DELE 4\nS: +OK *\nC: QUIT\nS: -ERR some")
	})
	assert.Equal(t, []int{40, 50}, leftSizes(srv))
}

func TestExpireRetrieved(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.ExpireRetrieved = true
	overPipe(t, srv, func(k *client) {
		k.play(login + "C: RETR 1\nS: +OK *")
	})
	assert.Equal(t, []int{120, 200}, leftSizes(srv), "nothing is removed without UPDATE")
	overPipe(t, srv, func(k *client) {
		go k.conn.Write([]byte("CAPA\r\nUSER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nTOP 2 0\r\nQUIT\r\n"))
		got, _ := k.readAll()
		assert.Contains(t, got, "\r\nEXPIRE 0\r\n")
	})
	assert.Equal(t, []int{200}, leftSizes(srv))
}

func TestEndingsOverTCP(t *testing.T) {
	for _, tt := range []struct {
		name  string
		by    pop3test.Ending
		check func(t *testing.T, err error)
	}{
		{"Hangup", pop3test.Hangup, func(t *testing.T, err error) { assert.Equal(t, io.EOF, err) }},
		{"CloseNotify without TLS", pop3test.CloseNotify,
			func(t *testing.T, err error) { assert.Equal(t, io.EOF, err) }},
		{"H-003 Reset", pop3test.Reset, func(t *testing.T, err error) { assert.ErrorIs(t, err, syscall.ECONNRESET) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(newBox())
			defer srv.Close()
			srv.SetFaults(pop3test.Fault{At: "NOOP", Drop: pop3test.BeforeReply, By: tt.by})
			overTCP(t, srv, func(k *client) {
				k.play(login + strings.Repeat("C: NOOP\n", 2000)) // more than the server reads at once
				got, err := k.readAll()
				assert.Empty(t, got)
				tt.check(t, err)
			})
		})
	}
}

// With CloseNotify, the server sends a TLS alert before it closes the connection. With Hangup, it sends nothing.
func TestEndingsOfTLS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		by     pop3test.Ending
		notice bool
	}{
		{"H-156 without close_notify", pop3test.Hangup, false},
		{"H-157 with close_notify", pop3test.CloseNotify, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewTLSServer(newBox())
			defer srv.Close()
			srv.SetFaults(pop3test.Fault{At: "NOOP", Drop: pop3test.BeforeReply, By: tt.by})
			raw, err := net.Dial("tcp", srv.Addr)
			require.NoError(t, err)
			defer raw.Close()
			conn := &countingConn{Conn: raw}
			k := newClient(t, conn)
			k.upgrade(withName(srv.ClientTLS(), "localhost"))
			k.play(login)
			before := conn.read.Len()
			k.play("C: NOOP")
			_, err = k.readAll()
			assert.Equal(t, io.EOF, err)
			assert.Equal(t, tt.notice, conn.read.Len() > before)
		})
	}
}

type countingConn struct {
	net.Conn
	read bytes.Buffer
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Write(p[:n])
	return n, err
}

// With TLS, faults count the octets of POP3, not the encrypted ones.
func TestFaultOctetsInsideTLS(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.TLS = new(tls.Config)
	srv.SetFaults(pop3test.Fault{At: "RETR", Drop: pop3test.InBody, Octets: 10, Chunk: 1})
	overPipe(t, srv, func(k *client) {
		k.play("S: +OK *\nC: STLS\nS: +OK *")
		k.upgrade(withName(srv.ClientTLS(), "localhost"))
		k.play("C: USER mrose\nS: +OK *\nC: PASS tanstaaf\nS: +OK *\nC: RETR 2\nS: +OK 200 octets")
		got, err := k.readAll()
		assert.Equal(t, "Subject: t", got)
		assert.Error(t, err)
	})
}
