package conformance_test

import (
	"bufio"
	"context"
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
)

// outcomes tells of each step of a loop over messages what came: the content, "refused", "cut", or "lost" for the
// last step without a message.
func outcomes(ctx context.Context, c *pop3.Client, nums ...int) (all []string, last error) {
	for m, err := range c.Messages(ctx, nums...) {
		switch {
		case m == nil:
			return append(all, "lost"), err
		case err != nil:
			all = append(all, fmt.Sprintf("%d refused", m.Num))
			continue
		}
		b, err := io.ReadAll(m)
		if err != nil {
			all = append(all, fmt.Sprintf("%d cut", m.Num))
		} else {
			all = append(all, fmt.Sprintf("%d %s", m.Num, strings.TrimRight(string(b), "\r\n")))
		}
		last = err
	}
	return all, last
}

// loop reads messages 1 to 5, which are asked for ahead. Its value is the outcomes.
var loop = valued(
	"",
	func(c *pop3.Client, ctx context.Context) ([]string, error) { return outcomes(ctx, c, 1, 2, 3, 4, 5) },
)

// asked is a script in which the commands come before the first reply.
func asked(verb string, count int) (s script) {
	for n := range count {
		s = s.then(fmt.Sprintf("C: %s %d", verb, n+1))
	}
	return s
}

// ahead are the options of who pipelines whatever the server says.
var ahead = pop3.Options{Pipelining: pop3.PipeliningAlways}

func TestHostileBatch(t *testing.T) {
	batch := func(id, replies string, want []string, problems ...problem) dialogue {
		d := dialogue{id: id, script: asked("RETR", 5), do: loop, want: gives(want, problems...), opts: ahead}
		for reply := range strings.SplitSeq(replies, "|") {
			switch reply {
			case "EOF", "RESET":
				d.script = d.script.then(reply)
			default:
				d.script = d.script.sends(reply)
			}
		}
		if len(problems) > 0 {
			d.after = poisoned
		}
		return d
	}
	ok := func(text string) string { return "+OK\r\n" + text + "\r\n.\r\n" }
	silent := batch(
		"H-203 a reply too few",
		ok("a")+ok("b")+ok("c")+ok("d"),
		[]string{"1 a", "2 b", "3 c", "4 d", "lost"},
		late,
		says("PipeliningNever"),
	)
	silent.takes = 2 * time.Minute
	endless := batch(
		"3.9e a message that is no end",
		ok("a")+"+OK\r\nhalf\r\n",
		[]string{"1 a", "2 cut", "lost"},
		late,
	)
	endless.takes = 2 * time.Minute
	playAll(t, []dialogue{
		silent, endless,
		batch("3.9a all well", ok("a")+ok("b")+ok("c")+ok("d")+ok("e"), []string{"1 a", "2 b", "3 c", "4 d", "5 e"}),
		batch(
			"H-201 one refused",
			ok("a")+"-ERR\r\n"+ok("c")+ok("d")+ok("e"),
			[]string{"1 a", "2 refused", "3 c", "4 d", "5 e"},
		),
		batch("3.9b all refused", strings.Repeat("-ERR\r\n", 5),
			[]string{"1 refused", "2 refused", "3 refused", "4 refused", "5 refused"}),
		batch("H-202 cut in the second", ok("a")+"+OK\r\nhalf\r\n|EOF", []string{"1 a", "2 cut", "lost"}, cut,
			says("1 were answered whole"), says("RETR 2 was cut")),
		batch(
			"3.9c cut in a status line",
			ok("a")+"+O|EOF",
			[]string{"1 a", "lost"},
			cut,
			says("RETR 2 was not answered"),
		),
		batch("3.9d reset between two", ok("a")+"|RESET", []string{"1 a", "lost"}, is(errReset)),
		batch("3.9f garbage between two", ok("a")+"garbage\r\n", []string{"1 a", "lost"}, broken),
		batch("3.9g a dot too many", ok("a")+".\r\n", []string{"1 a", "lost"}, broken),
		batch("3.9h goodbye in the middle", ok("a")+"-ERR Disconnected for inactivity.\r\n|EOF",
			[]string{"1 a", "2 refused", "lost"}, cut),
		// The reply overtakes the end of the message before it.
		batch("3.9i the next reply within a message", "+OK\r\na\r\n+OK 15 octets\r\n.\r\nSubject: second\r\n.\r\n",
			[]string{"1 a\r\n+OK 15 octets", "lost"}, broken, says("PipeliningNever")),
	})
}

