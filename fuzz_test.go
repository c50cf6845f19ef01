package pop3

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The fuzz targets of what is pure. Most compare with another way to say the same, a regular expression or a plain
// loop, which is too slow or too greedy for the library itself. fuzz_session_test.go has those of a whole client.

// crumbs is a reader that gives between 1 octet and max octets at a time, by chance, or all it can if max is 0.
type crumbs struct {
	io.Reader
	max  int
	dice *rand.Rand
}

func newCrumbs(r io.Reader, max uint8, seed uint64) *crumbs {
	return &crumbs{Reader: r, max: int(max), dice: rand.New(rand.NewPCG(seed, 0))}
}

func (c *crumbs) Read(p []byte) (int, error) {
	if c.max > 0 && len(p) > 0 {
		p = p[:min(len(p), 1+c.dice.IntN(c.max))]
	}
	return c.Reader.Read(p)
}

// A decoder that works octet by octet is right if anything is. The reader must agree with it about the octets and
// about the end, however the wire is cut and whatever they are read with.
func FuzzDotReader(f *testing.F) {
	for _, body := range dotBodies {
		f.Add([]byte(body.wire+behind), body.lf, uint8(0), uint64(1))
		f.Add([]byte(strings.Repeat("a", 61)+body.wire), body.lf, uint8(3), uint64(2))
		f.Add([]byte(body.wire[:len(body.wire)-1]), body.lf, uint8(1), uint64(3))
	}
	f.Fuzz(func(t *testing.T, wire []byte, lf bool, max uint8, seed uint64) {
		want, used := reference(string(wire), lf)
		for way, read := range waysToRead {
			src := bufferOn(newCrumbs(bytes.NewReader(wire), max, seed))
			if seed%2 == 0 {
				src.reserve()
			}
			d := newDotReader(src, lf)
			got, err := read(&d)
			if used < 0 {
				require.Equal(t, io.ErrUnexpectedEOF, err, way)
				require.True(t, strings.HasPrefix(want, got), way)
				require.LessOrEqual(t, len(want)-len(got), len(".\r"), "%s: too much was held back", way)
				continue
			}
			require.NoError(t, err, way)
			require.Equal(t, want, got, way)
			rest, err := io.ReadAll(src.src)
			require.NoError(t, err)
			require.Equal(t, string(wire[used:]), string(src.unread())+string(rest), "%s: what is behind the terminator", way)
		}
	})
}

// A line comes out of the buffer the same however it was cut on the way.
func FuzzLine(f *testing.F) {
	for _, wire := range []string{"+OK\r\n", "+OK\n", "\r\n", "\n", "a\rb\r\n", "a\r\r\nb\r\n", "a\r", "\n\r", ""} {
		f.Add([]byte(wire), false, uint16(100), uint64(1))
		f.Add([]byte(wire), true, uint16(3), uint64(2))
	}
	f.Fuzz(func(t *testing.T, wire []byte, lf bool, limit uint16, seed uint64) {
		want, rest, found := bytes.Cut(wire, []byte("\n"))
		whole, crlf := bytes.CutSuffix(want, []byte("\r"))
		b := bufferOn(newCrumbs(bytes.NewReader(wire), 7, seed))
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
			tail, _ := io.ReadAll(b.src)
			require.Equal(t, string(rest), string(b.unread())+string(tail))
		}
	})
}

var (
	statusLine = regexp.MustCompile(`(?s-i)^(\+[Oo][Kk]|-[Ee][Rr][Rr])(?:([^0-9A-Za-z].*))?$`)
	codeInText = regexp.MustCompile(`(?s)^\[([!-.0-Z\\^-~]+(?:/[!-.0-Z\\^-~]+)*)\](.*)$`)
)

// The status line and the response code, and what is shown of them.
func FuzzStatus(f *testing.F) {
	for _, line := range []string{
		"+OK", "+OK ready", "-ERR", "-ERR no", "+ok", "-err x", "+OKx", "+OKAY", "-ERRx", "OK", "+", "-", "", ".", "+OK a\x00b",
		"+OK a\rb", "-ERR \x1b]0;owned\x07\x1b[2J", "-ERR \x9b31m\u202e\x08", "-ERR [sys/temp/disk/7] x", "-ERR [", "-ERR []",
		"-ERR [A", "-ERR [A/] x", "-ERR [[A]] x", "-ERR [AUTH] [SYS/PERM]", "+OK[PREAUTH] x", "-ERR [" + strings.Repeat("A", 70) + "]", "* OK IMAP4", "220 smtp",
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
		require.LessOrEqual(t, len(err.Error()), len("pop3: RETR 1: -ERR [] ")+maxCode+maxText)
	})
}

// requireShown checks that s is fit to be shown.
func requireShown(t *testing.T, s string) {
	t.Helper()
	require.True(t, utf8.ValidString(s), "%q", s)
	require.Equal(t, -1, strings.IndexFunc(s, unshown), "%q", s)
}

