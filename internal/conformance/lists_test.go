package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/race"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestHostileStat(t *testing.T) {
	good := func(id, text string, count int, size int64) dialogue {
		return dialogue{id: id, script: serverSends("+OK" + text + "\r\n"), do: stat,
			want: returns(pop3.DropListing{Count: count, Size: size})}
	}
	bad := func(id, text string) dialogue {
		return dialogue{id: id, script: serverSends("+OK" + text + "\r\n"), do: stat,
			want: returns(pop3.DropListing{}, nonFatal)}
	}
	playAll(t, []dialogue{
		bad("H-090 nothing", ""),
		bad("3.4a a space", " "),
		bad("H-090 words", " x y"),
		bad("3.4b a number with a letter", " 2x 320"),
		bad("3.4c a number with a comma", " 2, 320"),
		bad("3.4d a number in words", " two 320"),
		bad("3.4e plus", " +2 320"),
		bad("3.4f minus", " -2 320"),
		bad("3.4g hexadecimal", " 0x2 320"),
		bad("3.4h full-width digits", " \uff12 320"),
		bad("3.4i a fraction", " 2.0 320"),
		bad("3.4j an exponent", " 1e3 320"),
		bad("H-092 count of 2^32", " 4294967296 1"),
		bad("3.4k count of 2^31", " 2147483648 1"),
		bad("3.4l count of 2^32+1", " 4294967297 1"),
		bad("3.4m count of 2^64+1", " 18446744073709551617 1"),
		bad("H-092 count of 20 digits", " 99999999999999999999 1"),
		bad("3.4n count of 4,000 digits", " "+strings.Repeat("9", 4000)+" 1"),
		good("H-090 no size", " 1", 1, -1),
		good("H-090 no usable size", " 7 #octets", 7, -1),
		good("3.4o a size with a letter", " 1 2x", 1, -1),
		good("3.4p Q-44 a negative size", " 5 -1073741824", 5, -1),
		good("H-092 size of 20 digits", " 1 99999999999999999999", 1, -1),
		good("3.4q size of 2^63", " 1 9223372036854775808", 1, -1),
		good("3.4r size of 2^63-1", " 1 9223372036854775807", 1, math.MaxInt64),
		good("H-093 CVE-2002-0146 many", " 2000000000 1", 2000000000, 1),
		good("3.4s the largest count", " 2147483647 1", math.MaxInt32, 1),
		good("H-094 spaces", "  2  320", 2, 320),
		good("H-094 tab", "\t2 320", 2, 320),
		good("3.4t leading zeros", " 002 0320", 2, 320),
		good("3.4u words after it", " 2 320 octets", 2, 320),
		good("3.4v an empty maildrop", " 0 0", 0, 0),
		good("3.4w glued", "\t0\t0\t", 0, 0),
	})
}

// A count or a size that the server announces does not make the client allocate memory for it.
func TestHostileCountAllocates(t *testing.T) {
	c := loggedInClient(t, turns("STAT", "+OK 2000000000 9000000000000", "RETR 1", "+OK 99999999999 octets\n.",
		"NOOP", "+OK 4000000000 octets", "LIST", "+OK\n2147483647 1\n.").add("HOLD"), pop3.Options{})
	before := heapInUse()
	drop, err := c.Stat(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2_000_000_000, drop.Count)
	content, err := retr.do(t, t.Context(), c)
	require.NoError(t, err, "H-213")
	assert.Empty(t, content)
	assert.NoError(t, c.Noop(t.Context()))
	_, err = c.ListAll(t.Context())
	assert.NoError(t, err, "the count is not used for an allocation")
	assert.Less(t, heapInUse()-before, int64(1<<20), "H-093, H-213: octets")
}

