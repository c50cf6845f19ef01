package pop3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
)

// guessService says, to be put behind an error, what kind of server begins with line; "" if nobody knows.
func guessService(line []byte) string {
	for _, service := range []struct{ start, name string }{
		{"220", ": this is an SMTP or FTP server"},
		{"* OK", ": this is an IMAP server"},
		{"* PREAUTH", ": this is an IMAP server"},
		{"* BYE", ": this is an IMAP server"},
		{"HTTP/", ": this is an HTTP server"},
		{"SSH-", ": this is an SSH server"},
	} {
		if bytes.HasPrefix(line, []byte(service.start)) {
			return service.name
		}
	}
	if isTLS(line) {
		return ": " + speaksTLS
	}
	return ""
}

const speaksTLS = "the server speaks TLS from the first byte here, use DialTLS"

// isTLS reports whether b begins with an alert or a handshake of TLS.
func isTLS(b []byte) bool {
	return len(b) > 1 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3
}

// hintAtClear explains a handshake that failed because the peer does not speak TLS.
func hintAtClear(err error) error {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok {
		return err
	}
	first := header.RecordHeader[:]
	if bytes.HasPrefix(first, []byte("+OK")) || bytes.HasPrefix(first, []byte("-ERR")) {
		return fmt.Errorf("the server does not speak TLS here but POP3 in clear, try DialStartTLS (port 110): %w", err)
	}
	return fmt.Errorf("the server does not speak TLS here%s (it said %q): %w",
		guessService(first), clean(first, maxLine), err)
}

// hintAtNoTLS explains a handshake behind STLS that was answered in clear.
func hintAtNoTLS(err error) error {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok {
		return err
	}
	return fmt.Errorf("the server agreed and then did not speak TLS (it said %q): %w",
		clean(header.RecordHeader[:], maxLine), err)
}

// hintAtTrust tells what to do about a certificate of one's own making.
func hintAtTrust(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		return err
	}
	return fmt.Errorf("%w (to trust it, make its authority a trusted root: RootCAs of the TLS configuration)", err)
}

// hintAtPort explains a silent server to whom one has to speak TLS first.
func hintAtPort(err error, how security) error {
	late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	if how != implicitTLS && late {
		return fmt.Errorf("%w (a server that waits for TLS from the first byte is silent too: use DialTLS, port 995)", err)
	}
	return err
}

// hintAtPipelining explains a reply that is missing, or not a reply, behind one that was there. Some servers announce
// PIPELINING and then lose commands, or send the next +OK before the message in front of it has ended.
func hintAtPipelining(err error) error {
	if _, broken := errors.AsType[*ProtocolError](err); !broken && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w; it was sent ahead of the replies: if the server can't take that, "+
		"set Options.Pipelining to PipeliningNever", err)
}

// hintAtParts explains a connection that was lost with very many commands sent ahead.
func hintAtParts(err error) error {
	if _, broken := errors.AsType[*ProtocolError](err); broken || !errors.Is(cut(err), io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w; so many commands at once kill some servers: if it happens again, call Dele with a thousand "+
		"numbers at a time", err)
}
