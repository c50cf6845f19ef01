package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// stuffed returns content as a server sends it: dots at the beginning of a line are doubled, and the end-of-message
// line is added.
func stuffed(content string) string {
	if strings.HasPrefix(content, ".") {
		content = "." + content
	}
	content = strings.ReplaceAll(content, "\r\n.", "\r\n..")
	return "+OK\r\n" + content + ".\r\n"
}

func TestHostileContent(t *testing.T) {
	exact := func(id, content string) dialogue {
		return dialogue{id: id, script: serverSends(stuffed(content)), do: retr, want: returns(content)}
	}
	rows := []dialogue{
		exact("H-216 CVE-2005-4348 one line end", "\r\n"),
		exact("H-216 no blank line", "Subject: x\r\n"),
		exact("H-216 no header", "\r\nbody\r\n"),
		exact("H-216 8-bit", "\xff\xfe caf\xe9 \x80\r\n"),
		exact("H-216 NUL", "\x00\r\n"),
		exact("H-216 lone CR", "a\rb\r\r\n"),
		exact("H-216 lone LF", "a\nb\n\n\r\n"),
		exact("3.10a dots", ".\r\n..\r\n...\r\n"),
		exact("3.10b UTF-8", "Subject: größer\r\n\r\n日本\r\n"),
		exact("3.10c a line of dots", strings.Repeat(".", 300)+"\r\n"),
		exact("3.10d lines that look like replies", "+OK\r\n-ERR [AUTH]\r\n+ \r\n* BYE\r\n"),
		{id: "H-211 longer than the status line says", script: serverSends("+OK 1 octets\r\nabc\r\n.\r\n"),
			do: retr, want: returns("abc\r\n")},
		{id: "H-212 shorter", script: serverSends("+OK 1000 octets\r\nabc\r\n.\r\n"), do: retr,
			want: returns("abc\r\n")},
		{id: "H-213 far longer", script: serverSends("+OK 99999999999 octets\r\nabc\r\n.\r\n"), do: retr,
			want: returns("abc\r\n")},
		{id: "3.10e negative", script: serverSends("+OK -1 octets\r\nabc\r\n.\r\n"), do: retr,
			want: returns("abc\r\n")},
		{id: "H-217 TOP returns the whole message",
			script: serverSends(stuffed("a: b\r\n\r\n" + strings.Repeat("body\r\n", 100))), do: top,
			want: returns("a: b\r\n\r\n" + strings.Repeat("body\r\n", 100))},
		{id: "3.10f TOP is refused", script: serverSends("-ERR no TOP\r\n"), do: top,
			want: returns("", refusedWith("", "no TOP"))},
	}
	for _, n := range []int{998, 1000, 2048, 4096, 8192, 65536} {
		rows = append(rows, exact(fmt.Sprintf("R1-068 line of %d", n), strings.Repeat("x", n-2)+"\r\n"))
	}
	for _, n := range []int{16, 512, 1000, 2048, 4096, 8192, 65536} {
		// A line exactly fills a client's buffer, and a dot follows.
		rows = append(rows, exact(fmt.Sprintf("3.10g %d octets and a dot", n),
			strings.Repeat("x", n)+".\r\nrest\r\n"))
		rows = append(rows, exact(fmt.Sprintf("3.10h a line of %d, then a dot", n),
			strings.Repeat("x", n-2)+"\r\n.\r\nrest\r\n"))
	}
	playAll(t, rows)
}

// A line of 1 MiB is read without using more memory (R1-068).
func TestHostileLongLine(t *testing.T) {
	const length = 1 << 20
	c := loginOver(t, serve(t, func(p *peer) {
		p.login()
		p.expect("RETR 1")
		p.send("+OK\r\n")
		io.Copy(p.Conn, io.LimitReader(repeatReader("x"), length))
		p.send("\r\n.\r\n")
		p.expectNothing()
	}))
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, m)
	assert.NoError(t, err)
	assert.EqualValues(t, length+2, n)
	assert.NoError(t, c.Close())
}

