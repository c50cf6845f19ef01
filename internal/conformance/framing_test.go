package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

func TestHostileBody(t *testing.T) {
	complete := func(id, wire, content string) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + wire), do: retr, want: returns(content)}
	}
	incomplete := func(id, wire, content string) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + wire).add("EOF"), do: retr, want: returns(content,
			connLost),
			after: closed}
	}
	playAll(t, []dialogue{
		complete("H-064 empty", ".\r\n", ""),
		complete("H-065 a dot", "..\r\n.\r\n", ".\r\n"),
		complete("H-066 dots", "...\r\n..a\r\n.b\r\n.\r\n", "..\r\n.a\r\n.b\r\n"),
		complete("H-068 dot and LF", "a\r\n.\nb\r\n.\r\n", "a\r\n.\nb\r\n"),
		complete("3.3a LF, dot, CRLF", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"),
		complete("3.3b LF, dot, LF", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"),
		complete("3.3c dot and LF at once", ".\n.\r\n.\r\n", ".\n.\r\n"),
		complete("H-069 CR and dot", "a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n"),
		complete("H-070 dot, CR, dot", "a\r\n.\r.\r\n.\r\n", "a\r\n.\r.\r\n"),
		complete("3.3d dot and CR", ".\rX\r\n.\r\n", ".\rX\r\n"),
		complete("3.3e dot, CR, CR, LF", ".\r\r\n.\r\n", ".\r\r\n"),
		complete("3.3f stuffed dot, CR, CR, LF", "..\r\r\n.\r\n", ".\r\r\n"),
		complete("3.3g CR, CR, LF", "a\r\r\n.\r\n", "a\r\r\n"),
		complete("3.3h CRs", "\r\r\r\r\n.\r\n", "\r\r\r\r\n"),
		complete("3.3i LF, CR", "a\n\r.\r\n\r\n.\r\n", "a\n\r.\r\n\r\n"),
		complete("3.3j a dot is the last octet of a line", "a.\r\n.\r\n", "a.\r\n"),
		complete("3.3k dot and space", ". \r\n.\r\n", ". \r\n"),
		complete("3.3l dot and NUL", ".\x00\r\n.\r\n", ".\x00\r\n"),
		complete("3.3m blank lines", "\r\n\r\n\r\n.\r\n", "\r\n\r\n\r\n"),
		complete("3.3n a reply inside", "+OK\r\n-ERR no\r\n.\r\n", "+OK\r\n-ERR no\r\n"),
		complete("H-074 NUL", "a\x00\x00b\r\n\x00\r\n.\r\n", "a\x00\x00b\r\n\x00\r\n"),
		complete("3.3o all octets", everyOctet()+"\r\n.\r\n", everyOctet()+"\r\n"),
		complete("3.3p 40 lines of dots", strings.Repeat("..\r\n", 40)+".\r\n", strings.Repeat(".\r\n", 40)),

		incomplete("H-060 nothing", "", ""),
		incomplete("3.3q half a message", "a\r\nb", "a\r\nb"),
		incomplete("3.3r a whole line", "a\r\n", "a\r\n"),
		incomplete("H-062 a dot without line end", "a\r\n.", "a\r\n"),
		incomplete("H-062 a dot and CR without LF", "a\r\n.\r", "a\r\n"),
		incomplete("3.3s a dot glued to the last line", "a.\r\n", "a.\r\n"),
		{id: "3.3t C-110 LF, dot, LF is no end", script: serverSends("+OK\r\na\n.\n").add("EOF"), do: retr,
			want: returns("a\n.\n", connLost, lacksText("single dot")), after: closed},
		incomplete("3.3u LF, dot, CRLF is no end", "a\n.\r\n", "a\n.\r\n"),
		incomplete("3.3v CR, dot, CR is no end", "a\r.\r", "a\r.\r"),
		incomplete("3.3w two dots are none", "a\r\n..\r\n", "a\r\n.\r\n"),
		{id: "C-044 a dot after LF, in a message of LF", script: serverSends("+OK\r\nSubject: a\n\nb\n.\r\n"), do: retr,
			want: returns(
				"Subject: a\n\nb\n.\r\n",
				timedOut,
				hasText("a single dot, but not between two CRLF"),
			), after: closed,
			takes: 2 * time.Minute},
		{id: "C-044 a dot after LF, in the end of TOP", script: serverSends("+OK\r\na: b\r\n\r\nc\n.\n"), do: top,
			want: returns("a: b\r\n\r\nc\n.\n", timedOut,
				hasText("a single dot, but not between two CRLF")), after: closed,
			takes: 2 * time.Minute},
		{id: "C-044 the last line is not a dot", script: serverSends("+OK\r\na\n.\nb\n"), do: retr,
			want: returns("a\n.\nb\n", timedOut, lacksText("single dot")), after: closed, takes: 2 * time.Minute},
		{id: "3.3x reset", script: serverSends("+OK\r\na\r\n").add("RESET"), do: retr,
			want: returns("a\r\n", wraps(errReset, io.ErrUnexpectedEOF)), after: closed},

		{id: "3.3y refused", script: serverSends("-ERR no such message\r\n"), do: retr,
			want: returns("", refusedWith("", "no such message"))},
		{id: "3.3z challenge", script: serverSends("+ \r\na\r\n.\r\n"), do: retr, want: returns("", fatal),
			after: closed},
		{id: "3.3A LF after the status", script: serverSends("+OK\na\n.\n"), do: retr, want: returns("", fatal),
			after: closed},
		{id: "H-076 no end, and silence", script: serverSends("+OK\r\na\r\n"), do: retr,
			want: returns("a\r\n", timedOut), after: closed, takes: 2 * time.Minute},
		{id: "H-084 nothing after the end", script: serverSends("+OK\r\na\r\n.\r\n"), do: retr,
			want: returns("a\r\n")},
	})
}

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
	playAll(t, []dialogue{
		{id: "H-060 nothing", script: serverSends("+OK\r\n").add("EOF"), do: listAll,
			want: returns(none, connLost, hasText("in the middle of the reply")), after: closed},
		{id: "H-061 one line", script: serverSends("+OK\r\n1 120\r\n").add("EOF"), do: listAll,
			want: returns(none, connLost, hasText("in the middle of the reply")), after: closed},
		{id: "H-062 a dot", script: serverSends("+OK\r\n1 120\r\n.").add("EOF"), do: listAll,
			want: returns(none, connLost), after: closed},
		{id: "H-062 a dot and CR", script: serverSends("+OK\r\n1 a\r\n.\r").add("EOF"), do: uidlAll,
			want: returns(none, connLost), after: closed},
		{id: "H-061 UIDL", script: serverSends("+OK\r\n1 a\r\n2 b").add("EOF"), do: uidlAll,
			want: returns(none, connLost), after: closed},
		{id: "H-061 CAPA", script: serverSends("+OK\r\nTOP\r\n").add("EOF"), do: capa,
			want: returns(pop3.Capabilities(nil), connLost), after: closed},
		{id: "H-061 LANG", script: serverSends("+OK\r\nen\r\n").add("EOF"), do: langAll,
			want: returns([]pop3.Language(nil), connLost), after: closed},
		{id: "H-064 H-216 Q-5 CVE-2005-4348 empty", script: serverSends("+OK\r\n.\r\n"), do: listAll,
			want: returns(none)},
		{id: "H-064 empty UIDL", script: serverSends("+OK\r\n.\r\n"), do: uidlAll, want: returns(none)},
		{id: "H-064 empty CAPA", script: serverSends("+OK\r\n.\r\n"), do: capa, want: returns(pop3.Capabilities{})},
		{id: "H-064 empty LANG", script: serverSends("+OK\r\n.\r\n"), do: langAll,
			want: returns([]pop3.Language(nil))},
		{id: "3.3B LF in a line", script: serverSends("+OK\r\n1 120\n.\r\n"), do: listAll,
			want: returns(none, fatal), after: closed, onePiece: true},
		{id: "a Timeout that means no limit", script: serverSends("+OK\r\n").add("PAUSE 1h", "S: 1 120", "S: ."),
			do: listAll, want: returns(one), opts: pop3.Options{Timeout: math.MaxInt64}, takes: time.Hour},
		{id: "3.3C no end, and silence", script: serverSends("+OK\r\n1 120\r\n"), do: listAll,
			want: returns(none, timedOut), after: closed, takes: 2 * time.Minute},
		{id: "3.3D reset", script: serverSends("+OK\r\n1 120\r\n").add("RESET"), do: listAll,
			want: returns(none, wraps(errReset)), after: closed},
		{id: "3.3E a stuffed line", script: serverSends("+OK\r\n..\r\n.\r\n"), do: uidlAll,
			want: returns(none, nonFatal)},
		{id: "3.3F a line too long", script: serverSends("+OK\r\n1 " + strings.Repeat("1", 9000)), do: listAll,
			want: returns(none, fatal), after: closed},

		{id: "H-080 a blank line after it", script: serverSends("+OK\r\n1 120\r\n.\r\n\r\n"), do: listAll,
			want: returns(one), after: surplus, onePiece: true},
		{id: "H-080 garbage after it", script: serverSends("+OK\r\n1 120\r\n.\r\ngarbage\r\n"), do: listAll,
			want: returns(one), after: surplus, onePiece: true},
		{id: "H-080 garbage after a message", script: serverSends("+OK\r\na\r\n.\r\ngarbage\r\n"), do: retr,
			want: returns("a\r\n"), after: surplus, onePiece: true},
		{id: "3.3G a reply too many", script: serverSends("+OK\r\n+OK\r\n"), after: surplus, onePiece: true},
		{id: "H-081 a dot after a refusal", script: serverSends("-ERR x\r\n.\r\n"), do: listAll,
			want: returns(none, refusedWith("", "x")), after: surplus, onePiece: true},
		{id: "H-082 many lines for one", script: serverSends("+OK 1 120\r\n1 120\r\n.\r\n"), do: listOne,
			want: returns(one[0]), after: surplus, onePiece: true},
		{id: "3.3H a one-line reply to a multi-line command", script: serverSends("+OK 1 120\r\n"), do: listAll,
			want: returns(none, timedOut), after: closed, takes: 2 * time.Minute},
	})
}

