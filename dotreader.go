package pop3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
)

// A source provides the octets of a dotReader. A buffer is one.
type source interface {
	unread() []byte
	skip(n int)
	fill() error
}

// A dotReader decodes dot-terminated data (RFC 1939 section 3) as it arrives, in the memory of its source. It removes a
// dot before another dot at the start of a line, and ends at the line that is a single dot. It changes no other octet:
// line ends stay as they are, and lines may have any length. It keeps a dot if the next octet is not a dot, because a
// server that stuffs dots cannot have added that dot.
type dotReader struct {
	src   source
	lf    bool    // the lines of this peer end in LF
	chunk []byte  // decoded octets that were not returned yet, in the memory of src
	used  int     // octets of src to skip when chunk has been returned
	prev  [4]byte // the last octets before the unread ones
	err   error   // sticky; io.EOF after the end-of-message line

	crMask uint64 // all ones if a CR must come before the LF of a line end, otherwise 0
}

// lineStart stands for the line end before the first line.
var lineStart = [4]byte{2: '\r', 3: '\n'}

// newDotReader returns a reader that starts with the first octet after the status line.
func newDotReader(src source, lf bool) dotReader {
	d := dotReader{src: src, lf: lf, prev: lineStart}
	if !lf {
		d.crMask = 1<<64 - 1
	}
	return d
}

