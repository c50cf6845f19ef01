package pop3test_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// Each row plays a script to a client that sends octets and then reads to the end.
func TestScript(t *testing.T) {
	for _, tt := range []struct{ name, script, send, wantRead, wantErr string }{
		{"nothing", "", "", "", ""},
		{"a dialogue", "S: +OK hi\nC: QUIT\nS: +OK bye", "QUIT\r\n", "+OK hi\r\n+OK bye\r\n", ""},
		{"indented, with comments and CRLF line ends", "\n\t# note\r\n\t S: +OK hi\r\n  C: QUIT\r\n\n S: +OK bye\r\n",
			"QUIT\r\n",
			"+OK hi\r\n+OK bye\r\n", ""},
		{"empty lines of the dialogue, and spaces at the end", "S:\nS: \nS: + \nC:\nC: ", "\r\n\r\n", "\r\n\r\n+ \r\n",
			""},
		{"commands sent ahead", "S: a\nC: 1\nS: b\nC: 2\nS: c", "1\r\n2\r\n", "a\r\nb\r\nc\r\n", ""},
		{"raw octets", `s: "+O\x00\r"` + "\n" + `s: "\n"` + "\n" + `c: "a\n"` + "\nC: b", "a\nb\r\n", "+O\x00\r\n", ""},
		{"the server stops at a line that was not sent", "S: a\nC: 1\nS: b\nHOLD", "1\r", "a\r\n",
			`line 2 of the script: the client sent "1\r", not "1\r\n"`},
		{"nothing is sent", "S: a\nC: 1\nHOLD", "", "a\r\n",
			`line 2 of the script: the client sent nothing, not "1\r\n"`},
		{"another line", "S: a\n\nC: 1\nS: b\nHOLD", "2\r\nrest", "a\r\n",
			`line 3 of the script: the client sent "2\r\n", not "1\r\n"`},
		{"a longer line", "C: 1\nHOLD", "12\r\n", "", `line 1 of the script: the client sent "12\r\n", not "1\r\n"`},
		{"a bare LF", "C: 1\nHOLD", "1\n", "", `line 1 of the script: the client sent "1\n", not "1\r\n"`},
		{"half of a line that differs", "C: PASS\nHOLD", "PAX", "",
			`line 1 of the script: the client sent "PAX", not "PASS\r\n"`},
		{"data after the end", "S: a", "QUIT\r\nmore", "a\r\n",
			`the client sent "QUIT\r\n" after the end of the script`},
		{"data after HOLD", "S: a\nHOLD", "QUIT", "a\r\n",
			`the client sent "QUIT" after the end of the script`},
		{"a pattern", "C~ PASS *\nS: a", "PASS secret\r\n", "a\r\n", ""},
		{"a pattern with two stars", "C~ a*b*c\nS: a", "a-b+b-c\r\n", "a\r\n", ""},
		{"a star for nothing", "C~ *a**\nS: a", "a\r\n", "a\r\n", ""},
		{"a pattern without star", "C~ a\nS: a", "a\r\n", "a\r\n", ""},
		{"a pattern that does not match", "C~ a*a\nHOLD", "a\r\n", "",
			`line 1 of the script: the client sent "a\r\n", not a line like "a*a"`},
		{"a middle part that does not match", "C~ *x*\nHOLD", "a\r\n", "",
			`line 1 of the script: the client sent "a\r\n", not a line like "*x*"`},
		{"half of a line for a pattern", "C~ *\nHOLD", "a", "",
			`line 1 of the script: the client sent "a", not a line like "*"`},
		{"ANY and data", "S: a\nC: 1\nS: b\nANY", "1\r\nQUIT\r\n\x00", "a\r\nb\r\n", ""},
		{"ANY and no data", "S: a\nANY", "", "a\r\n", ""},
		{"a client that sends a line after EOF", "S: a\nEOF\nC: 1", "1\r\n", "a\r\n", ""},
		{"a line that is missing after EOF", "S: a\nEOF\nC: 1", "", "a\r\n",
			`line 3 of the script: the client sent nothing, not "1\r\n"`},
		{"a long line", "C: 1\nHOLD", strings.Repeat("x", 300), "",
			`line 1 of the script: the client sent "` + strings.Repeat("x", 256) + `"..., not "1\r\n"`},
		{"one octet at a time", "CHUNK 1\nS: abc\nC: 1\nS: d", "1\r\n", "abc\r\nd\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script(tt.script)
				conn.SetDeadline(time.Now().Add(time.Minute))
				_, err := conn.Write([]byte(tt.send))
				require.NoError(t, err)
				got, err := io.ReadAll(conn)
				if err != nil {
					assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
				}
				assert.Equal(t, tt.wantRead, string(got))
				for range 2 {
					checkError(t, tt.wantErr, done())
				}
				assert.NoError(t, conn.Close())
				checkError(t, tt.wantErr, done())
			})
		})
	}
}