func unshown(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// The text cleaner, beside a plain one.
func FuzzClean(f *testing.F) {
	for _, s := range []string{
		"ready", "\x1b[31;1;4mPOP3\x1b[0m", "\x9b31m", "a\u202eb", "\xff\xfe", "\u00e4\u20ac\U0001f4ec", "\xed\xa0\x80", "a\u2028b",
		"\U000e0041", "\x7f\u0080", strings.Repeat("\u00e4", 300), "\xf0\x9f\x93",
	} {
		f.Add([]byte(s), uint16(maxText))
		f.Add([]byte(s), uint16(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, limit uint16) {
		s := clean(b, int(limit))
		requireShown(t, s)
		require.LessOrEqual(t, len(s), int(limit))
		require.Equal(t, s, clean([]byte(s), int(limit)), "what is clean stays as it is")

		if !utf8.Valid(b) {
			return
		}
		whole := strings.Map(func(r rune) rune {
			if unshown(r) {
				return -1
			}
			return r
		}, string(b))
		require.True(t, strings.HasPrefix(whole, s))
		_, next := utf8.DecodeRuneInString(whole[len(s):])
		require.True(t, len(s) == len(whole) || len(s)+next > int(limit), "cut where there was room for more")
	})
}

var (
	scanListing   = regexp.MustCompile(`(?s)^([0-9]+)[ \t]+([0-9]+)(?:[ \t].*)?$`)
	uniqueListing = regexp.MustCompile(`^([0-9]+)[ \t]+([!-~]{1,1000}[!-~]{0,24})\z`)
	dropListing   = regexp.MustCompile(`(?s)^([0-9]+)(?:[ \t]+(?:([0-9]+)(?:[ \t].*)?|.*))?$`)
)

// number is what a number of the wire is, -1 if it is more than limit.
func number(s string, limit uint64) int64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		return -1
	}
	return int64(n)
}

// The lines of LIST, UIDL and STAT, beside regular expressions.
func FuzzListing(f *testing.F) {
	for _, line := range []string{
		"1 120", "1 120 x", "1", "1 ", " 1 120", "x 120", "1 x", "1 1 1", "0 5", "-1 5", "+1 5", "01 5", "1 -5", "1 +5", "1 5.0",
		"2  320", "2\t320", "seven 1800662", "7 #octets", "5 -1073741824", "2 4294967400", "4294967296 1", "99999999999999999999 1",
		"1 99999999999999999999", "2000000000 1", "1 whqtswO00WBw418f9t5JxYwZ", "1 a b", "1 a\x00", "1 a\x7f", "1 \x80", "1 ~!",
		"1 ../../etc/passwd", "1 " + strings.Repeat("u", 1024), "1 " + strings.Repeat("u", 1025), "2147483647 9223372036854775807", "",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m := scanListing.FindSubmatch(line)
		num, size, err := parseScan(line)
		if m != nil && number(string(m[1]), math.MaxInt32) > 0 && number(string(m[2]), math.MaxInt64) >= 0 {
			require.NoError(t, err)
			require.EqualValues(t, number(string(m[1]), math.MaxInt32), num)
			require.Equal(t, number(string(m[2]), math.MaxInt64), size)
		} else {
			require.Error(t, err)
		}

		m = uniqueListing.FindSubmatch(line)
		num, uid, err := parseUnique(line)
		if m != nil && number(string(m[1]), math.MaxInt32) > 0 {
			require.NoError(t, err)
			require.EqualValues(t, number(string(m[1]), math.MaxInt32), num)
			require.Equal(t, string(m[2]), string(uid))
		} else {
			require.Error(t, err)
		}

		m = dropListing.FindSubmatch(line)
		drop, err := parseStat(line)
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

// The capabilities: what is in a line comes out of it, clean, and the order of lines with different names is nothing.
func FuzzCapa(f *testing.F) {
	for _, lines := range []string{
		"TOP\nUIDL\nUSER\nSASL PLAIN LOGIN", "sasl plain login\nSasl SCRAM-SHA-256", "SASL PLAIN\tLOGIN ", "STLSX\nXSTLS\n STLS", "\n\n",
		"EXPIRE NEVER", "EXPIRE 31 USER", "LOGIN-DELAY 900", "LOGIN-DELAY 99999999999999999999", "UTF8 USER", "IMPLEMENTATION Dovecot 2.3",
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

// The greeting with the timestamp of APOP, beside a regular expression.
func FuzzGreeting(f *testing.F) {
	for _, text := range []string{
		"POP3 server ready <1896.697170952@dbc.mtview.ca.us>", "<1@a> <2@b>", "<1a> <2@b>", strings.Repeat("<", 200) + "1@a>", "<1@a", "<>",
		"<@>", "<1@a@b>", "<1 2@a>", "<\xbf\xbf@\xbf>", "<a<1@b>>", "<1@a>>", "ready <a.b.c>", "", "<1\x01@a><2@b>",
	} {
		f.Add([]byte(text), uint8(2), uint64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, max uint8, seed uint64) {
		require.Equal(t, string(timestamp.Find(text)), findTimestamp(text))

		line := "+OK " + string(text) + "\r\n"
		conn := octets{iotest.DataErrReader(newCrumbs(strings.NewReader(line), max, seed))}
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
		require.Equal(t, clean(trimBlanks([]byte(" "+string(text))), maxText), c.Greeting())
		require.Equal(t, StateAuthorization, c.State())
	})
}