// load makes sure that chunk has at least one octet. The error is io.EOF only after the end-of-message line,
// and io.ErrUnexpectedEOF if the source ended before it.
func (d *dotReader) load() error {
	for len(d.chunk) == 0 {
		if err := d.ended(); err != nil {
			return err
		}
		var end bool
		if d.chunk, d.used, end = d.decode(d.src.unread()); end {
			d.err = io.EOF
		} else if d.used == 0 && d.err == nil {
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

// errWriteCount is returned if a writer breaks the rules of io.Writer.
var errWriteCount = errors.New("the writer returned an invalid count")

// WriteTo implements io.WriterTo. It passes the decoded octets to w without copying them.
func (d *dotReader) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if err := d.load(); err == io.EOF {
			return written, nil
		} else if err != nil {
			return written, err
		}
		n, err := w.Write(d.chunk)
		if n < 0 || n > len(d.chunk) {
			n, err = 0, errWriteCount
		}
		if err == nil && n < len(d.chunk) {
			err = io.ErrShortWrite
		}
		written += int64(n)
		d.chunk = d.chunk[n:]
		if err != nil {
			return written, err
		}
	}
}

// ended returns nil while chunk contains octets. When all of chunk has been returned, it skips the octets from which
// chunk was decoded, and returns d.err.
func (d *dotReader) ended() error {
	if len(d.chunk) > 0 {
		return nil
	}
	d.src.skip(d.used)
	d.used = 0
	return d.err
}

// decode decodes b in place, as far as possible. It returns the decoded octets, how many octets of b are used, and
// whether the end-of-message line was among them. At the end of b, at most two octets may remain undecoded until more
// octets arrive.
func (d *dotReader) decode(b []byte) (chunk []byte, used int, end bool) {
	decoded, next := 0, 0 // b[:decoded] is the result so far; the octets from b[next] are not moved to it yet
	for i := d.lineDot(b, 0); i < len(b); i = d.lineDot(b, i+1) {
		kind := d.classify(b[i+1:])
		if kind == dotData {
			continue
		}
		decoded = move(b, decoded, next, i)
		switch kind {
		case dotUndecided:
			d.prev = lineStart
			return b[:decoded], i, false
		case dotTerminator:
			return b[:decoded], i + bytes.IndexByte(b[i:], '\n') + 1, true
		case dotReply:
			d.err = errReplyInBody
			return b[:decoded], i, false
		}
		next = i + 1
		i++ // skip the second dot, which is data
	}
	d.remember(b)
	return b[:move(b, decoded, next, len(b))], len(b), false
}

// move moves b[from:end] to b[to:] and returns the new end.
func move(b []byte, to, from, end int) int {
	if to == from {
		return end
	}
	return to + copy(b[to:], b[from:end])
}

// remember keeps the last octets, because a line end may be split between two reads.
func (d *dotReader) remember(b []byte) {
	if n := len(b); n < len(d.prev) {
		copy(d.prev[:], d.prev[n:])
		copy(d.prev[len(d.prev)-n:], b)
		return
	}
	copy(d.prev[:], b[len(b)-len(d.prev):])
}

// explain adds advice to a timeout if the last line is a single dot that was not accepted as the end of the message.
func (d *dotReader) explain(err error) error {
	looksEnded := bytes.HasSuffix(d.prev[:], []byte("\n.\r\n")) || bytes.HasSuffix(d.prev[:], []byte("\n.\n"))
	if !looksEnded || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w (the last line is a single dot, but not between two CRLF, so it does not end the message: "+
		"the server does not follow RFC 1939, and the text of a mail could contain such a line)", err)
}

// These are the meanings of a dot at the start of a line. The octets after the dot decide.
const (
	dotData = iota
	dotStuffed
	dotTerminator
	dotUndecided
	dotReply
)

// errReplyInBody means that the end-of-message line has lost its LF and a reply follows. A server that stuffs
// dots cannot have sent this as content.
var errReplyInBody = errors.New("the end-of-message line has no LF, and a reply follows it")

// classify returns the meaning of the dot before b.
func (d *dotReader) classify(b []byte) int {
	switch {
	case len(b) == 0:
		return dotUndecided
	case b[0] == '.':
		return dotStuffed
	case b[0] == '\n' && d.lf:
		return dotTerminator
	case b[0] != '\r':
		return dotData
	case len(b) == 1:
		return dotUndecided
	case b[1] == '\n':
		return dotTerminator
	case b[1] == '+' || b[1] == '-':
		return dotReply
	}
	return dotData
}

// lineDot returns the index of the first dot at or after i that begins a line, or len(b). It searches 1 KiB, at a
// speed that does not depend on the data, and then jumps to the next dot of any kind. The jump is fast in base64,
// which contains no dot. Base64 is the largest part of most mail.
func (d *dotReader) lineDot(b []byte, i int) int {
	for ; i < 2 && i < len(b); i++ {
		if d.beginsLine(b, i) {
			return i
		}
	}
	for i < len(b) {
		end := min(i+searchSize, len(b))
		if i = d.search(b, i, end); i < end {
			return i
		}
		next := bytes.IndexByte(b[i:], '.')
		if next < 0 {
			break
		}
		i += next
	}
	return len(b)
}

// searchSize is the number of octets to search before a jump.
const searchSize = 1 << 10

// search returns the index of the first dot in b[i:end] that begins a line, or end; i is at least 2. It checks 32
// octets at a time for an LF with a dot after it. Only if it finds one, it checks for a whole line end.
func (d *dotReader) search(b []byte, i, end int) int {
	for ; i+32 <= end; i += 32 {
		w := b[i-1 : i+32 : i+32]
		if (lfDots(w)|lfDots(w[8:])|lfDots(w[16:])|lfDots(w[24:]))&highs == 0 {
			continue
		}
		for j := i; j < i+32; j += 8 {
			if found := d.lineDots(b[j-2:]) & highs; found != 0 {
				return j + bits.TrailingZeros64(found)/8
			}
		}
	}
	for i < end && !d.beginsLine(b, i) {
		i++
	}
	return i
}

// Each constant is eight octets as one number.
const (
	ones  = 0x0101010101010101
	dots  = '.' * ones
	lfs   = '\n' * ones
	crs   = '\r' * ones
	highs = 0x80 * ones
)

// lfDots finds the dots that follow an LF. It checks the eight octets after the first one.
func lfDots(b []byte) uint64 {
	return zeros((load(b[1:9]) ^ dots) | (load(b[:8]) ^ lfs))
}

// lineDots finds the dots that begin a line. It checks the eight octets after the first two.
func (d *dotReader) lineDots(b []byte) uint64 {
	return zeros((load(b[2:10]) ^ dots) | (load(b[1:9]) ^ lfs) | (load(b[:8])^crs)&d.crMask)
}

// zeros finds the octets of x that are 0. It returns 0 if there are none. Otherwise the lowest bit of the result that
// is also set in highs belongs to the first of them. The bits above it have no meaning.
func zeros(x uint64) uint64 { return (x - ones) &^ x }

func load(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// beginsLine reports whether b[i] is a dot at the start of a line.
func (d *dotReader) beginsLine(b []byte, i int) bool {
	if b[i] != '.' {
		return false
	}
	cr, lf := d.prev[2], d.prev[3]
	if i == 1 {
		cr, lf = d.prev[3], b[0]
	} else if i > 1 {
		cr, lf = b[i-2], b[i-1]
	}
	return lf == '\n' && (cr == '\r' || d.lf)
}

// errTooMuch means that discard stopped before the end.
var errTooMuch = errors.New("too much is left")

// discard reads and counts the rest of the message. It returns errTooMuch after more than max octets, and io.EOF at the
// end.
func (d *dotReader) discard(max int64) (n int64, err error) {
	for {
		if err := d.load(); err != nil {
			return n, err
		}
		n += int64(len(d.chunk))
		d.chunk = nil
		if n > max {
			return n, errTooMuch
		}
	}
}
