// Package crlf converts the CRLF line ends of POP3 into the LF line ends of files on Unix.
package crlf

import (
	"bytes"
	"io"
	"sync"
)

const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Copy copies r to w until io.EOF, in large pieces.
func Copy(w io.Writer, r io.Reader) error { return copyPieces(w, r, false) }

// CopyLF copies r to w until io.EOF, in large pieces, with LF in place of each CRLF. A CR that is not followed by LF is
// copied unchanged.
func CopyLF(w io.Writer, r io.Reader) error { return copyPieces(w, r, true) }

// copyPieces fills a large buffer before each write, because a message arrives in many small reads.
func copyPieces(w io.Writer, r io.Reader, lf bool) error {
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	var err error
	for n := 0; err == nil; {
		for n < bufferSize && err == nil {
			var read int
			read, err = r.Read(buffer[n:])
			n += read
		}
		piece, pending := buffer[:n], 0
		if lf && n > 0 && piece[n-1] == '\r' && err == nil { // the next read may begin with LF
			piece, pending = piece[:n-1], 1
		}
		if lf {
			piece = replaceCRLF(piece)
		}
		if _, failed := w.Write(piece); failed != nil {
			return failed
		}
		if n = pending; pending > 0 {
			buffer[0] = '\r'
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// replaceCRLF puts LF in the place of each CRLF, within p.
func replaceCRLF(p []byte) []byte {
	n := 0
	for unread := p; len(unread) > 0; {
		line, after, found := bytes.Cut(unread, []byte("\r\n"))
		n += copy(p[n:], line)
		if found {
			p[n] = '\n'
			n++
		}
		unread = after
	}
	return p[:n]
}
