package conformance_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A quitRow is how a session ends: what the caller did, what the server says to QUIT, and what Quit has to report.
type quitRow struct {
	id     string
	before []string // script lines: the dialogue behind the login; DELE marks
	script []string // what the server does at QUIT
	err    problem
	takes  time.Duration
}

// unknown wants the caller to know that the marked messages may be gone or not.
func unknown(more ...problem) problem { return also(append(more, is(pop3.ErrCommitUnknown))...) }

// known wants an error that says that nothing was deleted.
func known(more ...problem) problem {
	return also(append(more, func(t *testing.T, err error) {
		assert.NotErrorIs(t, err,
			pop3.ErrCommitUnknown)
	})...)
}

func TestHostileQuit(t *testing.T) {
	marked := []string{"C: DELE 1", "S: +OK"}
	const pause = 250 * time.Millisecond
	for _, row := range []quitRow{
		{id: "R1-082 confirmed", before: marked, script: []string{"S: +OK", "EOF"}},
		{id: "H-229 confirmed and left open", before: marked, script: []string{"S: +OK"}, takes: pause},
		{id: "H-230 a word too many", before: marked, script: []string{`s: "+OK bye\r\nextra"`, "EOF"}},
		{id: "H-230 a line too many", before: marked, script: []string{`s: "+OK bye\r\nextra\r\n"`},
			takes: pause},
		{id: "H-230 a reply too many", before: marked, script: []string{`s: "+OK bye\r\n+OK\r\n"`, "EOF"},
			err: unknown(broken)},
		{id: "H-230 a refusal too many", before: marked,
			script: []string{`s: "+OK\r\n-ERR not removed\r\n"`, "EOF"},
			err:    unknown(broken)},
		{id: "3.11a a reply too many after 200 ms", before: marked,
			script: []string{"S: +OK", "PAUSE 200ms", "S: +OK"},
			err:    unknown(broken), takes: 200 * time.Millisecond},
		{id: "3.11b behind a line", before: marked, script: []string{`s: "+OK\r\nextra\r\n+OK\r\n"`},
			err: unknown(broken)},
		{id: "3.11c a reply too many in small letters", before: marked,
			script: []string{`s: "+OK\r\n+ok\r\n"`}, err: unknown(broken)},
		{id: "3.11d the beginning of a reply", before: marked, script: []string{`s: "+OK\r\n+O"`, "EOF"},
			err: unknown(broken)},
		{id: "3.11e a reply without line end", before: marked, script: []string{`s: "+OK\r\n-ERR"`, "EOF"},
			err: unknown(broken)},
		{id: "3.11f very many words", before: marked,
			script: []string{"s: " + quoted("+OK\r\n"+strings.Repeat("extra\r\n", 5000))}},
		{id: "3.11g reset behind it", before: marked, script: []string{"S: +OK", "RESET"}},
		{id: "R1-083 refused", before: marked, script: []string{"S: -ERR some not removed", "EOF"},
			err: unknown(refused("", "some not removed"))},
		{id: "H-228 refused with a code", before: marked, script: []string{"S: -ERR [SYS/TEMP] x", "EOF"},
			err: unknown(refused(pop3.CodeSysTemp, "x"))},
		{id: "H-226 gone", before: marked, script: []string{"EOF"}, err: unknown(cut)},
		{id: "3.11h reset", before: marked, script: []string{"RESET"}, err: unknown(is(errReset))},
		{id: "H-231 no line end", before: marked, script: []string{`s: "+OK"`, "EOF"}, err: unknown(cut)},
		{id: "3.11i no LF", before: marked, script: []string{`s: "+OK\r"`, "EOF"}, err: unknown(cut)},
		{id: "3.11j LF without CR", before: marked, script: []string{`s: "+OK\n"`, "EOF"},
			err: unknown(broken)},
		{id: "3.11k nothing for ever", before: marked, script: []string{"HOLD"}, err: unknown(late),
			takes: 2 * time.Minute},
		{id: "3.11l almost two minutes", before: marked, script: []string{"PAUSE 119s", "S: +OK", "EOF"},
			takes: 119 * time.Second},
		{id: "R1-084 garbage", before: marked, script: []string{"S: bye", "EOF"}, err: unknown(broken)},
		{id: "3.11m OKAY", before: marked, script: []string{"S: +OKAY", "EOF"}, err: unknown(broken)},
		{id: "3.11n challenge", before: marked, script: []string{"S: +", "EOF"}, err: unknown(broken)},
		{id: "3.11o NUL", before: marked, script: []string{`s: "+OK \x00\r\n"`, "EOF"}, err: unknown(broken)},
		{id: "R1-081 nothing marked, refused", script: []string{"S: -ERR", "EOF"}, err: known(refused("", ""))},
		{id: "R1-081 nothing marked, gone", script: []string{"EOF"}, err: known(cut)},
		{id: "R1-081 nothing marked, confirmed", script: []string{"S: +OK"}},
		{id: "3.11p nothing marked, silence", script: []string{"HOLD"}, err: known(late),
			takes: 2 * time.Minute},
		{id: "R1-062 marks taken back", before: append(marked, "C: RSET", "S: +OK"),
			script: []string{"S: -ERR", "EOF"},
			err:    known(refused("", ""))},
		{id: "R1-062 marks not taken back", before: append(marked, "C: RSET", "S: -ERR"),
			script: []string{"S: -ERR", "EOF"},
			err:    unknown(refused("", ""))},
		{id: "3.11q the mark was refused", before: []string{"C: DELE 1", "S: -ERR"},
			script: []string{"S: -ERR", "EOF"},
			err:    known(refused("", ""))},
	} {
		t.Run(row.id, row.run)
	}
}

