package conformance_test

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// canary is the password of the sessions with hostile servers. No error and no trace may hold it.
const canary = "Ab9-canary+Xy7/secret"

// A hostileRow is one thing that a server does, and what has to come of it. The server lets the client log in and
// then answers one call. It is played once for each way in which the answer may be cut, all in one bubble.
type hostileRow struct {
	id string // of the catalogue, and a word or two

	call   call     // NOOP if it is not set
	reply  string   // octets of the answer
	script []string // in place of reply: lines of a script, for answers that take time
	then   string   // what the server does next: HOLD, EOF, RESET; HOLD if it is empty, which waits for nothing

	value  any     // what the call returns beside the error; not looked at if nil
	err    problem // what is wrong; nil is nothing
	after  after   // what the client is good for
	takes  time.Duration
	pieces bool // the answer is only played in one piece: what is left over shows then and not elsewhere
}

// A call is a call of the client and the line that the server gets.
type call struct {
	line string
	do   func(ctx context.Context, c *pop3.Client) (any, error)
}

func plain(line string, do func(*pop3.Client, context.Context) error) call {
	return call{line, func(ctx context.Context, c *pop3.Client) (any, error) { return nil, do(c, ctx) }}
}

func valued[T any](line string, do func(*pop3.Client, context.Context) (T, error)) call {
	return call{line, func(ctx context.Context, c *pop3.Client) (any, error) { return do(c, ctx) }}
}

func numbered[T any](line string, do func(*pop3.Client, context.Context, int) (T, error)) call {
	return call{line, func(ctx context.Context, c *pop3.Client) (any, error) { return do(c, ctx, 1) }}
}

// readAll makes the value of a call that gives a message: what could be read of it.
func readAll(line string, open func(context.Context, *pop3.Client) (*pop3.Message, error)) call {
	return call{line, func(ctx context.Context, c *pop3.Client) (any, error) {
		m, err := open(ctx, c)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(m)
		return string(b), err
	}}
}

var (
	noop    = plain("NOOP", (*pop3.Client).Noop)
	rset    = plain("RSET", (*pop3.Client).Rset)
	dele    = plain("DELE 1", func(c *pop3.Client, ctx context.Context) error { return c.Dele(ctx, 1) })
	quit    = plain("QUIT", (*pop3.Client).Quit)
	stat    = valued("STAT", (*pop3.Client).Stat)
	listOne = numbered("LIST 1", (*pop3.Client).List)
	listAll = valued("LIST", (*pop3.Client).ListAll)
	uidlOne = numbered("UIDL 1", (*pop3.Client).Uidl)
	uidlAll = valued("UIDL", (*pop3.Client).UidlAll)
	capa    = valued("CAPA", (*pop3.Client).Capa)
	langAll = valued("LANG", (*pop3.Client).LangAll)
	langDe  = valued("LANG de", func(c *pop3.Client, ctx context.Context) (string, error) {
		return c.Lang(ctx, "de")
	})
	retr = readAll("RETR 1", func(ctx context.Context, c *pop3.Client) (*pop3.Message, error) {
		return c.Retr(ctx, 1)
	})
	top = readAll("TOP 1 0", func(ctx context.Context, c *pop3.Client) (*pop3.Message, error) {
		return c.Top(ctx, 1, 0)
	})
)

// after is what the client is good for when the call has returned.
type after int

const (
	usable   after = iota // the next command works
	poisoned              // the connection was closed, and later calls say why
	hungUp                // the server hung up: the next call finds out
	spoiled               // the call was all right, but the next one finds something that nobody asked for
	over                  // QUIT has ended the session
)

// A problem is what an error has to be.
type problem func(t *testing.T, err error)

// check wants err to be that, in one of the ways in which octets may be cut; nil wants none.
func (p problem) check(t *testing.T, chunk string, err error) {
	if p == nil {
		assert.NoError(t, err, chunk)
	} else if assert.Error(t, err, chunk) {
		p(t, err)
		checkError(t, err)
	}
}

// is wants all targets in the chain.
func is(targets ...error) problem {
	return func(t *testing.T, err error) {
		for _, target := range targets {
			assert.ErrorIs(t, err, target)
		}
	}
}

// also wants all of the problems.
func also(problems ...problem) problem {
	return func(t *testing.T, err error) {
		for _, p := range problems {
			p(t, err)
		}
	}
}

// says wants words in the text.
func says(words string) problem {
	return func(t *testing.T, err error) { assert.ErrorContains(t, err, words) }
}

// cut is the error of a connection that was lost: never the end of something.
var cut = also(is(io.ErrUnexpectedEOF), func(t *testing.T, err error) {
	assert.NotErrorIs(t, err, io.EOF)
	var timeout net.Error
	assert.False(t, errors.As(err, &timeout) && timeout.Timeout())
})

