package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// An Mbox is a [Sink] that adds messages to one file in the mboxrd format, which is that of RFC 4155 with a quoting
// that can be undone. Before each message goes a line "From MAILER-DAEMON" with the time, and a blank line behind it.
// Lines end in LF, and each line of a message that begins with "From ", or with ">" signs and then that, gets one ">"
// more.
//
// The file is locked against other programs while a message is added: in the way of fcntl as mail programs on Unix
// do, elsewhere by a file beside it that ends in .lock. A program should have one Mbox for a file. The file is brought
// to the disk after each message. If a message can't be added whole, the file is cut to what it was before. A process
// that is killed may leave a part of a message at the end; the next message begins on a line of its own behind it.
//
// An Mbox must not be copied after its first use.
type Mbox struct {
	Path string // made if it is not there

	mu sync.Mutex
}

// Deliver adds a message to the file. It waits for a lock of fcntl until ctx ends; where the lock is a file beside
// it, it fails at once if another program has that.
func (b *Mbox) Deliver(ctx context.Context, _ Item, r io.Reader) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := b.open()
	if err == nil {
		err = errors.Join(b.deliver(ctx, f, r), f.Close())
	}
	if err != nil {
		return fmt.Errorf("fetch: mbox: %w", err)
	}
	return nil
}

// open opens the file. If it has to be made, its name is on the disk then.
func (b *Mbox) open() (*os.File, error) {
	f, err := os.OpenFile(b.Path, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	dir := filepath.Dir(b.Path)
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if f, err = os.OpenFile(b.Path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// deliver writes a message at the end of f, or nothing.
func (b *Mbox) deliver(ctx context.Context, f *os.File, r io.Reader) error {
	unlock, err := lockMbox(ctx, f)
	if err != nil {
		return err
	}
	defer unlock()
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = addToMbox(f, end, r)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(end))
	}
	return err
}

// addToMbox writes a message to f, which ends at end.
func addToMbox(f *os.File, end int64, r io.Reader) error {
	tail := make([]byte, min(end, 2))
	if _, err := f.ReadAt(tail, end-int64(len(tail))); err != nil {
		return err
	}
	if _, err := f.Write(separator(tail)); err != nil {
		return err
	}
	q := &quoter{w: f}
	if err := copyLF(q, r); err != nil {
		return err
	}
	return q.finish()
}

// separator is what goes before a message in a file that ends in tail: blank line, "From " line.
func separator(tail []byte) []byte {
	var b []byte
	switch {
	case len(tail) == 0 || bytes.HasSuffix(tail, []byte("\n\n")):
	case bytes.HasSuffix(tail, []byte("\n")):
		b = append(b, '\n')
	default:
		b = append(b, '\n', '\n')
	}
	b = append(b, "From MAILER-DAEMON "...)
	b = time.Now().UTC().AppendFormat(b, time.ANSIC)
	return append(b, '\n')
}

const fromSpace = "From "

// A quoter writes lines with one ">" more before each ">From ", however many of them there are.
type quoter struct {
	w    io.Writer
	out  []byte
	seen int  // octets of fromSpace that were held back, -1 in the rest of a line that has other ones
	open bool // the last line has not ended
}

func (q *quoter) Write(p []byte) (int, error) {
	q.out = q.out[:0]
	for rest := p; len(rest) > 0; {
		rest = rest[q.step(rest):]
	}
	if len(p) > 0 {
		q.open = p[len(p)-1] != '\n'
	}
	if _, err := q.w.Write(q.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// step takes some octets of p, and tells how many.
func (q *quoter) step(p []byte) int {
	switch {
	case q.seen < 0:
		line := p
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line, q.seen = p[:i+1], 0
		}
		q.out = append(q.out, line...)
		return len(line)
	case p[0] == fromSpace[q.seen]:
		if q.seen++; q.seen == len(fromSpace) {
			q.out = append(q.out, '>')
			q.release()
		}
		return 1
	case q.seen == 0 && p[0] == '>':
		q.out = append(q.out, '>')
		return 1
	}
	q.release()
	return 0
}

// release writes what was held back, and goes on with the rest of the line.
func (q *quoter) release() {
	q.out = append(q.out, fromSpace[:q.seen]...)
	q.seen = -1
}

// finish ends the last line, and adds the blank line that ends a message.
func (q *quoter) finish() error {
	q.out = q.out[:0]
	if q.seen > 0 {
		q.release()
	}
	if q.open {
		q.out = append(q.out, '\n')
	}
	_, err := q.w.Write(append(q.out, '\n'))
	return err
}
