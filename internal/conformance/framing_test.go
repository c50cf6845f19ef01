package conformance_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestHostileBody(t *testing.T) {
	kept := func(id, wire, content string) hostileRow {
		return hostileRow{id: id, call: retr, reply: "+OK\r\n" + wire, value: content}
	}
	lost := func(id, wire, content string) hostileRow {
		return hostileRow{id: id, call: retr, reply: "+OK\r\n" + wire, then: "EOF", value: content, err: cut,
			after: poisoned}
	}
	playHostile(t, []hostileRow{
		kept("H-064 empty", ".\r\n", ""),
		kept("H-065 a dot", "..\r\n.\r\n", ".\r\n"),
		kept("H-066 dots", "...\r\n..a\r\n.b\r\n.\r\n", "..\r\n.a\r\n.b\r\n"),
		kept("H-068 dot and LF", "a\r\n.\nb\r\n.\r\n", "a\r\n.\nb\r\n"),
		kept("3.3a LF, dot, CRLF", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"),
		kept("3.3b LF, dot, LF", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"),
		kept("3.3c dot and LF at once", ".\n.\r\n.\r\n", ".\n.\r\n"),
		kept("H-069 CR and dot", "a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n"),
		kept("H-070 dot, CR, dot", "a\r\n.\r.\r\n.\r\n", "a\r\n.\r.\r\n"),
		kept("3.3d dot and CR", ".\rX\r\n.\r\n", ".\rX\r\n"),
		kept("3.3e dot, CR, CR, LF", ".\r\r\n.\r\n", ".\r\r\n"),
		kept("3.3f stuffed dot, CR, CR, LF", "..\r\r\n.\r\n", ".\r\r\n"),
		kept("3.3g CR, CR, LF", "a\r\r\n.\r\n", "a\r\r\n"),
		kept("3.3h CRs", "\r\r\r\r\n.\r\n", "\r\r\r\r\n"),
		kept("3.3i LF, CR", "a\n\r.\r\n\r\n.\r\n", "a\n\r.\r\n\r\n"),
		kept("3.3j a dot is the last octet of a line", "a.\r\n.\r\n", "a.\r\n"),
		kept("3.3k dot and space", ". \r\n.\r\n", ". \r\n"),
		kept("3.3l dot and NUL", ".\x00\r\n.\r\n", ".\x00\r\n"),
		kept("3.3m blank lines", "\r\n\r\n\r\n.\r\n", "\r\n\r\n\r\n"),
		kept("3.3n a reply inside", "+OK\r\n-ERR no\r\n.\r\n", "+OK\r\n-ERR no\r\n"),
		kept("H-074 NUL", "a\x00\x00b\r\n\x00\r\n.\r\n", "a\x00\x00b\r\n\x00\r\n"),
		kept("3.3o all octets", everyOctet()+"\r\n.\r\n", everyOctet()+"\r\n"),
		kept("3.3p 40 lines of dots", strings.Repeat("..\r\n", 40)+".\r\n", strings.Repeat(".\r\n", 40)),

		lost("H-060 nothing", "", ""),
		lost("3.3q half a message", "a\r\nb", "a\r\nb"),
		lost("3.3r a whole line", "a\r\n", "a\r\n"),
		lost("H-062 a dot is missing its line end", "a\r\n.", "a\r\n"),
		lost("H-062 a dot is missing its LF", "a\r\n.\r", "a\r\n"),
		lost("3.3s a dot glued to the last line", "a.\r\n", "a.\r\n"),
		lost("3.3t LF, dot, LF is no end", "a\n.\n", "a\n.\n"),
		lost("3.3u LF, dot, CRLF is no end", "a\n.\r\n", "a\n.\r\n"),
		lost("3.3v CR, dot, CR is no end", "a\r.\r", "a\r.\r"),
		lost("3.3w two dots are none", "a\r\n..\r\n", "a\r\n.\r\n"),
		{id: "3.3x reset", call: retr, reply: "+OK\r\na\r\n", then: "RESET", value: "a\r\n",
			err: is(errReset, io.ErrUnexpectedEOF), after: poisoned},

		{id: "3.3y refused", call: retr, reply: "-ERR no such message\r\n", value: "",
			err: refused("", "no such message")},
		{id: "3.3z challenge", call: retr, reply: "+ \r\na\r\n.\r\n", value: "", err: broken, after: poisoned},
		{id: "3.3A LF behind the status", call: retr, reply: "+OK\na\n.\n", value: "", err: broken,
			after: poisoned},
		{id: "H-076 no end, and silence", call: retr, reply: "+OK\r\na\r\n", value: "a\r\n", err: late,
			after: poisoned,
			takes: 2 * time.Minute},
		{id: "H-084 nothing behind the end", call: retr, reply: "+OK\r\na\r\n.\r\n", value: "a\r\n"},
	})
}

func connectionReset(t *testing.T, err error) { is(errReset)(t, err) }

func everyOctet() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func TestHostileList(t *testing.T) {
	one := []pop3.MessageInfo{{Num: 1, Size: 120}}
	var none []pop3.MessageInfo
	playHostile(t, []hostileRow{
		{id: "H-060 nothing", call: listAll, reply: "+OK\r\n", then: "EOF", value: none, err: cut,
			after: poisoned},
		{id: "H-061 one line", call: listAll, reply: "+OK\r\n1 120\r\n", then: "EOF", value: none, err: cut,
			after: poisoned},
		{id: "H-062 a dot", call: listAll, reply: "+OK\r\n1 120\r\n.", then: "EOF", value: none, err: cut,
			after: poisoned},
		{id: "H-062 a dot and CR", call: uidlAll, reply: "+OK\r\n1 a\r\n.\r", then: "EOF", value: none,
			err: cut, after: poisoned},
		{id: "H-061 UIDL", call: uidlAll, reply: "+OK\r\n1 a\r\n2 b", then: "EOF", value: none, err: cut,
			after: poisoned},
		{id: "H-061 CAPA", call: capa, reply: "+OK\r\nTOP\r\n", then: "EOF", value: pop3.Capabilities(nil),
			err: cut, after: poisoned},
		{id: "H-061 LANG", call: langAll, reply: "+OK\r\nen\r\n", then: "EOF", value: []pop3.Language(nil),
			err: cut, after: poisoned},
		{id: "H-064 empty", call: listAll, reply: "+OK\r\n.\r\n", value: none},
		{id: "H-064 empty UIDL", call: uidlAll, reply: "+OK\r\n.\r\n", value: none},
		{id: "H-064 empty CAPA", call: capa, reply: "+OK\r\n.\r\n", value: pop3.Capabilities{}},
		{id: "H-064 empty LANG", call: langAll, reply: "+OK\r\n.\r\n", value: []pop3.Language(nil)},
		{id: "3.3B LF in a line", call: listAll, reply: "+OK\r\n1 120\n.\r\n", value: none, err: broken,
			after: poisoned, pieces: true},
		{id: "3.3C no end, and silence", call: listAll, reply: "+OK\r\n1 120\r\n", value: none, err: late,
			after: poisoned,
			takes: 2 * time.Minute},
		{id: "3.3D reset", call: listAll, reply: "+OK\r\n1 120\r\n", then: "RESET", value: none,
			err: connectionReset, after: poisoned},
		{id: "3.3E a stuffed line", call: uidlAll, reply: "+OK\r\n..\r\n.\r\n", value: none, err: nonsense},
		{id: "3.3F a line too long", call: listAll, reply: "+OK\r\n1 " + strings.Repeat("1", 9000),
			value: none, err: broken, after: poisoned},

		{id: "H-080 a blank line behind it", call: listAll, reply: "+OK\r\n1 120\r\n.\r\n\r\n", value: one,
			after: spoiled, pieces: true},
		{id: "H-080 garbage behind it", call: listAll, reply: "+OK\r\n1 120\r\n.\r\ngarbage\r\n", value: one,
			after: spoiled, pieces: true},
		{id: "H-080 garbage behind a message", call: retr, reply: "+OK\r\na\r\n.\r\ngarbage\r\n",
			value: "a\r\n", after: spoiled, pieces: true},
		{id: "3.3G a reply too many", call: noop, reply: "+OK\r\n+OK\r\n", after: spoiled, pieces: true},
		{id: "H-081 a dot behind a refusal", call: listAll, reply: "-ERR x\r\n.\r\n", value: none,
			err:   refused("", "x"),
			after: spoiled, pieces: true},
		{id: "H-082 many lines for one", call: listOne, reply: "+OK 1 120\r\n1 120\r\n.\r\n", value: one[0],
			after: spoiled, pieces: true},
		{id: "3.3H one line for many", call: listAll, reply: "+OK 1 120\r\n", value: none, err: late,
			after: poisoned,
			takes: 2 * time.Minute},
	})
}

// The reply to one command leaves something over, and comes octet by octet: nobody can see that before the next
// command is sent, but QUIT does not take what was left for the confirmation of its deletions.
func TestHostileLeftoverBeforeQuit(t *testing.T) {
	for _, row := range []struct{ id, extra string }{
		{"H-080 garbage", "garbage\r\n"},
		{"3.3I a reply too many", "+OK\r\n"},
		{"3.3J a refusal too many", "-ERR x\r\n"},
		{"H-081 a dot", ".\r\n"},
		{"3.3K a blank line", "\r\n"},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lines := append(loginLines(), "C: DELE 1", "CHUNK 5 1", "s: "+quoted("+OK\r\n"+row.extra))
				lines[len(lines)-2] = "CHUNK 5 " + fmt.Sprint(len(row.extra))
				conn, done := pop3test.Script(strings.Join(append(lines, "C: QUIT", "S: +OK", "EOF"), "\n"))
				c := hostileLogin(t, conn)
				require.NoError(t, c.Dele(t.Context(), 1))
				err := c.Quit(t.Context())
				assert.ErrorIs(t, err, pop3.ErrCommitUnknown)
				checkError(t, err)
				assert.NoError(t, done())
			})
		})
	}
}