// The connection is lost at moments that other tests do not have.
func TestHostileDying(t *testing.T) {
	playAll(t, []dialogue{
		{id: "H-220 in a status line", script: serverSends("+OK he").add("EOF"), want: failsWith(connLost),
			after: closed},
		{id: "3.11s reset in a status line", script: serverSends("+OK he").add("RESET"),
			want: failsWith(wraps(errReset)), after: closed},
		{id: "H-221 in a list", script: serverSends("+OK\r\n1 1\r\n2 2\r\n3").add("EOF"), do: listAll,
			want: returns([]pop3.MessageInfo(nil), connLost), after: closed},
		{id: "H-221 in a list of unique-ids", script: serverSends("+OK\r\n1 a\r\n2 b\r\n").add("RESET"),
			do: uidlAll, want: returns([]pop3.MessageInfo(nil), wraps(errReset)), after: closed},
		{id: "H-222 in a body", script: serverSends("+OK\r\nhalf\r\n").add("EOF"), do: retr,
			want: returns("half\r\n", connLost), after: closed},
		{id: "H-222 in a stuffed dot", script: serverSends("+OK\r\nhalf\r\n.").add("EOF"), do: retr,
			want: returns("half\r\n", connLost), after: closed},
		{id: "3.11t after a whole reply", script: serverSends("+OK\r\n").add("EOF"), after: hungUp},
		{id: "3.11u after a whole message", script: serverSends("+OK\r\nall\r\n.\r\n").add("EOF"), do: retr,
			want: returns("all\r\n"), after: hungUp},
		{id: "H-224 Q-60 at DELE", script: script{"EOF"}, do: dele, want: failsWith(connLost), after: closed},
		{id: "3.11v at RSET", script: script{"EOF"}, do: rset, want: failsWith(connLost), after: closed},
	})
}

// After ten minutes without a command the server sends a text and closes the connection. The next call returns an
// error with that text (H-235).
func TestHostileIdle(t *testing.T) {
	for id, do := range map[string]action{"H-235 NOOP": noop, "H-235 QUIT": quit} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := loginOver(t, serve(t, func(p *peer) {
					p.login()
					p.SetReadDeadline(time.Now().Add(10 * time.Minute))
					p.expectNothing()
					p.SetReadDeadline(time.Time{})
					p.send("-ERR Disconnected for inactivity.\r\n")
					p.line()
				}))
				time.Sleep(15 * time.Minute)
				_, err := do.do(t, t.Context(), c)
				failsWith(refusedWith("", "Disconnected for inactivity."))(t, nil, err)
				assert.Error(t, c.Noop(t.Context()))
				assert.Equal(t, pop3.StateClosed, c.State())
			})
		})
	}
}

// The server is slow (section 3.12). If a reply line takes longer than the timeout, every kind of call ends in the
// same way.
func TestHostileSlow(t *testing.T) {
	for _, do := range []action{noop, stat, listOne, uidlOne, dele, rset, quit, retr, top, listAll, capa, langDe} {
		end := closed
		if do.line == "QUIT" {
			end = quitDone
		}
		playAll(t, []dialogue{{id: "H-240 " + do.line, script: script{}.slowly(strings.Repeat("x", 300), "1s"), do: do,
			want: failsWith(timedOut), after: end, takes: 2 * time.Minute}})
	}
	playAll(t, []dialogue{
		{id: "H-241 an octet in 100 s", script: script{"S: +OK"}.slowly("abc", "100s"),
			do: retr, want: failsWith(timedOut), after: closed, takes: 2 * time.Minute},
		{id: "3.12a a list, one octet at a time",
			script: script{"S: +OK"}.slowly(strings.Repeat("1", 300), "1s"), do: listAll,
			want: failsWith(timedOut), after: closed, takes: 2 * time.Minute},
		{id: "3.12b a message at the lowest accepted rate",
			script: script{"S: +OK", "PAUSE 119s", "S: " + strings.Repeat("x", 128*120), "PAUSE 119s", "S: ."},
			do:     retr, takes: 238 * time.Second},
		{id: "3.12c a slow status line, and then a slow body",
			script: script{"PAUSE 119s", "S: +OK", "PAUSE 119s", "S: a", "S: ."}, do: retr,
			want: returns("a\r\n"), takes: 238 * time.Second},
		{id: "3.12d a pause that is too long", script: script{"S: +OK", "S: a", "PAUSE 121s", "S: ."},
			do: retr, want: returns("a\r\n", timedOut), after: closed, takes: 2 * time.Minute},
	})
}