// The server sends surplus data after a reply, one octet at a time. The client cannot see that data before it sends the
// next command. But Quit must not treat the data as the confirmation of the deletions.
func TestHostileLeftoverBeforeQuit(t *testing.T) {
	left := func(id, extra string) dialogue {
		return dialogue{id: id, script: turns("DELE 1").add(fmt.Sprintf("CHUNK 5 %d", len(extra))).
			sends("+OK\r\n"+extra).turns("QUIT", "+OK").add("EOF"),
			do: deleAndQuit, want: failsWith(wraps(pop3.ErrCommitUnknown)), after: quitDone, onePiece: true}
	}
	playAll(t, []dialogue{
		left("H-080 garbage", "garbage\r\n"),
		left("3.3I a reply too many", "+OK\r\n"),
		left("3.3J a refusal too many", "-ERR x\r\n"),
		left("H-081 a dot", ".\r\n"),
		left("3.3K a blank line", "\r\n"),
	})
}

// A server whose lines end in LF, from the greeting on, is accepted.
func TestHostileLineFeeds(t *testing.T) {
	login := serverSends("+OK\n").turns("USER u").sends("+OK\n").turns("PASS " + canary).sends("+OK\n")
	body := greetedTest(func(*testing.T, context.Context, *pop3.Client) {})
	body.do = func(t *testing.T, ctx context.Context, c *pop3.Client) (any, error) {
		require.NoError(t, byUser(ctx, c))
		return retr.do(t, ctx, c)
	}
	complete := func(id, wire, content string, checks ...errorCheck) dialogue {
		return dialogue{id: id, script: login.turns("RETR 1").sends(wire), do: body, want: returns(content,
			checks...)}
	}
	noLineEnd := complete("3.3P a dot without line end", "+OK\na\n.", "a\n", timedOut)
	noLineEnd.takes = 2 * time.Minute
	playAll(t, []dialogue{
		complete("H-072 LF everywhere", "+OK\nSubject: x\n\na\n..b\n.c\n.\n", "Subject: x\n\na\n.b\n.c\n"),
		complete("H-073 the end in CRLF", "+OK\na\n.\r\n", "a\n"),
		complete("3.3L lines in CRLF", "+OK\r\na\r\nb\r\n.\r\n", "a\r\nb\r\n"),
		complete("3.3M lines in CRLF, the end in LF", "+OK\r\na\r\n.\n", "a\r\n"),
		complete("3.3N dot and CR within", "+OK\n.\ra\n.\n", ".\ra\n"),
		complete("3.3O empty", "+OK\n.\n", ""),
		noLineEnd,
		{id: "H-072 lists", script: login.turns("LIST").sends("+OK\n1 1\n2 2\n.\n").turns("UIDL 2").sends("+OK 2 b\n"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				require.NoError(t, byUser(ctx, c))
				infos, err := c.ListAll(ctx)
				require.NoError(t, err)
				assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 1}, {Num: 2, Size: 2}}, infos)
				info, err := c.Uidl(ctx, 2)
				require.NoError(t, err)
				assert.Equal(t, pop3.MessageInfo{Num: 2, UID: "b"}, info)
			})},
	})
}

