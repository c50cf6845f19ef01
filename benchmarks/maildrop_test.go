package main

import (
	"bytes"
	"fmt"
	"net/mail"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMessage(t *testing.T) {
	for size := 190; size < 450; size++ {
		d := maildrop{3, size}
		m := d.message(1)
		require.Len(t, m, size)
		require.True(t, bytes.HasSuffix(m, []byte("\r\n")))
		require.Equal(t, bytes.Count(m, []byte("\n")), bytes.Count(m, []byte("\r\n")))
		for line := range bytes.Lines(m) {
			require.LessOrEqual(t, len(line), lineSize+3)
		}
		require.NotEqual(t, m, d.message(2))
		require.Equal(t, m, d.message(1))
		_, err := mail.ReadMessage(bytes.NewReader(m))
		require.NoError(t, err)
	}
}

func TestMaildir(t *testing.T) {
	home := t.TempDir()
	d := maildrop{5, 300}
	require.NoError(t, d.write(home, os.Getuid()))
	n, err := countMessages(home + "/Maildir")
	require.NoError(t, err)
	assert.Equal(t, 5, n)
	stored := bytes.ReplaceAll(d.message(4), []byte("\r\n"), []byte("\n"))
	got, err := os.ReadFile(fmt.Sprintf("%s/Maildir/cur/1700000004.M4P1.host,S=%d,W=300:2,S", home, len(stored)))
	require.NoError(t, err)
	assert.Equal(t, stored, got)
}
