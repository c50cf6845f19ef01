package pop3

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBufferLine(t *testing.T) {
	repeatX := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		name   string
		wire   string
		limit  int
		lf     bool
		line   string
		bareLF bool // the line ended in LF alone
		err    error
	}{
		{name: "a line", wire: "+OK\r\n", limit: 100, line: "+OK"},
		{name: "an empty line", wire: "\r\n", limit: 100, line: ""},
		{name: "the first of two", wire: "a\r\nb\r\n", limit: 100, line: "a"},
		{name: "R1-005 512 octets", wire: repeatX(510) + "\r\n", limit: maxReplyLine, line: repeatX(510)},
		{name: "of the greatest length", wire: repeatX(8190) + "\r\n", limit: 8192, line: repeatX(8190)},
		{name: "H-006 an octet longer", wire: repeatX(8191) + "\r\n", limit: 8192, err: errLineTooLong},
		{name: "H-006 no end", wire: repeatX(8192), limit: 8192, err: errLineTooLong},
		{name: "H-006 no end, and more", wire: repeatX(200_000), limit: 8192, err: errLineTooLong},
		{name: "R1-006 a challenge of the greatest length", wire: repeatX(bulkMemory-2) + "\r\n", limit: bulkMemory,
			line: repeatX(bulkMemory - 2)},
		{name: "R1-006 longer", wire: repeatX(bulkMemory-1) + "\r\n", limit: bulkMemory, err: errLineTooLong},
		{name: "nothing fits", wire: "\r\n", limit: 1, err: errLineTooLong},
		{name: "H-035 CR inside", wire: "a\rb\r\n", limit: 100, line: "a\rb"},
		{name: "Q-15 two CRs", wire: "a\r\r\n", limit: 100, line: "a\r"},
		{name: "NUL inside", wire: "a\x00b\r\n", limit: 100, line: "a\x00b"},
		{name: "LF where CRLF is due", wire: "a\nb\r\n", limit: 100, line: "a", bareLF: true, err: errBareLF},
		{name: "LF alone where CRLF is due", wire: "\n", limit: 100, line: "", bareLF: true, err: errBareLF},
		{name: "H-072 LF", wire: "a\n", limit: 100, lf: true, line: "a", bareLF: true},
		{name: "H-073 CRLF where LF does", wire: "a\r\n", limit: 100, lf: true, line: "a"},
		{name: "LF and a limit", wire: repeatX(9) + "\n", limit: 10, lf: true, line: repeatX(9), bareLF: true},
		{name: "LF and a limit that is passed", wire: repeatX(10) + "\n", limit: 10, lf: true, err: errLineTooLong},
		{name: "nothing", wire: "", limit: 100, err: io.EOF},
		{name: "H-220 cut", wire: "+O", limit: 100, err: io.EOF},
		{name: "H-220 cut in the line end", wire: "+OK\r", limit: 100, err: io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"as it is":            strings.NewReader(tt.wire),
				"octets":              iotest.OneByteReader(strings.NewReader(tt.wire)),
				"halves":              iotest.HalfReader(strings.NewReader(tt.wire)),
				"data with the error": iotest.DataErrReader(strings.NewReader(tt.wire)),
			} {
				b := bufferOn(r)
				line, err := b.line(tt.limit, tt.lf)
				require.Equal(t, tt.err, err, name)
				require.Equal(t, tt.line, string(line), name)
				require.Equal(t, tt.bareLF, b.bareLF, name)
			}
		})
	}
}

// H-025: a line may arrive in any pieces, and nothing after it is lost.
func TestBufferLineSplit(t *testing.T) {
	forEachSplit("+OK one\r\n\r\nthree\r\nrest", func(r io.Reader, at int) {
		b := bufferOn(r)
		for _, want := range []string{"+OK one", "", "three"} {
			line, err := b.line(100, false)
			require.NoError(t, err, "cut at %d", at)
			require.Equal(t, want, string(line), "cut at %d", at)
		}
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "rest", string(b.unread())+string(rest), "cut at %d", at)
	})
}

