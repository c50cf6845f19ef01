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

// An identity is a digest of the content of a message, without the notes of the server. If no text follows the header,
// blank lines are not part of the identity, because servers add one when they add a note.
type identity struct {
	hash        hash.Hash
	fields      hash.Hash // hash of the header fields, without MIME fields, which some servers rewrite each time
	inMIMEField bool      // the current field is a MIME field
	hasFields   bool      // there is a field that is not a MIME field
	line        []byte    // the beginning of a header line that has not ended
	inLongLine  bool      // the line is too long for a note, and its beginning was hashed
	note        []byte    // the previous line, if it may be a note; it is content if the current line continues it
	headerEnded bool      // the header has ended
	blankLines  []byte    // the blank lines after the header, which are hashed only if text follows
	hasText     bool      // there was text after the header
}

func newIdentity() *identity { return &identity{hash: sha256.New(), fields: sha256.New()} }

// Write adds octets of the message. The error is always nil.
func (id *identity) Write(p []byte) (int, error) {
	unhashed := p
	for len(unhashed) > 0 && !id.headerEnded {
		unhashed = unhashed[id.addHeader(unhashed):]
	}
	for len(unhashed) > 0 && !id.hasText {
		unhashed = unhashed[id.addBlank(unhashed[0]):]
	}
	id.hash.Write(unhashed)
	return len(p), nil
}

// maxBlankLines is the greatest length of identity.blankLines, which is two line ends.
const maxBlankLines = len("\r\n\r\n")

// addBlank adds the octet c to blankLines if it belongs to a blank line. It returns the number of octets that it added.
func (id *identity) addBlank(c byte) int {
	if (c == '\r' || c == '\n') && len(id.blankLines) < maxBlankLines {
		id.blankLines = append(id.blankLines, c)
		return 1
	}
	id.hash.Write(id.blankLines)
	id.hasText = true
	return 0
}

// addHeader adds octets of one header line, and returns their number.
func (id *identity) addHeader(p []byte) int {
	n := bytes.IndexByte(p, '\n') + 1
	ended := n > 0
	if !ended {
		n = len(p)
	}
	switch {
	case id.inLongLine:
		id.addLine(p[:n])
		id.inLongLine = !ended
		return n
	case len(id.line)+n > maxNote:
		id.line = append(id.line, p[:n]...)
		id.beginLine()
		id.addLine(id.line)
		id.line, id.inLongLine = id.line[:0], !ended
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
		id.headerEnded, id.blankLines = true, bytes.Clone(id.line)
	// checking the first letter is faster than the regular expression
	case strings.IndexByte("SsXxCc", id.line[0]) >= 0 && noteLine.Match(id.line):
		id.note = append(id.note, id.line...)
	default:
		id.addLine(id.line)
	}
	id.line = id.line[:0]
}

// addLine hashes a line or a part of it.
func (id *identity) addLine(line []byte) {
	id.hash.Write(line)
	if !id.inMIMEField {
		id.fields.Write(line)
		id.hasFields = true
	}
}

// beginLine discards the note before the line. If the line continues the note, beginLine hashes the note as content,
// because no server writes a note of several lines.
func (id *identity) beginLine() {
	if id.line[0] == ' ' || id.line[0] == '\t' {
		id.addLine(id.note)
	} else {
		id.inMIMEField = hasPrefixFold(id.line, "MIME-Version") || hasPrefixFold(id.line, "Content-")
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
	if !id.hasFields {
		return ""
	}
	return hex.EncodeToString(id.fields.Sum(nil))
}
