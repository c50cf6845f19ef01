package pop3

import (
	"bytes"
	"errors"
	"io"
)

// A source is where a dotReader gets its octets; a buffer is one.
type source interface {
	unread() []byte
	skip(n int)
	fill() error
}

// A dotReader decodes dot-terminated data (RFC 1939 section 3) as it arrives, in the memory of its source: it
// takes away the dot that was stuffed in front of a dot, and ends at the line that is a dot alone. Every other
// octet comes out as it went in: line ends are not touched, there is no limit on the length of a line, and a
// dot in front of anything but a dot stays, since no server that stuffs can have put it there.
type dotReader struct {
	src   source
	lf    bool    // the lines of this peer end in LF
	chunk []byte  // decoded and not yet handed out; it is in the memory of src
	used  int     // octets of src that go when chunk has been handed out
	prev  [2]byte // the last two octets before the unread ones
	err   error   // sticky; io.EOF after the terminator

	byLine bool // lineDot looks for line ends, not for dots
	short  int  // gaps in a row that were short
}

// newDotReader expects the first octet after the status line.
func newDotReader(src source, lf bool) dotReader {
	return dotReader{src: src, lf: lf, prev: [2]byte{'\r', '\n'}}
}

// load makes sure that chunk holds at least one octet. The error is io.EOF only behind the terminator, and
// io.ErrUnexpectedEOF if the source ended before it.
func (d *dotReader) load() error {
	for len(d.chunk) == 0 {
		if err := d.ended(); err != nil {
			return err
		}
		var end bool
		if d.chunk, d.used, end = d.decode(d.src.unread()); end {
			d.err = io.EOF
		} else if d.used == 0 {
			d.fill()
		}
	}
	return nil
}

func (d *dotReader) fill() {
	d.err = d.src.fill()
	if d.err == io.EOF {
		d.err = io.ErrUnexpectedEOF
	}
}

// Read implements io.Reader.
func (d *dotReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := d.load(); err != nil {
		return 0, err
	}
	n := copy(p, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}

// WriteTo implements io.WriterTo. Every Write is a whole stretch of the source's memory.
func (d *dotReader) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if err := d.load(); err == io.EOF {
			return written, nil
		} else if err != nil {
			return written, err
		}
		n, err := w.Write(d.chunk)
		written += int64(n)
		if err == nil && n < len(d.chunk) {
			err = io.ErrShortWrite
		}
		d.chunk = d.chunk[n:]
		if err != nil {
			return written, err
		}
	}
}

// ended gives the error of which nothing is left to be handed out before it, nil if there is none.
func (d *dotReader) ended() error {
	if len(d.chunk) > 0 {
		return nil
	}
	d.src.skip(d.used)
	d.used = 0
	return d.err
}

// decode decodes as much of b as can be decided, in place. It returns the decoded octets, how many of b are
// used up, and whether the terminator was among them. At most two octets wait for those behind them.
func (d *dotReader) decode(b []byte) (chunk []byte, used int, end bool) {
	done, rest := 0, 0 // b[:done] is decoded; b[rest:] has to be moved up to it
	for i := d.lineDot(b, 0); i < len(b); i = d.lineDot(b, i+1) {
		what, size := d.classify(b[i+1:])
		if what == dotData {
			continue
		}
		done = move(b, done, rest, i)
		switch what {
		case dotUndecided:
			d.prev = [2]byte{'\r', '\n'}
			return b[:done], i, false
		case dotTerminator:
			return b[:done], i + size, true
		}
		rest = i + 1
		i++ // past the dot that is data
	}
	d.remember(b)
	return b[:move(b, done, rest, len(b))], len(b), false
}

// move puts b[from:end] to b[to:] and returns where it ends there.
func move(b []byte, to, from, end int) int {
	if to == from {
		return end
	}
	return to + copy(b[to:], b[from:end])
}

// remember keeps the last two octets, in which a line end may be cut.
func (d *dotReader) remember(b []byte) {
	switch n := len(b); n {
	case 0:
	case 1:
		d.prev = [2]byte{d.prev[1], b[0]}
	default:
		d.prev = [2]byte(b[n-2:])
	}
}

// What a dot at the start of a line is, by the octets behind it.
const (
	dotData = iota
	dotStuffed
	dotTerminator
	dotUndecided
)

// classify tells what the dot before b is, and the size of the terminator.
func (d *dotReader) classify(b []byte) (what, size int) {
	switch {
	case len(b) == 0:
		return dotUndecided, 0
	case b[0] == '.':
		return dotStuffed, 0
	case b[0] == '\n' && d.lf:
		return dotTerminator, len(".\n")
	case b[0] != '\r':
		return dotData, 0
	case len(b) == 1:
		return dotUndecided, 0
	case b[1] == '\n':
		return dotTerminator, len(".\r\n")
	}
	return dotData, 0
}

// lineDot gives the index of the first dot at or behind i that begins a line, len(b) if there is none. Most mail
// by volume is base64, which has no dots, so it looks for dots; where they stand close together it looks for line
// ends, and back again where those do, so that no body makes it crawl.
func (d *dotReader) lineDot(b []byte, i int) int {
	for ; i < len(b); i++ {
		j := d.candidate(b, i)
		if j < len(b) && b[j] == '.' && d.lineStarts(b, j) {
			return j
		}
		d.choose(j - i)
		i = j
	}
	return len(b)
}

// candidate gives the next index at or behind i that is a dot, or begins a line, whichever is looked for.
func (d *dotReader) candidate(b []byte, i int) int {
	var n int
	switch {
	case !d.byLine:
		n = bytes.IndexByte(b[i:], '.')
	case i > 0:
		n = bytes.IndexByte(b[i-1:], '\n')
	}
	if n < 0 {
		return len(b)
	}
	return i + n
}

// lineStarts reports whether b[i] is the first octet of a line.
func (d *dotReader) lineStarts(b []byte, i int) bool {
	cr, lf := d.prev[0], d.prev[1]
	if i == 1 {
		cr, lf = d.prev[1], b[0]
	} else if i > 1 {
		cr, lf = b[i-2], b[i-1]
	}
	return lf == '\n' && (cr == '\r' || d.lf)
}

// A gap below shortGap costs more to search than to step over; after manyShort of them in a row the other octet
// is looked for.
const (
	shortGap  = 16
	manyShort = 8
)

func (d *dotReader) choose(gap int) {
	if gap >= shortGap {
		d.short = 0
	} else if d.short++; d.short == manyShort {
		d.short, d.byLine = 0, !d.byLine
	}
}

// errAbandoned is why a connection is closed on which too much was left unread.
var errAbandoned = errors.New("too much was left unread of what had been asked for")

// discard drops what is left and counts it. After more than max octets the error is errAbandoned; at the end it is
// io.EOF.
func (d *dotReader) discard(max int64) (n int64, err error) {
	for {
		if err := d.load(); err != nil {
			return n, err
		}
		n += int64(len(d.chunk))
		d.chunk = nil
		if n > max {
			return n, errAbandoned
		}
	}
}
