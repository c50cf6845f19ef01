package conformance_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/race"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A dialogue is a short test. It has the octets that are sent, the action of the caller, the check of its result, and
// the state of the client afterwards. It is played several times. Each time the replies arrive in different pieces.
type dialogue struct {
	id     string      // id in the catalogue, and a short description
	script script      // the dialogue from the action on
	do     action      // default: NOOP
	want   resultCheck // default: success
	after  afterwards

	opts     pop3.Options
	takes    time.Duration
	onePiece bool // the replies must arrive in one piece, so that the client sees surplus data in time
}

func playAll(t *testing.T, dialogues []dialogue) {
	t.Helper()
	for _, d := range dialogues {
		d.run(t)
	}
}

// run plays the dialogue with each of its scripts, each in a synctest bubble of its own.
func (d dialogue) run(t *testing.T) {
	t.Helper()
	if d.do.do == nil && d.do.dial == nil {
		d.do = noop
	}
	d.script = d.fullScript()
	if !d.do.checks {
		key := fmt.Sprintln(d.do.stage, d.do.line, d.opts, d.takes, d.onePiece, d.script)
		if other, ok := scriptIDs[key]; ok && other != d.id {
			t.Errorf("%q is the same dialogue as %q", d.id, other)
		}
		scriptIDs[key] = d.id
	}
	t.Run(d.id, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, s := range d.splits() {
				if d.play(t, s); t.Failed() {
					t.Fatalf("played with this script:\n%.4000s", s)
				}
			}
		})
	})
}

// scriptIDs maps each dialogue to its id, so that run can report two equal dialogues.
var scriptIDs = map[string]string{}

// fullScript returns the whole script. It begins with the dialogue before the action, such as a login. If the client
// can be used after the action, it ends with another command.
func (d dialogue) fullScript() script {
	s := d.do.start()
	if d.do.line != "" && (len(d.script) == 0 || !strings.HasPrefix(d.script[0], "C")) {
		s = s.turns(d.do.line)
	}
	s = s.add(d.script...)
	if d.after == usable && d.do.stage != connecting && !d.do.checks {
		s = s.add("C~ *", "S: +OK")
		if d.do.stage == authorization && d.want != nil {
			s = s.turns("PASS w", "+OK")
		}
	}
	if len(s) == 0 || !slices.Contains([]string{"EOF", "RESET", "HOLD"}, s[len(s)-1]) {
		s = append(s, "HOLD")
	}
	if d.after == hungUp {
		s = append(s, "C~ *") // fails if the client sends anything
	}
	return s
}

// play plays the dialogue with a script.
func (d dialogue) play(t *testing.T, s script) {
	conn, done := pop3test.Script(s.String())
	opts, times := d.opts, map[string]int{}
	opts.InsecureAuth, opts.Trace = true, countDone(checkingTrace(t), times)
	c := d.do.begin(t, conn, &opts)
	start := time.Now()
	c, value, err := d.do.run(t, conn, c, &opts)
	assert.Equal(t, d.takes, time.Since(start), "the duration")
	if d.want != nil {
		d.want(t, value, err)
	} else {
		assert.NoError(t, err)
	}
	for cmd, n := range times {
		if d.opts.Pipelining == pop3.PipeliningAlways {
			assert.Equal(t, 1, n, "%s is done once", cmd)
		}
	}
	if c == nil {
		_, writeErr := conn.Write([]byte("x"))
		assert.ErrorIs(t, writeErr, net.ErrClosed, "the connection is closed")
	} else {
		if d.do.stage == connecting && !d.do.checks {
			assert.Equal(t, pop3.StateAuthorization, c.State())
		} else if !d.do.checks {
			d.after.check(t, c, err)
		}
		assert.NoError(t, c.Close())
	}
	assert.NoError(t, done())
}

// A script is lines of [pop3test.Script].
type script []string

// serverSends returns a script in which the server sends octets.
func serverSends(octets string) script { return script{"s: " + strconv.Quote(octets)} }

// turns returns a script in which the client sends the first line, the server replies with the second one, and so on.
// A string may contain several lines.
func turns(lines ...string) script { return script{}.turns(lines...) }

func (s script) turns(lines ...string) script {
	s = slices.Clip(s)
	for i, turn := range lines {
		mark := "C: "
		if i%2 == 1 {
			mark = "S: "
		}
		for line := range strings.SplitSeq(turn, "\n") {
			s = append(s, mark+line)
		}
	}
	return s
}

