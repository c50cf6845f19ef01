// Package mailheader reads the header of a message that may be malformed.
package mailheader

import (
	"net/mail"
	"net/textproto"
	"strings"
)

// Parse returns the fields of a header up to its first empty line. [mail.ReadMessage] fails if one line is malformed,
// for example because it has no colon. Parse ignores such a line, because the other fields are still needed.
func Parse(header []byte) mail.Header {
	fields := make(mail.Header)
	last := "" // name of the field that a folded line continues
	for line := range strings.Lines(string(header)) {
		text := strings.TrimSpace(line)
		isFolded := line[0] == ' ' || line[0] == '\t'
		name, value, isField := strings.Cut(text, ":")
		switch {
		case line == "\n" || line == "\r\n":
			return fields
		case isFolded && last != "":
			fields[last][len(fields[last])-1] += " " + text
		case isFolded || !isField:
			last = ""
		default:
			last = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
			fields[last] = append(fields[last], strings.TrimSpace(value))
		}
	}
	return fields
}