func TestHostileScanListing(t *testing.T) {
	bad := func(id, line string) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + line + "\r\n.\r\n"), do: listAll,
			want: returns([]pop3.MessageInfo(nil), nonFatal)}
	}
	good := func(id, lines string, infos ...pop3.MessageInfo) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + lines + ".\r\n"), do: listAll, want: returns(infos)}
	}
	size := func(num int, size int64) pop3.MessageInfo { return pop3.MessageInfo{Num: num, Size: size} }
	playAll(t, []dialogue{
		bad("H-096 no size", "1"),
		bad("H-096 a space for a size", "1 "),
		bad("H-096 a space at the start", " 1 120"),
		bad("H-096 no number", "x 120"),
		bad("H-096 no size but a letter", "1 x"),
		good("H-096 more after it", "1 1 1\r\n", size(1, 1)),
		bad("H-097 zero", "0 5"),
		bad("H-097 minus", "-1 5"),
		bad("H-097 plus", "+1 5"),
		bad("H-097 negative size", "1 -5"),
		bad("H-097 plus size", "1 +5"),
		bad("H-097 fraction", "1 5.0"),
		good("H-097 leading zero", "01 05\r\n", size(1, 5)),
		bad("3.4x zeros", "000 5"),
		bad("3.4y CVE-2001-1009 2^31", "2147483648 1"),
		bad("3.4z CVE-2001-1009 2^32+1", "4294967297 1"),
		bad("3.4A CVE-2001-1009 2^64+1", "18446744073709551617 1"),
		bad("3.4B size of 2^63", "1 9223372036854775808"),
		bad("3.4C hexadecimal", "0x1 5"),
		bad("3.4D full-width digit", "\uff11 5"),
		bad("3.4E no-break space", "1\u00a0120"),
		bad("3.4F NUL", "1\x00120"),
		bad("3.4G blank line", ""),
		bad("3.4H a status before it", "+OK 1 120"),
		bad("3.4I one bad line among good ones", "1 1\r\n2 x\r\n3 3"),
		bad("H-098 a number twice", "1 1\r\n1 1"),
		bad("3.4J a number twice, far apart", "1 1\r\n2 2\r\n3 3\r\n1 1"),
		bad("3.4K a number twice, written in two ways", "1 1\r\n01 1"),
		good("H-100 gaps", "1 1\r\n2 2\r\n5 5\r\n", size(1, 1), size(2, 2), size(5, 5)),
		good("3.4L backwards", "3 3\r\n2 2\r\n1 1\r\n", size(3, 3), size(2, 2), size(1, 1)),
		good("3.4M the largest numbers", "2147483647 9223372036854775807\r\n",
			size(math.MaxInt32, math.MaxInt64)),
		good("3.4N spaces and a tab", "1   120\r\n2\t\t7 \r\n", size(1, 120), size(2, 7)),

		{id: "H-105 about another message", script: serverSends("+OK 99 1024\r\n"), do: listOne,
			want: returns(pop3.MessageInfo{}, nonFatal)},
		{id: "3.4O no size", script: serverSends("+OK 1\r\n"), do: listOne,
			want: returns(pop3.MessageInfo{}, nonFatal)},
		{id: "3.4P nothing", script: serverSends("+OK\r\n"), do: listOne,
			want: returns(pop3.MessageInfo{}, nonFatal)},
		{id: "3.4Q words", script: serverSends("+OK 1 120 octets\r\n"), do: listOne, want: returns(size(1, 120))},
		{id: "3.4R spaces", script: serverSends("+OK   1   120\r\n"), do: listOne, want: returns(size(1, 120))},
	})
}

