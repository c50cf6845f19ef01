package main

import (
	"bytes"
	"io"
)

// An lfWriter writes LF in the place of CRLF. Every other CR stays.
type lfWriter struct {
	w  io.Writer
	cr bool // the last octet was a CR, which is held back
}

func (l *lfWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	whole := p
	if l.cr {
		whole = append([]byte{'\r'}, p...)
	}
	if l.cr = whole[len(whole)-1] == '\r'; l.cr {
		whole = whole[:len(whole)-1]
	}
	if _, err := l.w.Write(bytes.ReplaceAll(whole, []byte("\r\n"), []byte("\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what was held back.
func (l *lfWriter) flush() error {
	if !l.cr {
		return nil
	}
	l.cr = false
	_, err := l.w.Write([]byte{'\r'})
	return err
}
