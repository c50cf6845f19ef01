package interop_test

import (
	"bytes"
	"regexp"
)

// These messages of the corpus are mentioned in the facts of many servers.
const (
	barecrlf       = "barecrlf"
	noFinalNewline = "nofinalnewline"
	headersOnly    = "headersonly"
)

var bareLF = regexp.MustCompile(`([^\r])\n`)

// lineEnds adds a CR to each LF that has none.
func lineEnds(mail []byte) []byte { return bareLF.ReplaceAll(mail, []byte("$1\r\n")) }

// everyLF adds a CR before each LF, even if it has one.
func everyLF(mail []byte) []byte { return bytes.ReplaceAll(mail, []byte("\n"), []byte("\r\n")) }

// noBareCR removes each CR that is not directly before an LF. If two CRs are before an LF, one of them stays.
func noBareCR(mail []byte) []byte {
	var out []byte
	for i, b := range mail {
		if b != '\r' || i+1 < len(mail) && mail[i+1] == '\n' {
			out = append(out, b)
		}
	}
	return out
}

// noDoubledCR removes one of two CRs before an LF.
func noDoubledCR(mail []byte) []byte { return bytes.ReplaceAll(mail, []byte("\r\r\n"), []byte("\r\n")) }

// finalNewline adds a line end to the last line.
func finalNewline(mail []byte) []byte { return append(bytes.Clone(mail), "\r\n"...) }

// emptyLine adds an empty line at the end. Some servers add the line that separates header and body. Others add the
// line that separates the messages of an mbox.
func emptyLine(mail []byte) []byte { return append(bytes.Clone(mail), "\r\n"...) }

// quoteFrom quotes "From " at the start of a line, as an mbox does.
func quoteFrom(mail []byte) []byte {
	return bytes.ReplaceAll(mail, []byte("\nFrom "), []byte("\n>From "))
}

// unquoteFrom removes a ">" before "From ", even if the original message had it.
func unquoteFrom(mail []byte) []byte {
	return bytes.ReplaceAll(mail, []byte("\n>From "), []byte("\nFrom "))
}

// munged replaces each octet of the header that is not ASCII by an X.
func munged(mail []byte) []byte {
	end := bytes.Index(mail, []byte("\r\n\r\n"))
	out := bytes.Clone(mail)
	for i := range out[:end] {
		if out[i] >= 0x80 {
			out[i] = 'X'
		}
	}
	return out
}

var (
	wrapHead = []byte("From: Mail Delivery Subsystem <postmaster>\r\n" +
		"Subject: Cannot display Unicode content\r\n")
	wrapPart = []byte("Content-Type: message/global\r\n\r\n")
)

// wrapped puts the message into the notice that Courier sends to a client that has not sent UTF8 (RFC 6856). The
// boundary differs each time, so wrapped returns only the parts that unwrap keeps.
func wrapped(mail []byte) []byte {
	return bytes.Join([][]byte{wrapHead, wrapPart, mail}, nil)
}

// unwrap returns a notice without the parts that differ each time. It returns any other message unchanged.
func unwrap(mail []byte) []byte {
	start := bytes.Index(mail, wrapPart)
	if !bytes.HasPrefix(mail, wrapHead) || start < 0 {
		return mail
	}
	inner := mail[start+len(wrapPart):]
	if end := bytes.LastIndex(inner, []byte("\r\n--")); end >= 0 {
		inner = inner[:end]
	}
	return wrapped(inner)
}
