package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// outcomes returns the result of each step of a loop over Messages: the number with the content, "refused" or "cut".
// The last step has no message if the loop failed; its result is "lost".
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

// loop is an action that reads messages 1 to 5, which are requested ahead. Its value is what outcomes returns.
var loop = valueAction(
	"",
	func(c *pop3.Client, ctx context.Context) ([]string, error) { return outcomes(ctx, c, 1, 2, 3, 4, 5) },
)

// requested returns a script with count commands that arrive before the server sends the first reply.
func requested(verb string, count int) (s script) {
	for n := range count {
		s = s.add(fmt.Sprintf("C: %s %d", verb, n+1))
	}
	return s
}

// alwaysAhead are the options of a client that sends commands ahead even if the server does not announce PIPELINING.
var alwaysAhead = pop3.Options{Pipelining: pop3.PipeliningAlways}

func TestHostileBatch(t *testing.T) {
	batch := func(id, replies string, want []string, checks ...errorCheck) dialogue {
		d := dialogue{id: id, script: requested("RETR", 5), do: loop, want: returns(want, checks...),
			opts: alwaysAhead}
		for reply := range strings.SplitSeq(replies, "|") {
			switch reply {
			case "EOF", "RESET":
				d.script = d.script.add(reply)
			default:
				d.script = d.script.sends(reply)
			}
		}
		if len(checks) > 0 {
			d.after = closed
		}
		return d
	}
	ok := func(text string) string { return "+OK\r\n" + text + "\r\n.\r\n" }
	silent := batch(
		"H-203 a reply too few",
		ok("a")+ok("b")+ok("c")+ok("d"),
		[]string{"1 a", "2 b", "3 c", "4 d", "lost"},
		timedOut,
		hasText("PipeliningNever"),
	)
	silent.takes = 2 * time.Minute
	endless := batch(
		"3.9e a message that is no end",
		ok("a")+"+OK\r\nhalf\r\n",
		[]string{"1 a", "2 cut", "lost"},
		timedOut,
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
		batch("H-202 cut in the second", ok("a")+"+OK\r\nhalf\r\n|EOF", []string{"1 a", "2 cut", "lost"}, connLost,
			hasText("1 of 5 commands were answered completely"), hasText("RETR 2 was interrupted")),
		batch(
			"3.9c cut in a status line",
			ok("a")+"+O|EOF",
			[]string{"1 a", "lost"},
			connLost,
			hasText("RETR 2 got no reply"),
		),
		batch("3.9d reset between two", ok("a")+"|RESET", []string{"1 a", "lost"}, wraps(errReset)),
		batch("3.9f garbage between two", ok("a")+"garbage\r\n", []string{"1 a", "lost"}, fatal),
		batch("3.9g a dot too many", ok("a")+".\r\n", []string{"1 a", "lost"}, fatal),
		batch("3.9h goodbye in the middle", ok("a")+"-ERR Disconnected for inactivity.\r\n|EOF",
			[]string{"1 a", "2 refused", "lost"}, connLost),
		// The reply to the next command arrives before the end of the message.
		batch("3.9i the next reply within a message", "+OK\r\na\r\n+OK 15 octets\r\n.\r\nSubject: second\r\n.\r\n",
			[]string{"1 a\r\n+OK 15 octets", "lost"}, fatal, hasText("PipeliningNever")),
	})
}