// late is the error of a server that was too slow.
var late = also(is(os.ErrDeadlineExceeded), func(t *testing.T, err error) {
	var timeout net.Error
	assert.True(t, errors.As(err, &timeout) && timeout.Timeout(), "a net.Error with Timeout")
})

// refused wants the server's -ERR.
func refused(code pop3.Code, text string) problem {
	return func(t *testing.T, err error) {
		var refusal *pop3.Error
		if assert.ErrorAs(t, err, &refusal) {
			assert.Equal(t, code, refusal.Code)
			assert.Equal(t, text, refusal.Text)
		}
	}
}

// nonsense wants a complete reply whose value means nothing.
func nonsense(t *testing.T, err error) { protocolError(t, err, false) }

// broken wants a reply that breaks the protocol.
func broken(t *testing.T, err error) { protocolError(t, err, true) }

func protocolError(t *testing.T, err error, fatal bool) {
	var protocol *pop3.ProtocolError
	if assert.ErrorAs(t, err, &protocol) {
		assert.Equal(t, fatal, protocol.Fatal)
		assert.NotEmpty(t, protocol.Cmd)
		assert.NotEmpty(t, protocol.Detail)
		assert.LessOrEqual(t, len(protocol.Line), 128)
	}
}

// deliveries are the ways in which octets arrive: in one piece, one at a time, in two pieces cut at every position.
// Long ones are cut by chance, with a seed.
func deliveries(octets string) []string {
	ways := []string{"CHUNK 0"}
	switch n := len(octets); {
	case n <= 64:
		ways = append(ways, "CHUNK 1")
		for i := 1; i < n; i++ {
			ways = append(ways, fmt.Sprintf("CHUNK %d 0", i))
		}
	case n <= 1<<10:
		ways = append(ways, "CHUNK 1")
		for seed := range 12 {
			ways = append(ways, fmt.Sprintf("CHUNK ~%d %d", 2+n/(1+seed), seed))
		}
	default:
		for seed := range 4 {
			ways = append(ways, fmt.Sprintf("CHUNK ~%d %d", 2+n/(3+10*seed), seed))
		}
	}
	return ways
}

// cuts are the ways for a whole dialogue: in one piece, and if that is not the only one, in small ones, or with the
// first reply cut.
func cuts(onePiece bool) []string {
	ways := []string{"CHUNK 0"}
	if onePiece {
		return ways
	}
	for i := 1; i <= 16; i++ {
		ways = append(ways, fmt.Sprintf("CHUNK %d 0", i))
	}
	return append(ways, "CHUNK 1", "CHUNK ~3 2", "CHUNK ~7 3")
}

// playHostile runs rows.
func playHostile(t *testing.T, rows []hostileRow) {
	for _, row := range rows {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ways := deliveries(row.reply)
				if row.pieces {
					ways = ways[:1]
				}
				for _, chunk := range ways {
					row.play(t, chunk)
				}
			})
		})
	}
}

// write makes the script of a row.
func (row hostileRow) write(chunk string) string {
	lines := append(loginLines(), "C: "+row.call.line, chunk)
	if row.script != nil {
		lines = append(lines, row.script...)
	} else {
		lines = append(lines, "s: "+strconv.Quote(row.reply))
	}
	if row.after == usable {
		lines = append(lines, "C: NOOP", "S: +OK")
	}
	if row.then == "" {
		row.then = "HOLD"
	}
	lines = append(lines, row.then)
	if row.after == hungUp {
		lines = append(lines, "C: NOOP") // is sent in vain
	}
	return strings.Join(lines, "\n")
}

func loginLines() []string {
	return []string{"S: +OK ready", "C: USER u", "S: +OK", "C: PASS " + canary, "S: +OK"}
}

// play plays a row with its answer cut in one way.
func (row hostileRow) play(t *testing.T, chunk string) {
	if row.call.do == nil {
		row.call = noop
	}
	conn, done := pop3test.Script(row.write(chunk))
	c := hostileLogin(t, conn)
	start := time.Now()
	value, err := row.call.do(t.Context(), c)
	assert.Equal(t, row.takes, time.Since(start), "%s: how long it took", chunk)
	row.check(t, chunk, value, err)
	row.after.check(t, c, err)
	assert.NoError(t, c.Close(), chunk)
	assert.NoError(t, done(), chunk)
	if t.Failed() {
		t.FailNow() // the other ways to cut it would say the same again
	}
}

// hostileLogin gives a client in the TRANSACTION state, with a trace that looks at all it is shown.
func hostileLogin(t *testing.T, conn net.Conn) *pop3.Client {
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Trace: watchful(t)})
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), canary))
	return c
}

func (row hostileRow) check(t *testing.T, chunk string, value any, err error) {
	if row.value != nil {
		assert.Equal(t, row.value, value, chunk)
	}
	row.err.check(t, chunk, err)
}

