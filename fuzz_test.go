package pop3

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"regexp"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/printable"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// The first fuzz targets test the parts without I/O. Most of them compare the library with a regular expression or a
// simple loop, which would be too slow for the library. The last targets test a whole client.

// A shortReader is a reader whose Read returns a random number of octets from 1 to max. If max is 0, Read returns as
// many as possible.
type shortReader struct {
	io.Reader
	max    int
	random *rand.Rand
}

func newShortReader(r io.Reader, max uint8, seed uint64) *shortReader {
	return &shortReader{Reader: r, max: int(max), random: rand.New(rand.NewPCG(seed, 0))}
}

func (c *shortReader) Read(p []byte) (int, error) {
	if c.max > 0 && len(p) > 0 {
		p = p[:min(len(p), 1+c.random.IntN(c.max))]
	}
	return c.Reader.Read(p)
}

// FuzzDotReader compares the reader with the function reference, which is simple enough to be right, because it decodes
// one octet at a time. Both must return the same octets and find the same end. The sizes of the pieces that arrive and
// that are read must make no difference.
func FuzzDotReader(f *testing.F) {
	for _, body := range dotBodies {
		f.Add([]byte(body.wire+afterBody), body.lf, uint8(0), uint64(1))
		f.Add([]byte(strings.Repeat("a", 61)+body.wire), body.lf, uint8(3), uint64(2))
		f.Add([]byte(body.wire[:len(body.wire)-1]), body.lf, uint8(1), uint64(3))
	}
	f.Fuzz(func(t *testing.T, wire []byte, lf bool, max uint8, seed uint64) {
		want, used := reference(string(wire), lf)
		reply := replyInBody(wire, lf)
		if reply >= 0 && (used < 0 || reply < used) {
			want, _ = reference(string(wire[:reply]), lf)
		} else {
			reply = -1
		}
		for method, read := range readMethods {
			src := bufferOn(newShortReader(bytes.NewReader(wire), max, seed))
			if seed%2 == 0 {
				src.reserve()
			}
			d := newDotReader(src, lf)
			got, err := read(&d)
			if reply >= 0 {
				require.Equal(t, errReplyInBody, err, method)
				require.Equal(t, want, got, method)
				continue
			}
			if used < 0 {
				require.Equal(t, io.ErrUnexpectedEOF, err, method)
				require.True(t, strings.HasPrefix(want, got), method)
				require.LessOrEqual(t, len(want)-len(got), len(".\r"), "%s: too much was held back", method)
				continue
			}
			require.NoError(t, err, method)
			require.Equal(t, want, got, method)
			rest, err := io.ReadAll(src.src)
			require.NoError(t, err)
			require.Equal(t, string(wire[used:]), string(src.unread())+string(rest),
				"%s: what follows the terminator", method)
		}
	})
}

// replyInBody returns the index of the first line that begins with a dot, CR, and a "+" or "-". It returns -1 if there
// is none.
func replyInBody(wire []byte, lf bool) int {
	for i := range wire {
		before := string(wire[:i])
		atLineStart := i == 0 || strings.HasSuffix(before, "\r\n") || lf && strings.HasSuffix(before, "\n")
		rest := string(wire[i:])
		if atLineStart && (strings.HasPrefix(rest, ".\r+") || strings.HasPrefix(rest, ".\r-")) {
			return i
		}
	}
	return -1
}

// FuzzLine checks that a line is read from the buffer unchanged. The sizes of the pieces that arrive must make no
// difference.
func FuzzLine(f *testing.F) {
	for _, wire := range []string{"+OK\r\n", "+OK\n", "\r\n", "\n", "a\rb\r\n", "a\r\r\nb\r\n", "a\r", "\n\r", ""} {
		f.Add([]byte(wire), false, uint16(100), uint64(1))
		f.Add([]byte(wire), true, uint16(3), uint64(2))
	}
	f.Fuzz(func(t *testing.T, wire []byte, lf bool, limit uint16, seed uint64) {
		want, rest, found := bytes.Cut(wire, []byte("\n"))
		whole, crlf := bytes.CutSuffix(want, []byte("\r"))
		b := bufferOn(newShortReader(bytes.NewReader(wire), 7, seed))
		line, err := b.line(1+int(limit), lf)
		switch {
		case found && len(want) >= 1+int(limit) || !found && len(wire) > int(limit):
			require.Equal(t, errLineTooLong, err)
		case !found:
			require.Equal(t, io.EOF, err)
			require.Equal(t, string(wire), string(b.unread()))
		case !crlf && !lf:
			require.Equal(t, errBareLF, err)
			require.Equal(t, string(want), string(line))
		default:
			require.NoError(t, err)
			require.Equal(t, string(whole), string(line))
			require.Equal(t, !crlf, b.bareLF)
			unread, _ := io.ReadAll(b.src)
			require.Equal(t, string(rest), string(b.unread())+string(unread))
		}
	})
}

