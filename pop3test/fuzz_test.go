package pop3test_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// statusLine matches a reply of one line.
var statusLine = regexp.MustCompile(`^(\+OK|-ERR)( [ -~]*)?\r\n$|^\+ [A-Za-z0-9+/=]*\r\n$`)

// FuzzSession sends arbitrary octets and checks the rules that hold for every client. Each line gets a reply.
// The log contains the lines that were sent. The session ends when the client hangs up. The maildrop loses
// only messages that were removed by DELE and a complete QUIT.
func FuzzSession(f *testing.F) {
	for _, d := range dialogues {
		var input strings.Builder
		for line := range strings.Lines(d.transcript) {
			if c, ok := strings.CutPrefix(strings.TrimLeft(line, "\t "), "C: "); ok {
				input.WriteString(strings.TrimSuffix(c, "\n") + "\r\n")
			}
		}
		f.Add(input.String())
	}
	f.Add("USER mrose\r\nPASS tanstaaf\r\nDELE 1\r\nQUIT")
	f.Add("AUTH PLAIN\r\nAG1yb3NlAHRhbnN0YWFm\r\nDELE 1\r\nquit\r\n")
	f.Add("AUTH SCRAM-SHA-256 biwsbj1tcm9zZSxyPXg=\r\n*\r\nAPOP mrose 00\r\n\x00\r\n \r\n\n\r\r\n")
	f.Fuzz(func(t *testing.T, sent string) {
		srv := pop3test.NewUnstartedServer(newBox())
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				srv.ServeConn(server)
			}()
			go func() {
				client.SetWriteDeadline(time.Now().Add(time.Minute))
				client.Write([]byte(sent))
				synctest.Wait()
				client.Close()
			}()
			readReplies(t, client)
			<-done
		})
		checkLog(t, sent, srv)
	})
}

func readReplies(t *testing.T, conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if !strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "-") {
			continue // this line is part of a list or a message
		}
		if !statusLine.MatchString(line) {
			t.Fatalf("no status line: %q", line)
		}
	}
}

func checkLog(t *testing.T, sent string, srv *pop3test.Server) {
	rest := sent
	for _, line := range srv.Commands() {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, line); !ok {
			t.Fatalf("%q is in the log, and %q was sent", line, sent)
		}
		rest = strings.TrimPrefix(rest, "\r\n")
	}
	log := strings.ToUpper(strings.Join(srv.Commands(), "\n"))
	removed := 2 - len(srv.Left("mrose"))
	if removed > strings.Count(log, "DELE ") || removed > 0 && !strings.HasSuffix(log, "QUIT") {
		t.Fatalf("%d messages are gone after %q", removed, sent)
	}
}

// FuzzScript plays an arbitrary script to a client that sends arbitrary octets, at once and one at a time. Both
// must end in the same way.
func FuzzScript(f *testing.F) {
	f.Add("S: a\nC: 1\nS: b\nHOLD", "1\r\n")
	f.Add("CHUNK 1\ns: \"\\x00\"\nC~ a*b\nEOF\nc: \"x\"", "a-b\r\nx")
	f.Add("CHUNK ~3 9\nPAUSE 1h\nS: a\nANY", "x")
	f.Add("PAUSE 1ms\nC: 1\nRESET", "2")
	f.Add("DEAF\nHOLD", "")
	f.Fuzz(func(t *testing.T, script, sent string) {
		synctest.Test(t, func(t *testing.T) {
			atOnce, atOnceErr := playScript(script, sent, max(1, len(sent)))
			single, singleErr := playScript(script, sent, 1)
			if atOnce != single || fmt.Sprint(atOnceErr) != fmt.Sprint(singleErr) {
				t.Fatalf("%q and %v, octet by octet %q and %v", atOnce, atOnceErr, single, singleErr)
			}
		})
	})
}

// playScript sends octets, n at a time, and then reads. It reads for at most a year.
func playScript(script, sent string, n int) (received string, err error) {
	conn, done := pop3test.Script(script)
	conn.SetDeadline(time.Now().Add(365 * 24 * time.Hour))
	for ; sent != ""; sent = sent[min(n, len(sent)):] {
		conn.Write([]byte(sent[:min(n, len(sent))]))
	}
	octets, _ := io.ReadAll(conn)
	conn.Close()
	return string(octets), done()
}