// A line that is too long is refused as soon as more octets than the limit have arrived. The buffer does not read the
// rest of the line.
func TestBufferLineTooLong(t *testing.T) {
	r := &endlessReader{}
	b := bufferOn(r)
	_, err := b.line(maxReplyLine, false)
	assert.Equal(t, errLineTooLong, err)
	assert.LessOrEqual(t, r.read, bulkMemory)
	assert.GreaterOrEqual(t, len(b.unread()), maxReplyLine)
}

// An endlessReader returns the letter A without end.
type endlessReader struct{ read int }

func (r *endlessReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'A'
	}
	r.read += len(p)
	return len(p), nil
}

// The error of the source is returned after the data that arrived with it, and again by each later read.
func TestBufferError(t *testing.T) {
	broken := errors.New("broken")
	for name, r := range map[string]readResults{
		"with the data":  {{"a\r\nb", broken}, {"\r\nc\r\n", nil}},
		"after the data": {{"a\r\nb", nil}, {"", broken}, {"\r\nc\r\n", nil}},
	} {
		b := bufferOn(&r)
		line, err := b.line(100, false)
		require.NoError(t, err, name)
		assert.Equal(t, "a", string(line), name)
		for range 2 {
			_, err = b.line(100, false)
			assert.Equal(t, broken, err, name)
			assert.Equal(t, "b", string(b.unread()), name)
		}
	}
}

// readResults is a reader that returns these results, in this order.
type readResults []struct {
	data string
	err  error
}

func (r *readResults) Read(p []byte) (int, error) {
	next := (*r)[0]
	*r = (*r)[1:]
	return copy(p, next.data), next.err
}

// If many reads of the source return neither data nor an error, the buffer fails with io.ErrNoProgress.
func TestBufferNoProgress(t *testing.T) {
	var reads emptyReads
	b := bufferOn(&reads)
	_, err := b.line(100, false)
	assert.Equal(t, io.ErrNoProgress, err)
	assert.LessOrEqual(t, int(reads), 1000)
}

type emptyReads int

func (s *emptyReads) Read([]byte) (int, error) {
	*s++
	return 0, nil
}

// The memory is small for replies of one line, and larger for messages and lists. Between two commands the buffer
// returns the memory to its pool.
func TestBufferMemory(t *testing.T) {
	b := bufferOn(iotest.OneByteReader(strings.NewReader("a\r\nb")))
	assert.Nil(t, b.data)
	b.release()
	assert.Nil(t, b.data)
	_, err := b.line(100, false)
	require.NoError(t, err)
	assert.Len(t, b.data, lineMemory)
	b.release()
	assert.Nil(t, b.data, "nothing is unread")

	require.NoError(t, b.fill())
	b.release()
	assert.Equal(t, "b", string(b.unread()), "the unread octets stay")
	for range 2 {
		b.reserve()
		assert.Len(t, b.data, mailMemory)
		assert.Equal(t, "b", string(b.unread()))
	}
	b.skip(1)
	b.release()
	assert.Nil(t, b.data)
	assert.Empty(t, b.unread())
}

// A buffer that is filled by a long line changes to more memory and keeps the data.
func TestBufferGrowsForLine(t *testing.T) {
	long := strings.Repeat("0123456789", 700)
	b := bufferOn(iotest.HalfReader(strings.NewReader("a\r\n" + long + "\r\n")))
	_, err := b.line(maxReplyLine, false)
	require.NoError(t, err)
	line, err := b.line(maxReplyLine, false)
	require.NoError(t, err)
	assert.Equal(t, long, string(line))
	assert.Len(t, b.data, mailMemory)
}

// Only a source that fills the memory gets the largest size.
func TestBufferGrowsForBulk(t *testing.T) {
	for name, tt := range map[string]struct {
		src  io.Reader
		want int
	}{
		"a slow source":             {iotest.HalfReader(&endlessReader{}), mailMemory},
		"a source that never waits": {&endlessReader{}, bulkMemory},
	} {
		b := bufferOn(tt.src)
		b.reserve()
		for range 10 {
			require.NoError(t, b.fill(), name)
			b.skip(len(b.unread()))
		}
		assert.Len(t, b.data, tt.want, name)
		b.release()
		assert.Nil(t, b.data, name)
	}
}
