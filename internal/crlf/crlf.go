// Package crlf converts the line ends of mail (CRLF) to those of files on Unix (LF).
package crlf

import (
	"bytes"
	"io"
)

// CopyLF copies r to w until io.EOF, with LF in place of each CRLF. A CR that is not followed by LF is copied
// unchanged.
func CopyLF(w io.Writer, r io.Reader) error {
	l := &lfWriter{w: w}
	_, err := io.Copy(l, r)
	if err == nil && l.cr {
		_, err = w.Write([]byte("\r"))
	}
	return err
}

// An lfWriter writes LF in place of each CRLF.
type lfWriter struct {
	w   io.Writer
	buf []byte
	cr  bool // the last byte was a CR, which is not written yet
}

func (l *lfWriter) Write(p []byte) (int, error) {
	l.buf = l.buf[:0]
	for rest := p; len(rest) > 0; {
		if l.cr && rest[0] != '\n' {
			l.buf = append(l.buf, '\r')
		}
		var line []byte
		line, rest, l.cr = bytes.Cut(rest, []byte("\r"))
		l.buf = append(l.buf, line...)
	}
	if _, err := l.w.Write(l.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}