var (
	statusLine = regexp.MustCompile(`(?s-i)^(\+[Oo][Kk]|-[Ee][Rr][Rr])(?:([^0-9A-Za-z].*))?$`)
	codeInText = regexp.MustCompile(`(?s)^\[([!-.0-Z\\^-~]+(?:/[!-.0-Z\\^-~]+)*)\](.*)$`)
)

// FuzzStatus parses status lines and response codes, and checks the text that is shown.
func FuzzStatus(f *testing.F) {
	for _, line := range []string{
		"+OK", "+OK ready", "-ERR", "-ERR no", "+ok", "-err x", "+OKx", "+OKAY", "-ERRx", "OK", "+", "-", "", ".",
		"+OK a\x00b",
		"+OK a\rb", "-ERR \x1b]0;owned\x07\x1b[2J", "-ERR \x9b31m\u202e\x08", "-ERR [sys/temp/disk/7] x", "-ERR [",
		"-ERR []",
		"-ERR [A", "-ERR [A/] x", "-ERR [[A]] x", "-ERR [AUTH] [SYS/PERM]", "+OK[PREAUTH] x", "-ERR [" +
			strings.Repeat("A", 70) + "]", "* OK IMAP4", "220 smtp",
		"-ERR Disconnected for inactivity.", "+OK \t\t x", "+\xc5\x8f\xe2\x84\xaa",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		ok, text, valid := parseStatus(line)
		m := statusLine.FindSubmatch(line)
		require.Equal(t, m != nil, valid)
		if !valid {
			require.False(t, ok)
			return
		}
		require.Equal(t, m[1][0] == '+', ok)
		require.Equal(t, strings.TrimLeft(string(m[2]), " \t"), string(text))

		code, rest := cutCode(text)
		m = codeInText.FindSubmatch(text)
		if m == nil || len(m[1])+1 > maxCode {
			require.Empty(t, code)
			require.Equal(t, string(text), string(rest))
		} else {
			require.Equal(t, strings.ToUpper(string(m[1])), string(code))
			require.Equal(t, strings.TrimLeft(string(m[2]), " \t"), string(rest))
			require.True(t, code.Is(Code(strings.ToLower(string(code)))))
		}
		err := (&Client{}).refusal(numbered("RETR", 1), text)
		requireShown(t, err.Error())
		require.LessOrEqual(t, len(err.Error()), len("pop3: RETR 1: -ERR [] ")+maxCode+printable.MaxText)
	})
}

// requireShown checks that s may be shown to a user.
func requireShown(t *testing.T, s string) {
	t.Helper()
	require.True(t, utf8.ValidString(s), "%q", s)
	require.Equal(t, -1, strings.IndexFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }), "%q", s)
}

var (
	scanListing   = regexp.MustCompile(`(?s)^([0-9]+)[ \t]+([0-9]+)(?:[ \t].*)?$`)
	uniqueListing = regexp.MustCompile(`^([0-9]+)[ \t]+([!-~]{1,1000}[!-~]{0,24})[ \t]*\z`)
	dropListing   = regexp.MustCompile(`(?s)^([0-9]+)(?:[ \t]+(?:([0-9]+)(?:[ \t].*)?|.*))?$`)
)

// number returns the value of digits, -1 if it is above limit.
func number(s string, limit uint64) int64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		return -1
	}
	return int64(n)
}

// FuzzListing compares the parsers for the lines of LIST, UIDL and STAT with regular expressions.
func FuzzListing(f *testing.F) {
	for _, line := range []string{
		"1 120", "1 120 x", "1", "1 ", " 1 120", "x 120", "1 x", "1 1 1", "0 5", "-1 5", "+1 5", "01 5", "1 -5", "1 +5",
		"1 5.0",
		"2  320", "2\t320", "seven 1800662", "7 #octets", "5 -1073741824", "2 4294967400", "4294967296 1",
		"99999999999999999999 1",
		"1 99999999999999999999", "2000000000 1", "1 whqtswO00WBw418f9t5JxYwZ", "1 a b", "1 a\x00", "1 a\x7f", "1 \x80",
		"1 ~!",
		"1 ../../etc/passwd", "1 " + strings.Repeat("u", 1024), "1 " + strings.Repeat("u", 1025),
		"2147483647 9223372036854775807", "",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m := scanListing.FindSubmatch(line)
		info, err := parseScan(string(line))
		if m != nil && number(string(m[1]), math.MaxInt32) > 0 && number(string(m[2]), math.MaxInt64) >= 0 {
			require.NoError(t, err)
			require.EqualValues(t, number(string(m[1]), math.MaxInt32), info.Num)
			require.Equal(t, number(string(m[2]), math.MaxInt64), info.Size)
		} else {
			require.Error(t, err)
		}

		m = uniqueListing.FindSubmatch(line)
		info, err = parseUnique(string(line))
		if m != nil && number(string(m[1]), math.MaxInt32) > 0 {
			require.NoError(t, err)
			require.EqualValues(t, number(string(m[1]), math.MaxInt32), info.Num)
			require.Equal(t, string(m[2]), info.UID)
		} else {
			require.Error(t, err)
		}

		m = dropListing.FindSubmatch(line)
		drop, err := parseStat(string(line))
		if m != nil && number(string(m[1]), math.MaxInt32) >= 0 {
			require.NoError(t, err)
			require.EqualValues(t, number(string(m[1]), math.MaxInt32), drop.Count)
			require.Equal(t, number(string(m[2]), math.MaxInt64), drop.Size)
		} else {
			require.Error(t, err)
		}
	})
}

