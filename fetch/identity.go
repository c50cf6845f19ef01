package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"regexp"
	"strings"
)

// noteLine matches a header field in which a server keeps its own notes, such as that a message was read. A server may
// add or change such a field at any time, and the message remains the same. Only the values that servers write match,
// and only on a single line. A field with any other value is content.
var noteLine = regexp.MustCompile(`(?i)^(?:` +
	`(?:X-)?Status:[ \t]*[ROUNDAFT]{0,8}` +
	`|X-UID:[ \t]*[0-9]{1,10}` +
	`|X-UIDL:[ \t]*[!-~]{1,70}` +
	`|X-IMAP(?:base)?:[ \t]*[0-9]{1,10} +[0-9]{1,10}(?: +` + keyword + `)*` +
	`|X-Keywords:(?:[ \t]*` + keyword + `)*` +
	`|Content-Length:[ \t]*[0-9]{1,19}` +
	`)[ \t]*\r?\n?$`)

// keyword matches a keyword that mail readers set.
const keyword = `(?:\$[a-z0-9_-]{1,40}|(?:Non|Not)?Junk|Forwarded|Redirected)`

// maxNote is larger than any note, in octets.
const maxNote = 256

// An identity is a digest of the content of a message, without the notes of the server. If there is no text after the
// header, blank lines are left out too, because servers add one when they add a note.
type identity struct {
	hash   hash.Hash
	fields hash.Hash // hash of the header fields, without MIME fields, which some servers rewrite each time
	mime   bool      // the current field is a MIME field
	named  bool      // there is a field that is not a MIME field
	line   []byte    // the beginning of a header line that has not ended
	long   bool      // the line is too long for a note, and its beginning was hashed
	note   []byte    // the previous line, which is a note unless the current line continues it
	body   bool      // the header has ended
	gap    []byte    // the blank lines after the header, which are hashed only if text follows
	text   bool      // there was text after the header
}

func newIdentity() *identity { return &identity{hash: sha256.New(), fields: sha256.New()} }

// Write adds octets of the message. It does not fail.
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

// space adds the octet c to the gap if c belongs to it. It returns the number of octets that it added.
func (id *identity) space(c byte) int {
	if (c == '\r' || c == '\n') && len(id.gap) < maxGap {
		id.gap = append(id.gap, c)
		return 1
	}
	id.hash.Write(id.gap)
	id.text = true
	return 0
}

// header adds octets of one header line, and returns their number.
func (id *identity) header(p []byte) int {
	n := bytes.IndexByte(p, '\n') + 1
	ended := n > 0
	if !ended {
		n = len(p)
	}
	switch {
	case id.long:
		id.add(p[:n])
		id.long = !ended
		return n
	case len(id.line)+n > maxNote:
		id.line = append(id.line, p[:n]...)
		id.beginLine()
		id.add(id.line)
		id.line, id.long = id.line[:0], !ended
		return n
	}
	id.line = append(id.line, p[:n]...)
	if ended {
		id.endLine()
	}
	return n
}

// endLine handles a complete line.
func (id *identity) endLine() {
	id.beginLine()
	switch {
	case id.line[0] == '\n' || id.line[0] == '\r':
		id.body, id.gap = true, bytes.Clone(id.line)
	// checking the first letter is faster than the regular expression
	case strings.IndexByte("SsXxCc", id.line[0]) >= 0 && noteLine.Match(id.line):
		id.note = append(id.note, id.line...)
	default:
		id.add(id.line)
	}
	id.line = id.line[:0]
}

// add hashes a line or a part of it.
func (id *identity) add(line []byte) {
	id.hash.Write(line)
	if !id.mime {
		id.fields.Write(line)
		id.named = true
	}
}

// beginLine discards the note before the line. If the line continues the note, beginLine hashes the note as content,
// because no server writes a note of several lines.
func (id *identity) beginLine() {
	if id.line[0] == ' ' || id.line[0] == '\t' {
		id.add(id.note)
	} else {
		id.mime = hasPrefixFold(id.line, "MIME-Version") || hasPrefixFold(id.line, "Content-")
	}
	id.note = id.note[:0]
}

func hasPrefixFold(line []byte, prefix string) bool {
	return len(line) >= len(prefix) && strings.EqualFold(string(line[:len(prefix)]), prefix)
}

// sum returns the identity of what was written.
func (id *identity) sum() string {
	if len(id.line) > 0 {
		id.endLine()
	}
	return hex.EncodeToString(id.hash.Sum(nil))
}

// headerSum returns the identity of the header fields, or "" if there are none.
func (id *identity) headerSum() string {
	if !id.named {
		return ""
	}
	return hex.EncodeToString(id.fields.Sum(nil))
}