// The time that the caller takes between two Reads is not counted (reliability).
func TestSlowCaller(t *testing.T) {
	playAll(t, []dialogue{{id: "between two Reads", script: turns("RETR 1", "+OK\nabc\ndef\n."),
		do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			m, err := c.Retr(ctx, 1)
			require.NoError(t, err)
			for b := make([]byte, 1); err == nil; time.Sleep(time.Hour) {
				_, err = m.Read(b)
			}
			assert.Equal(t, io.EOF, err)
		}), takes: 11 * time.Hour}})
}

// Options.Timeout below 0 means no limit, and a deadline of the context still applies.
func TestNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := serve(t, func(p *peer) {
			p.login()
			p.expect("NOOP")
			time.Sleep(24 * time.Hour)
			p.send("+OK\r\n")
			p.expect("NOOP")
			p.expectNothing()
		})
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Timeout: -1})
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))
		assert.NoError(t, c.Noop(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		err = c.Noop(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Second, time.Since(start))
		assert.ErrorIs(t, c.Noop(t.Context()), net.ErrClosed)
	})
}

// A deadline of a context applies only to its own call.
func TestDeadlineIsForOneCall(t *testing.T) {
	playAll(t, []dialogue{{id: "three calls",
		script: turns("NOOP", "+OK", "NOOP").add("PAUSE 100s", "S: +OK", "C: NOOP"),
		do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			short, cancel := context.WithTimeout(ctx, time.Second)
			assert.NoError(t, c.Noop(short))
			time.Sleep(2 * time.Second)
			cancel()
			assert.NoError(t, c.Noop(ctx))
			short, cancel = context.WithTimeout(ctx, time.Minute)
			defer cancel()
			assert.ErrorIs(t, c.Noop(short), context.DeadlineExceeded)
		}), takes: 162 * time.Second}})
}

// TestNewMessage: a program can use a message of NewMessage like a message from a server.
func TestNewMessage(t *testing.T) {
	const content = "Subject: x\r\n\r\n.\r\n..\r\n"
	cut := iotest.ErrReader(io.ErrUnexpectedEOF)
	for _, test := range []struct {
		name string
		from io.Reader
		want string
		err  error
	}{
		{"whole", strings.NewReader(content), content, nil},
		{"empty", strings.NewReader(""), "", nil},
		{"cut", io.MultiReader(strings.NewReader(content), cut), content, io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := pop3.NewMessage(3, test.from)
			assert.Equal(t, 3, m.Num)
			var out strings.Builder
			written, err := io.Copy(&out, m) // io.Copy calls Message.WriteTo
			assert.Equal(t, test.err, err)
			assert.Equal(t, test.want, out.String())
			assert.EqualValues(t, len(test.want), written)
			_, again := m.Read(make([]byte, 1))
			if test.err == nil {
				assert.Equal(t, io.EOF, again)
			} else {
				assert.Equal(t, test.err, again)
			}
			require.NoError(t, m.Close())
		})
	}
}

func TestNewMessageRead(t *testing.T) {
	require.NoError(t, iotest.TestReader(pop3.NewMessage(1, strings.NewReader("a\r\n.b\r\n")), []byte("a\r\n.b\r\n")))
}

// TestNewMessageClosed: after Close, reading the message fails.
func TestNewMessageClosed(t *testing.T) {
	content := strings.NewReader("abc")
	m := pop3.NewMessage(1, content)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	_, err := m.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorContains(t, err, "RETR 1: read after Close")
	_, err = m.WriteTo(io.Discard)
	require.ErrorIs(t, err, fs.ErrClosed)
	assert.Equal(t, 3, content.Len())
}

// TestNewMessageWriter: if the writer of WriteTo fails, the rest of the message can still be read.
func TestNewMessageWriter(t *testing.T) {
	m := pop3.NewMessage(1, strings.NewReader("abc"))
	full := errors.New("disk full")
	_, err := m.WriteTo(writerFunc(func([]byte) (int, error) { return 0, full }))
	require.Equal(t, full, err)
	_, err = io.ReadAll(m)
	require.NoError(t, err)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestZeroMessage: reading the zero value of Message is an error, not an empty message.
func TestZeroMessage(t *testing.T) {
	var m pop3.Message
	_, err := m.Read(make([]byte, 1))
	require.ErrorContains(t, err, "zero value")
	_, err = m.WriteTo(io.Discard)
	require.ErrorContains(t, err, "zero value")
	require.NoError(t, m.Close())
}