var word = regexp.MustCompile(`[^ \t]+`)

// FuzzCapa checks that Capabilities contain only cleaned words of the lines, and no more words than the lines have.
func FuzzCapa(f *testing.F) {
	for _, lines := range []string{
		"TOP\nUIDL\nUSER\nSASL PLAIN LOGIN", "sasl plain login\nSasl SCRAM-SHA-256", "SASL PLAIN\tLOGIN ",
		"STLSX\nXSTLS\n STLS", "\n\n",
		"EXPIRE NEVER", "EXPIRE 31 USER", "LOGIN-DELAY 900", "LOGIN-DELAY 99999999999999999999", "UTF8 USER",
		"IMPLEMENTATION Dovecot 2.3",
		"\x1b", "\xff\xfe \x00", "SASL\nSASL", ".dot", "EXPIRE +1", "EXPIRE", "\u00df x",
	} {
		f.Add([]byte(lines))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		caps, words := Capabilities{}, 0
		for line := range bytes.SplitSeq(lines, []byte("\n")) {
			before := len(caps)
			caps.add(line)
			require.LessOrEqual(t, len(caps), before+1)
			words += len(word.FindAll(line, -1))
		}
		for name, args := range caps {
			require.NotEmpty(t, name)
			requireShown(t, name)
			require.True(t, caps.Has(name))
			for _, arg := range args {
				require.NotEmpty(t, arg)
				requireShown(t, arg)
				require.NotContains(t, arg, " ")
			}
			words -= 1 + len(args)
		}
		require.LessOrEqual(t, 0, words, "more words than came")
		if d, ok := caps.LoginDelay(); ok {
			require.GreaterOrEqual(t, int64(d), int64(0))
		}
		if days, ok := caps.Expire(); ok {
			require.GreaterOrEqual(t, days, -1)
		}
		require.Len(t, caps.SASL(), len(caps["SASL"]))
		requireShown(t, caps.Implementation())
		clone := caps.clone()
		require.Equal(t, caps, clone)
	})
}

var timestamp = regexp.MustCompile(`<[!-;=?A-~]+@[!-;=?A-~]+>`)

// FuzzGreeting compares the search for the timestamp of APOP in the greeting with a regular expression.
func FuzzGreeting(f *testing.F) {
	for _, text := range []string{
		"POP3 server ready <1896.697170952@dbc.mtview.ca.us>", "<1@a> <2@b>", "<1a> <2@b>", strings.Repeat("<", 200) +
			"1@a>", "<1@a", "<>",
		"<@>", "<1@a@b>", "<1 2@a>", "<\xbf\xbf@\xbf>", "<a<1@b>>", "<1@a>>", "ready <a.b.c>", "", "<1\x01@a><2@b>",
	} {
		f.Add([]byte(text), uint8(2), uint64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, max uint8, seed uint64) {
		require.Equal(t, string(timestamp.Find(text)), findTimestamp(text))

		line := "+OK " + string(text) + "\r\n"
		conn := readOnlyConn{iotest.DataErrReader(newShortReader(strings.NewReader(line), max, seed))}
		c, err := NewClient(t.Context(), conn, nil)
		if strings.ContainsAny(string(text), "\n\x00") || len(line) > maxReplyLine {
			if err != nil {
				requireShown(t, err.Error())
			}
			return
		}
		require.NoError(t, err)
		requireShown(t, c.Greeting())
		require.Equal(t, string(timestamp.Find(text)), c.timestamp)
		require.Equal(t, printable.Clean(string(trimBlanks([]byte(" "+string(text))))), c.Greeting())
		require.Equal(t, StateAuthorization, c.State())
	})
}

// A readOnlyConn is a connection to a server that sends octets and ignores all commands.
type readOnlyConn struct{ io.Reader }

