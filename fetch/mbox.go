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
	"strconv"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/crlf"
)

// An Mbox is a [Sink] that adds messages to one file in the mboxrd format, which is RFC 4155 with reversible quoting. A
// line "From MAILER-DAEMON" with the time precedes each message, and a blank line follows it. Lines end in LF. A line
// that begins with "From ", or with ">" signs followed by "From ", gets one more ">".
//
// The file must exist: Create makes it. A run never makes it, because a missing file may be on a file system that is
// not mounted. Then Check and Deliver fail with an error that wraps [fs.ErrNotExist].
//
// A message is first written to another file in the same directory (.NAME.spool-*), so that the mbox is not locked
// while a slow server sends the message. Then the mbox is locked, the message is added, and the mbox is synced. On Unix
// the mbox is locked with fcntl, as mail programs do it. On other systems, and on file systems without locks, the lock
// is a file whose name ends in .lock. The lock excludes other programs and other goroutines, even if they use another
// name for the mbox. Deliver waits at most 30 seconds for the lock, and then fails with an error that wraps
// [os.ErrDeadlineExceeded].
//
// If a message cannot be added completely, the file is truncated to its previous size. If the process is killed while
// it adds a message, the next Deliver or Check truncates the mbox, with the help of the file .NAME.append. That is not
// possible if the directory was not writable, or if another program has written to the mbox since. Then a part of a
// message stays, and the next message begins on a new line.
type Mbox struct {
	Path string // the mbox file, which must exist; see Create
}

// Create makes the file and its directory, if they are missing. Call it once, when an account is set up. Do not call it
// before each run: then the file may be missing only because its file system is not mounted.
func (b Mbox) Create() error {
	dir := filepath.Dir(b.Path)
	err := makeDir(dir)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(b.Path, os.O_RDWR|os.O_CREATE, 0o600); err == nil {
			err = errors.Join(f.Close(), syncDir(dir))
		}
	}
	return b.wrapError(err)
}

// Check returns an error if the file cannot be opened for writing and locked.
func (b Mbox) Check(ctx context.Context) error { return b.wrapError(b.check(ctx)) }

func (b Mbox) check(ctx context.Context) (err error) {
	if b.Path, err = filepath.EvalSymlinks(b.Path); err != nil {
		return err
	}
	_, unlock, err := b.open(ctx)
	if err != nil {
		return err
	}
	removeStale(filepath.Dir(b.Path), "."+filepath.Base(b.Path)+".spool-*") // stale files do no harm
	return unlock()
}

// Deliver adds a message to the file.
func (b Mbox) Deliver(ctx context.Context, _ Item, r io.Reader) error {
	return b.wrapError(b.deliver(ctx, r))
}

func (b Mbox) deliver(ctx context.Context, r io.Reader) (err error) {
	if b.Path, err = filepath.EvalSymlinks(b.Path); err != nil {
		return err
	}
	s, err := b.newSpool()
	if err != nil {
		return err
	}
	defer s.remove()
	if err := s.write(r); err != nil {
		return err
	}
	f, unlock, err := b.open(ctx)
	if err != nil {
		return err
	}
	err = b.add(f, s)
	s.remove() // the note must be removed while the mbox is locked
	return errors.Join(err, unlock())
}

// open opens the file, locks it, and removes the part of a message that a killed process has left.
func (b Mbox) open(ctx context.Context) (f *os.File, unlock func() error, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errLockWait)
	defer cancel()
	for {
		if f, err = os.OpenFile(b.Path, os.O_RDWR, 0); err != nil {
			return nil, nil, err
		}
		if unlock, err = lockMbox(ctx, f); err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		if b.isCurrent(f) {
			break
		}
		unlock() // another program has replaced the file during the wait
	}
	if err := b.truncateIncomplete(f); err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	return f, unlock, nil
}

// isCurrent reports whether the mbox is still the file f.
func (b Mbox) isCurrent(f *os.File) bool {
	opened, err := f.Stat()
	named, errNamed := os.Stat(b.Path)
	return err == nil && errNamed == nil && os.SameFile(opened, named)
}

// add appends a message to f. If that fails, it truncates f to its previous size.
func (b Mbox) add(f *os.File, s *spool) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	blank, err := blankLines(f, end)
	if err != nil {
		return err
	}
	s.writeNote(end, b.noteName())
	_, err = f.Write(blank)
	if err == nil {
		_, err = io.Copy(f, s.message())
	}
	if err == nil {
		err = fsync(f)
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(end))
	}
	return err
}

// blankLines returns the line ends that must be added to a file so that the next "From " line follows a blank line.
func blankLines(f *os.File, end int64) ([]byte, error) {
	tail := make([]byte, min(end, 2))
	if _, err := f.ReadAt(tail, end-int64(len(tail))); err != nil {
		return nil, err
	}
	switch {
	case len(tail) == 0 || string(tail) == "\n\n":
		return nil, nil
	case bytes.HasSuffix(tail, []byte("\n")):
		return []byte("\n"), nil
	}
	return []byte("\n\n"), nil
}

// truncateIncomplete removes a part of a message that a killed process has left at the end of f. It compares the end of
// f with the message in the file .NAME.append, because other programs may have written to f since.
func (b Mbox) truncateIncomplete(f *os.File) error {
	note, err := os.OpenFile(b.noteName(), os.O_RDWR|noFollow, 0)
	if err != nil {
		return nil // usually there is no such file
	}
	s := &spool{file: note, name: b.noteName()}
	defer s.remove()
	size, err := f.Seek(0, io.SeekEnd)
	end, ok := s.readNote()
	if err != nil || !ok || size <= end {
		return err
	}
	blank, err := blankLines(f, end)
	if err != nil {
		return err
	}
	if isIncomplete(io.NewSectionReader(f, end, size-end), io.MultiReader(bytes.NewReader(blank), s.message())) {
		return f.Truncate(end)
	}
	return nil
}

