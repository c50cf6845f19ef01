package fetch

import (
	"bytes"
	"errors"
	"io"
)

// errKnown ends a message that turns out to have been stored before, in the place of io.EOF.
var errKnown = errors.New("this message was stored before, so it is not stored again")

// errShifted ends a message that is not what was asked for.
var errShifted = errors.New("a reply of the server in the place of a message: its replies are mixed up")

// A body is a message on its way to the sink: its octets are counted, and compared with what was stored before.
type body struct {
	from     io.Reader
	claimed  int64    // octets
	max      int64    // octets, 0 for no limit
	entries  []*Entry // a message that is one of these ends in errKnown
	progress func(octets int64)

	octets   int64
	start    []byte // the first octets
	identity *identity
	err      error // sticky; io.EOF or errKnown if the whole message came
	digest   string
	known    *Entry
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.from.Read(p)
	b.octets += int64(n)
	if b.max > 0 && b.octets > b.max {
		b.err = ErrTooLarge
		return 0, b.err
	}
	b.start = append(b.start, p[:min(n, statusLen-len(b.start))]...)
	b.identity.Write(p[:n])
	b.progress(b.octets)
	b.err = err
	if err == io.EOF {
		b.recognize()
	}
	return n, b.err
}

// statusLen is the length of the longer of the two status indicators, with the blank behind it.
const statusLen = len("-ERR ")

// isReply reports whether the message is the reply to another command: it begins with a status line, and it has
// not the size of the message.
func (b *body) isReply() bool {
	return b.octets != b.claimed && (bytes.HasPrefix(b.start, []byte("+OK")) || bytes.HasPrefix(b.start, []byte("-ERR")))
}

// recognize compares the whole message with what was stored.
func (b *body) recognize() {
	if b.isReply() {
		b.err = errShifted
		return
	}
	b.digest = b.identity.sum()
	for _, e := range b.entries {
		if e.Digest == b.digest {
			b.known, b.err = e, errKnown
			return
		}
	}
}

// drop reads what is left. It returns nil if the whole message came, and it was not stored before.
func (b *body) drop() error {
	_, err := io.Copy(io.Discard, b)
	return err
}