func (readOnlyConn) Write(p []byte) (int, error)      { return len(p), nil }
func (readOnlyConn) Close() error                     { return nil }
func (readOnlyConn) LocalAddr() net.Addr              { return nil }
func (readOnlyConn) RemoteAddr() net.Addr             { return nil }
func (readOnlyConn) SetDeadline(time.Time) error      { return nil }
func (readOnlyConn) SetReadDeadline(time.Time) error  { return nil }
func (readOnlyConn) SetWriteDeadline(time.Time) error { return nil }

// fuzzPassword is the password of the sessions. The server may send it, but errors and traces must not contain it.
const fuzzPassword = "Canary9f3b5d1e7a"

// A scriptedServer sends the input of the fuzzer. The octet divider separates the input into parts. The server sends
// the first part at once. It sends each other part when it has received a line from the client.
type scriptedServer struct {
	parts  [][]byte
	lines  []string // lines that the client has sent, with line ends
	silent bool     // the server does not close the connection after the last part
	max    uint8    // each write has a random number of octets up to max; with 0, a part is one write
	seed   uint64
	unread bool // the client has not read the whole part
}

const divider = "\x01"

// start runs the server and returns the client's end. The server ends when the client closes the connection. After the
// last part the server closes only its own direction, as is possible over TCP, so that the result does not depend on
// timing.
func (p *scriptedServer) start() net.Conn {
	fromServer, toClient := net.Pipe()
	fromClient, toServer := net.Pipe()
	lines := make(chan struct{}, 1<<10)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(fromClient); ; lines <- struct{}{} {
			line, err := r.ReadString('\n')
			if line != "" {
				p.lines = append(p.lines, line)
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		p.sendParts(toClient, lines)
		if !p.silent {
			toClient.Close()
		}
	}()
	return duplex{fromServer, toServer}
}

// sendParts sends the first part at once, and each other part when a line has arrived.
func (p *scriptedServer) sendParts(w io.Writer, lines <-chan struct{}) {
	for i, part := range p.parts {
		if i > 0 {
			if _, ok := <-lines; !ok {
				return
			}
		}
		p.unread = true
		if _, err := io.Copy(onlyWriter{w}, newShortReader(bytes.NewReader(part), p.max, p.seed)); err != nil {
			return
		}
		p.unread = false
	}
}

// A duplex is a connection whose directions are closed separately.
type duplex struct {
	net.Conn // for reading
	w        net.Conn
}

func (d duplex) Write(p []byte) (int, error) { return d.w.Write(p) }

func (d duplex) Close() error { return errors.Join(d.Conn.Close(), d.w.Close()) }

func (d duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.SetReadDeadline(t), d.SetWriteDeadline(t))
}

func (d duplex) SetWriteDeadline(t time.Time) error { return d.w.SetWriteDeadline(t) }

type onlyWriter struct{ io.Writer }

// A leakChecker collects everything that is shown in a session: errors, and the arguments of the hooks.
type leakChecker struct {
	shown      []string
	secretFrom int // shown[secretFrom:] must not contain the password; 0 if the client does not know it
}

func (w *leakChecker) trace() *Trace {
	return &Trace{
		WroteCommand: func(_ context.Context, cmd string) {
			w.shown = append(w.shown, cmd)
			verb, _, _ := strings.Cut(cmd, " ")
			if w.secretFrom == 0 && (verb == "PASS" || verb == "APOP" || verb == "AUTH") {
				w.secretFrom = len(w.shown)
			}
		},
		GotReply: func(_ context.Context, cmd, reply string) { w.shown = append(w.shown, cmd, reply) },
		Done: func(_ context.Context, cmd string, _ int64, err error) {
			w.shown = append(w.shown, cmd)
			w.addError(err)
		},
	}
}

func (w *leakChecker) addError(err error) {
	if err != nil {
		w.shown = append(w.shown, err.Error())
	}
}

// check checks everything that was shown.
func (w *leakChecker) check(t *testing.T) {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString([]byte(fuzzPassword))
	for i, s := range w.shown {
		requireShown(t, strings.ReplaceAll(s, "\n", " ")) // errors.Join writes each error on a line of its own
		require.Less(t, len(s), 16<<10)
		if w.secretFrom > 0 && i >= w.secretFrom {
			require.NotContains(t, s, fuzzPassword)
			require.NotContains(t, s, encoded)
		}
	}
}

// A step is the result of one call, as text. If the server sends surplus data, the result may depend on the pieces in
// which it arrives.
type step struct {
	outcome         string
	timingDependent bool
}

// A callFunc makes a call and records its result with a name.
type callFunc func(name string, f func(ctx context.Context) (any, error))

