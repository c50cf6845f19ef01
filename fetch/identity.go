package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
)

// addedFields are header fields in which servers keep their own notes, such as that a message was read. The same
// message may come without them today and with them tomorrow.
var addedFields = []string{"Status", "X-Status", "X-Keywords", "X-UID", "X-UIDL", "X-IMAP", "X-IMAPbase",
	"Content-Length"}

// maxField is long enough to tell a line that begins with one of addedFields.
const maxField = len("Content-Length:")

// An identity tells a message from others by its content, whatever notes the server adds to it. Of a message without
// text the blank lines do not count either: servers add one when they add a note.
type identity struct {
	hash hash.Hash
	body bool   // the header is over
	text bool   // there is something else than a blank line or two behind it
	gap  []byte // those blank lines, which do not count if there is not
	line []byte // what came of a line of the header, until it can be told what it is
	rest bool   // it can, and the rest of the line follows
	note bool   // it is a note of the server
}

func newIdentity() *identity { return &identity{hash: sha256.New()} }

// Write takes octets of the message. It does not fail.
func (id *identity) Write(p []byte) (int, error) {
	rest := p
	for len(rest) > 0 && !id.body {
		rest = rest[id.header(rest):]
	}
	for len(rest) > 0 && !id.text {
		rest = rest[id.space(rest[0]):]
	}
	id.hash.Write(rest)
	return len(p), nil
}

// maxGap is two line ends.
const maxGap = len("\r\n\r\n")

// space takes an octet of the gap, if it is one, and tells how many it took.
func (id *identity) space(c byte) int {
	if (c == '\r' || c == '\n') && len(id.gap) < maxGap {
		id.gap = append(id.gap, c)
		return 1
	}
	id.hash.Write(id.gap)
	id.text = true
	return 0
}

// header takes octets of one line, and tells how many.
func (id *identity) header(p []byte) int {
	n, whole := len(p), false
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		n, whole = i+1, true
	}
	if !id.rest {
		if room := maxField - len(id.line); n > room {
			n, whole = room, false
		}
		id.line = append(id.line, p[:n]...)
		if whole || len(id.line) == maxField {
			id.judge()
		}
	} else if !id.note {
		id.hash.Write(p[:n])
	}
	if whole {
		id.rest = false
	}
	return n
}

// judge decides what to do with a line, by its beginning.
func (id *identity) judge() {
	switch first := id.line[0]; {
	case first == ' ' || first == '\t': // goes on with the field before
	case first == '\n' || first == '\r':
		id.body, id.note, id.gap = true, true, bytes.Clone(id.line)
	default:
		id.note = isAdded(id.line)
	}
	if !id.note {
		id.hash.Write(id.line)
	}
	id.line, id.rest = id.line[:0], true
}

func isAdded(line []byte) bool {
	name, _, found := bytes.Cut(line, []byte(":"))
	return found && slices.ContainsFunc(addedFields, func(field string) bool {
		return strings.EqualFold(field, string(name))
	})
}

// sum gives the identity of what was written.
func (id *identity) sum() string {
	if len(id.line) > 0 {
		id.judge()
	}
	return hex.EncodeToString(id.hash.Sum(nil))
}