func TestHostileBatchOfDele(t *testing.T) {
	three := func(c *pop3.Client, ctx context.Context) error { return c.Dele(ctx, 1, 2, 3) }
	andQuit := errorAction("", func(c *pop3.Client, ctx context.Context) error {
		if err := three(c, ctx); err != nil {
			return err
		}
		return c.Quit(ctx)
	})
	mark := errorAction("", three)
	playAll(t, []dialogue{
		{id: "3.9i the connection is closed in the middle", script: requested("DELE", 3).add("S: +OK", "EOF"),
			opts: alwaysAhead,
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				err := three(c, ctx)
				failsWith(connLost)(t, nil, err)
				closed.check(t, c, err)
				// R1-085: nothing was deleted, because QUIT was not sent, and the error says so
				notDeleted(wraps(net.ErrClosed))(t, c.Quit(ctx))
			})},
		{id: "H-203 a reply too many", script: requested("DELE", 3).add("S: +OK", "S: +OK").sends("+OK\r\n+OK\r\n"),
			do: andQuit, want: failsWith(notDeleted(fatal),
				hasText("not sent")), after: quitDone, opts: alwaysAhead, onePiece: true},
		{id: "H-203 a reply too few", script: requested("DELE", 3).add("S: +OK", "S: +OK"), do: mark,
			want:  failsWith(timedOut),
			after: closed, opts: alwaysAhead, takes: 2 * time.Minute},
		{id: "C-110 a reply too many before the batch", script: turns("DELE 4").sends("+OK\r\n+OK\r\n"),
			do: errorAction("", func(c *pop3.Client, ctx context.Context) error {
				if err := c.Dele(ctx, 4); err != nil {
					return err
				}
				return three(c, ctx)
			}), want: failsWith(fatal, hasText("not sent")), after: closed, opts: alwaysAhead, onePiece: true},
		{id: "3.9j refused, and the connection is closed", script: requested("DELE", 3).add("S: -ERR one", "EOF"),
			do:   mark,
			want: failsWith(refusedWith("", "one"), wraps(io.ErrUnexpectedEOF)), after: closed, opts: alwaysAhead},
	})
}

// The server writes a reply before it reads the next command. The pipe has no buffer, and the client sends 10,000
// commands ahead. Neither side waits forever (H-205, R1-117).
func TestHostileNoBuffer(t *testing.T) {
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

// If the next message is larger than the window, the client requests nothing ahead. Data that has arrived too early
// must not be read as the reply to a command that is not sent yet (R1-020).
func TestHostileAheadOfTheCommand(t *testing.T) {
	const sizes, forged = "+OK\r\n1 9000000\r\n2 9000000\r\n.\r\n", "+OK\r\nforged\r\n.\r\n"
	two := valueAction("LIST", func(c *pop3.Client, ctx context.Context) ([]string, error) {
		if _, err := c.ListAll(ctx); err != nil {
			return nil, err
		}
		return outcomes(ctx, c, 1, 2)
	})
	playAll(t, []dialogue{
		{id: "3.9k before the first", script: serverSends(sizes + forged), do: two,
			want: returns([]string{"lost"}, fatal), after: closed, opts: alwaysAhead, onePiece: true},
		{id: "3.9l after the first",
			script: turns("LIST").sends(sizes).turns("RETR 1").sends("+OK\r\na\r\n.\r\n" + forged), do: two,
			want: returns([]string{"1 a", "lost"}, fatal), after: closed, opts: alwaysAhead, onePiece: true},
	})
}

// The server has read one octet of a batch of commands and sends replies for all of them. A reply to a command that is
// not written yet is an error.
func TestHostileAnswersUnread(t *testing.T) {
	unread := func(t *testing.T, replies string) *pop3.Client {
		c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
			p.login()
			p.expect("LIST")
			p.send("+OK\r\n1 1000000\r\n2 1000000\r\n3 1000000\r\n4 1000000\r\n.\r\n")
			p.Read(make([]byte, 1))
			p.send(replies)
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
			// The first three messages of 1 MB are requested at once, and the fourth later.
			c := unread(t, strings.Repeat("+OK\r\n.\r\n", 4))
			got, err := outcomes(t.Context(), c, 1, 2, 3, 4)
			assert.Equal(t, []string{"1 ", "2 ", "3 ", "lost"}, got)
			allOf(fatal, hasText("RETR 4: answered before it was sent"))(t, err)
			closed.check(t, c, err)
		})
	})
	t.Run("3.9n all of them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := unread(t, "+OK\r\n+OK\r\n")
			require.NoError(t, c.Dele(t.Context(), 1, 2), "both replies are positive")
			assert.Equal(t, pop3.StateClosed, c.State(), "the server would read the next command as part of a line")
			assert.ErrorContains(t, c.Noop(t.Context()), "commands sent ahead")
		})
	})
}

