package pop3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/race"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// dotBodies are bodies as a server sends them, with the end-of-message line, and their decoded content.
var dotBodies = []struct {
	name string
	lf   bool // the lines of the server end in LF
	wire string
	want string
}{
	// Other decoders decode these bodies incorrectly.
	{name: "R1-016 the last CRLF belongs to the body", wire: "a\r\n.\r\n", want: "a\r\n"},
	{name: "H-070 dot and CR in a line", wire: ".\rX\r\n.\r\n", want: ".\rX\r\n"},
	{name: "Q-15 two CRs", wire: "a\r\r\n.\r\n", want: "a\r\r\n"},
	{name: "Q-01 dot between bare LFs", wire: "a\n.\nb\r\n.\r\n", want: "a\n.\nb\r\n"},
	{name: "Q-03 dots that nobody stuffed", wire: "..a\r\n.b\r\n.\r\n", want: ".a\r\n.b\r\n"},
	{name: "Q-13 4096 octets and a dot", wire: strings.Repeat("a", 4096) + ".\r\n.\r\n",
		want: strings.Repeat("a", 4096) + ".\r\n"},

	// These bodies have end-of-message lines, and lines that look like one.
	{name: "R1-013 nothing", wire: ".\r\n", want: ""},
	{name: "an empty line", wire: "\r\n.\r\n", want: "\r\n"},
	{name: "two empty lines", wire: "\r\n\r\n.\r\n", want: "\r\n\r\n"},
	{name: "H-065 a line that is a dot", wire: "..\r\n.\r\n", want: ".\r\n"},
	{name: "H-066 dots", wire: "...\r\n..a\r\n.b\r\n.\r\n", want: "..\r\n.a\r\n.b\r\n"},
	{name: "H-068 dot and bare LF at the start of a line", wire: "a\r\n.\nb\r\n.\r\n", want: "a\r\n.\nb\r\n"},
	{name: "H-069 CR and dot within a line", wire: "a\r.\r\nb\r\n.\r\n", want: "a\r.\r\nb\r\n"},
	{name: "H-070 a line of dot, CR, dot", wire: "a\r\n.\r.\r\n.\r\n", want: "a\r\n.\r.\r\n"},
	{name: "dot, CR, CR, LF", wire: ".\r\r\n.\r\n", want: ".\r\r\n"},
	{name: "dot, dot, CR, LF in pieces", wire: "..\r\r\n..\n.\r\n.\r\n", want: ".\r\r\n.\n.\r\n"},
	{name: "bare LF, dot, CRLF", wire: "a\n.\r\nb\r\n.\r\n", want: "a\n.\r\nb\r\n"},
	{name: "bare LF, two dots", wire: "a\n..\r\nb\r\n.\r\n", want: "a\n..\r\nb\r\n"},
	{name: "bare CR, dot, CRLF", wire: "a\r.\r\n.\r\n", want: "a\r.\r\n"},
	{name: "bare LF at the very start", wire: "\n.\r\n\r\n.\r\n", want: "\n.\r\n\r\n"},
	{name: "LF CR", wire: "a\n\r.\r\n.\r\n", want: "a\n\r.\r\n"},
	{name: "dot at the end of a line", wire: "a.\r\n.\r\n", want: "a.\r\n"},
	{name: "dot before a space", wire: ". \r\n.\r\n", want: ". \r\n"},
	{name: "dot before NUL", wire: ".\x00\r\n.\r\n", want: ".\x00\r\n"},
	{name: "a body of dots", wire: "......\r\n.\r\n", want: ".....\r\n"},
	{name: "lines of dots", wire: "..\r\n...\r\n..\r\n.\r\n", want: ".\r\n..\r\n.\r\n"},
	{name: "three dots, CR, dot", wire: "...\r.\r\n.\r\n", want: "..\r.\r\n"},

	// These bodies have octets that have no meaning in the protocol.
	{name: "H-074 NUL", wire: "\x00\r\n\x00.\r\n.\r\n", want: "\x00\r\n\x00.\r\n"},
	{name: "H-216 eight bits", wire: "\xff\xae\x8a\x8d\r\n..\xae\r\n.\r\n", want: "\xff\xae\x8a\x8d\r\n.\xae\r\n"},
	{name: "the dot with its high bit set", wire: "\r\n\xae\r\n\x8d\x8a.\r\n.\r\n", want: "\r\n\xae\r\n\x8d\x8a.\r\n"},
	{name: "octets that differ from a line end in one bit", wire: "\x0c\n.\r\x0b.\r\n.\r\n",
		want: "\x0c\n.\r\x0b.\r\n"},
	{name: "an octet that is a dot and LF in one", wire: strings.Repeat("a", 40) + "\n$\r\n$\n\x24.\r\n.\r\n",
		want: strings.Repeat("a", 40) + "\n$\r\n$\n\x24.\r\n"},
	{name: "octets below a dot", wire: "\r\n-\r\n/..\r\n.\r\n", want: "\r\n-\r\n/..\r\n"},

	// The lines of these bodies end in LF.
	{name: "H-072 LF", lf: true, wire: "a\n.\n", want: "a\n"},
	{name: "H-072 LF, nothing", lf: true, wire: ".\n", want: ""},
	{name: "H-072 LF, dots", lf: true, wire: "..\n..a\n.b\n...\n.\n", want: ".\n.a\n.b\n..\n"},
	{name: "H-073 LF, but the terminator ends in CRLF", lf: true, wire: "a\n.\r\n", want: "a\n"},
	{name: "H-073 LF, but a line ends in CRLF", lf: true, wire: "a\r\n..b\n.\n", want: "a\r\n.b\n"},
	{name: "LF, dot and CR in a line", lf: true, wire: ".\rX\n.\r\r\n.\n", want: ".\rX\n.\r\r\n"},
	{name: "LF, dot in a line", lf: true, wire: "a.\nb.c\n.\n", want: "a.\nb.c\n"},
	{name: "LF, empty lines", lf: true, wire: "\n\n.\n", want: "\n\n"},
	{name: "LF, CR and dot", lf: true, wire: "a\r.\n.\n", want: "a\r.\n"},
}

