package fetch

import (
	"bytes"
	"io"
)

// An lfWriter writes LF in place of each CRLF. A CR alone stays.
type lfWriter struct {
	w   io.Writer
	buf []byte
	cr  bool // a CR at the end of what came so far was held back
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

// copyLF copies all of r to w with LF in place of each CRLF.
func copyLF(w io.Writer, r io.Reader) error {
	l := &lfWriter{w: w}
	_, err := io.Copy(l, r)
	if err == nil && l.cr { // it was the last octet
		_, err = w.Write([]byte("\r"))
	}
	return err
}