// Some servers crash when they receive very many commands at once. If the connection is then lost, the error advises to
// pass fewer messages to each call. After fewer commands the error has no such advice.
func TestHostileManyCommands(t *testing.T) {
	for _, row := range []struct {
		id    string
		marks int
		hint  bool
		end   func(p *peer)
	}{
		{"3.9o of very many", 2500, true, func(p *peer) { p.Close() }},
		{"3.9p of few", 2000, false, func(p *peer) { p.Close() }},
		{"3.9q silence", 2500, false, func(p *peer) { time.Sleep(time.Hour) }},
		{"3.9r garbage", 2500, false, func(p *peer) { p.send("garbage\r\n") }},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := pop3.NewClient(t.Context(), serve(t, func(p *peer) {
					p.login()
					for p.line() != fmt.Sprintf("DELE %d", row.marks) {
					}
					p.send("+OK\r\n-ERR no\r\n")
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

// During a loop over messages no other command can be sent (H-207).
func TestHostileNothingInTheLoop(t *testing.T) {
	playAll(t, []dialogue{{id: "H-207", script: requested("RETR", 2).sends("+OK\r\na\r\n.\r\n+OK\r\nb\r\n.\r\n"),
		opts: alwaysAhead, do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
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

const roundTrip = 50 * time.Millisecond

// withDelay runs f in a synctest bubble. f gets a client that is logged in to srv over a connection with a long delay.
func withDelay(t *testing.T, srv *pop3test.Server, opts pop3.Options, f func(t *testing.T, c *pop3.Client)) {
	synctest.Test(t, func(t *testing.T) {
		near, far, wait := delayedPipe(roundTrip)
		served := make(chan struct{})
		go func() { defer close(served); srv.ServeConn(far) }()
		opts.InsecureAuth = true
		c, err := pop3.NewClient(t.Context(), near, &opts)
		require.NoError(t, err)
		require.NoError(t, c.Login(t.Context(), "u", canary))
		f(t, c)
		require.NoError(t, c.Close())
		<-served
		wait()
	})
}

// countRoundTrips returns how many round trips f takes.
func countRoundTrips(f func()) float64 {
	began := time.Now()
	f()
	return float64(time.Since(began)) / float64(roundTrip)
}

func message(octets int) []byte {
	line := strings.Repeat("x", 70) + "\r\n"
	return []byte("Subject: x\r\n\r\n" + strings.Repeat(line, octets/len(line)+1))[: octets-2 : octets]
}

func numbers(n int) []int {
	nums := make([]int, n)
	for i := range nums {
		nums[i] = i + 1
	}
	return nums
}

func TestRoundTrips(t *testing.T) {
	box := &pop3test.Mailbox{User: "u", Password: canary}
	for range 1000 {
		box.Messages = append(box.Messages, append(message(6000), '\r', '\n'))
	}
	fetch := func(t *testing.T, c *pop3.Client) {
		n := 0
		for m, err := range c.Messages(t.Context(), numbers(1000)...) {
			require.NoError(t, err)
			octets, err := io.Copy(io.Discard, m)
			require.NoError(t, err)
			assert.EqualValues(t, 6000, octets)
			n++
		}
		assert.Equal(t, 1000, n)
	}
	for _, row := range []struct {
		name     string
		opts     pop3.Options
		readSize float64
		f        func(t *testing.T, c *pop3.Client)
	}{
		{"1,000 messages, sizes not known", pop3.Options{}, 5, fetch},
		{"1,000 messages after Listing", pop3.Options{}, 5, func(t *testing.T, c *pop3.Client) {
			infos, err := c.Listing(t.Context())
			require.NoError(t, err)
			require.Len(t, infos, 1000)
			fetch(t, c)
		}},
		{"Listing", pop3.Options{}, 1, func(t *testing.T, c *pop3.Client) {
			_, err := c.Listing(t.Context())
			require.NoError(t, err)
		}},
		{"1,000 headers", pop3.Options{}, 3, func(t *testing.T, c *pop3.Client) {
			for m, err := range c.Tops(t.Context(), 0, numbers(1000)...) {
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, m)
				require.NoError(t, err)
			}
		}},
		{"10,000 marks", pop3.Options{}, 2, func(t *testing.T, c *pop3.Client) {
			var nums []int
			for range 10 {
				nums = append(nums, numbers(1000)...)
			}
			require.Error(t, c.Dele(t.Context(), nums...), "only the first DELE of a message is accepted")
		}},
		{"one by one", pop3.Options{Pipelining: pop3.PipeliningNever}, 1000, fetch},
		{"always", pop3.Options{Pipelining: pop3.PipeliningAlways}, 4, fetch},
	} {
		t.Run(row.name, func(t *testing.T) {
			withDelay(t, pop3test.NewUnstartedServer(box), row.opts, func(t *testing.T, c *pop3.Client) {
				duration := countRoundTrips(func() { row.f(t, c) })
				t.Logf("%.2f round trips", duration)
				assert.LessOrEqual(t, duration, row.readSize+0.01)
			})
		})
	}
}

// TestPollRoundTrips: a poll takes four round trips after the greeting: CAPA, AUTH, LIST with UIDL, QUIT.
func TestPollRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: smallMail(3)})
		srv.Caps = []string{"TOP", "UIDL", "PIPELINING", "SASL PLAIN"}
		near, far, wait := delayedPipe(roundTrip)
		served := make(chan struct{})
		go func() { defer close(served); srv.ServeConn(far) }()
		c, err := pop3.NewClient(t.Context(), near, insecure)
		require.NoError(t, err)
		duration := countRoundTrips(func() {
			require.NoError(t, c.Login(t.Context(), "u", canary))
			_, err := c.Listing(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Quit(t.Context()))
		})
		assert.InDelta(t, 4, duration, 0.01)
		<-served
		wait()
	})
}

// lockstep is a server that reads a command only after the client has read its last reply. The transport has no
// buffers, so a client that writes without reading would wait forever.
func lockstep(t *testing.T, n int) (client net.Conn, wait func()) {
	t.Helper()
	client, server := net.Pipe()
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer server.Close()
		in := bufio.NewReader(server)
		io.WriteString(server, "+OK ready\r\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			switch verb, arg, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
			case "CAPA":
				io.WriteString(server, "+OK\r\nPIPELINING\r\nUIDL\r\n.\r\n")
			case "RETR", "TOP":
				fmt.Fprintf(server, "+OK\r\nmessage %s\r\n.\r\n", arg)
			case "LIST", "UIDL":
				io.WriteString(server, "+OK\r\n")
				for i := range n {
					fmt.Fprintf(server, "%d 100\r\n", i+1)
				}
				io.WriteString(server, ".\r\n")
			case "QUIT":
				io.WriteString(server, "+OK\r\n")
				return
			default:
				io.WriteString(server, "+OK\r\n")
			}
		}
	}()
	return client, func() { <-over }
}

func lockstepClient(t *testing.T, n int, opts pop3.Options) *pop3.Client {
	t.Helper()
	conn, wait := lockstep(t, n)
	opts.InsecureAuth = true
	c, err := pop3.NewClient(t.Context(), conn, &opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		wait()
	})
	require.NoError(t, byUser(t.Context(), c))
	return c
}