// withGreeting returns a script that begins with the greeting. The lines follow, as in turns.
func withGreeting(greeting string, lines ...string) script {
	return script{"S: " + greeting}.turns(lines...)
}

func (s script) sends(octets string) script { return s.add(serverSends(octets)...) }

func (s script) String() string { return strings.Join(s, "\n") }

func (s script) add(lines ...string) script { return append(slices.Clip(s), lines...) }

// loginTurns is a login with USER and PASS.
var loginTurns = turns("USER u", "+OK", "PASS "+canary, "+OK")

// splits returns scripts with the same replies in different pieces: each reply whole, in two pieces at every position,
// and one octet at a time. A long reply is split at random positions, with a fixed seed.
func (s script) splits(from int) []script {
	all, total := []script{s}, 0
	for i := from; i < len(s); {
		n, next := 0, i
		for ; next < len(s) && isOutput(s[next]); next++ {
			n += outputLen(s[next])
		}
		for _, chunk := range chunkLines(n) {
			all = append(all, slices.Insert(slices.Clone(s), i, chunk))
		}
		total += n
		i = next + 1
	}
	if total <= 4<<10 {
		all = append(all, slices.Insert(slices.Clone(s), from, "CHUNK 1"))
	}
	return all
}

// splits returns the scripts to play. With the race detector it returns a sample: the script that is not split, the
// script that is split at every octet, and one in race.Stride of the others. The sample differs from dialogue to
// dialogue.
func (d dialogue) splits() (chosen []script) {
	if d.onePiece {
		return []script{d.script}
	}
	all := d.script.splits(len(d.do.start()))
	for i, s := range all {
		if i == 0 || i == len(all)-1 || (i+len(d.id))%race.Stride == 0 {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

func isOutput(line string) bool {
	return strings.HasPrefix(line, "S:") || strings.HasPrefix(line, "s:")
}

// outputLen returns the number of octets that a line of a script sends.
func outputLen(line string) int {
	if quoted, ok := strings.CutPrefix(line, "s: "); ok {
		octets, _ := strconv.Unquote(quoted)
		return len(octets)
	}
	return len(line) - len("S: ") + len("\r\n")
}

// chunkLines returns the CHUNK lines that split n octets into pieces.
func chunkLines(n int) (chunks []string) {
	switch {
	case n <= 64:
		for i := 1; i < n; i++ {
			chunks = append(chunks, fmt.Sprintf("CHUNK %d 0", i))
		}
	case n <= 1<<10:
		for seed := range 12 {
			chunks = append(chunks, fmt.Sprintf("CHUNK ~%d %d", 2+n/(1+seed), seed))
		}
	default:
		for seed := range 4 {
			chunks = append(chunks, fmt.Sprintf("CHUNK ~%d %d", 2+n/(3+10*seed), seed))
		}
	}
	return chunks
}

// A stage is the point at which a script and an action begin.
type stage int

const (
	transaction   stage = iota // the client is logged in
	authorization              // the client has read the greeting
	connecting                 // there is a connection
)

// An action is what the caller does.
type action struct {
	stage  stage
	line   string // the command that the action sends, if it sends only one
	checks bool   // the action makes all checks itself, so nothing is called afterwards
	do     func(t *testing.T, ctx context.Context, c *pop3.Client) (any, error)
	// dial replaces do at the stage connecting.
	dial func(ctx context.Context, conn net.Conn, opts *pop3.Options) (*pop3.Client, error)
}

// start returns the part of the script before the stage of the action.
func (a action) start() script {
	switch a.stage {
	case connecting:
		return nil
	case authorization:
		return withGreeting("+OK ready <1@example.com>")
	}
	return withGreeting("+OK ready").add(loginTurns...)
}

// begin returns a client in the state in which the action begins.
func (a action) begin(t *testing.T, conn net.Conn, opts *pop3.Options) *pop3.Client {
	if a.stage == connecting {
		return nil
	}
	c, err := pop3.NewClient(t.Context(), conn, opts)
	require.NoError(t, err)
	if a.stage == transaction {
		require.NoError(t, byUser(t.Context(), c))
	}
	return c
}

// run carries out the action. It returns the value and the client. The client is nil if the action returned none.
func (a action) run(t *testing.T, conn net.Conn, c *pop3.Client, opts *pop3.Options) (*pop3.Client, any, error) {
	if a.dial != nil {
		c, err := a.dial(t.Context(), conn, opts)
		if err != nil {
			assert.Nil(t, c)
			return nil, nil, err
		}
		if a.do == nil {
			return c, c.Greeting(), nil
		}
		value, err := a.do(t, t.Context(), c)
		return c, value, err
	}
	value, err := a.do(t, t.Context(), c)
	return c, value, err
}

// errorAction returns an action whose call returns only an error.
func errorAction(line string, do func(*pop3.Client, context.Context) error) action {
	return action{line: line, do: func(_ *testing.T, ctx context.Context, c *pop3.Client) (any, error) {
		return nil, do(c, ctx)
	}}
}

// valueAction returns an action whose call returns a value and an error.
func valueAction[T any](line string, do func(*pop3.Client, context.Context) (T, error)) action {
	return action{line: line, do: func(_ *testing.T, ctx context.Context, c *pop3.Client) (any, error) {
		return do(c, ctx)
	}}
}

// numAction returns an action whose call is about message 1.
func numAction[T any](line string, do func(*pop3.Client, context.Context, int) (T, error)) action {
	return valueAction(line, func(c *pop3.Client, ctx context.Context) (T, error) { return do(c, ctx, 1) })
}

// messageAction returns an action whose call returns a message. The value of the action is the content that could be
// read.
func messageAction(line string, open func(*pop3.Client, context.Context) (*pop3.Message, error)) action {
	return valueAction(line, func(c *pop3.Client, ctx context.Context) (string, error) {
		m, err := open(c, ctx)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(m)
		return string(b), err
	})
}

// loginAction returns an action that logs in.
func loginAction(login func(context.Context, *pop3.Client) error) action {
	return action{stage: authorization, do: func(t *testing.T, ctx context.Context, c *pop3.Client) (any, error) {
		err := login(ctx, c)
		assert.Equal(t, err == nil, c.State() == pop3.StateTransaction, "the state after %v", err)
		return nil, err
	}}
}

// loggedInTest returns an action that begins after the login and makes all checks itself.
func loggedInTest(do func(t *testing.T, ctx context.Context, c *pop3.Client)) action {
	return action{checks: true, do: func(t *testing.T, ctx context.Context, c *pop3.Client) (any, error) {
		do(t, ctx, c)
		return nil, nil
	}}
}

// greetedTest returns an action that begins after the greeting and makes all checks itself.
func greetedTest(do func(t *testing.T, ctx context.Context, c *pop3.Client)) action {
	a := loggedInTest(do)
	a.stage, a.dial = connecting, greet.dial
	return a
}

// greet connects and reads the greeting. Its value is the text of the greeting.
var greet = action{stage: connecting,
	dial: func(ctx context.Context, conn net.Conn, opts *pop3.Options) (*pop3.Client, error) {
		return pop3.NewClient(ctx, conn, opts)
	}}

// upgrade connects with STLS.
var upgrade = action{stage: connecting,
	dial: func(ctx context.Context, conn net.Conn, opts *pop3.Options) (*pop3.Client, error) {
		opts.TLSConfig, opts.DialContext = clientTLS(), dialTo(conn)
		return pop3.DialStartTLS(ctx, tlsHost, opts)
	}}

var (
	noop    = errorAction("NOOP", (*pop3.Client).Noop)
	rset    = errorAction("RSET", (*pop3.Client).Rset)
	dele    = errorAction("DELE 1", func(c *pop3.Client, ctx context.Context) error { return c.Dele(ctx, 1) })
	quit    = errorAction("QUIT", (*pop3.Client).Quit)
	stat    = valueAction("STAT", (*pop3.Client).Stat)
	listOne = numAction("LIST 1", (*pop3.Client).List)
	listAll = valueAction("LIST", (*pop3.Client).ListAll)
	uidlOne = numAction("UIDL 1", (*pop3.Client).Uidl)
	uidlAll = valueAction("UIDL", (*pop3.Client).UidlAll)
	listing = valueAction("LIST", (*pop3.Client).Listing)
	capa    = valueAction("CAPA", (*pop3.Client).Capa)
	langAll = valueAction("LANG", (*pop3.Client).LangAll)
	langDe  = valueAction("LANG de", func(c *pop3.Client, ctx context.Context) (string, error) {
		return c.Lang(ctx,
			"de")
	})
	retr = messageAction("RETR 1", func(c *pop3.Client, ctx context.Context) (*pop3.Message, error) {
		return c.Retr(ctx, 1)
	})
	top = messageAction("TOP 1 0", func(c *pop3.Client, ctx context.Context) (*pop3.Message, error) {
		return c.Top(ctx, 1, 0)
	})
)

// A resultCheck checks the result of an action.
type resultCheck func(t *testing.T, value any, err error)

// returns returns a check that the value is equal to value and that the error passes all checks. Without checks the
// error must be nil.
func returns(value any, checks ...errorCheck) resultCheck {
	return func(t *testing.T, got any, err error) {
		assert.Equal(t, value, got)
		failsWith(checks...)(t, nil, err)
	}
}

// failsWith returns a check that the error passes all checks. Without checks the error must be nil.
func failsWith(checks ...errorCheck) resultCheck {
	return func(t *testing.T, _ any, err error) {
		if len(checks) == 0 {
			assert.NoError(t, err)
		} else if assert.Error(t, err) {
			allOf(checks...)(t, err)
			checkError(t, err)
		}
	}
}

// An afterwards value is the state of the client after the action.
type afterwards int

const (
	usable   afterwards = iota // the session continues: the next command or login succeeds
	closed                     // the client closed the connection, and later errors wrap the reason
	hungUp                     // the server closed the connection, so the next call fails
	surplus                    // the call succeeded, but the next one sees data that nobody asked for
	quitDone                   // QUIT has ended the session
)

// check checks the state of the client after err.
func (a afterwards) check(t *testing.T, c *pop3.Client, err error) {
	authorizing := c.State() == pop3.StateAuthorization
	var next error
	if authorizing {
		next = c.User(t.Context(), "v")
	} else {
		next = c.Noop(t.Context())
	}
	switch a {
	case usable:
		assert.NoError(t, next, "the next command")
		if authorizing {
			assert.NoError(t, c.Pass(t.Context(), "w"), "the next login")
		}
		return
	case hungUp:
		connLost(t, next)
	case surplus:
		fatal(t, next)
	case closed:
		assert.ErrorIs(t, next, net.ErrClosed)
		sameCause(t, err, next)
	case quitDone:
		assert.ErrorIs(t, next, net.ErrClosed)
		assert.Equal(t, err, c.Quit(t.Context()), "a second Quit returns the same error")
	}
	checkError(t, next)
	assert.Equal(t, pop3.StateClosed, c.State())
	again := c.Dele(t.Context(), 1)
	assert.ErrorIs(t, again, net.ErrClosed)
	checkError(t, again)
}

// countDone counts how often Done is called for each command.
func countDone(trace *pop3.Trace, times map[string]int) *pop3.Trace {
	done := trace.Done
	trace.Done = func(ctx context.Context, cmd string, octets int64, err error) {
		times[cmd]++
		done(ctx, cmd, octets, err)
	}
	return trace
}

// loggedInClient returns a client that is logged in. Its server then plays script. The test fails if the client sends
// anything that is not in script.
func loggedInClient(t *testing.T, s script, opts pop3.Options) *pop3.Client {
	t.Helper()
	opts.InsecureAuth = true
	if opts.Trace == nil {
		opts.Trace = checkingTrace(t)
	}
	c := openScript(t, noop.start().add(s...), &opts)
	require.NoError(t, byUser(t.Context(), c))
	return c
}

// loginOver returns a client that is logged in over conn. Its trace checks every text that the hooks get.
func loginOver(t *testing.T, conn net.Conn) *pop3.Client {
	t.Helper()
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Trace: checkingTrace(t)})
	require.NoError(t, err)
	require.NoError(t, byUser(t.Context(), c))
	return c
}

// openScript returns a client whose server plays script. The test fails if the client sends anything that is not in
// script.
func openScript(t *testing.T, s script, opts *pop3.Options) *pop3.Client {
	t.Helper()
	conn, done := pop3test.Script(s.String())
	c, err := pop3.NewClient(t.Context(), conn, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	})
	return c
}

// insecure allows passwords to be sent in clear.
var insecure = &pop3.Options{InsecureAuth: true}
