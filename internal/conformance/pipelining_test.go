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
	"github.com/seed-2d50cddb/pop3/pop3test"
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

// pipelined is a script in which the commands come before the first reply.
func pipelined(verb string, nums []int, replies ...string) []string {
	var lines []string
	for _, n := range nums {
		lines = append(lines, fmt.Sprintf("C: %s %d", verb, n))
	}
	lines = append(lines, replies...)
	if replies[len(replies)-1] == "RESET" {
		return lines
	}
	return append(lines, "HOLD")
}

// A batchRow is a server that is asked for messages 1 to 5 ahead.
type batchRow struct {
	id      string
	replies []string // script lines
	want    []string
	err     problem
	takes   time.Duration
}

func TestHostileBatch(t *testing.T) {
	ok := func(text string) []string { return []string{"S: +OK", "S: " + text, "S: ."} }
	list := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	five := list(ok("a"), ok("b"), ok("c"), ok("d"), ok("e"))
	all := []string{"1 a", "2 b", "3 c", "4 d", "5 e"}
	for _, row := range []batchRow{
		{id: "3.9a all well", replies: five, want: all},
		{id: "H-201 one refused", replies: list(ok("a"), []string{"S: -ERR"}, ok("c"), ok("d"), ok("e")),
			want: []string{"1 a", "2 refused", "3 c", "4 d", "5 e"}},
		{id: "3.9b all refused", replies: []string{"S: -ERR", "S: -ERR", "S: -ERR", "S: -ERR", "S: -ERR"},
			want: []string{"1 refused", "2 refused", "3 refused", "4 refused", "5 refused"}},
		{id: "H-202 cut in the second", replies: list(ok("a"), []string{"S: +OK", "S: half", "EOF"}),
			want: []string{"1 a", "2 cut", "lost"}, err: also(cut, says("1 were answered whole"),
				says("RETR 2 was cut"))},
		{id: "3.9c cut in a status line", replies: list(ok("a"), []string{`s: "+O"`, "EOF"}),
			want: []string{"1 a", "lost"}, err: also(cut, says("RETR 2 was not answered"))},
		{id: "3.9d reset between two", replies: list(ok("a"), []string{"RESET"}),
			want: []string{"1 a", "lost"}, err: is(errReset)},
		{id: "H-203 a reply too few", replies: list(ok("a"), ok("b"), ok("c"), ok("d")),
			want: []string{"1 a", "2 b", "3 c", "4 d", "lost"}, err: also(late,
				says("PipeliningNever")), takes: 2 * time.Minute},
		{id: "3.9e a message that is no end", replies: list(ok("a"), []string{"S: +OK", "S: half"}),
			want: []string{"1 a", "2 cut", "lost"}, err: late, takes: 2 * time.Minute},
		{id: "3.9f garbage between two", replies: list(ok("a"), []string{"S: garbage"}),
			want: []string{"1 a", "lost"}, err: broken},
		{id: "3.9g a dot too many", replies: list(ok("a"), []string{"S: ."}), want: []string{"1 a", "lost"},
			err: broken},
		{id: "3.9h goodbye in the middle",
			replies: list(ok("a"), []string{"S: -ERR Disconnected for inactivity.", "EOF"}),
			want:    []string{"1 a", "2 refused", "lost"}, err: cut},
		{id: "3.9i the next reply within a message", // a server whose reply overtakes the end of the message
			replies: []string{"S: +OK", "S: a", "S: +OK 15 octets", "S: .", "S: Subject: second", "S: ."},
			want:    []string{"1 a\r\n+OK 15 octets", "lost"}, err: also(broken, says("PipeliningNever"))},
	} {
		t.Run(row.id, func(t *testing.T) {
			for _, mode := range []string{"CHUNK 0", "CHUNK 1", "CHUNK ~9 1"} {
				row.run(t, mode)
			}
		})
	}
}

func (row batchRow) run(t *testing.T, chunk string) {
	synctest.Test(t, func(t *testing.T) {
		nums := []int{1, 2, 3, 4, 5}
		script := append(loginLines(), chunk)
		script = append(script, pipelined("RETR", nums, row.replies...)...)
		if row.err == nil {
			script = append(script[:len(script)-1], "C: NOOP", "S: +OK", "HOLD")
		}
		conn, done := pop3test.Script(strings.Join(script, "\n"))
		c, dones := countingClient(t, conn)
		start := time.Now()
		got, err := outcomes(t.Context(), c, nums...)
		assert.Equal(t, row.takes, time.Since(start), chunk)
		assert.Equal(t, row.want, got, chunk)
		if row.err != nil {
			row.err(t, err)
			checkError(t, err)
			poisoned.check(t, c, err)
		} else {
			assert.NoError(t, c.Noop(t.Context()))
		}
		for cmd, n := range dones {
			assert.LessOrEqual(t, n, 1, "%s is done once", cmd)
		}
		assert.NoError(t, c.Close())
		assert.NoError(t, done(), chunk)
	})
}

// countingClient is a client that pipelines always, and counts what its trace calls done.
func countingClient(t *testing.T, conn net.Conn) (*pop3.Client, map[string]int) {
	dones := map[string]int{}
	trace := watchful(t)
	watch := trace.Done
	trace.Done = func(ctx context.Context, cmd string, octets int64, err error) {
		watch(ctx, cmd, octets, err)
		dones[cmd]++
	}
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{
		InsecureAuth: true, Trace: trace, Pipelining: pop3.PipeliningAlways,
	})
	require.NoError(t, err)
	require.NoError(t, byUser(t.Context(), c))
	clear(dones)
	return c, dones
}