// TestNoDeadlock: with such a server, batches of 10,000 commands do not block (R1-117, H-205).
func TestNoDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		c := lockstepClient(t, n, pop3.Options{})
		infos, err := c.Listing(t.Context())
		require.NoError(t, err)
		require.Len(t, infos, n)
		var got int
		for m, err := range c.Messages(t.Context(), numbers(n)...) {
			require.NoError(t, err)
			b, err := io.ReadAll(m)
			require.NoError(t, err)
			got++
			require.Equal(
				t,
				fmt.Sprintf("message %d\r\n", got),
				string(b),
				"the n-th reply is that to the n-th command",
			)
		}
		require.Equal(t, n, got)
		require.NoError(t, c.Dele(t.Context(), numbers(n)...))
		require.NoError(t, c.Quit(t.Context()))
	})
}

// TestBreakOverLockstep: the caller may leave the loop at any message, and the session can be used afterwards.
func TestBreakOverLockstep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for at := 1; at < 300; at += 13 {
			c := lockstepClient(t, 1, pop3.Options{})
			for m, err := range c.Messages(t.Context(), numbers(1000)...) {
				require.NoError(t, err)
				if m.Num == at {
					break
				}
			}
			require.NoError(t, c.Noop(t.Context()))
			require.NoError(t, c.Quit(t.Context()))
		}
	})
}