// A server that ends its lines in LF does so from the greeting on.
func TestHostileLineFeeds(t *testing.T) {
	const greeting, login = `s: "+OK\n"`, "C: USER u\ns: \"+OK\\n\"\nC: PASS " + canary + "\ns: \"+OK\\n\"\n"
	for _, row := range []struct {
		id, wire, content string
		err               problem
		takes             time.Duration
	}{
		{id: "H-072 LF everywhere", wire: "+OK\nSubject: x\n\na\n..b\n.c\n.\n",
			content: "Subject: x\n\na\n.b\n.c\n"},
		{id: "H-073 the end in CRLF", wire: "+OK\na\n.\r\n", content: "a\n"},
		{id: "3.3L lines in CRLF", wire: "+OK\r\na\r\nb\r\n.\r\n", content: "a\r\nb\r\n"},
		{id: "3.3M lines in CRLF, the end in LF", wire: "+OK\r\na\r\n.\n", content: "a\r\n"},
		{id: "3.3N dot and CR within", wire: "+OK\n.\ra\n.\n", content: ".\ra\n"},
		{id: "3.3O empty", wire: "+OK\n.\n", content: ""},
		{id: "3.3P a dot is missing its line end", wire: "+OK\na\n.", content: "a\n", err: late,
			takes: 2 * time.Minute},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, chunk := range deliveries(row.wire) {
					script := greeting + "\n" + login + "C: RETR 1\n" + chunk + "\ns: " + quoted(row.wire) + "\nHOLD"
					conn, done := pop3test.Script(script)
					c := hostileLogin(t, conn)
					start := time.Now()
					content, err := retr.do(t.Context(), c)
					assert.Equal(t, row.content, content, chunk)
					row.err.check(t, chunk, err)
					assert.Equal(t, row.takes, time.Since(start))
					assert.NoError(t, c.Close())
					assert.NoError(t, done())
				}
			})
		})
	}
	t.Run("H-072 lists", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn, done := pop3test.Script(greeting + "\n" + login + "C: LIST\ns: \"+OK\\n1 1\\n2 2\\n.\\n\"\n" +
				"C: UIDL 2\ns: \"+OK 2 b\\n\"\nHOLD")
			c := hostileLogin(t, conn)
			infos, err := c.ListAll(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 1}, {Num: 2, Size: 2}}, infos)
			info, err := c.Uidl(t.Context(), 2)
			require.NoError(t, err)
			assert.Equal(t, pop3.MessageInfo{Num: 2, UID: "b"}, info)
			assert.NoError(t, c.Close())
			assert.NoError(t, done())
		})
	})
}