// afterBody is sent after the body, and must not be read.
const afterBody = "+OK next\r\n.\r\n..\r\n"

// bufferOn returns a buffer that reads from r, as the buffer of a connection does.
func bufferOn(r io.Reader) *buffer { return &buffer{src: r} }

// readMethods has a function for each way to read a body. The error is nil if the body was complete.
var readMethods = map[string]func(*dotReader) (string, error){
	"Read": func(d *dotReader) (string, error) {
		b, err := io.ReadAll(struct{ io.Reader }{d})
		return string(b), err
	},
	"Read of one octet": func(d *dotReader) (string, error) { return readBy(d, 1) },
	"WriteTo": func(d *dotReader) (string, error) {
		var b strings.Builder
		n, err := d.WriteTo(&b)
		if n != int64(b.Len()) {
			err = errors.Join(err, fmt.Errorf("%d octets were counted, %d written", n, b.Len()))
		}
		return b.String(), err
	},
	"Read, then WriteTo": func(d *dotReader) (string, error) {
		p := make([]byte, 3)
		n, err := d.Read(p)
		if err == io.EOF {
			return "", nil
		} else if err != nil {
			return string(p[:n]), err
		}
		var b strings.Builder
		_, err = d.WriteTo(&b)
		return string(p[:n]) + b.String(), err
	},
}

// readBy reads in pieces of n octets.
func readBy(d *dotReader, n int) (string, error) {
	var b strings.Builder
	for p := make([]byte, n); ; {
		n, err := d.Read(p)
		b.Write(p[:n])
		if err == io.EOF {
			return b.String(), nil
		} else if err != nil {
			return b.String(), err
		}
	}
}

// forEachSplit cuts s in two at each position, and calls f with a reader that returns the two parts.
func forEachSplit(s string, f func(r io.Reader, at int)) {
	for at := range len(s) + 1 {
		f(io.MultiReader(strings.NewReader(s[:at]), strings.NewReader(s[at:])), at)
	}
}

func TestDotReader(t *testing.T) {
	readers := map[string]func(io.Reader) io.Reader{
		"as it is":            func(r io.Reader) io.Reader { return r },
		"one octet":           iotest.OneByteReader,
		"half":                iotest.HalfReader,
		"data with the error": iotest.DataErrReader,
		"error after the data": func(r io.Reader) io.Reader {
			return io.MultiReader(r, iotest.ErrReader(errors.New("must not be seen")))
		},
	}
	for _, tt := range dotBodies {
		t.Run(tt.name, func(t *testing.T) {
			for reader, newReader := range readers {
				for method, read := range readMethods {
					src := bufferOn(newReader(strings.NewReader(tt.wire + afterBody)))
					d := newDotReader(src, tt.lf)
					got, err := read(&d)
					require.NoError(t, err, "%s, %s", reader, method)
					require.Equal(t, tt.want, got, "%s, %s", reader, method)
					rest, _ := io.ReadAll(src.src)
					require.Equal(t, afterBody, string(src.unread())+string(rest), "%s, %s: unread", reader, method)
				}
			}
		})
	}
}