// TestDeafServer: if the server stops reading after its first reply, the loop ends with a timeout.
func TestDeafServer(t *testing.T) {
	all := errorAction("", func(c *pop3.Client, ctx context.Context) (last error) {
		for _, last = range c.Messages(ctx, numbers(5000)...) {
		}
		return last
	})
	dialogue{id: "the second of 5,000", script: turns("CAPA", "+OK\nPIPELINING\n.", "RETR 1").
		add("ANY", "S: +OK", "S: .", "DEAF"), do: all,
		want: failsWith(timedOut), after: closed, takes: pop3.DefaultTimeout}.run(t)
}

// TestOnlyFirstAnswered: the server announces PIPELINING, but replies only to the first command.
func TestOnlyFirstAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := loggedInClient(t, script{`
			C: CAPA
			S: +OK
			S: PIPELINING
			S: .
			C: RETR 1
			C: RETR 2
			S: +OK
			S: one
			S: .
			HOLD
		`}, pop3.Options{})
		began := time.Now()
		var errs []error
		for m, err := range c.Messages(t.Context(), 1, 2) {
			errs = append(errs, err)
			assert.Equal(t, err == nil, m != nil)
		}
		require.Len(t, errs, 2)
		require.NoError(t, errs[0])
		require.ErrorContains(t, errs[1], "PipeliningNever")
		require.ErrorContains(t, errs[1], "1 of 2 commands were answered completely")
		assert.Equal(t, pop3.DefaultTimeout, time.Since(began))
	})
}

func TestRefusedInTheMiddle(t *testing.T) {
	c := loggedInClient(t, script{`
		C: RETR 1
		C: RETR 2
		C: RETR 3
		S: +OK
		S: one
		S: .
		S: -ERR no such message
		S: +OK
		S: three
		S: .
		C: NOOP
		S: +OK
	`}, pop3.Options{Pipelining: pop3.PipeliningAlways})
	var got []string
	for m, err := range c.Messages(t.Context(), 1, 2, 3) {
		require.NotNil(t, m)
		b, _ := io.ReadAll(m)
		got = append(got, fmt.Sprintf("%d %q %v", m.Num, b, err))
	}
	assert.Equal(t, []string{
		`1 "one\r\n" <nil>`,
		`2 "" pop3: RETR 2: -ERR no such message`,
		`3 "three\r\n" <nil>`,
	}, got, "H-201, R1-120")
	require.NoError(t, c.Noop(t.Context()))
}

func TestLostInTheMiddle(t *testing.T) {
	c := loggedInClient(t, script{`
		C: RETR 1
		C: RETR 2
		C: RETR 3
		S: +OK
		S: one
		S: .
		S: +OK
		S: tw
		EOF
	`}, pop3.Options{Pipelining: pop3.PipeliningAlways})
	var whole []int
	var last error
	for m, err := range c.Messages(t.Context(), 1, 2, 3) {
		last = err
		if m == nil {
			break
		}
		if _, err := io.Copy(io.Discard, m); err == nil {
			whole = append(whole, m.Num)
		} else {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	}
	assert.Equal(t, []int{1}, whole)
	require.ErrorIs(t, last, io.ErrUnexpectedEOF, "H-202")
	require.ErrorContains(
		t,
		last,
		"1 of 3 commands were answered completely, then RETR 2 was interrupted, and later ones were not answered",
	)
}

func TestDeleJoinsRefusals(t *testing.T) {
	for name, mode := range map[string]pop3.Pipelining{
		"one at a time": pop3.PipeliningNever, "ahead": pop3.PipeliningAlways,
	} {
		t.Run("C-016 "+name, func(t *testing.T) {
			srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: smallMail(3)})
			defer srv.Close()
			c, err := pop3.DialInsecure(t.Context(), srv.Addr, &pop3.Options{Pipelining: mode})
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.Login(t.Context(), "u", canary))
			joined, ok := c.Dele(t.Context(), 1, 7, 2, 8).(interface{ Unwrap() []error })
			require.True(t, ok, "several errors")
			var nums []int
			for _, err := range joined.Unwrap() {
				var refusal *pop3.Error
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, fmt.Sprintf("DELE %d", refusal.Num), refusal.Cmd)
				nums = append(nums, refusal.Num)
			}
			assert.Equal(t, []int{7, 8}, nums)
			require.NoError(t, c.Quit(t.Context()))
			assert.Len(t, srv.Left("u"), 1, "the other messages were marked")
		})
	}
}

