package conformance_test

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// TestNewMessage: what a program sees of a message for tests is what it sees of one from a server.
func TestNewMessage(t *testing.T) {
	const content = "Subject: x\r\n\r\n.\r\n..\r\n"
	cut := iotest.ErrReader(io.ErrUnexpectedEOF)
	for _, test := range []struct {
		name string
		from io.Reader
		want string
		err  error
	}{
		{"whole", strings.NewReader(content), content, nil},
		{"empty", strings.NewReader(""), "", nil},
		{"cut", io.MultiReader(strings.NewReader(content), cut), content, io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := pop3.NewMessage(3, test.from)
			assert.Equal(t, 3, m.Num)
			var out strings.Builder
			written, err := io.Copy(&out, m) // WriteTo, as Message has it
			assert.Equal(t, test.err, err)
			assert.Equal(t, test.want, out.String())
			assert.EqualValues(t, len(test.want), written)
			_, again := m.Read(make([]byte, 1))
			if test.err == nil {
				assert.Equal(t, io.EOF, again)
			} else {
				assert.Equal(t, test.err, again)
			}
			require.NoError(t, m.Close())
		})
	}
}

func TestNewMessageRead(t *testing.T) {
	require.NoError(t, iotest.TestReader(pop3.NewMessage(1, strings.NewReader("a\r\n.b\r\n")), []byte("a\r\n.b\r\n")))
}

// TestNewMessageClosed: after Close nothing can be read.
func TestNewMessageClosed(t *testing.T) {
	content := strings.NewReader("abc")
	m := pop3.NewMessage(1, content)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	_, err := m.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorContains(t, err, "RETR 1: read after Close")
	_, err = m.WriteTo(io.Discard)
	require.ErrorIs(t, err, fs.ErrClosed)
	assert.Equal(t, 3, content.Len())
}

// TestNewMessageWriter: an error of the writer leaves the rest to be read.
func TestNewMessageWriter(t *testing.T) {
	m := pop3.NewMessage(1, strings.NewReader("abc"))
	full := errors.New("disk full")
	_, err := m.WriteTo(writerFunc(func([]byte) (int, error) { return 0, full }))
	require.Equal(t, full, err)
	_, err = io.ReadAll(m)
	require.NoError(t, err)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestZeroMessage: a Message that nobody made is no empty message.
func TestZeroMessage(t *testing.T) {
	var m pop3.Message
	_, err := m.Read(make([]byte, 1))
	require.ErrorContains(t, err, "zero value")
	_, err = m.WriteTo(io.Discard)
	require.ErrorContains(t, err, "zero value")
	require.NoError(t, m.Close())
}