// The client does not keep an endless message in memory. If the message is closed early, the connection is closed. A
// message that arrives too slowly ends with a timeout.
func TestHostileEndlessBody(t *testing.T) {
	t.Run("H-077 at full speed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := loginOver(t, endlessReply(t, "RETR 1", "+OK\r\n", "spam, spam, spam\r\n"))
			m, err := c.Retr(t.Context(), 1)
			require.NoError(t, err)
			before := heapInUse()
			n, err := io.CopyN(io.Discard, m, 64<<20)
			require.NoError(t, err)
			assert.EqualValues(t, 64<<20, n)
			assert.Less(t, heapInUse()-before, int64(4<<20), "the use of memory does not grow")
			assert.ErrorIs(t, m.Close(), net.ErrClosed)
			closed.check(t, c, nil)
		})
	})
	playAll(t, []dialogue{
		{id: "H-078 an octet a second", script: turns("RETR 1", "+OK").slowly(strings.Repeat("x", 600), "1s"), do: retr,
			want: returns(strings.Repeat("x", 120), timedOut), after: closed, takes: 2 * time.Minute},
		{id: "3.3Q just fast enough", script: turns("RETR 1", "+OK").add(slices.Repeat([]string{"PAUSE 119s",
			"S: " + strings.Repeat("x", 128*120)}, 10)...).add("S: ."), do: retr,
			want: returns(strings.Repeat(strings.Repeat("x", 128*120)+"\r\n", 10)), takes: 1190 * time.Second},
	})
}