// TestAskedAhead: if the sizes are known from LIST, the client limits how many octets it requests ahead. The limit
// grows with the octets that were read. The number of messages is limited too.
func TestAskedAhead(t *testing.T) {
	for _, row := range []struct {
		name     string
		messages int
		octets   int
		read     int // number of messages that are read before the loop is left
		ahead    int
	}{
		{"at first", 40, 1_000_000, 1, 2},
		{"after the window was read once", 40, 1_000_000, 3, 2},
		{"after four messages", 40, 1_000_000, 5, 4},
		{"after many", 40, 1_000_000, 25, 8},
		{"larger than the window", 5, 3_000_000, 1, 0},
		{"larger than the widest window", 5, 9_000_000, 2, 0},
		{"small ones", 5000, 100, 1, 2000},
		{"small ones, after many", 5000, 100, 2500, 2000},
	} {
		t.Run(row.name, func(t *testing.T) {
			box := &pop3test.Mailbox{User: "u", Password: canary}
			octets := append(message(row.octets), '\r', '\n')
			for range row.messages {
				box.Messages = append(box.Messages, octets)
			}
			srv := pop3test.NewServer(box)
			defer srv.Close()
			requestedCount := 0
			c, err := pop3.DialInsecure(t.Context(), srv.Addr, &pop3.Options{Trace: &pop3.Trace{
				WroteCommand: func(_ context.Context, cmd string) {
					if strings.HasPrefix(cmd, "RETR ") {
						requestedCount++
					}
				},
			}})
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.Login(t.Context(), "u", canary))
			_, err = c.Listing(t.Context())
			require.NoError(t, err)
			for m, err := range c.Messages(t.Context(), numbers(row.messages)...) {
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, m)
				require.NoError(t, err)
				if m.Num == row.read {
					break
				}
			}
			assert.LessOrEqual(t, requestedCount, row.read+row.ahead)
			assert.Greater(t, requestedCount, row.read+row.ahead*3/4-1, "too few messages were requested ahead")
		})
	}
}

// TestCancelInLoop: when the context ends, the loop ends with its error, and no more commands are written.
func TestCancelInLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lockstepClient(t, 1, pop3.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var errs []error
		for m, err := range c.Messages(ctx, numbers(1000)...) {
			errs = append(errs, err)
			if m != nil && m.Num == 3 {
				cancel()
			}
		}
		require.Len(t, errs, 4)
		require.ErrorIs(t, errs[3], context.Canceled)
		require.ErrorIs(t, c.Noop(t.Context()), net.ErrClosed)
	})
}

// With PipeliningNever each command waits for the reply to the one before it (C-110).
func TestPipeliningNever(t *testing.T) {
	for mode, ahead := range map[pop3.Pipelining]bool{pop3.PipeliningNever: false, pop3.PipeliningAlways: true} {
		synctest.Test(t, func(t *testing.T) {
			conn := serve(t, func(p *peer) {
				p.login()
				p.expect("DELE 1")
				assert.Equal(t, ahead, p.lines.Buffered() > 0)
				p.send("+OK\r\n")
				p.expect("DELE 2")
				p.send("+OK\r\n")
			})
			c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Pipelining: mode})
			require.NoError(t, err)
			require.NoError(t, byUser(t.Context(), c))
			assert.NoError(t, c.Dele(t.Context(), 1, 2))
			assert.NoError(t, c.Close())
		})
	}
}

// In a loop, Done is called once for each message, when it has been read (C-110).
func TestDoneInALoop(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: smallMail(2)})
	t.Cleanup(srv.Close)
	var done []string
	c, err := pop3.DialInsecure(t.Context(), srv.Addr, &pop3.Options{Trace: &pop3.Trace{
		Done: func(_ context.Context, cmd string, _ int64, _ error) { done = append(done, cmd) },
	}})
	require.NoError(t, err)
	require.NoError(t, byUser(t.Context(), c))
	_, err = c.Capa(t.Context())
	require.NoError(t, err)
	done = nil
	for m, err := range c.Tops(t.Context(), 0, 1, 2) {
		require.NoError(t, err)
		assert.Len(t, done, m.Num-1)
	}
	for m, err := range c.Messages(t.Context(), 1, 2) {
		require.NoError(t, err)
		assert.Len(t, done, m.Num+1)
	}
	assert.Equal(t, []string{"TOP 1 0", "TOP 2 0", "RETR 1", "RETR 2"}, done)
	assert.NoError(t, c.Close())
}