func TestHostileUniqueIDs(t *testing.T) {
	bad := func(id, line string) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + line + "\r\n.\r\n"), do: uidlAll,
			want: returns([]pop3.MessageInfo(nil), nonFatal)}
	}
	good := func(id string, uids ...string) dialogue {
		reply, infos := "+OK\r\n", []pop3.MessageInfo(nil)
		for i, uid := range uids {
			reply += fmt.Sprintf("%d %s\r\n", i+1, uid)
			infos = append(infos, pop3.MessageInfo{Num: i + 1, UID: uid})
		}
		return dialogue{id: id, script: serverSends(reply + ".\r\n"), do: uidlAll, want: returns(infos)}
	}
	playAll(t, []dialogue{
		bad("H-110 CVE-2018-14356 empty", "1 "),
		bad("3.5a CVE-2018-14356 missing", "1"),
		bad("3.5b CVE-2018-14356 two spaces and nothing", "1  "),
		good("H-110 one octet", "x"),
		good("H-110 70 octets", strings.Repeat("u", 70)),
		good("H-111 71 octets", strings.Repeat("u", 71)),
		good("3.5c 128 octets", strings.Repeat("u", 128)),
		good("3.5d 512 octets", strings.Repeat("u", 512)),
		good("H-111 1,024 octets", strings.Repeat("u", 1024)),
		bad("H-111 1,025 octets", "1 "+strings.Repeat("u", 1025)),
		bad("3.5e 8,000 octets", "1 "+strings.Repeat("u", 8000)),
		{id: "3.5f longer than a line", script: serverSends("+OK\r\n1 " + strings.Repeat("u", 9000)),
			do: uidlAll, want: returns([]pop3.MessageInfo(nil), fatal), after: closed},
		bad("H-112 NUL", "1 a\x00b"),
		bad("H-112 tab", "1 a\tb"),
		bad("H-112 escape", "1 a\x1bb"),
		bad("H-112 DEL", "1 a\x7fb"),
		bad("H-112 8-bit", "1 a\x80b"),
		bad("3.5g UTF-8", "1 é"),
		bad("3.5h CR", "1 a\rb"),
		bad("3.5i CR at the end", "1 a\r"),
		bad("3.5j a space inside", "1 a b"),
		{id: "3.5k C-039 a space at the end", script: serverSends("+OK\r\n1 a \r\n.\r\n"), do: uidlAll,
			want: returns([]pop3.MessageInfo{{Num: 1, UID: "a"}})},
		bad("3.5l number twice", "1 a\r\n1 b"),
		bad("3.5m zero", "0 a"),
		good("3.5n the first and the last allowed octet", "!", "~"),
		good("3.5o dots", ".", "..", "..."),
		good("H-114 twice the same", "same", "same"),
		good("H-119 a path", "../../etc/passwd", strings.Repeat("/", 70), "nul", `..\x`, "%2e", "-rf"),
		good("3.5p case", "a", "A"),
		{id: "3.5q several spaces", script: serverSends("+OK\r\n1   x\r\n.\r\n"), do: uidlAll,
			want: returns([]pop3.MessageInfo{{Num: 1, UID: "x"}})},
		{id: "H-116 refused", script: serverSends("-ERR no\r\n"), do: uidlAll,
			want: returns([]pop3.MessageInfo(nil), refusedWith("", "no"))},
		{id: "3.5r about another message", script: serverSends("+OK 2 x\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{}, nonFatal)},
		{id: "3.5s Q-48 no number", script: serverSends("+OK 00001a1457b5a851\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{}, nonFatal)},
		{id: "3.5t words after it", script: serverSends("+OK 1 x y\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{}, nonFatal)},
		{id: "3.5u good", script: serverSends("+OK 1 x\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{Num: 1, UID: "x"})},
	})
}

func TestHostileListing(t *testing.T) {
	join := func(id, list, uidl string, want ...pop3.MessageInfo) dialogue {
		return dialogue{id: id, script: turns("CAPA", "+OK\nUIDL\n.", "LIST", list, "UIDL", uidl), do: listing,
			want: returns(want)}
	}
	playAll(t, []dialogue{
		join("H-102 a number that is only in LIST", "+OK\n1 1\n2 2\n.", "+OK\n1 a\n.", info(1, 1, "a"), info(2, 2, "")),
		join("H-102 a number that is only in UIDL", "+OK\n1 1\n.", "+OK\n1 a\n2 b\n.", info(1, 1, "a")),
		join("H-101 other numbers than STAT", "+OK 7 messages\n4 1\n9 1\n.", "+OK 1\n9 b\n4 a\n.", info(4, 1, "a"),
			info(9, 1, "b")),
		join("3.5v another order", "+OK\n1 1\n2 2\n3 3\n.", "+OK\n3 c\n1 a\n2 b\n.", info(1, 1, "a"), info(2, 2, "b"),
			info(3, 3, "c")),
		{id: "H-118 unique-ids change", script: turns("UIDL", "+OK\n1 a\n.", "UIDL", "+OK\n1 b\n."),
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for _, want := range []string{"a", "b"} {
					infos, err := c.UidlAll(ctx)
					assert.NoError(t, err)
					assert.Equal(t, []pop3.MessageInfo{{Num: 1, UID: want}}, infos)
				}
			})},
		{id: "H-101 STAT says more and less",
			script: turns("STAT", "+OK 0 0", "LIST", "+OK\n3 1\n.", "STAT", "+OK 9 9", "LIST", "+OK\n3 1\n."),
			do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for _, count := range []int{0, 9} {
					drop, err := c.Stat(ctx)
					assert.NoError(t, err)
					assert.Equal(t, count, drop.Count)
					infos, err := c.ListAll(ctx)
					assert.NoError(t, err)
					assert.Len(t, infos, 1)
				}
			})},
	})
}

// The sum of these sizes would overflow. The client adds sizes to limit how much it requests ahead.
func TestHostileSizes(t *testing.T) {
	huge := fmt.Sprint(int64(math.MaxInt64))
	playAll(t, []dialogue{{id: "H-106", script: turns("LIST", "+OK\n1 "+huge+"\n2 "+huge+"\n3 "+huge+"\n.",
		"RETR 1", "+OK\nx\n.", "RETR 2", "+OK\nx\n.", "RETR 3", "+OK\nx\n."),
		do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			_, err := c.ListAll(ctx)
			require.NoError(t, err)
			all, err := outcomes(ctx, c, 1, 2, 3)
			assert.NoError(t, err)
			assert.Equal(t, []string{"1 x", "2 x", "3 x"}, all)
		}), opts: pop3.Options{Pipelining: pop3.PipeliningAlways}}})
}

// A list without an end is an error, and the client reads and stores only a limited part of it.
func TestHostileEndlessLists(t *testing.T) {
	// Collect garbage early, so that the heap contains little more than the memory in use.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	for i, row := range []struct {
		id   string
		call action
		more io.Reader
	}{
		{"H-104 LIST", listAll, &numberedLines{format: "%d 1\r\n"}},
		{"H-104 UIDL", uidlAll, &numberedLines{format: "%d " + strings.Repeat("u", 250) + "\r\n"}},
		{"3.4S long lines", uidlAll, &numberedLines{format: "%d " + strings.Repeat("u", 1024) + "\r\n"}},
		{"3.4T nonsense", listAll, repeatReader("nonsense\r\n")},
		{"3.4U blank lines", listAll, repeatReader("\r\n")},
		{"H-104 CAPA", capa, repeatReader("X-CAPABILITY a b c\r\n")},
		{"H-122 lines", capa, &numberedLines{format: "X%d\r\n"}},
		{"3.6a long lines", capa, repeatReader(strings.Repeat("x", 8000) + "\r\n")},
		{"3.6b blank lines", capa, repeatReader("\r\n")},
		{"H-104 LANG", langAll, repeatReader("en English\r\n")},
	} {
		if i%race.Stride != 0 {
			continue // with the race detector each row takes seconds, so only some rows run
		}
		t.Run(row.id, func(t *testing.T) {
			before := heapInUse()
			more := &heapMeter{from: row.more}
			done := make(chan struct{})
			c := loginOver(t, serve(t, func(p *peer) {
				defer close(done)
				p.login()
				p.expect(row.call.line)
				p.send("+OK\r\n")
				io.Copy(p.Conn, more)
			}))
			value, err := row.call.do(t, t.Context(), c)
			<-done
			fatal(t, err)
			checkError(t, err)
			closed.check(t, c, err)
			assert.Empty(t, value)
			assert.Less(t, more.n, int64(80<<20), "octets that were read")
			assert.Less(t, more.peak-before, int64(100<<20), "octets in memory")
		})
	}
}