func (row quitRow) run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, chunk := range cuts(false) {
			lines := append(append(loginLines(), row.before...), "C: QUIT", chunk)
			lines = append(lines, row.script...)
			if last := row.script[len(row.script)-1]; last != "EOF" && last != "RESET" && last != "HOLD" {
				lines = append(lines, "HOLD")
			}
			conn, done := pop3test.Script(strings.Join(lines, "\n"))
			c := hostileLogin(t, conn)
			for _, line := range row.before {
				switch line {
				case "C: DELE 1":
					c.Dele(t.Context(), 1)
				case "C: RSET":
					c.Rset(t.Context())
				}
			}
			start := time.Now()
			err := c.Quit(t.Context())
			assert.Equal(t, row.takes, time.Since(start), chunk)
			row.err.check(t, chunk, err)
			checkQuit(t, c, err)
			assert.NoError(t, done(), "R1-086: QUIT is sent once, and nothing behind it")
		}
	})
}

// checkQuit wants nothing to be possible behind Quit, and the second one to say what the first one said.
func checkQuit(t *testing.T, c *pop3.Client, err error) {
	assert.Equal(t, pop3.StateClosed, c.State())
	assert.Equal(t, err, c.Quit(t.Context()))
	over.check(t, c, err)
	assert.NoError(t, c.Close())
}

// Before the login QUIT has nothing to commit, whatever the server says (R1-080).
func TestHostileQuitEarly(t *testing.T) {
	for reply, fine := range map[string]bool{"S: +OK": true, "S: -ERR": false, "EOF": false,
		"S: garbage": false} {
		t.Run("R1-080 "+reply, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script("S: +OK\nC: QUIT\n" + reply + "\nEOF")
				c, err := pop3.NewClient(t.Context(), conn, nil)
				require.NoError(t, err)
				err = c.Quit(t.Context())
				if fine {
					assert.NoError(t, err)
				} else if assert.Error(t, err) {
					known()(t, err)
				}
				checkQuit(t, c, err)
				assert.NoError(t, done())
			})
		})
	}
}

// QUIT that can't be written.
func TestHostileQuitUnwritten(t *testing.T) {
	t.Run("H-232 a peer that does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn, _ := pop3test.Script(strings.Join(append(loginLines(), "C: DELE 1", "S: +OK", "DEAF",
				"HOLD"), "\n"))
			c := hostileLogin(t, conn)
			require.NoError(t, c.Dele(t.Context(), 1))
			start := time.Now()
			err := c.Quit(t.Context())
			assert.Equal(t, 2*time.Minute, time.Since(start))
			unknown(late)(t, err)
			checkError(t, err)
			checkQuit(t, c, err)
		})
	})
	t.Run("H-232 NOOP to a peer that does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn, _ := pop3test.Script(strings.Join(append(loginLines(), "DEAF", "HOLD"), "\n"))
			c := hostileLogin(t, conn)
			start := time.Now()
			err := c.Noop(t.Context())
			assert.Equal(t, 2*time.Minute, time.Since(start))
			late(t, err)
			poisoned.check(t, c, err)
		})
	})
	t.Run("H-233 reset while it is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn, _ := pop3test.Script(strings.Join(append(loginLines(), "C: DELE 1", "S: +OK", "PAUSE 1ms",
				"RESET"), "\n"))
			c := hostileLogin(t, conn)
			require.NoError(t, c.Dele(t.Context(), 1))
			time.Sleep(time.Second)
			err := c.Quit(t.Context())
			unknown(is(errReset))(t, err)
			checkQuit(t, c, err)
		})
	})
}