// TestLoopBodyMayBeSlow: the time that the body of the loop takes does not count for the timeout (reliability, writes
// of a batch).
func TestLoopBodyMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lockstepClient(t, 1, pop3.Options{})
		for m, err := range c.Messages(t.Context(), numbers(700)...) {
			require.NoError(t, err)
			time.Sleep(time.Hour)
			b, err := io.ReadAll(m)
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(b, []byte("message")))
		}
		require.NoError(t, c.Quit(t.Context()))
	})
}

// The body of the loop may also be slow while commands are still being written. After its first reply the server reads
// nothing for half an hour.
func TestLoopBodyMayBeSlowDuringWrites(t *testing.T) {
	const n = 1000 // the commands fill more than one TLS record, and the server reads one record at a time
	for name, overTLS := range map[string]bool{"in clear": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := serve(t, func(p *peer) {
					p.Conn = chunkedConn{p.Conn, 1}
					p.lines = bufio.NewReader(p)
					if overTLS && !p.startTLS(serverTLS()) {
						return
					}
					p.login()
					for num := range n {
						p.expect(fmt.Sprintf("RETR %d", num+1))
						p.send("+OK\r\nx\r\n.\r\n")
						if num == 0 {
							time.Sleep(30 * time.Minute)
						}
					}
					p.expect("NOOP")
					p.send("+OK\r\n")
				})
				if overTLS {
					config := clientTLS()
					config.ServerName = "pop.example.com"
					conn = tls.Client(conn, config)
				}
				opts := &pop3.Options{InsecureAuth: true, Pipelining: pop3.PipeliningAlways}
				c, err := pop3.NewClient(t.Context(), conn, opts)
				require.NoError(t, err)
				require.NoError(t, byUser(t.Context(), c))
				time.Sleep(time.Hour)
				for m, err := range c.Messages(t.Context(), numbers(n)...) {
					require.NoError(t, err)
					time.Sleep(time.Hour)
					_, err := io.Copy(io.Discard, m)
					require.NoError(t, err)
				}
				assert.NoError(t, c.Noop(t.Context()))
				assert.NoError(t, c.Close())
			})
		})
	}
}

// The caller may leave a loop over Messages at any message of any size. Then it can delete the messages that were read.
// No other messages are deleted.
func TestBreak(t *testing.T) {
	const count = 60
	for _, size := range []int{500, 20_000, 1_000_000} {
		box := &pop3test.Mailbox{User: "u", Password: canary, Messages: slices.Repeat([][]byte{message(size)}, count)}
		for _, after := range []int{1, 3, 20} {
			for _, known := range []bool{false, true} {
				leave := func(t *testing.T, c *pop3.Client) { leaveAfter(t, c, after, known) }
				t.Run(fmt.Sprintf("C-010 %d octets, after %d, sizes known %v", size, after, known), func(t *testing.T) {
					srv := pop3test.NewUnstartedServer(box)
					withDelay(t, srv, pop3.Options{}, leave)
					assert.Len(t, srv.Left("u"), count-after, "over a slow connection")

					srv = pop3test.NewTLSServer(box)
					defer srv.Close()
					c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
					require.NoError(t, err)
					defer c.Close()
					require.NoError(t, c.Login(t.Context(), "u", canary))
					leave(t, c)
					assert.Len(t, srv.Left("u"), count-after, "over TLS")
				})
			}
		}
	}
}

// leaveAfter leaves a loop over all messages when it has read the beginning of message number after. It deletes the
// messages up to that one and ends the session.
func leaveAfter(t *testing.T, c *pop3.Client, after int, known bool) {
	drop, err := c.Stat(t.Context())
	require.NoError(t, err)
	if known {
		_, err := c.Listing(t.Context())
		require.NoError(t, err)
	}
	var read []int
	for m, err := range c.Messages(t.Context(), numbers(drop.Count)...) {
		require.NoError(t, err)
		read = append(read, m.Num)
		if len(read) == after {
			_, err = io.ReadFull(m, make([]byte, 100))
			require.NoError(t, err)
			break
		}
		_, err = io.Copy(io.Discard, m)
		require.NoError(t, err)
	}
	assert.NoError(t, errors.Join(c.Dele(t.Context(), read...), c.Quit(t.Context())))
}