// isIncomplete reports whether part is the beginning of whole and is shorter than whole.
func isIncomplete(part, whole io.Reader) bool {
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := io.ReadFull(part, a)
		if _, errWhole := io.ReadFull(whole, b[:n]); errWhole != nil || !bytes.Equal(a[:n], b[:n]) {
			return false
		}
		if err != nil {
			_, errWhole := io.ReadFull(whole, b[:1])
			return errWhole == nil && (err == io.EOF || err == io.ErrUnexpectedEOF)
		}
	}
}

// noteName returns the name of the file with the message that is being added.
func (b Mbox) noteName() string {
	return filepath.Join(filepath.Dir(b.Path), "."+filepath.Base(b.Path)+".append")
}

func (b Mbox) wrapError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fetch: mbox %s: %w", b.Path, adviseCreate(err, "Mbox.Create"))
}

// A spool is a file with one message in the mbox format, from its "From " line to the blank line after it. The first
// line of the file is the note: the size of the mbox before the message is added, in fixed length.
type spool struct {
	file *os.File
	name string
}

const noteLen = len("00000000000000000000\n")

// newSpool makes a spool in the directory of the mbox. If the user may not write there, newSpool makes a spool without
// a name in the directory for temporary files.
func (b Mbox) newSpool() (*spool, error) {
	f, err := os.CreateTemp(filepath.Dir(b.Path), "."+filepath.Base(b.Path)+".spool-*")
	if errors.Is(err, fs.ErrPermission) {
		if f, err = os.CreateTemp("", "mbox-"); err == nil {
			os.Remove(f.Name()) // fails on Windows, where spool.remove removes the file
		}
	}
	if err != nil {
		return nil, err
	}
	return &spool{f, f.Name()}, nil
}

// write writes a message.
func (s *spool) write(r io.Reader) error {
	start := append(bytes.Repeat([]byte(" "), noteLen), "From MAILER-DAEMON "...)
	start = time.Now().UTC().AppendFormat(start, time.ANSIC)
	if _, err := s.file.Write(append(start, '\n')); err != nil {
		return err
	}
	q := &quoter{w: s.file}
	if err := crlf.CopyLF(q, r); err != nil {
		return err
	}
	return q.endMessage()
}

// message returns the message from its start.
func (s *spool) message() io.Reader {
	s.file.Seek(int64(noteLen), io.SeekStart)
	return s.file
}

// writeNote writes the note, and renames the spool so that the next run finds it. If that fails, no later run can
// remove the part of a message that a killed process leaves.
func (s *spool) writeNote(end int64, name string) {
	_, err := s.file.WriteAt(fmt.Appendf(nil, "%0*d\n", noteLen-1, end), 0)
	if err == nil && os.Rename(s.name, name) == nil {
		s.name = name
	}
}

// readNote reads the note.
func (s *spool) readNote() (end int64, ok bool) {
	info, err := s.file.Stat()
	if err != nil || !info.Mode().IsRegular() || !isOwnedByUser(info) {
		return 0, false
	}
	line := make([]byte, noteLen)
	if _, err = s.file.ReadAt(line, 0); err == nil {
		end, err = strconv.ParseInt(string(line[:noteLen-1]), 10, 64)
	}
	return end, err == nil && end >= 0
}

func (s *spool) remove() {
	s.file.Close()
	os.Remove(s.name)
}

const fromSpace = "From "

// A quoter adds one ">" before each line that begins with "From ", or with ">" signs and "From ".
type quoter struct {
	w        io.Writer
	out      []byte
	matched  int  // number of octets of fromSpace that were not written yet; -1 if the rest of the line needs no check
	lineOpen bool // the last line has not ended
}

func (q *quoter) Write(p []byte) (int, error) {
	q.out = q.out[:0]
	for rest := p; len(rest) > 0; {
		rest = rest[q.step(rest):]
	}
	if len(p) > 0 {
		q.lineOpen = p[len(p)-1] != '\n'
	}
	if _, err := q.w.Write(q.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// step handles some octets of p, and returns their number.
func (q *quoter) step(p []byte) int {
	switch {
	case q.matched < 0:
		line := p
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line, q.matched = p[:i+1], 0
		}
		q.out = append(q.out, line...)
		return len(line)
	case p[0] == fromSpace[q.matched]:
		if q.matched++; q.matched == len(fromSpace) {
			q.out = append(q.out, '>')
			q.flushMatched()
		}
		return 1
	case q.matched == 0 && p[0] == '>':
		q.out = append(q.out, '>')
		return 1
	}
	q.flushMatched()
	return 0
}

// flushMatched writes the matched octets. After that, the rest of the line is not checked.
func (q *quoter) flushMatched() {
	q.out = append(q.out, fromSpace[:q.matched]...)
	q.matched = -1
}

// endMessage ends the last line, and adds the blank line that ends a message.
func (q *quoter) endMessage() error {
	q.out = q.out[:0]
	if q.matched > 0 {
		q.flushMatched()
	}
	if q.lineOpen {
		q.out = append(q.out, '\n')
	}
	_, err := q.w.Write(append(q.out, '\n'))
	return err
}