// The connection is lost before QUIT: nothing was deleted, and that is what Quit says (H-225, R1-085, R1-040).
func TestHostileQuitTooLate(t *testing.T) {
	for _, row := range []struct {
		id     string
		script []string
		do     func(ctx context.Context, c *pop3.Client)
	}{
		{"H-225 gone after DELE", []string{"C: DELE 1", "S: +OK", "C: NOOP", "EOF"},
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Noop(ctx) }},
		{"H-224 gone at DELE", []string{"C: DELE 1", "EOF"}, func(ctx context.Context,
			c *pop3.Client) {
			c.Dele(ctx, 1)
		}},
		{"R1-085 a timeout", []string{"C: DELE 1", "S: +OK", "C: NOOP", "HOLD"},
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Noop(ctx) }},
		{"R1-087 closed", []string{"C: DELE 1", "S: +OK", "HOLD"},
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Close() }},
		{"R1-085 cancelled", []string{"C: DELE 1", "S: +OK", "C: NOOP", "HOLD"},
			func(ctx context.Context, c *pop3.Client) {
				c.Dele(ctx, 1)
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				c.Noop(ctx)
			}},
		{"R1-088 a message is open", []string{"C: DELE 1", "S: +OK", "C: RETR 2", "S: +OK", "S: a", "HOLD"},
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Retr(ctx, 2) }},
		{"H-222 a message was cut", []string{"C: DELE 1", "S: +OK", "C: RETR 2", "S: +OK", "S: a", "EOF"},
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); retrOf(ctx, c, 2) }},
		{"3.11r something came unasked", []string{"C: DELE 1", `s: "+OK\r\n+OK\r\n"`, "HOLD"},
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1) }},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script(strings.Join(append(loginLines(), row.script...), "\n"))
				c := hostileLogin(t, conn)
				row.do(t.Context(), c)
				err := c.Quit(t.Context())
				if assert.Error(t, err) {
					known(says("not sent"))(t, err)
					checkError(t, err)
				}
				assert.Equal(t, pop3.StateClosed, c.State())
				assert.NoError(t, done(), "QUIT was not sent")
			})
		})
	}
}

func retrOf(ctx context.Context, c *pop3.Client, num int) {
	if m, err := c.Retr(ctx, num); err == nil {
		io.Copy(io.Discard, m)
	}
}

// A wait for a second reply that was cut short has not shown that there is none.
func TestQuitCutShort(t *testing.T) {
	for _, row := range []struct {
		name  string
		end   func(cancel context.CancelFunc, c *pop3.Client)
		cause error
	}{
		{"cancelled", func(cancel context.CancelFunc, _ *pop3.Client) { cancel() }, context.Canceled},
		{"closed", func(_ context.CancelFunc, c *pop3.Client) { c.Close() }, net.ErrClosed},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script(strings.Join(append(loginLines(), "C: DELE 1", "S: +OK", "C: QUIT",
					"S: +OK", "HOLD"), "\n"))
				c := hostileLogin(t, conn)
				require.NoError(t, c.Dele(t.Context(), 1))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(100*time.Millisecond, func() { row.end(cancel, c) })
				err := c.Quit(ctx)
				unknown(is(row.cause))(t, err)
				checkQuit(t, c, err)
				assert.NoError(t, done())
			})
		})
	}
}

// A context that has ended: QUIT is not sent.
func TestQuitWithoutContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script(strings.Join(append(loginLines(), "C: DELE 1", "S: +OK", "HOLD"), "\n"))
		c := hostileLogin(t, conn)
		require.NoError(t, c.Dele(t.Context(), 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		known(is(context.Canceled), says("not sent"))(t, c.Quit(ctx))
		assert.Equal(t, pop3.StateClosed, c.State())
		assert.NoError(t, done())
	})
}

// Two calls of Quit at once: one is busy, and does not disturb the other or claim that nothing was deleted.
func TestTwoQuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := append(loginLines(), "C: DELE 1", "S: +OK", "C: QUIT", "PAUSE 10s", "S: +OK", "EOF")
		conn, done := pop3test.Script(strings.Join(script, "\n"))
		c := hostileLogin(t, conn)
		require.NoError(t, c.Dele(t.Context(), 1))
		var first, second error
		var both sync.WaitGroup
		both.Go(func() { first = c.Quit(t.Context()) })
		both.Go(func() {
			time.Sleep(time.Second)
			second = c.Quit(t.Context())
		})
		both.Wait()
		assert.NoError(t, first)
		assert.ErrorIs(t, second, pop3.ErrBusy)
		assert.NotContains(t, second.Error(), "nothing was deleted")
		assert.NoError(t, c.Quit(t.Context()), "it is over, and well")
		assert.NoError(t, done())
	})
}

// Quit while another call is running hangs up, and says so.
func TestQuitDuringCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script(strings.Join(append(loginLines(), "C: DELE 1", "S: +OK", "C: NOOP",
			"HOLD"), "\n"))
		c := hostileLogin(t, conn)
		require.NoError(t, c.Dele(t.Context(), 1))
		var first, second error
		var both sync.WaitGroup
		both.Go(func() { first = c.Noop(t.Context()) })
		both.Go(func() {
			time.Sleep(time.Second)
			second = c.Quit(t.Context())
		})
		both.Wait()
		assert.ErrorIs(t, first, net.ErrClosed)
		known(is(pop3.ErrBusy), says("not sent"))(t, second)
		assert.False(t, errors.Is(second, pop3.ErrCommitUnknown))
		assert.NoError(t, done())
	})
}