func checkError(t *testing.T, want string, err error) {
	t.Helper()
	if want == "" {
		assert.NoError(t, err)
		return
	}
	assert.EqualError(t, err, "pop3test: "+want)
}

// The errors are the same whether the client sends one octet at a time or all at once.
func TestScriptOctetByOctet(t *testing.T) {
	for _, script := range []string{"C: PASS x\nC: QUIT", "C~ PASS *\nC: QUIT", "C: NOOP\nHOLD",
		`c: "PASS x\r\nQUIT\r"`, "ANY"} {
		const sent = "PASS x\r\nQUIT\r\n"
		atOnce, atOnceDone := pop3test.Script(script)
		atOnce.Write([]byte(sent))
		single, singleDone := pop3test.Script(script)
		for i := range len(sent) {
			single.Write([]byte(sent[i : i+1]))
		}
		assert.Equal(t, atOnceDone(), singleDone())
	}
}

func TestScriptMistakes(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{"S: a\nbad", `line 2 of the script: "bad" is not a word that begins a line`},
		{"S:a", `line 1 of the script: "S:a" is not a word that begins a line`},
		{"s: a", `line 1 of the script: invalid syntax`},
		{`c: "a`, `line 1 of the script: invalid syntax`},
		{"PAUSE", `line 1 of the script: time: invalid duration ""`},
		{"CHUNK", `line 1 of the script: CHUNK needs a number of octets`},
		{"CHUNK x", `line 1 of the script: strconv.ParseUint: parsing "x": invalid syntax`},
		{"CHUNK ~0 1", `line 1 of the script: CHUNK needs a number of octets`},
		{"CHUNK ~2 x", `line 1 of the script: strconv.ParseUint: parsing "x": invalid syntax`},
		{"CHUNK ~2", `line 1 of the script: strconv.ParseUint: parsing "~2": invalid syntax`},
		{"EOF now", `line 1 of the script: EOF takes no argument`},
		{"HOLD\nS: a", `line 2 of the script: nothing may follow HOLD`},
		{"RESET\nEOF", `line 2 of the script: nothing may follow RESET`},
		{"ANY\nC: a", `line 2 of the script: no C line may follow ANY`},
		{"DEAF\nC~ a", `line 2 of the script: no C line may follow DEAF`},
		{"EOF\nS: a", `line 2 of the script: no S line may follow EOF`},
	} {
		conn, done := pop3test.Script(tt.script)
		_, err := conn.Read(make([]byte, 1))
		assert.Equal(t, io.EOF, err)
		checkError(t, tt.want, done())
	}
}

// The client can read what the server sends up to the next C line, and no further.
func TestScriptWaitsForClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: a\nS: b\nC: 1\nS: c")
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		require.NoError(t, err)
		assert.Equal(t, "a\r\nb\r\n", string(buf[:n]))

		conn.SetReadDeadline(time.Now().Add(time.Second))
		_, err = conn.Read(buf)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())

		conn.SetReadDeadline(time.Time{})
		go func() {
			<-time.After(time.Hour)
			conn.Write([]byte("1\r\n"))
		}()
		began := time.Now()
		n, err = conn.Read(buf)
		require.NoError(t, err)
		assert.Equal(t, "c\r\n", string(buf[:n]))
		assert.Equal(t, time.Hour, time.Since(began))
		assert.NoError(t, done())
		_, err = conn.Read(buf)
		assert.Equal(t, io.EOF, err)
	})
}

func TestScriptPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: a\nPAUSE 2s\nS: b\nC: 1\nPAUSE 1m\nS: c\nPAUSE 1h\nEOF")
		in := bufio.NewReader(conn)
		began := time.Now()
		for _, want := range []time.Duration{0, 2 * time.Second, 62 * time.Second} {
			_, err := in.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, want, time.Since(began))
			if want == 2*time.Second {
				conn.Write([]byte("1\r\n"))
			}
		}
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := in.ReadByte()
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		conn.SetReadDeadline(time.Time{})
		_, err = in.ReadByte()
		assert.Equal(t, io.EOF, err)
		assert.Equal(t, time.Hour+62*time.Second, time.Since(began))
		assert.NoError(t, done())
	})
}