// A heapMeter is a reader that measures the memory in use after every 8 MiB.
type heapMeter struct {
	from          io.Reader
	n, next, peak int64
}

func (r *heapMeter) Read(p []byte) (int, error) {
	if r.n >= r.next {
		r.peak = max(r.peak, heapInUse())
		r.next += 8 << 20
	}
	n, err := r.from.Read(p)
	r.n += int64(n)
	return n, err
}

// A numberedLines reader returns lines that contain the numbers 1, 2, 3 and so on.
type numberedLines struct {
	format string // a line with one %d for the number
	last   int    // the last number; 0 means no end
	n      int
	left   []byte
}

func (r *numberedLines) Read(p []byte) (int, error) {
	before, after, _ := strings.Cut(r.format, "%d")
	if len(r.left) == 0 {
		r.left = r.left[:0]
		for len(r.left) < 32<<10 && (r.n < r.last || r.last == 0) {
			r.n++
			r.left = append(strconv.AppendInt(append(r.left, before...), int64(r.n), 10), after...)
		}
	}
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// The longest list that is accepted. The number of allocations shows that the work grows in proportion to the length
// of the list.
func TestHostileLongLists(t *testing.T) {
	list := func(t *testing.T, n int) (infos []pop3.MessageInfo) {
		more := &numberedLines{format: "%d same-for-all\r\n", last: n}
		c := loginOver(t, serve(t, func(p *peer) {
			p.login()
			p.expect("UIDL")
			p.send("+OK\r\n")
			io.Copy(p.Conn, more)
			p.send(".\r\n")
			p.expectNothing()
		}))
		infos, err := c.UidlAll(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		return infos
	}
	t.Run("H-115 100,000 with one unique-id", func(t *testing.T) {
		infos := list(t, 100_000)
		require.Len(t, infos, 100_000)
		assert.Equal(t, pop3.MessageInfo{Num: 100_000, UID: "same-for-all"}, infos[99_999])
		few := testing.AllocsPerRun(1, func() { list(t, 50_000) })
		many := testing.AllocsPerRun(1, func() { list(t, 100_000) })
		assert.Less(t, many, 2.5*few)
	})
	t.Run("Q-54 as many as may be", func(t *testing.T) {
		assert.Len(t, list(t, 1_000_000/race.Stride), 1_000_000/race.Stride)
	})
}

func TestHostileCapabilities(t *testing.T) {
	caps := func(id, lines string, want pop3.Capabilities) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + lines + ".\r\n"), do: capa, want: returns(want)}
	}
	many := strings.TrimSuffix(strings.Repeat("M ", 1000), " ")
	playAll(t, []dialogue{
		{id: "H-120 refused", script: serverSends("-ERR\r\n"), do: capa, want: returns(pop3.Capabilities(nil))},
		caps("H-123 two lines", "sasl plain login\r\nSasl SCRAM-SHA-256\r\n",
			pop3.Capabilities{"SASL": {"plain", "login", "SCRAM-SHA-256"}}),
		caps("H-124 tab and spaces", "SASL PLAIN\tLOGIN \r\n", pop3.Capabilities{"SASL": {"PLAIN", "LOGIN"}}),
		caps("H-126 longer", "STLSX\r\n", pop3.Capabilities{"STLSX": nil}),
		caps("H-126 in the end", "XSTLS\r\n", pop3.Capabilities{"XSTLS": nil}),
		caps("H-126 a space at the start", " STLS\r\n", pop3.Capabilities{}),
		caps("3.6c a tab at the start", "\tSTLS\r\n", pop3.Capabilities{}),
		caps("3.6d glued", "EXPIRENEVER\r\n", pop3.Capabilities{"EXPIRENEVER": nil}),
		caps("H-127 blank lines", "TOP\r\n\r\nUIDL\r\n\r\n", pop3.Capabilities{"TOP": nil, "UIDL": nil}),
		caps("H-128 1,000 mechanisms", "SASL "+many+"\r\n", pop3.Capabilities{"SASL": strings.Fields(many)}),
		caps("3.6e a dot at the start", "..X\r\n.Y\r\n", pop3.Capabilities{".X": nil, ".Y": nil}),
		caps("3.6f controls", "X\x1b[2J a\x07\u202eb\r\n", pop3.Capabilities{"X[2J": {"ab"}}),
		caps("3.6g nothing but controls", "\x1b\x1b\r\nTOP\r\n", pop3.Capabilities{"TOP": nil}),
		caps("3.6h 8-bit", "X \xff\r\n", pop3.Capabilities{"X": {"\ufffd"}}),
		caps("3.6i twice", "TOP\r\nTOP\r\n", pop3.Capabilities{"TOP": nil}),
		caps("3.6j 256 lines", strings.Repeat("X\r\n", 256), pop3.Capabilities{"X": nil}),
		{id: "H-122 257 lines", script: serverSends("+OK\r\n" + strings.Repeat("X\r\n", 257) + ".\r\n"),
			do: capa, want: returns(pop3.Capabilities(nil), fatal), after: closed},
		{id: "3.6k challenge", script: serverSends("+ \r\n"), do: capa,
			want: returns(pop3.Capabilities(nil), fatal), after: closed},
		{id: "3.6l hangs up", script: script{"EOF"}, do: capa, want: returns(pop3.Capabilities(nil), connLost),
			after: closed},
	})
	for id, line := range map[string]string{"H-126 longer": "STLSX", "H-126 in the end": "XSTLS",
		"H-126 at the start": " STLS"} {
		playAll(t, []dialogue{{id: id + " is no STLS", script: withGreeting("+OK", "CAPA", "+OK\n"+line+"\n."),
			do:   upgrade,
			want: failsWith(wraps(pop3.ErrTLSRequired))}})
	}
	playAll(t, []dialogue{{id: "3.6m names that are similar to PIPELINING",
		script: turns("CAPA", "+OK\nPIPELININGS\nXPIPELINING\n.", "DELE 1", "+OK", "DELE 2", "+OK"),
		do: loggedInTest(
			func(t *testing.T, ctx context.Context, c *pop3.Client) { assert.NoError(t, c.Dele(ctx, 1, 2)) },
		)}})
}

