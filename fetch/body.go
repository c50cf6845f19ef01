package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
)

// errKnown ends a message that turns out to have been stored before, in the place of io.EOF.
var errKnown = errors.New("this message was stored before, so it is not stored again")

// A body is a message on its way to the sink: its octets are counted, and compared with what was stored before.
type body struct {
	from     io.Reader
	max      int64    // octets, 0 for no limit
	entries  []*Entry // a message that is one of these ends in errKnown
	progress func(octets int64)

	octets int64
	hash   hash.Hash
	err    error // sticky; io.EOF or errKnown if the whole message came
	digest string
	known  *Entry
}

func newBody(from io.Reader) *body { return &body{from: from, hash: sha256.New()} }

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
	b.hash.Write(p[:n])
	b.progress(b.octets)
	b.err = err
	if err == io.EOF {
		b.recognize()
	}
	return n, b.err
}

// recognize compares the whole message with what was stored.
func (b *body) recognize() {
	b.digest = hex.EncodeToString(b.hash.Sum(nil))
	for _, e := range b.entries {
		if e.Digest == b.digest && e.Octets == b.octets {
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