// A pause begins when the client has sent its line, not when it reads.
func TestScriptPauseBeginsWithTheCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("C: 1\nPAUSE 5s\nS: a")
		began := time.Now()
		conn.Write([]byte("1\r\n"))
		<-time.After(3 * time.Second)
		_, err := conn.Read(make([]byte, 3))
		require.NoError(t, err)
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.NoError(t, done())
	})
}

func TestScriptChunk(t *testing.T) {
	for _, tt := range []struct {
		script string
		want   []int
	}{
		{"S: abcdefgh", []int{10}},
		{"CHUNK 1\nS: abcdefgh", []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{"CHUNK 3 1 0\nS: abcdefgh", []int{3, 1, 6}},
		{"CHUNK 4 3\nS: abcdefgh", []int{4, 3, 3}},
		{"S: ab\nCHUNK 3\nS: ef\nCHUNK 0\nS: gh", []int{4, 3, 1, 4}},
		{"CHUNK ~4 42\nS: abcdefgh", []int{4, 1, 4, 1}},
	} {
		conn, done := pop3test.Script(tt.script)
		var got []int
		for buf := make([]byte, 100); ; {
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			got = append(got, n)
		}
		assert.Equal(t, tt.want, got, tt.script)
		assert.NoError(t, done())
	}
}

func TestScriptReset(t *testing.T) {
	conn, done := pop3test.Script("S: a\nC: 1\nS: b\nRESET")
	conn.Write([]byte("1\r\n"))
	got, err := io.ReadAll(conn)
	assert.Equal(t, "a\r\nb\r\n", string(got))
	assert.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = conn.Write([]byte("2\r\n"))
	assert.ErrorIs(t, err, syscall.ECONNRESET)
	assert.NoError(t, done())
}

func TestScriptDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: a\nC: 1\nS: b\nDEAF\nHOLD")
		_, err := conn.Write([]byte("1\r\n"))
		require.NoError(t, err)
		conn.SetWriteDeadline(time.Now().Add(time.Minute))
		began := time.Now()
		_, err = conn.Write([]byte("2\r\n"))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(began))
		assert.NoError(t, done())
	})
}

func TestScriptClose(t *testing.T) {
	for name, script := range map[string]string{"Read": "HOLD", "Write": "DEAF\nHOLD"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script(script)
				failed := make(chan error)
				go func() {
					var err error
					if name == "Read" {
						_, err = conn.Read(make([]byte, 1))
					} else {
						_, err = conn.Write(make([]byte, 1))
					}
					failed <- err
				}()
				synctest.Wait()
				require.NoError(t, conn.Close())
				assert.ErrorIs(t, <-failed, net.ErrClosed)
				assert.NoError(t, done())
				for _, err := range []error{conn.Close(), conn.SetDeadline(time.Time{})} {
					assert.ErrorIs(t, err, net.ErrClosed)
				}
				_, err := conn.Write(nil)
				assert.ErrorIs(t, err, net.ErrClosed)
			})
		})
	}
}

// done ends a script that is running, and a Read that waits.
func TestScriptDoneEndsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: a\nC: 1\nHOLD")
		conn.Write([]byte("1\r\n"))
		conn.Read(make([]byte, 3))
		failed := make(chan error)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		assert.NoError(t, done())
		assert.Equal(t, io.EOF, <-failed)
	})
}

// A deadline that is set while a Read waits applies to that Read.
func TestScriptDeadlineDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := pop3test.Script("HOLD")
		failed := make(chan error)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		conn.SetReadDeadline(time.Now().Add(-time.Second))
		assert.ErrorIs(t, <-failed, os.ErrDeadlineExceeded)
		_, err := conn.Write([]byte("x"))
		assert.NoError(t, err, "a read deadline does not apply to Write")
		conn.SetWriteDeadline(time.Now().Add(-time.Second))
		_, err = conn.Write([]byte("x"))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestScriptAddr(t *testing.T) {
	conn, _ := pop3test.Script("")
	assert.Equal(t, "script", conn.LocalAddr().Network())
	assert.Equal(t, "script", conn.RemoteAddr().String())
}

// A client may read and write at the same time.
func TestScriptConcurrently(t *testing.T) {
	const rounds = 1000
	conn, done := pop3test.Script(strings.Repeat("C: NOOP\nPAUSE 1us\nS: +OK\n", rounds))
	written := make(chan error)
	go func() {
		var all []error
		for range rounds {
			_, err := conn.Write([]byte("NOOP\r\n"))
			all = append(all, err)
		}
		written <- errors.Join(all...)
	}()
	got, err := io.ReadAll(conn)
	assert.NoError(t, err)
	assert.Equal(t, strings.Repeat("+OK\r\n", rounds), string(got))
	assert.NoError(t, <-written)
	assert.NoError(t, done())
}