func TestHostileBatchOfDele(t *testing.T) {
	run := func(id string, replies []string, check func(t *testing.T, c *pop3.Client, err error)) {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := append(loginLines(), pipelined("DELE", []int{1, 2, 3}, replies...)...)
				conn, done := pop3test.Script(strings.Join(script, "\n"))
				c, dones := countingClient(t, conn)
				check(t, c, c.Dele(t.Context(), 1, 2, 3))
				for cmd, n := range dones {
					assert.LessOrEqual(t, n, 1, "%s is done once", cmd)
				}
				assert.NoError(t, c.Close())
				assert.NoError(t, done())
			})
		})
	}
	run("3.9i gone in the middle", []string{"S: +OK", "EOF"}, func(t *testing.T, c *pop3.Client, err error) {
		cut(t, err)
		checkError(t, err)
		poisoned.check(t, c, err)
		err = c.Quit(t.Context())
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.NotErrorIs(t, err, pop3.ErrCommitUnknown, "R1-085: nothing was deleted, since QUIT was not sent")
	})
	run("H-203 a reply too many", []string{"S: +OK", "S: +OK", `s: "+OK\r\n+OK\r\n"`},
		func(t *testing.T, c *pop3.Client, err error) {
			assert.NoError(t, err)
			err = c.Quit(t.Context())
			broken(t, err)
			assert.NotErrorIs(t, err, pop3.ErrCommitUnknown)
			assert.ErrorContains(t, err, "not sent")
		})
	run("H-203 a reply too few", []string{"S: +OK", "S: +OK"}, func(t *testing.T, c *pop3.Client, err error) {
		late(t, err)
		poisoned.check(t, c, err)
	})
	run("3.9j refused and gone", []string{"S: -ERR one", "EOF"}, func(t *testing.T, c *pop3.Client, err error) {
		refused("", "one")(t, err)
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		checkError(t, err)
		poisoned.check(t, c, err)
	})
}

// A server that answers before it takes the next command, over a pipe without room for an octet: 10,000 commands are
// sent ahead and nobody waits for the other for ever (H-205, R1-117).
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

// Where nothing is asked for ahead, since the next message is larger than the window, what has come is not taken for the
// reply to a command that is still to be sent (R1-020).
func TestHostileAheadOfTheCommand(t *testing.T) {
	const sizes, forged = "+OK\r\n1 9000000\r\n2 9000000\r\n.\r\n", "+OK\r\nforged\r\n.\r\n"
	for _, row := range []struct {
		id     string
		script []string
		want   []string
	}{
		{"3.9k before the first", []string{"C: LIST", "s: " + quoted(sizes+forged)}, []string{"lost"}},
		{"3.9l behind the first", []string{"C: LIST", "s: " + quoted(sizes), "C: RETR 1",
			"s: " + quoted("+OK\r\na\r\n.\r\n"+forged)}, []string{"1 a", "lost"}},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script(strings.Join(append(append(loginLines(), row.script...), "HOLD"), "\n"))
				c, _ := countingClient(t, conn)
				_, err := c.ListAll(t.Context())
				require.NoError(t, err)
				got, err := outcomes(t.Context(), c, 1, 2)
				assert.Equal(t, row.want, got)
				broken(t, err)
				checkError(t, err)
				poisoned.check(t, c, err)
				assert.NoError(t, done(), "no octet too many was sent")
			})
		})
	}
}

// A server that answers commands of which it has taken one octet: what is still to be written is not answered.
func TestHostileAnswersUnread(t *testing.T) {
	play := func(t *testing.T, replies string) *pop3.Client {
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
			c := play(t, strings.Repeat("+OK\r\n.\r\n", 4)) // three of 1 MB are sent at once
			got, err := outcomes(t.Context(), c, 1, 2, 3, 4)
			assert.Equal(t, []string{"1 ", "2 ", "3 ", "lost"}, got)
			also(broken, says("RETR 4: answered before it was sent"))(t, err)
			poisoned.check(t, c, err)
		})
	})
	t.Run("3.9n all of them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := play(t, "+OK\r\n+OK\r\n")
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
	synctest.Test(t, func(t *testing.T) {
		script := append(loginLines(), pipelined("RETR", []int{1, 2}, "S: +OK", "S: a", "S: .", "S: +OK",
			"S: b", "S: .")...)
		conn, done := pop3test.Script(strings.Join(script, "\n"))
		c, _ := countingClient(t, conn)
		for m, err := range c.Messages(t.Context(), 1, 2) {
			require.NoError(t, err)
			assert.ErrorIs(t, c.Dele(t.Context(), m.Num), pop3.ErrBusy)
			assert.ErrorIs(t, c.Noop(t.Context()), pop3.ErrBusy)
			_, err = c.Capa(t.Context())
			assert.ErrorIs(t, err, pop3.ErrBusy)
			for _, err := range c.Messages(t.Context(), 3) {
				assert.ErrorIs(t, err, pop3.ErrBusy)
			}
		}
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	})
}