// dialTo returns a DialContext that returns an existing connection.
func dialTo(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

// If the server does not support UIDL, or sends lines that make no sense, Listing returns the other data (C-014, C-015,
// C-039).
func TestListingPartial(t *testing.T) {
	const list = "+OK\n1 5\n2 6\n3 7\n."
	unsupported := wraps(errors.ErrUnsupported)
	listing := func(id, capa, list, uidl string, infos []pop3.MessageInfo, checks ...errorCheck) dialogue {
		return dialogue{id: id, script: turns("CAPA", capa, "LIST", list, "UIDL", uidl), do: listing,
			want: returns(infos, checks...)}
	}
	// uidls returns a dialogue with an odd line for message 2 in the reply to UIDL. lists returns one with an odd line
	// in the reply to LIST.
	uidls := func(id, odd string, infos []pop3.MessageInfo, checks ...errorCheck) dialogue {
		return listing(id, "-ERR", list, "+OK\n1 a\n"+odd+"\n3 c\n.", infos, checks...)
	}
	lists := func(id, odd string, infos []pop3.MessageInfo, checks ...errorCheck) dialogue {
		return listing(id, "-ERR", "+OK\n1 5\n"+odd+"\n3 7\n.", "+OK\n1 a\n2 b\n3 c\n.", infos, checks...)
	}
	infoList := func(infos ...pop3.MessageInfo) []pop3.MessageInfo { return infos }
	withoutUIDs := infoList(info(1, 5, ""), info(2, 6, ""), info(3, 7, ""))
	noSecondID := infoList(info(1, 5, "a"), info(2, 6, ""), info(3, 7, "c"))
	noSecondSize := infoList(info(1, 5, "a"), info(2, -1, "b"), info(3, 7, "c"))
	playAll(t, []dialogue{
		listing("C-014 not announced, refused", "+OK\nTOP\n.", list, "-ERR", withoutUIDs, unsupported),
		listing("C-014 Q-51 no capabilities, refused", "-ERR", list, "-ERR", withoutUIDs, unsupported),
		listing("C-015 not announced, there", "+OK\nTOP\n.", "+OK\n1 5\n.", "+OK\n1 a\n.", infoList(info(1, 5, "a"))),
		listing("Q-51 no capabilities, there", "-ERR", "+OK\n1 5\n.", "+OK\n1 a\n.", infoList(info(1, 5, "a"))),
		listing(
			"H-116 Q-51 announced, refused",
			"+OK\nUIDL\n.",
			list,
			"-ERR locked",
			nil,
			refusedWith("", "locked"),
			isSupported,
		),
		listing(
			"C-014 Q-51 refused with a code",
			"-ERR",
			list,
			"-ERR [SYS/TEMP] x",
			nil,
			refusedWith(pop3.CodeSysTemp, "x"),
			isSupported,
		),
		listing("C-038 no messages, UIDL refused", "-ERR", "+OK\n.", "-ERR no", nil),
		listing("LIST refused", "-ERR", "-ERR no", "+OK\n1 a\n.", nil, refusedWith("", "no"), isSupported),
		uidls("C-039 no id", "2", noSecondID, nonFatal),
		uidls("C-039 no octet of an id", "2 ", noSecondID, nonFatal),
		uidls("C-039 two words", "2 a b", noSecondID, nonFatal),
		uidls("C-039 eight bits", "2 \xe4", noSecondID, nonFatal),
		uidls("C-039 an id too long", "2 "+strings.Repeat("u", 1100), noSecondID, nonFatal),
		uidls("C-039 not about a message", "b", noSecondID, nonFatal),
		uidls("C-039 a blank after the id", "2 b ", infoList(info(1, 5, "a"), info(2, 6, "b"), info(3, 7, "c"))),
		uidls("C-039 twice, two ids", "2 b\n1 z", infoList(info(1, 5, ""), info(2, 6, "b"), info(3, 7, "c")), nonFatal),
		uidls("C-039 twice the same", "2 b\n2 b", infoList(info(1, 5, "a"), info(2, 6, "b"), info(3, 7, "c")),
			nonFatal),
		lists("C-039 a size below 0", "2 -1", noSecondSize, nonFatal),
		lists("C-039 a size of letters", "2 x", noSecondSize, nonFatal),
		lists("C-039 a scan without number", "x 6", infoList(info(1, 5, "a"), info(3, 7, "c"), info(2, -1, "b")),
			nonFatal),
		listing(
			"C-039 both",
			"-ERR",
			"+OK\n1 -1\n2 6\n.",
			"+OK\n1 a\n2\n.",
			infoList(info(1, -1, "a"), info(2, 6, "")),
			nonFatal,
		),
		listing(
			"C-039 C-014 an odd size, no UIDL",
			"-ERR",
			"+OK\n1 -1\n.",
			"-ERR",
			infoList(info(1, -1, "")),
			nonFatal,
			unsupported,
		),
	})
}

// isSupported checks that the error does not wrap errors.ErrUnsupported.
func isSupported(t *testing.T, err error) {
	if errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("not unsupported: %v", err)
	}
}

