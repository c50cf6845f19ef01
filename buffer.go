package pop3

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// The sizes of the memory that a buffer borrows from a pool. Between two commands a session holds no such memory.
const (
	lineMemory = 2 << 10  // size for replies of one line
	mailMemory = 18 << 10 // size for messages and lists; holds most messages, and any TLS record
	bulkMemory = 64 << 10 // size for data that arrives faster than it is used
)

var (
	linePool = sync.Pool{New: func() any { return new([lineMemory]byte) }}
	mailPool = sync.Pool{New: func() any { return new([mailMemory]byte) }}
	bulkPool = sync.Pool{New: func() any { return new([bulkMemory]byte) }}
)

var (
	errLineTooLong = errors.New("line too long")
	errBareLF      = errors.New("line ends in LF without CR")
)

// A buffer holds the octets that were read from src and are still unread.
type buffer struct {
	src  io.Reader
	data []byte // nil if nothing is unread
	r, w int    // data[r:w] are the unread octets
	err  error  // error of src, which the next fill returns

	bareLF bool // the last line ended in LF without CR
}

// unread returns the unread octets. They are valid until the next fill.
func (b *buffer) unread() []byte { return b.data[b.r:b.w] }

// idle reports whether nothing is unread and nothing has failed.
func (b *buffer) idle() bool { return b.r == b.w && b.err == nil }

// skip discards the first n unread octets.
func (b *buffer) skip(n int) { b.r += n }

// fill reads once from src and appends to the unread octets.
func (b *buffer) fill() error {
	if b.err != nil {
		return b.err
	}
	b.makeRoom()
	for range 100 {
		n, err := b.src.Read(b.data[b.w:])
		b.w += n
		if n > 0 {
			b.err = err
			return nil
		}
		if err != nil {
			b.err = err
			return err
		}
	}
	return io.ErrNoProgress
}

// makeRoom makes room for a read. It borrows memory if the buffer has none, or more memory if the last read filled it.
// It moves the unread octets to the front, which is cheap, because at most one line is unread.
func (b *buffer) makeRoom() {
	if b.data == nil {
		b.data = linePool.Get().(*[lineMemory]byte)[:]
	} else if b.w == len(b.data) {
		b.grow()
	}
	if b.r > 0 {
		b.w = copy(b.data, b.unread())
		b.r = 0
	}
}

// reserve makes room for a message of usual size.
func (b *buffer) reserve() {
	if len(b.data) < mailMemory {
		b.grow()
	}
}

// grow replaces the memory by the next size, if there is one.
func (b *buffer) grow() {
	switch len(b.data) {
	case bulkMemory:
	case mailMemory:
		b.moveTo(bulkPool.Get().(*[bulkMemory]byte)[:])
	default:
		b.moveTo(mailPool.Get().(*[mailMemory]byte)[:])
	}
}

func (b *buffer) moveTo(data []byte) {
	n := copy(data, b.unread())
	b.giveBack()
	b.data, b.r, b.w = data, 0, n
}

// release returns the memory to its pool, unless there are unread octets.
func (b *buffer) release() {
	if b.r == b.w && b.data != nil {
		b.giveBack()
		b.data, b.r, b.w = nil, 0, 0
	}
}

func (b *buffer) giveBack() {
	switch len(b.data) {
	case lineMemory:
		linePool.Put((*[lineMemory]byte)(b.data))
	case mailMemory:
		mailPool.Put((*[mailMemory]byte)(b.data))
	case bulkMemory:
		bulkPool.Put((*[bulkMemory]byte)(b.data))
	}
}

// line reads one line of at most limit octets, including the line end. It returns the line without the line
// end, valid until the next fill. Lines end in CRLF; if lf is set, a bare LF ends a line too. If lf is not set, a
// bare LF is an error at once, because a peer that ends its lines in LF would never send a CRLF.
func (b *buffer) line(limit int, lf bool) ([]byte, error) {
	for seen := 0; ; {
		unread := b.unread()
		if i := bytes.IndexByte(unread[seen:], '\n'); i >= 0 && seen+i < limit {
			return b.cutLine(unread[:seen+i], lf)
		}
		if seen = len(unread); seen >= limit {
			return nil, errLineTooLong
		}
		if err := b.fill(); err != nil {
			return nil, err
		}
	}
}

// cutLine removes a line and its LF from the buffer.
func (b *buffer) cutLine(line []byte, lf bool) ([]byte, error) {
	b.skip(len(line) + 1)
	end := len(line) - 1
	b.bareLF = end < 0 || line[end] != '\r'
	if !b.bareLF {
		line = line[:end]
	}
	if b.bareLF && !lf {
		return line, errBareLF
	}
	return line, nil
}