func TestHostileBatchOfDele(t *testing.T) {
	three := func(c *pop3.Client, ctx context.Context) error { return c.Dele(ctx, 1, 2, 3) }
	andQuit := plain("", func(c *pop3.Client, ctx context.Context) error {
		if err := three(c, ctx); err != nil {
			return err
		}
		return c.Quit(ctx)
	})
	mark := plain("", three)
	playAll(t, []dialogue{
		{id: "3.9i gone in the middle", script: asked("DELE", 3).then("S: +OK", "EOF"), opts: ahead,
			do: steps(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				err := three(c, ctx)
				fails(cut)(t, nil, err)
				poisoned.check(t, c, err)
				known(is(net.ErrClosed))(t, c.Quit(ctx)) // R1-085: nothing was deleted, since QUIT was not sent
			})},
		{id: "H-203 a reply too many", script: asked("DELE", 3).then("S: +OK", "S: +OK").sends("+OK\r\n+OK\r\n"),
			do: andQuit, want: fails(known(broken), says("not sent")), after: over, opts: ahead, whole: true},
		{id: "H-203 a reply too few", script: asked("DELE", 3).then("S: +OK", "S: +OK"), do: mark, want: fails(late),
			after: poisoned, opts: ahead, takes: 2 * time.Minute},
		{id: "C-110 a reply too many before the batch", script: turns("DELE 4").sends("+OK\r\n+OK\r\n"),
			do: plain("", func(c *pop3.Client, ctx context.Context) error {
				if err := c.Dele(ctx, 4); err != nil {
					return err
				}
				return three(c, ctx)
			}), want: fails(broken, says("not sent")), after: poisoned, opts: ahead, whole: true},
		{id: "3.9j refused and gone", script: asked("DELE", 3).then("S: -ERR one", "EOF"), do: mark,
			want: fails(refused("", "one"), is(io.ErrUnexpectedEOF)), after: poisoned, opts: ahead},
	})
}

// A server that answers before it takes the next command, over a pipe without room for an octet: 10,000 commands
// are sent ahead and nobody waits for the other for ever (H-205, R1-117).
func TestHostileNoRoom(t *testing.T) {
	const n = 10_000
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		over := make(chan int)
		go func() {
			defer server.Close()
			answered := 0
			defer func() { over <- answered }()
			in := bufio.NewReader(server)
			io.WriteString(server, "+OK\r\n")
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				reply := "+OK\r\n"
				if strings.HasPrefix(line, "RETR") {
					reply = "+OK\r\n" + line + ".\r\n"
					answered++
				}
				io.WriteString(server, reply)
			}
		}()
		c, err := pop3.NewClient(t.Context(), client, &pop3.Options{InsecureAuth: true,
			Pipelining: pop3.PipeliningAlways})
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))
		got := 0
		for m, err := range c.Messages(t.Context(), numbers(n)...) {
			require.NoError(t, err)
			b, err := io.ReadAll(m)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("RETR %d\r\n", m.Num), string(b), "R1-116: in order")
			got++
		}
		assert.Equal(t, n, got)
		assert.NoError(t, c.Close())
		assert.Equal(t, n, <-over)
	})
}

// Where nothing is asked for ahead, since the next message is larger than the window, what has come is not taken
// for the reply to a command that is still to be sent (R1-020).
func TestHostileAheadOfTheCommand(t *testing.T) {
	const sizes, forged = "+OK\r\n1 9000000\r\n2 9000000\r\n.\r\n", "+OK\r\nforged\r\n.\r\n"
	two := valued("LIST", func(c *pop3.Client, ctx context.Context) ([]string, error) {
		if _, err := c.ListAll(ctx); err != nil {
			return nil, err
		}
		return outcomes(ctx, c, 1, 2)
	})
	playAll(t, []dialogue{
		{id: "3.9k before the first", script: sends(sizes + forged), do: two, want: gives([]string{"lost"}, broken),
			after: poisoned, opts: ahead, whole: true},
		{id: "3.9l behind the first",
			script: turns("LIST").sends(sizes).turns("RETR 1").sends("+OK\r\na\r\n.\r\n" + forged), do: two,
			want: gives([]string{"1 a", "lost"}, broken), after: poisoned, opts: ahead, whole: true},
	})
}