func TestDotReaderSplit(t *testing.T) {
	for _, tt := range dotBodies {
		t.Run(tt.name, func(t *testing.T) {
			forEachSplit(tt.wire+afterBody, func(r io.Reader, at int) {
				d := newDotReader(bufferOn(r), tt.lf)
				got, err := readMethods["WriteTo"](&d)
				require.NoError(t, err, "cut at %d", at)
				require.Equal(t, tt.want, got, "cut at %d", at)
			})
		})
	}
}

// Read returns the same octets for every size of p, and follows the rules of io.Reader.
func TestDotReaderRead(t *testing.T) {
	for _, tt := range dotBodies {
		t.Run(tt.name, func(t *testing.T) {
			for n := 1; n <= min(len(tt.wire), 40); n++ {
				d := newDotReader(bufferOn(iotest.HalfReader(strings.NewReader(tt.wire))), tt.lf)
				got, err := readBy(&d, n)
				require.NoError(t, err, "p of %d octets", n)
				require.Equal(t, tt.want, got, "p of %d octets", n)
			}
			d := newDotReader(bufferOn(strings.NewReader(tt.wire)), tt.lf)
			require.NoError(t, iotest.TestReader(&d, []byte(tt.want)))
		})
	}
}

// A Read into an empty slice returns 0 and no error, even at the end.
func TestDotReaderReadNothing(t *testing.T) {
	d := newDotReader(bufferOn(iotest.ErrReader(errors.New("was read"))), false)
	n, err := d.Read(nil)
	assert.Zero(t, n)
	assert.NoError(t, err)
}

// If a body is cut at any octet, the reader returns the octets before the cut, and then io.ErrUnexpectedEOF from
// each read. At most two octets before the cut are not returned: a dot that begins a line, and a CR after it.
func TestDotReaderCut(t *testing.T) {
	for _, tt := range dotBodies {
		t.Run(tt.name, func(t *testing.T) {
			for at := 0; at < len(tt.wire); at += race.Stride {
				for method, read := range readMethods {
					d := newDotReader(bufferOn(iotest.HalfReader(strings.NewReader(tt.wire[:at]))), tt.lf)
					got, err := read(&d)
					require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d, %s", at, method)
					require.NotErrorIs(t, err, io.EOF, "cut at %d, %s", at, method)
					whole, _ := reference(tt.wire[:at], tt.lf)
					require.Contains(t, []string{whole, strings.TrimSuffix(whole, "."),
						strings.TrimSuffix(whole, ".\r")}, got)
					n, err := d.Read(make([]byte, 1))
					require.Zero(t, n)
					require.Equal(t, io.ErrUnexpectedEOF, err, "cut at %d, %s, and again", at, method)
				}
			}
		})
	}
}

