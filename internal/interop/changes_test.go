package interop_test

import (
	"bytes"
	"regexp"
)

// Names in the corpus that many facts mention.
const (
	barecrlf       = "barecrlf"
	noFinalNewline = "nofinalnewline"
	headersOnly    = "headersonly"
)

var bareLF = regexp.MustCompile(`([^\r])\n`)

// lineEnds gives a CR to each LF that has none.
func lineEnds(mail []byte) []byte { return bareLF.ReplaceAll(mail, []byte("$1\r\n")) }

// everyLF puts a CR before each LF, whether it has one or not.
func everyLF(mail []byte) []byte { return bytes.ReplaceAll(mail, []byte("\n"), []byte("\r\n")) }

// noBareCR drops each CR that is not followed by LF. Of two before an LF one stays.
func noBareCR(mail []byte) []byte {
	var out []byte
	for i, b := range mail {
		if b != '\r' || i+1 < len(mail) && mail[i+1] == '\n' {
			out = append(out, b)
		}
	}
	return out
}

// noDoubledCR drops one of two CRs before an LF.
func noDoubledCR(mail []byte) []byte { return bytes.ReplaceAll(mail, []byte("\r\r\n"), []byte("\r\n")) }

// finalNewline ends the last line.
func finalNewline(mail []byte) []byte { return append(bytes.Clone(mail), "\r\n"...) }

// emptyLine adds an empty line: the one that separates header and body, or the one between messages of an
// mbox.
func emptyLine(mail []byte) []byte { return append(bytes.Clone(mail), "\r\n"...) }

// quoteFrom is what an mbox does to "From " at the start of a line.
func quoteFrom(mail []byte) []byte {
	return bytes.ReplaceAll(mail, []byte("\nFrom "), []byte("\n>From "))
}

// unquoteFrom takes away a quote, also one that was in the message from the start.
func unquoteFrom(mail []byte) []byte {
	return bytes.ReplaceAll(mail, []byte("\n>From "), []byte("\nFrom "))
}

// munged has an X in the header for each octet that is not ASCII.
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

// wrapped puts the message into the notice that Courier sends to a client that did not say UTF8 (RFC 6856).
// The boundary is made anew each time, so what stands around the message is compared as far as it can be, by
// unwrap.
func wrapped(mail []byte) []byte {
	return bytes.Join([][]byte{wrapHead, wrapPart, mail}, nil)
}

// unwrap leaves of a notice what wrapped makes, and any other message as it is.
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