// A server that answers commands of which it has taken one octet: what is still to be written is not answered.
func TestHostileAnswersUnread(t *testing.T) {
	unread := func(t *testing.T, replies string) *pop3.Client {
		c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
			p.login()
			p.hears("LIST")
			p.says("+OK\r\n1 1000000\r\n2 1000000\r\n3 1000000\r\n4 1000000\r\n.\r\n")
			p.Read(make([]byte, 1))
			p.says(replies)
			time.Sleep(time.Hour)
		}), &pop3.Options{InsecureAuth: true, Pipelining: pop3.PipeliningAlways})
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))
		_, err = c.ListAll(t.Context())
		require.NoError(t, err)
		return c
	}
	t.Run("3.9m one that waits to be written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := unread(t, strings.Repeat("+OK\r\n.\r\n", 4)) // three of 1 MB are sent at once
			got, err := outcomes(t.Context(), c, 1, 2, 3, 4)
			assert.Equal(t, []string{"1 ", "2 ", "3 ", "lost"}, got)
			also(broken, says("RETR 4: answered before it was sent"))(t, err)
			poisoned.check(t, c, err)
		})
	})
	t.Run("3.9n all of them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := unread(t, "+OK\r\n+OK\r\n")
			require.NoError(t, c.Dele(t.Context(), 1, 2), "what it says of them is what counts")
			assert.Equal(t, pop3.StateClosed, c.State(), "the next command would go on in the middle of a line")
			assert.ErrorContains(t, c.Noop(t.Context()), "commands sent ahead")
		})
	})
}

// A server that dies of very many commands at once: the error says what to do, and only then.
func TestHostileDiesOfMany(t *testing.T) {
	for _, row := range []struct {
		id    string
		marks int
		hint  bool
		end   func(p *peer)
	}{
		{"3.9o of very many", 2500, true, func(p *peer) { p.Close() }},
		{"3.9p of few", 2000, false, func(p *peer) { p.Close() }},
		{"3.9q silence", 2500, false, func(p *peer) { time.Sleep(time.Hour) }},
		{"3.9r garbage", 2500, false, func(p *peer) { p.says("garbage\r\n") }},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
					p.login()
					for p.line() != fmt.Sprintf("DELE %d", row.marks) {
					}
					p.says("+OK\r\n-ERR no\r\n")
					row.end(p)
				}), &pop3.Options{InsecureAuth: true, Pipelining: pop3.PipeliningAlways})
				require.NoError(t, err)
				require.NoError(t, byUser(t.Context(), c))
				err = c.Dele(t.Context(), numbers(row.marks)...)
				assert.ErrorContains(t, err, "DELE 3")
				assert.Equal(t, row.hint, strings.Contains(err.Error(), "a thousand numbers at a time"), err)
				checkError(t, err)
			})
		})
	}
}

// Within a loop over messages nothing else is sent (H-207).
func TestHostileNothingInTheLoop(t *testing.T) {
	playAll(t, []dialogue{{id: "H-207", script: asked("RETR", 2).sends("+OK\r\na\r\n.\r\n+OK\r\nb\r\n.\r\n"),
		opts: ahead, do: steps(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			for m, err := range c.Messages(ctx, 1, 2) {
				require.NoError(t, err)
				assert.ErrorIs(t, c.Dele(ctx, m.Num), pop3.ErrBusy)
				assert.ErrorIs(t, c.Noop(ctx), pop3.ErrBusy)
				_, err = c.Capa(ctx)
				assert.ErrorIs(t, err, pop3.ErrBusy)
				for _, err := range c.Messages(ctx, 3) {
					assert.ErrorIs(t, err, pop3.ErrBusy)
				}
			}
		})}})
}