// check tries what the client is good for after err.
func (a after) check(t *testing.T, c *pop3.Client, err error) {
	next := c.Noop(t.Context())
	switch a {
	case usable:
		assert.NoError(t, next, "the next command")
		return
	case hungUp:
		cut(t, next)
	case spoiled:
		broken(t, next)
	case poisoned, over:
		assert.ErrorIs(t, next, net.ErrClosed)
	}
	if a == poisoned {
		sameCause(t, err, next)
	}
	checkError(t, next)
	assert.Equal(t, pop3.StateClosed, c.State())
	again := c.Dele(t.Context(), 1)
	assert.ErrorIs(t, again, net.ErrClosed)
	checkError(t, again)
}

// sameCause checks that a later error holds what is in the chain of the first one.
func sameCause(t *testing.T, first, later error) {
	for _, cause := range []error{
		io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, context.Canceled, context.DeadlineExceeded,
		syscall.ECONNRESET,
	} {
		if errors.Is(first, cause) {
			assert.ErrorIs(t, later, cause)
		}
	}
	var was, now *pop3.ProtocolError
	if errors.As(first, &was) && assert.ErrorAs(t, later, &now) {
		assert.Same(t, was, now, "the first cause stays")
	}
}

// maxErrorText is about the longest text of an error: 512 octets of the server, a command, and our own words.
const maxErrorText = 1200

// checkError wants an error fit to be shown: short, clean, and without the password.
func checkError(t *testing.T, err error) {
	t.Helper()
	if !assert.Error(t, err) {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		for _, err := range joined.Unwrap() { // errors.Join puts one on a line
			checkError(t, err)
		}
		return
	}
	assert.LessOrEqual(t, len(err.Error()), maxErrorText)
	checkShown(t, err.Error())
}

// checkShown wants a text without control characters and secrets.
func checkShown(t *testing.T, text string) {
	t.Helper()
	assert.True(t, utf8.ValidString(text), "valid UTF-8: %q", text)
	for _, r := range text {
		if unicode.In(r, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			assert.Fail(t, "a control character is shown", "%q in %q", r, text)
		}
	}
	for name, form := range formsOf(canary) {
		if strings.Contains(text, form) {
			assert.Fail(t, "the password is shown", "%s in %q", name, text)
		}
	}
}

// urlSafe makes base64 of the other alphabet.
var urlSafe = strings.NewReplacer("+", "-", "/", "_")

// formsOf gives the forms in which a secret could be seen.
func formsOf(secret string) map[string]string {
	forms := map[string]string{
		"plain":       secret,
		"hex":         hex.EncodeToString([]byte(secret)),
		"upper hex":   strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"percent":     percent(secret, false),
		"all percent": percent(secret, true),
		"quoted":      strings.Trim(strconv.Quote(secret), `"`),
		"octets":      strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
	for skip := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, skip), secret...))
		encoded = encoded[(skip*8+5)/6 : (skip+len(secret))*8/6] // what depends on the secret alone
		forms[fmt.Sprintf("base64 behind %d", skip)] = encoded
		forms[fmt.Sprintf("base64url behind %d", skip)] = urlSafe.Replace(encoded)
	}
	return forms
}

// percent encodes as URLs do: what has to be, or all.
func percent(s string, all bool) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if !all && (c == '-' || unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c))) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// watchful is a trace that looks at all it is shown, and counts: each command is done at most once.
func watchful(t *testing.T) *pop3.Trace {
	open := map[string]int{}
	return &pop3.Trace{
		WroteCommand: func(_ context.Context, cmd string) {
			checkShown(t, cmd)
			open[verbOf(cmd)]++
		},
		GotReply: func(_ context.Context, cmd, reply string) {
			checkShown(t, cmd)
			checkShown(t, reply)
			assert.LessOrEqual(t, len(reply), 512)
		},
		Done: func(_ context.Context, cmd string, octets int64, err error) {
			checkShown(t, cmd)
			if open[verbOf(cmd)]--; err == nil {
				assert.GreaterOrEqual(t, open[verbOf(cmd)], 0, "done more often than written: %s", cmd)
			} else {
				checkError(t, err)
			}
		},
	}
}

// verbOf is the part of a command that is the same in all hooks: AUTH is written in several lines.
func verbOf(cmd string) string {
	verb, _, _ := strings.Cut(cmd, " ")
	if verb == "AUTH" {
		return verb
	}
	return cmd
}

// errUnsupported is short for the many tests that name it.
var errUnsupported = errors.ErrUnsupported

var errReset = syscall.ECONNRESET

// apopDigest is the digest of RFC 1939 section 7.
func apopDigest(stamp, secret string) string {
	sum := md5.Sum([]byte(stamp + secret))
	return hex.EncodeToString(sum[:])
}

// endless repeats its octets for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

// quoted is for the lines of scripts that give octets.
func quoted(octets string) string { return strconv.Quote(octets) }

var errClosed = net.ErrClosed