// session connects a client to the server, runs play with it, and checks the rules that every call must follow.
func session(t *testing.T, p *scriptedServer, play func(t *testing.T, c *Client, do callFunc)) (steps []step) {
	synctest.Test(t, func(t *testing.T) {
		before := allocated()
		octets := 0
		for _, part := range p.parts {
			octets += len(part)
		}
		conn := p.start()
		defer conn.Close()
		w := &leakChecker{}
		c, err := NewClient(t.Context(), conn, &Options{InsecureAuth: true, Trace: w.trace()})
		w.addError(err)
		if err == nil {
			defer c.Close()
			play(t, c, func(name string, f func(ctx context.Context) (any, error)) {
				began := time.Now()
				closed := c.State() == StateClosed
				value, err := f(t.Context())
				w.addError(err)
				// If the server is silent, the call that waits for it ends the session. So there is only one such wait.
				// Quit waits a little longer.
				require.LessOrEqual(t, time.Since(began), DefaultTimeout+2*time.Second, name)
				if closed && name != "Quit" {
					require.ErrorIs(t, err, net.ErrClosed, name)
				}
				synctest.Wait()
				timingDependent := p.unread || len(c.conn.buf.unread()) > 0 || err != nil &&
					(strings.Contains(err.Error(), "before") || strings.Contains(err.Error(), "not asked for"))
				steps = append(steps, step{fmt.Sprintf("%s: %q, %v", name, value, err), timingDependent})
			})
			c.Close()
		}
		conn.Close()
		synctest.Wait()
		w.check(t)
		require.LessOrEqual(t, allocated()-before, uint64(4<<20+400*octets), "octets of memory")
	})
	return steps
}

// allocated returns how many bytes were ever allocated on the heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// requireSame checks that two sessions had the same results. The server's octets arrived in different pieces.
// requireSame stops at the first step whose result may depend on the pieces, because the server had sent surplus data.
func requireSame(t *testing.T, a, b []step) {
	t.Helper()
	for i := range min(len(a), len(b)) {
		if a[i].timingDependent || b[i].timingDependent {
			return
		}
		require.Equal(t, a[i].outcome, b[i].outcome)
	}
	require.Len(t, b, len(a))
}

// readMessage reads a message and returns its content. After an error, it returns the part that it has read.
func readMessage(m *Message, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	_, err = m.WriteTo(&b)
	return b.String(), err
}

// readSome reads the messages of a batch, except for every third one.
func readSome(messages func(func(*Message, error) bool)) (any, error) {
	var all []string
	for m, err := range messages {
		if m == nil {
			return all, err
		}
		if m.Num%3 == 0 {
			continue
		}
		b, failed := io.ReadAll(m)
		all = append(all, fmt.Sprintf("%d %q %v %v", m.Num, b, err, failed))
	}
	return all, nil
}

// calls are the calls that a program may make. The fuzzer chooses each by its letter.
var calls = map[byte]struct {
	name string
	do   func(ctx context.Context, c *Client) (any, error)
}{
	'a': {"Login", func(ctx context.Context, c *Client) (any, error) { return nil, c.Login(ctx, "bob", fuzzPassword) }},
	'b': {"User", func(ctx context.Context, c *Client) (any, error) { return nil, c.User(ctx, "bob") }},
	'c': {"Pass", func(ctx context.Context, c *Client) (any, error) { return nil, c.Pass(ctx, fuzzPassword) }},
	'd': {"Apop", func(ctx context.Context, c *Client) (any, error) { return nil, c.Apop(ctx, "bob", fuzzPassword) }},
	'e': {"Capa", func(ctx context.Context, c *Client) (any, error) { return c.Capa(ctx) }},
	'f': {"Stat", func(ctx context.Context, c *Client) (any, error) { return c.Stat(ctx) }},
	'g': {"List", func(ctx context.Context, c *Client) (any, error) { return c.List(ctx, 1) }},
	'h': {"ListAll", func(ctx context.Context, c *Client) (any, error) { return c.ListAll(ctx) }},
	'i': {"Uidl", func(ctx context.Context, c *Client) (any, error) { return c.Uidl(ctx, 1) }},
	'j': {"UidlAll", func(ctx context.Context, c *Client) (any, error) { return c.UidlAll(ctx) }},
	'k': {"Listing", func(ctx context.Context, c *Client) (any, error) { return c.Listing(ctx) }},
	'l': {"Retr", func(ctx context.Context, c *Client) (any, error) { return readMessage(c.Retr(ctx, 1)) }},
	'm': {"Top", func(ctx context.Context, c *Client) (any, error) { return readMessage(c.Top(ctx, 1, 0)) }},
	'n': {"Messages", func(ctx context.Context, c *Client) (any, error) { return readSome(c.Messages(ctx, 1, 2, 3)) }},
	'o': {"Dele", func(ctx context.Context, c *Client) (any, error) { return nil, c.Dele(ctx, 1, 2) }},
	'p': {"Noop", func(ctx context.Context, c *Client) (any, error) { return nil, c.Noop(ctx) }},
	'q': {"Rset", func(ctx context.Context, c *Client) (any, error) { return nil, c.Rset(ctx) }},
	'r': {"Cmd", func(ctx context.Context, c *Client) (any, error) { return c.Cmd(ctx, "XTND XMIT") }},
	's': {"CmdMulti", func(ctx context.Context, c *Client) (any, error) {
		return readMessage(c.CmdMulti(ctx, "XTND LIST"))
	}},
	't': {"Lang", func(ctx context.Context, c *Client) (any, error) { return c.Lang(ctx, "de") }},
	'u': {"LangAll", func(ctx context.Context, c *Client) (any, error) { return c.LangAll(ctx) }},
	'v': {"Utf8", func(ctx context.Context, c *Client) (any, error) { return nil, c.Utf8(ctx) }},
	'w': {"Close of a message", func(ctx context.Context, c *Client) (any, error) {
		m, err := c.Retr(ctx, 2)
		if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(m, make([]byte, 3)); err != nil {
			return nil, m.Close()
		}
		return nil, m.Close()
	}},
	'x': {"break of a batch", func(ctx context.Context, c *Client) (any, error) {
		for m, err := range c.Tops(ctx, 1, 1, 2, 3, 4) {
			if m == nil {
				return nil, err
			}
			break
		}
		return nil, nil
	}},
	'z': {"Quit", func(ctx context.Context, c *Client) (any, error) { return nil, c.Quit(ctx) }},
}