// The caller stops reading before the end of a message.
func TestHostileUnread(t *testing.T) {
	leaves := func(t *testing.T, ctx context.Context, c *pop3.Client) error {
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		_, err = m.Read(make([]byte, 1))
		require.NoError(t, err)
		assert.ErrorIs(t, c.Noop(ctx), pop3.ErrBusy)
		return m.Close()
	}
	hangsUp := func(t *testing.T, ctx context.Context, c *pop3.Client) {
		err := leaves(t, ctx, c)
		assert.ErrorIs(t, err, net.ErrClosed)
		closed.check(t, c, err)
	}
	half := "+OK\n" + strings.Repeat("x", 150<<10) + "\n."
	playAll(t, []dialogue{
		{id: "H-085 a small rest", script: turns("RETR 1", "+OK\n"+strings.Repeat("x", 250<<10)+"\n.", "NOOP", "+OK"),
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, leaves(t, ctx, c))
				assert.NoError(t, c.Noop(ctx))
			})},
		{id: "3.3R C-011 a large rest", script: turns("RETR 1", "+OK\n"+strings.Repeat("x", 500<<10)+"\n."),
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				err := leaves(t, ctx, c)
				assert.ErrorIs(t, err, net.ErrClosed)
				assert.EqualError(
					t,
					err,
					"pop3: RETR 1: more than 256 KiB of it were left unread, so the connection was closed "+
						"and all deletion marks are dropped "+
						"(use Top for the beginning of a message, Messages for many)",
				)
				closed.check(t, c, err)
			})},
		{id: "3.3V C-010 a large rest in several messages",
			script: script{
				"C: RETR 1",
				"C: RETR 2",
			}.turns("RETR 3", "+OK\n.\n"+half+"\n"+half, "DELE 1", "+OK", "QUIT", "+OK").
				add("EOF"),
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for _, err := range c.Messages(ctx, 1, 2, 3) {
					assert.NoError(t, err)
					break
				}
				assert.NoError(t, errors.Join(c.Dele(ctx, 1), c.Quit(ctx)))
			}), opts: pop3.Options{Pipelining: pop3.PipeliningAlways}},
		{id: "3.3S the rest never arrives", script: turns("RETR 1", "+OK\nx"), do: loggedInTest(hangsUp),
			takes: time.Second},
		{id: "3.3T the rest arrives slowly", script: turns("RETR 1", "+OK").slowly(strings.Repeat("x", 100), "100ms"),
			do: loggedInTest(hangsUp), takes: time.Second},
		{id: "3.3U a rest without a time limit",
			script: turns("RETR 1", "+OK\nx").add("PAUSE 500ms", "S: y", "S: .", "C: NOOP", "PAUSE 1h", "S: +OK"),
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, leaves(t, ctx, c))
				assert.NoError(t, c.Noop(ctx), "the time limit of Close does not stay")
			}), opts: pop3.Options{Timeout: -1}, takes: time.Hour + 500*time.Millisecond},
	})
}

// endlessReply is a connection to a server that accepts every login and answers line with an endless reply.
func endlessReply(t *testing.T, line, start, more string) net.Conn {
	return serve(t, func(p *peer) {
		p.login()
		p.expect(line)
		io.Copy(p.Conn, io.MultiReader(strings.NewReader(start), repeatReader(more)))
	})
}