func info(num int, size int64, uid string) pop3.MessageInfo {
	return pop3.MessageInfo{Num: num, Size: size, UID: uid}
}

// If the client is closed after the reply to LIST or UIDL, Listing does not return an empty maildrop without an error.
func TestListingClosed(t *testing.T) {
	for _, at := range []string{"LIST", "UIDL"} {
		t.Run(at, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary,
				Messages: [][]byte{message(500)}})
			var client *pop3.Client
			trace := &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, _ error) {
				if cmd == at {
					client.Close()
				}
			}}
			here, there := net.Pipe()
			go srv.ServeConn(there)
			client, err := pop3.NewClient(t.Context(), here, &pop3.Options{InsecureAuth: true, Trace: trace})
			require.NoError(t, err)
			require.NoError(t, client.Login(t.Context(), "u", canary))
			infos, err := client.Listing(t.Context())
			assert.True(t, err != nil || len(infos) == 1, "%v %v", infos, err)
		})
	}
}

// If two lines of UIDL have the same message number, Listing uses neither of their unique-ids, even if another line
// makes no sense (C-039).
func TestListingRepeatsAndOddLines(t *testing.T) {
	conn, _ := pop3test.Script(strings.Join([]string{"S: +OK", "C: USER u", "S: +OK", "C: PASS " + canary, "S: +OK",
		"C: CAPA", "S: -ERR", "C: LIST", "S: +OK", "S: 1 100", "S: x", "S: 3 100", "S: .",
		"C: UIDL", "S: +OK", "S: 1 a", "S: 1 b", "S: 2 c", "S: 3 d e", "S: ."}, "\n"))
	c, err := pop3.NewClient(t.Context(), conn, insecure)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, errors.Join(c.User(t.Context(), "u"), c.Pass(t.Context(), canary)))
	infos, err := c.Listing(t.Context())
	nonFatal(t, err)
	assert.ErrorContains(t, err, "pop3: UIDL: not a unique-id listing (number, id of printable ASCII): 3 d e",
		"C-110: the reason belongs to the line that is shown")
	assert.Equal(t, []pop3.MessageInfo{info(1, 100, ""), info(3, 100, ""), info(2, -1, "c")}, infos)
}