// loggedIn has the greeting and the replies to USER and PASS.
const loggedIn = "+OK\r\n" + divider + "+OK\r\n" + divider + "+OK\r\n" + divider

var hostileSessions = []struct{ wire, calls string }{
	{"+OK <1@a>\r\n" + divider + "+OK\r\nSASL PLAIN\r\nUSER\r\n.\r\n" + divider + "+OK\r\n", "az"},
	{"+OK <1@a>\r\n" + divider + "-ERR [AUTH] no " + fuzzPassword + "\r\n", "dz"},
	{"+OK a\r\n+OK b\r\n", "bz"},
	{"+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n", "bc"},
	{"-ERR\r\n", ""}, {"* OK IMAP4 ready\r\n", ""}, {"\x16\x03\x01\x02", ""}, {"+OK " + strings.Repeat("A", 9000), ""},
	{loggedIn + "+OK 2 320\r\n" + divider + "+OK\r\n1 120\r\n2 200\r\n.\r\n" + divider + "+OK\r\n1 a\r\n2 b\r\n.\r\n",
		"bcfhjz"},
	{loggedIn + "+OK\r\nUIDL\r\nPIPELINING\r\n.\r\n" + divider + "+OK\r\n1 120\r\n.\r\n" + divider + "-ERR\r\n",
		"bckz"},
	{loggedIn + "+OK\r\n..\r\n.x\r\na\r\n.\nb\r\n.\r\n", "bclz"},
	{loggedIn + "+OK\r\n.\r\n" + divider + "-ERR no\r\n" + divider + "+OK\r\nabc\r\n.\r\n", "bcnz"},
	{loggedIn + "+OK\r\nPIPELINING\r\n.\r\n" + divider + "+OK\r\nx\r\n.\r\n" + divider + "-ERR no\r\n" + divider +
		"+OK\r\nabc\r\n", "bcenz"},
	{loggedIn + "+OK\r\nPIPELINING\r\n.\r\n" + divider + "+OK\r\n" + divider + "+OK\r\n" + divider +
		"-ERR [SYS/TEMP] x\r\n", "bceoz"},
	{loggedIn + "+OK\r\n" + divider + "+OK\r\n" + divider + "+OK bye\r\n+OK\r\n", "bcoz"},
	{loggedIn + "-ERR Disconnected for inactivity.\r\n", "bcppz"},
	{loggedIn + "+OK a\x00b\r\n", "bcp"}, {loggedIn + "+\r\n", "bcp"}, {loggedIn + "\r\n", "bcp"},
	{loggedIn + "+OKAY\r\n", "bcf"},
	{loggedIn + "+OK\r\n1 120\r\n1 130\r\n.\r\n", "bchz"}, {loggedIn + "+OK 99 1024\r\n", "bcgz"},
	{loggedIn + "+OK\r\n1 \x1b\r\n.\r\n", "bcjz"},
	{loggedIn + "-ERR \x1b]0;owned\x07\x1b[2J\u202e " + fuzzPassword + "\r\n", "bcrz"},
	{loggedIn + "+OK\r\n" + strings.Repeat("de Deutsch\r\n", 40) + ".\r\n", "bcuz"},
	{loggedIn + "+OK\r\nabcdefgh\r\n.\r\n" + divider + "+OK\r\n.\r\n" + divider + "+OK\r\n.\r\n", "bcwxz"},
	{"+OK\n" + divider + "+OK\n" + divider + "+OK\n" + divider + "+OK\na\n..b\n.\n", "bclz"},
	{"+OK\r\n" + divider + "+OK\r\nUTF8 USER\r\n.\r\n" + divider + "+OK\r\n" + divider + "+OK de ja\r\n", "evtz"},
}