// A message that does not end.
func TestHostileEndlessBody(t *testing.T) {
	t.Run("H-077 at full speed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := hostileLogin(t, endlessReply(t, "RETR 1", "+OK\r\n", "spam, spam, spam\r\n"))
			m, err := c.Retr(t.Context(), 1)
			require.NoError(t, err)
			before := heapInUse()
			n, err := io.CopyN(io.Discard, m, 64<<20)
			require.NoError(t, err)
			assert.EqualValues(t, 64<<20, n)
			assert.Less(t, heapInUse()-before, int64(4<<20), "memory stays flat")
			assert.ErrorIs(t, m.Close(), net.ErrClosed)
			poisoned.check(t, c, nil)
		})
	})
	t.Run("H-078 an octet a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			script := append(loginLines(), "C: RETR 1", "S: +OK")
			script = append(append(script, drip(strings.Repeat("x", 600), "1s")...), "HOLD")
			conn, _ := pop3test.Script(strings.Join(script, "\n"))
			c := hostileLogin(t, conn)
			start := time.Now()
			content, err := retr.do(t.Context(), c)
			late(t, err)
			checkError(t, err)
			assert.Equal(t, 2*time.Minute, time.Since(start))
			assert.Len(t, content, 120)
			poisoned.check(t, c, err)
		})
	})
	t.Run("3.3Q just fast enough", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			script := append(loginLines(), "C: RETR 1", "S: +OK")
			for range 10 {
				script = append(script, "PAUSE 119s", "S: "+strings.Repeat("x", 128*120))
			}
			conn, done := pop3test.Script(strings.Join(append(script, "S: .", "HOLD"), "\n"))
			c := hostileLogin(t, conn)
			content, err := retr.do(t.Context(), c)
			assert.NoError(t, err)
			assert.Len(t, content, 10*(128*120+2))
			assert.NoError(t, c.Close())
			assert.NoError(t, done())
		})
	})
}

