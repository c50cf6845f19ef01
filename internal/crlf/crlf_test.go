package crlf_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/crlf"
)

func TestCopyLF(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"lines", "a\r\nb\r\n", "a\nb\n"},
		{"CR alone", "a\rb\r", "a\rb\r"},
		{"CR CR LF", "a\r\r\n", "a\r\n"},
		{"LF alone", "a\n\nb\r\n", "a\n\nb\n"},
		{"longer than a buffer", strings.Repeat("12345\r\n", 20000), strings.Repeat("12345\n", 20000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, newReader := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
			} {
				var out bytes.Buffer
				require.NoError(t, crlf.CopyLF(&out, newReader(strings.NewReader(tt.in))))
				assert.Equal(t, tt.want, out.String())
			}
		})
	}
}

func TestCopyLFErrors(t *testing.T) {
	cut := io.MultiReader(strings.NewReader("a\r"), iotest.ErrReader(io.ErrUnexpectedEOF))
	require.ErrorIs(t, crlf.CopyLF(io.Discard, cut), io.ErrUnexpectedEOF)
	full := errors.New("full")
	require.ErrorIs(t, crlf.CopyLF(failing{full}, strings.NewReader("a\r\n")), full)
	require.ErrorIs(t, crlf.CopyLF(failing{full}, strings.NewReader("\r")), full)
}

type failing struct{ err error }

func (f failing) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return 0, f.err
}