// FuzzSession runs a whole client against random octets of a server. The session must end soon and use little memory.
// Errors and traces must not contain a secret or invisible characters. QUIT is sent only if the program calls Quit, and
// nothing is sent after it. The results must not depend on the pieces in which the octets arrive.
func FuzzSession(f *testing.F) {
	for i, s := range hostileSessions {
		f.Add([]byte(s.wire), s.calls, i%2 == 0, uint8(1+i%5), uint64(i))
	}
	f.Fuzz(func(t *testing.T, wire []byte, names string, silent bool, max uint8, seed uint64) {
		names = names[:min(len(names), 12)]
		play := func(max uint8) []step {
			p := &scriptedServer{parts: bytes.Split(wire, []byte(divider)), silent: silent, max: max, seed: seed}
			steps := session(t, p, func(t *testing.T, c *Client, do callFunc) {
				for _, name := range []byte(names) {
					if call, ok := calls[name]; ok {
						do(call.name, func(ctx context.Context) (any, error) { return call.do(ctx, c) })
					}
				}
			})
			requireCommands(t, p.lines, strings.Contains(names, "z"))
			return steps
		}
		requireSame(t, play(0), play(1+max))
	})
}

// requireCommands checks the lines that a client wrote.
func requireCommands(t *testing.T, lines []string, quit bool) {
	t.Helper()
	for i, line := range lines {
		require.True(t, strings.HasSuffix(line, "\r\n"), "%q", line)
		require.NotContains(t, line[:len(line)-2], "\r")
		require.LessOrEqual(t, len(line), maxCommand)
		if strings.EqualFold(line, "QUIT\r\n") {
			require.True(t, quit, "QUIT without a call of Quit")
			require.Equal(t, len(lines)-1, i, "a line after QUIT")
		}
	}
}

// FuzzMessages sends the replies to pipelined commands in one stream. The results must be the same as the results of
// plainReplies. They must not depend on the pieces in which the stream arrives.
func FuzzMessages(f *testing.F) {
	for i, wire := range []string{
		"+OK\r\na\r\n.\r\n+OK\r\n.\r\n+OK\r\n..b\r\n.\r\n+OK\r\n\r\n.\r\n",
		"+OK\r\n.\r\n-ERR no\r\n+OK\r\n.\r\n-ERR [SYS/TEMP] x\r\n",
		"+OK\r\na\n.\n+OK\r\n.\r\n+OK\r\n.\r\n",
		"-ERR\r\n-ERR\r\n-ERR\r\n-ERR\r\n-ERR\r\n",
		"+OK\r\na\r\n.\r\n+OK\r\nb",
		"+OK\r\n.\r\n\r\n", "+OK\r\n.\r\n.\r\n", "-ERR a\x00\r\n", "+OK", "",
	} {
		f.Add([]byte(wire), uint8(i), uint64(i))
	}
	f.Fuzz(func(t *testing.T, wire []byte, max uint8, seed uint64) {
		play := func(max uint8) (all []string) {
			nums := []int{1, 2, 4, 5} // readSome skips multiples of 3
			parts := [][]byte{[]byte("+OK\r\n"), []byte("+OK\r\n"), []byte("+OK\r\n"), nil, nil, nil, wire}
			p := &scriptedServer{parts: parts, max: max, seed: seed}
			session(t, p, func(t *testing.T, c *Client, do callFunc) {
				c.opts.Pipelining = PipeliningAlways
				do("User", func(ctx context.Context) (any, error) { return nil, c.User(ctx, "bob") })
				do("Pass", func(ctx context.Context) (any, error) { return nil, c.Pass(ctx, fuzzPassword) })
				do("Messages", func(ctx context.Context) (any, error) {
					got, err := readSome(c.Messages(ctx, nums...))
					all = got.([]string)
					return got, err
				})
			})
			return all
		}
		got := play(0)
		require.Equal(t, got, play(1+max))
		want := plainReplies(string(wire), 1, 2, 4, 5)
		require.GreaterOrEqual(t, len(got), len(want))
		for i, w := range want {
			require.True(t, strings.HasPrefix(got[i], w), "want %s, got %s", w, got[i])
		}
	})
}