// An error of the source is returned unchanged after the octets before it, and again at each later read.
func TestDotReaderError(t *testing.T) {
	broken := errors.New("broken")
	for method, read := range readMethods {
		d := newDotReader(bufferOn(io.MultiReader(strings.NewReader("a\r\nb"), iotest.ErrReader(broken))), false)
		got, err := read(&d)
		assert.Equal(t, broken, err, method)
		assert.Equal(t, "a\r\nb", got, method)
		_, err = d.Read(make([]byte, 1))
		assert.Equal(t, broken, err, method)

		d = newDotReader(bufferOn(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab\r\n.\r\n")))), false)
		got, err = read(&d)
		assert.Equal(t, iotest.ErrTimeout, err, method)
		assert.Equal(t, "a", got, method)
		_, err = d.Read(make([]byte, 1))
		assert.Equal(t, iotest.ErrTimeout, err, "%s: the timeout stays", method)

		d = newDotReader(bufferOn(iotest.ErrReader(broken)), false)
		got, err = read(&d)
		assert.Equal(t, broken, err, method)
		assert.Empty(t, got, method)
	}
}

// lines as long as the memory of the buffer, nearly as long, or several times as long, are not cut.
func TestDotReaderLongLines(t *testing.T) {
	for _, size := range []int{998, 1000, 4096, lineMemory, mailMemory, bulkMemory} {
		for k := 1; k <= 3; k++ {
			for off := -5; off <= 5; off += race.Stride {
				long := strings.Repeat("a", k*size+off)
				for _, end := range []string{".\r\n", "\r.\r\n", "\n.\r\n", "\r\n.x\r\n", ".\r\r\n", "..\r\n",
					"\r\n..\r\n", "\n..\r\n"} {
					wire := long + end + ".\r\n"
					want, used := reference(wire, false)
					require.Equal(t, len(wire), used)
					d := newDotReader(bufferOn(strings.NewReader(wire)), false)
					got, err := readMethods["WriteTo"](&d)
					require.NoError(t, err, "%d octets and %q", len(long), end)
					require.True(t, want == got, "%d octets and %q", len(long), end)
				}
			}
		}
	}
}

// The data has a dot that begins a line, or a dot that only seems to begin one. The test puts the dot at all positions
// near the ends of the blocks that the reader searches.
func TestDotReaderPositions(t *testing.T) {
	for _, piece := range []string{"\r\n..", "\r\n.x", "\n..", "\r..", "\r\n..\r\n..", "\r\n.\r\n..", "\r\n.\r",
		"\xff\r\n..\xff"} {
		for at := range 2*searchSize + 80 {
			if at > 140 && at < searchSize-80 || at > searchSize+80 && at < 2*searchSize-40 {
				continue
			}
			for _, fill := range []string{"a", ".", "\n"} {
				wire := strings.Repeat(fill, at) + piece + strings.Repeat("b", 70) + "\r\n.\r\n"
				want, used := reference(wire, false)
				r := strings.NewReader(wire)
				d := newDotReader(bufferOn(r), false)
				got, err := readMethods["WriteTo"](&d)
				require.NoError(t, err, "%q after %d octets of %q", piece, at, fill)
				require.Equal(t, want, got, "%q after %d octets of %q", piece, at, fill)
				require.Equal(t, used, len(wire)-len(d.src.unread())-r.Len(), "%q after %d octets of %q", piece, at,
					fill)
			}
		}
	}
}

// The test puts every octet value near dots and line ends, and compares the result with the simple decoder.
func TestDotReaderOctets(t *testing.T) {
	pad := strings.Repeat("a", 45)
	for a := range 256 {
		for _, b := range []int{'.', '\r', '\n', '$', a, a ^ '.', a ^ '\n', a ^ '\r', 0} {
			for _, piece := range [][]byte{
				{byte(a), '\n', '.', byte(b)}, {'\r', byte(a), '.', byte(b)}, {'\r', '\n', byte(a), byte(b)},
				{'\r', '\n', '.', byte(a), byte(b)}, {byte(b), '\n', byte(a), '.'}, {byte(a), byte(b), '.'},
			} {
				for _, lf := range []bool{false, true} {
					wire := pad + string(piece) + pad + "\r\n.\r\n"
					want, _ := reference(wire, lf)
					d := newDotReader(bufferOn(strings.NewReader(wire)), lf)
					got, err := readMethods["WriteTo"](&d)
					require.NoError(t, err, "%q", piece)
					require.Equal(t, want, got, "%q, LF %v", piece, lf)
				}
			}
		}
	}
}

func TestDotReaderDiscard(t *testing.T) {
	for _, tt := range dotBodies {
		src := bufferOn(iotest.HalfReader(strings.NewReader(tt.wire + afterBody)))
		d := newDotReader(src, tt.lf)
		n, err := d.discard(1 << 20)
		assert.Equal(t, io.EOF, err, tt.name)
		assert.EqualValues(t, len(tt.want), n, tt.name)
		rest, _ := io.ReadAll(src.src)
		assert.Equal(t, afterBody, string(src.unread())+string(rest), tt.name)
	}
}

func TestDotReaderDiscardLimits(t *testing.T) {
	wire := strings.Repeat("a", 100) + "\r\n.\r\n"
	for _, tt := range []struct {
		name string
		wire string
		max  int64
		err  error
	}{
		{"exactly the limit", wire, 102, io.EOF},
		{"one octet more", wire, 101, errTooMuch},
		{"limit 0, nothing left", ".\r\n", 0, io.EOF},
		{"limit 0, one line left", "\r\n.\r\n", 0, errTooMuch},
		{"cut", wire[:50], 102, io.ErrUnexpectedEOF},
	} {
		d := newDotReader(bufferOn(iotest.OneByteReader(strings.NewReader(tt.wire))), false)
		n, err := d.discard(tt.max)
		assert.Equal(t, tt.err, err, tt.name)
		assert.LessOrEqual(t, n, tt.max+1, tt.name)
	}
}

// A failingWriter accepts capacity octets, fails once with err, and then accepts everything.
type failingWriter struct {
	bytes.Buffer
	capacity int
	err      error
	failed   bool
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.failed || len(p) <= w.capacity && w.err == nil || len(p) < w.capacity {
		w.capacity -= len(p)
		return w.Buffer.Write(p)
	}
	w.failed = true
	n, _ := w.Buffer.Write(p[:w.capacity])
	return n, w.err
}

// After a write error, the next WriteTo begins with the first octet that was not written. In the test, the writer fails
// at each octet in turn.
func TestDotReaderWriter(t *testing.T) {
	for _, tt := range dotBodies {
		for capacity := range min(len(tt.want), 40) {
			for _, failure := range []error{nil, errors.New("disk full")} {
				d := newDotReader(bufferOn(iotest.HalfReader(strings.NewReader(tt.wire))), tt.lf)
				w := &failingWriter{capacity: capacity, err: failure}
				n, err := d.WriteTo(w)
				want := failure
				if want == nil {
					want = io.ErrShortWrite
				}
				require.Equal(t, want, err, "%s: after %d", tt.name, capacity)
				require.EqualValues(t, w.Len(), n, "%s: after %d", tt.name, capacity)
				more, err := d.WriteTo(w)
				require.NoError(t, err, "%s: after %d", tt.name, capacity)
				require.Equal(t, tt.want, w.String(), "%s: after %d", tt.name, capacity)
				require.EqualValues(t, len(tt.want), n+more, "%s: after %d", tt.name, capacity)
			}
		}
	}
}

// A writer that returns an invalid count does not cause a panic.
func TestDotReaderWriteCount(t *testing.T) {
	for _, count := range []int{-1, 1 << 20} {
		d := newDotReader(bufferOn(strings.NewReader("abc\r\n.\r\n")), false)
		n, err := d.WriteTo(constCountWriter(count))
		assert.Zero(t, n)
		assert.Equal(t, errWriteCount, err)
	}
}

type constCountWriter int

func (w constCountWriter) Write(p []byte) (int, error) { return int(w), nil }

// reference decodes one octet at a time, in the simplest way. used is the number of octets of the body, -1 if
// it has no end-of-message line.
func reference(wire string, lf bool) (body string, used int) {
	var b strings.Builder
	for i := 0; i < len(wire); i++ {
		atLineStart := i == 0 || strings.HasSuffix(wire[:i], "\r\n") || lf && wire[i-1] == '\n'
		switch rest := wire[i:]; {
		case atLineStart && strings.HasPrefix(rest, ".\r\n"):
			return b.String(), i + 3
		case atLineStart && lf && strings.HasPrefix(rest, ".\n"):
			return b.String(), i + 2
		case atLineStart && strings.HasPrefix(rest, ".."):
			i++
		}
		b.WriteByte(wire[i])
	}
	return b.String(), -1
}

// The reference must agree with the table. Otherwise comparing with it would prove nothing.
func TestReference(t *testing.T) {
	for _, tt := range dotBodies {
		body, used := reference(tt.wire+afterBody, tt.lf)
		assert.Equal(t, tt.want, body, tt.name)
		assert.Equal(t, len(tt.wire), used, tt.name)
	}
}

// After an error of a writer, the next read returns the rest of the message and the session can continue. The same is
// true if the last write failed, after the whole message was received.
func TestMessageWriter(t *testing.T) {
	const content = "Subject: x\r\n\r\n.dot\r\nlast\r\n"
	diskFull := errors.New("disk full")
	for capacity := range len(content) + 1 {
		conn, done := pop3test.Script("S: +OK\nC: USER bob\nS: +OK\nC: PASS pass\nS: +OK\nC: RETR 1\nS: +OK\n" +
			"S: Subject: x\nS:\nS: ..dot\nS: last\nS: .\nC: NOOP\nS: +OK")
		c, err := NewClient(t.Context(), conn, &Options{InsecureAuth: true})
		require.NoError(t, err)
		require.NoError(t, c.User(t.Context(), "bob"))
		require.NoError(t, c.Pass(t.Context(), "pass"))
		m, err := c.Retr(t.Context(), 1)
		require.NoError(t, err)
		w := &failingWriter{capacity: capacity, err: diskFull}
		n, err := m.WriteTo(w)
		require.Equal(t, diskFull, err, "after %d", capacity)
		require.EqualValues(t, capacity, n, "after %d", capacity)
		rest, err := io.ReadAll(m)
		require.NoError(t, err, "after %d", capacity)
		require.Equal(t, content, w.String()+string(rest), "after %d", capacity)
		require.NoError(t, c.Noop(t.Context()), "after %d", capacity)
		require.NoError(t, done(), "after %d", capacity)
		require.NoError(t, c.Close())
	}
}
