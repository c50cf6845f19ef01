package conformance_test

import (
	"bufio"
	"bytes"
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

const roundTrip = 50 * time.Millisecond

// overLongLine runs f in a bubble with a client that is logged in to a maildrop at the other end of a long line.
func overLongLine(t *testing.T, box *pop3test.Mailbox, opts pop3.Options, f func(t *testing.T, c *pop3.Client)) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(box)
		near, far, wait := longLine(roundTrip)
		served := make(chan struct{})
		go func() { defer close(served); srv.ServeConn(far) }()
		opts.InsecureAuth = true
		c, err := pop3.NewClient(t.Context(), near, &opts)
		require.NoError(t, err)
		require.NoError(t, c.Login(t.Context(), box.User, box.Password))
		f(t, c)
		require.NoError(t, c.Close())
		<-served
		wait()
	})
}

// flights runs f and gives how many round trips it took.
func flights(f func()) float64 {
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
		name string
		opts pop3.Options
		most float64
		f    func(t *testing.T, c *pop3.Client)
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
			require.Error(t, c.Dele(t.Context(), nums...), "each but the first mark of a message is refused")
		}},
		{"one by one", pop3.Options{Pipelining: pop3.PipeliningNever}, 1000, fetch},
		{"always", pop3.Options{Pipelining: pop3.PipeliningAlways}, 4, fetch},
	} {
		t.Run(row.name, func(t *testing.T) {
			overLongLine(t, box, row.opts, func(t *testing.T, c *pop3.Client) {
				took := flights(func() { row.f(t, c) })
				t.Logf("%.2f round trips", took)
				assert.LessOrEqual(t, took, row.most+0.01)
			})
		})
	}
}

// TestPollRoundTrips: greeting, CAPA, AUTH, LIST with UIDL, QUIT.
func TestPollRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: smallMail(3)})
		srv.Caps = []string{"TOP", "UIDL", "PIPELINING", "SASL PLAIN"}
		near, far, wait := longLine(roundTrip)
		served := make(chan struct{})
		go func() { defer close(served); srv.ServeConn(far) }()
		c, err := pop3.NewClient(t.Context(), near, insecure)
		require.NoError(t, err)
		took := flights(func() {
			require.NoError(t, c.Login(t.Context(), "u", canary))
			_, err := c.Listing(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Quit(t.Context()))
		})
		assert.InDelta(t, 4, took, 0.01)
		<-served
		wait()
	})
}

// lockstep is a server that reads a command only after its last reply was taken, on a transport without buffers:
// whoever writes on without reading waits for ever.
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

// TestNoDeadlock is R1-117 and H-205.
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

// TestBreakOverLockstep: after a break in any place the session goes on.
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

// TestDeafServer: a server that answers what it never reads can't hold the end of the loop up.
func TestDeafServer(t *testing.T) {
	all := plain("", func(c *pop3.Client, ctx context.Context) (last error) {
		for _, last = range c.Messages(ctx, numbers(5000)...) {
		}
		return last
	})
	dialogue{id: "the second of 5,000", script: turns("CAPA", "+OK\nPIPELINING\n.", "RETR 1").
		then("ANY", "S: +OK", "S: .", "DEAF"), do: all,
		want: fails(late), after: poisoned, takes: pop3.DefaultTimeout}.run(t)
}

// TestOnlyFirstAnswered: a server that announces PIPELINING and answers the first command only.
func TestOnlyFirstAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := enter(t, script{`
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
		require.ErrorContains(t, errs[1], "1 were answered whole")
		assert.Equal(t, pop3.DefaultTimeout, time.Since(began))
	})
}

func TestRefusedInTheMiddle(t *testing.T) {
	c := enter(t, script{`
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
	c := enter(t, script{`
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
		"of 3 commands 1 were answered whole, then RETR 2 was cut, and nothing after it was answered",
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
			assert.Len(t, srv.Left("u"), 1, "the others were marked all the same")
		})
	}
}

// TestAskedAhead: what is asked for ahead is bounded in octets where LIST told the sizes, grows with what was read, and
// is bounded in commands.
func TestAskedAhead(t *testing.T) {
	for _, row := range []struct {
		name     string
		messages int
		octets   int
		read     int // before the break
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
			asked := 0
			c, err := pop3.DialInsecure(t.Context(), srv.Addr, &pop3.Options{Trace: &pop3.Trace{
				WroteCommand: func(_ context.Context, cmd string) {
					if strings.HasPrefix(cmd, "RETR ") {
						asked++
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
			assert.LessOrEqual(t, asked, row.read+row.ahead)
			assert.Greater(t, asked, row.read+row.ahead*3/4-1, "the link is not kept full")
		})
	}
}

// TestCancelInLoop: the end of the context ends the batch, and whatever writes.
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

// TestLoopBodyMayBeSlow: the time of the caller does not count (reliability, writes of a batch).
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