// What a caller leaves unread.
func TestHostileUnread(t *testing.T) {
	open := func(t *testing.T, conn net.Conn) (*pop3.Client, *pop3.Message) {
		c := hostileLogin(t, conn)
		m, err := c.Retr(t.Context(), 1)
		require.NoError(t, err)
		_, err = m.Read(make([]byte, 1))
		require.NoError(t, err)
		assert.ErrorIs(t, c.Noop(t.Context()), pop3.ErrBusy)
		return c, m
	}
	dialogue := func(more ...string) net.Conn {
		conn, done := pop3test.Script(strings.Join(append(append(loginLines(), "C: RETR 1"), more...), "\n"))
		t.Cleanup(func() { assert.NoError(t, done()) })
		return conn
	}
	t.Run("H-085 a small rest", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, m := open(t, dialogue("S: +OK", "S: "+strings.Repeat("x", 250<<10), "S: .", "C: NOOP",
				"S: +OK", "HOLD"))
			assert.NoError(t, m.Close())
			assert.NoError(t, c.Noop(t.Context()))
			assert.NoError(t, c.Close())
		})
	})
	t.Run("3.3R a large rest", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, m := open(t, dialogue("S: +OK", "S: "+strings.Repeat("x", 500<<10), "S: .", "HOLD"))
			err := m.Close()
			assert.ErrorIs(t, err, net.ErrClosed)
			assert.EqualError(t, err, "pop3: RETR 1: more than 256 KiB of it were left unread, so the connection was closed "+
				"and all deletion marks are dropped (use Top for the beginning of a message, Messages for many)", "C-011")
			poisoned.check(t, c, nil)
		})
	})
	t.Run("3.3V a large rest in several messages", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			half := []string{"S: +OK", "S: " + strings.Repeat("x", 150<<10), "S: ."}
			script := append(append(loginLines(), "C: RETR 1", "C: RETR 2", "C: RETR 3", "S: +OK", "S: ."), half...)
			script = append(append(script, half...), "C: DELE 1", "S: +OK", "C: QUIT", "S: +OK")
			conn, done := pop3test.Script(strings.Join(script, "\n"))
			c, _ := countingClient(t, conn)
			for _, err := range c.Messages(t.Context(), 1, 2, 3) {
				assert.NoError(t, err)
				break
			}
			assert.NoError(t, errors.Join(c.Dele(t.Context(), 1), c.Quit(t.Context())), "C-010")
			assert.NoError(t, done())
		})
	})
	t.Run("3.3S a rest that does not come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, m := open(t, dialogue("S: +OK", "S: x", "HOLD"))
			start := time.Now()
			assert.ErrorIs(t, m.Close(), net.ErrClosed)
			assert.Equal(t, time.Second, time.Since(start))
			poisoned.check(t, c, nil)
		})
	})
	t.Run("3.3T a rest that drips", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, m := open(t, dialogue(append([]string{"S: +OK"}, append(drip(strings.Repeat("x", 100),
				"100ms"), "HOLD")...)...))
			start := time.Now()
			assert.ErrorIs(t, m.Close(), net.ErrClosed)
			assert.Equal(t, time.Second, time.Since(start))
			poisoned.check(t, c, nil)
		})
	})
	t.Run("3.3U a rest without a time limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn := dialogue("S: +OK", "S: x", "PAUSE 500ms", "S: y", "S: .", "C: NOOP", "PAUSE 1h",
				"S: +OK", "HOLD")
			c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Timeout: -1})
			require.NoError(t, err)
			require.NoError(t, c.User(t.Context(), "u"))
			require.NoError(t, c.Pass(t.Context(), canary))
			m, err := c.Retr(t.Context(), 1)
			require.NoError(t, err)
			assert.NoError(t, m.Close())
			assert.NoError(t, c.Noop(t.Context()), "the second of Close does not stick")
			assert.NoError(t, c.Close())
		})
	})
}

// endlessReply is a connection to a server that lets in whoever comes and answers line with something endless.
func endlessReply(t *testing.T, line, start, more string) net.Conn {
	return serve(t, func(p *peer) {
		p.login()
		p.hears(line)
		io.Copy(p.Conn, io.MultiReader(strings.NewReader(start), endless(more)))
	})
}