// plainReplies returns the replies in wire. It stops before the first one that is incomplete or not valid.
func plainReplies(wire string, nums ...int) (all []string) {
	for _, num := range nums {
		line, rest, found := strings.Cut(wire, "\r\n")
		if !found || len(line)+2 > maxReplyLine || strings.ContainsAny(line, "\n\x00") ||
			!statusLine.MatchString(line) {
			break
		}
		body := ""
		if strings.EqualFold(line[:3], "+OK") {
			var used int
			if body, used = reference(rest, false); used < 0 || replyInBody([]byte(rest[:used]), false) >= 0 {
				break
			}
			rest = rest[used:]
		}
		wire = rest
		all = append(all, fmt.Sprintf("%d %q ", num, body))
	}
	return all
}

// FuzzAuth sends challenges to each mechanism through Client.Auth. The session may enter the TRANSACTION state only
// after +OK. With SCRAM it must never enter that state, because the server cannot prove that it knows the password. The
// number of challenges is limited.
func FuzzAuth(f *testing.F) {
	for i, wire := range []string{
		"+OK\r\n", "+ \r\n" + divider + "+OK\r\n", "+\r\n" + divider + "+OK\r\n", "-ERR [AUTH] no " + fuzzPassword +
			"\r\n",
		"+ VXNlcm5hbWU6\r\n" + divider + "+ UGFzc3dvcmQ6\r\n" + divider + "+OK\r\n",
		"+ PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n" + divider + "+OK\r\n",
		"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n" + divider + "-ERR [AUTH]\r\n",
		"+ cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyxzPVFVSkQscz00MDk2\r\n" + divider + "-ERR\r\n",
		"+QUJD\r\n" + divider + "-ERR\r\n", "+ QUJD\rREVG\r\n" + divider + "-ERR\r\n", "+ QUJD\r\n" + divider +
			"+OK\r\n",
		strings.Repeat("+ \r\n"+divider, 20) + "-ERR\r\n", "+ " + strings.Repeat("A", 12_000) + "\r\n" + divider +
			"-ERR\r\n", "", "+ QU",
	} {
		for mech := range fuzzMechanisms {
			f.Add([]byte(wire), uint8(mech), i%2 == 0, uint8(i), uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte, mech uint8, silent bool, max uint8, seed uint64) {
		play := func(max uint8) []step {
			parts := [][]byte{[]byte("+OK\r\n"), []byte("+OK\r\nSASL PLAIN\r\n.\r\n")}
			parts = append(parts, bytes.Split(wire, []byte(divider))...)
			p := &scriptedServer{parts: parts, silent: silent, max: max, seed: seed}
			var err error
			steps := session(t, p, func(t *testing.T, c *Client, do callFunc) {
				do("Capa", func(ctx context.Context) (any, error) { return c.Capa(ctx) })
				do("Auth", func(ctx context.Context) (any, error) {
					err = c.Auth(ctx, fuzzMechanisms[int(mech)%len(fuzzMechanisms)]())
					require.Equal(t, err == nil, c.State() == StateTransaction)
					return nil, nil // nonces differ each time
				})
			})
			require.LessOrEqual(t, len(p.lines), 2+16+1, "CAPA, AUTH, 16 responses, a star")
			_, isScram := fuzzMechanisms[int(mech)%len(fuzzMechanisms)]().(interface{ ServerProved() bool })
			require.False(t, isScram && err == nil, "only a server that knows the password can prove it")
			if err == nil {
				said := bytes.Join(parts[2:min(len(p.lines)+1, len(parts))], nil)
				require.Regexp(t, `(?im)^\+OK\b`, string(said), "no success")
			}
			return steps
		}
		requireSame(t, play(0), play(1+max))
	})
}

// An echoMechanism responds to each challenge with the challenge itself.
type echoMechanism struct{}

func (echoMechanism) Start() (string, []byte, error)        { return "X-PARROT", []byte(fuzzPassword), nil }
func (echoMechanism) Next(challenge []byte) ([]byte, error) { return challenge, nil }

// fuzzMechanisms are functions that return mechanisms with a secret.
var fuzzMechanisms = []func() SASLClient{
	func() SASLClient { return echoMechanism{} },
	func() SASLClient { return sasl.Plain("", "bob", fuzzPassword) },
	func() SASLClient { return sasl.Login("bob", fuzzPassword) },
	func() SASLClient { return sasl.CramMD5("bob", fuzzPassword) },
	func() SASLClient { return sasl.XOAuth2("bob", fuzzPassword) },
	func() SASLClient { return sasl.OAuthBearer("bob", fuzzPassword) },
	func() SASLClient {
		scram, err := sasl.Scram("SCRAM-SHA-256", "bob", fuzzPassword)
		if err != nil {
			panic(err)
		}
		return scram
	},
}