// Leaving the loop closes the connection only if the unread part of the open message is larger than a window. Later
// errors name that message.
func TestBreakInTheMidstOfALargeMessage(t *testing.T) {
	box := &pop3test.Mailbox{User: "u", Password: canary, Messages: [][]byte{message(500), message(9 << 20)}}
	srv := pop3test.NewUnstartedServer(box)
	withDelay(t, srv, pop3.Options{}, func(t *testing.T, c *pop3.Client) {
		_, err := c.Listing(t.Context())
		require.NoError(t, err)
		for m, err := range c.Messages(t.Context(), 1, 2) {
			require.NoError(t, err)
			if m.Num == 2 {
				break
			}
		}
		err = c.Dele(t.Context(), 1)
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.ErrorContains(t, err, "RETR 2: more than 8192 KiB of it were left unread")
	})
	assert.Len(t, srv.Left("u"), 2)
}

// The end-of-message line of a message has no LF, and the next reply follows directly. Neither of the two messages
// counts as complete (C-005).
func TestReplyInBody(t *testing.T) {
	for name, body := range map[string]string{
		"C-005 +OK":            "S: one\ns: \".\\r+OK\\r\\n\"\nS: two\nS: .",
		"C-005 -ERR":           "S: one\ns: \".\\r-ERR no\\r\\n\"\nHOLD",
		"C-005 octet by octet": "CHUNK 1\nS: one\ns: \".\\r+OK\\r\\n\"\nS: two\nS: .",
	} {
		t.Run(name, func(t *testing.T) {
			conn, _ := pop3test.Script(
				"S: +OK\nC: USER u\nS: +OK\nC: PASS " + canary + "\nS: +OK\nC: RETR 1\nC: RETR 2\nS: +OK\n" + body,
			)
			c, err := pop3.NewClient(
				t.Context(),
				conn,
				&pop3.Options{InsecureAuth: true, Pipelining: pop3.PipeliningAlways},
			)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, errors.Join(c.User(t.Context(), "u"), c.Pass(t.Context(), canary)))
			for m, err := range c.Messages(t.Context(), 1, 2) {
				require.NoError(t, err)
				content, err := io.ReadAll(m)
				fatal(t, err)
				assert.ErrorContains(t, err, "PipeliningNever")
				assert.Equal(t, "one\r\n", string(content))
				break
			}
			assert.ErrorIs(t, c.Noop(t.Context()), net.ErrClosed)
		})
	}
}

// If no sizes are known, the client may have requested messages ahead that are larger than the window. None of them is
// open, so leaving the loop does not close the connection (C-010).
func TestBreakBeforeLargeMessages(t *testing.T) {
	large := message(9 << 20)
	box := &pop3test.Mailbox{User: "u", Password: canary, Messages: [][]byte{message(500), large, large}}
	srv := pop3test.NewUnstartedServer(box)
	withDelay(t, srv, pop3.Options{}, func(t *testing.T, c *pop3.Client) {
		for m, err := range c.Messages(t.Context(), 1, 2, 3) {
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, m)
			require.NoError(t, err)
			break
		}
		assert.NoError(t, errors.Join(c.Dele(t.Context(), 1), c.Quit(t.Context())))
	})
	assert.Len(t, srv.Left("u"), 2)
}

// When the caller leaves the loop, the client reads the replies to all commands that were sent, even if some are
// refusals (C-110).
func TestBreakBeforeARefusal(t *testing.T) {
	c := loggedInClient(t, requested("RETR", 3).add("S: +OK\nS: a\nS: .", "S: -ERR no", "S: +OK\nS: c\nS: .", "C: NOOP",
		"S: +OK"),
		alwaysAhead)
	for _, err := range c.Messages(t.Context(), 1, 2, 3) {
		require.NoError(t, err)
		break
	}
	assert.NoError(t, c.Noop(t.Context()))
}
