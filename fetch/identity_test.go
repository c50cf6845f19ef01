package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func identityOf(text string, chunk int) string {
	id := newIdentity()
	for len(text) > chunk {
		id.Write([]byte(text[:chunk]))
		text = text[chunk:]
	}
	id.Write([]byte(text))
	return id.sum()
}

func TestIdentity(t *testing.T) {
	tests := []struct{ name, text, content string }{
		{"no notes", "From: a\r\nSubject: b\r\n\r\nStatus: x\r\n", "From: a\r\nSubject: b\r\n\r\nStatus: x\r\n"},
		{"notes at the end of the header", "From: a\r\nX-UIDL: 1\r\nX-UID: 1\r\nstatus: RO\r\n\r\ntext\r\n",
			"From: a\r\n\r\ntext\r\n"},
		{"a note at the beginning", "X-IMAPbase: 1795513031                    6\r\nFrom: a\r\n\r\n", "From: a\r\n"},
		{"C-070 a note of several lines", "X-Keywords: $a\r\n b\r\n\tc\r\nFrom: a\r\n b\r\n\r\n",
			"X-Keywords: $a\r\n b\r\n\tc\r\nFrom: a\r\n b\r\n"},
		{"C-070 a note with a blank second line", "Status: RO\r\n \r\nFrom: a\r\n\r\n",
			"Status: RO\r\n \r\nFrom: a\r\n"},
		{"C-070 a note, and a second one of two lines", "X-UID: 7\r\nX-UIDL: x\r\n\ty\r\n\r\nb",
			"X-UIDL: x\r\n\ty\r\n\r\nb"},
		{"C-070 a second line too long for a note", "X-UIDL: x\r\n " + strings.Repeat("y", 1000) + "\r\n\r\nb",
			"X-UIDL: x\r\n " + strings.Repeat("y", 1000) + "\r\n\r\nb"},
		{"C-070 values that no server writes",
			"X-Keywords: order 17\r\nStatus: paid\r\nX-UID: a7\r\nX-UIDL: a b\r\nX-IMAP: 1\r\n\r\nb",
			"X-Keywords: order 17\r\nStatus: paid\r\nX-UID: a7\r\nX-UIDL: a b\r\nX-IMAP: 1\r\n\r\nb"},
		{"keywords",
			"X-Keywords: $Forwarded NonJunk          \r\n" +
				"X-Status: AF\r\nX-IMAP: 1 2 $MDNSent\r\nX-Keywords:  \r\n\r\nb",
			"\r\nb"},
		{"LF", "Status: R\nFrom: a\n\nStatus: R\n", "From: a\n\nStatus: R\n"},
		{"longer names",
			"Status-Code: R\r\nX-UIDLX: 1\r\nContent-Length-Of-It: 2\r\nContent-Length: 2\r\n\r\n",
			"Status-Code: R\r\nX-UIDLX: 1\r\nContent-Length-Of-It: 2\r\n"},
		{"no header", "\r\nStatus: R\r\n", "\r\nStatus: R\r\n"},
		{"no body", "From: a\r\nStatus: R\r\n", "From: a\r\n"},
		{"no body, with two blank lines", "From: a\r\nStatus: R\r\n\r\n\r\n", "From: a\r\n"},
		{"blank lines and text", "From: a\r\n\r\n\r\n\r\n\r\nb", "From: a\r\n\r\n\r\n\r\n\r\nb"},
		{"no body, with a blank line", "From: a\r\nStatus: R\r\n\r\n", "From: a\r\n"},
		{"cut in a note", "From: a\r\nStatus: R", "From: a\r\n"},
		{"cut in a name", "From: a\r\nStatus", "From: a\r\nStatus"},
		{"no field", "From MAILER-DAEMON\r\nStatus: O\r\n\r\n", "From MAILER-DAEMON\r\n"},
		{"a long line", strings.Repeat("x", 1000) + "\r\nStatus: RO\r\nStatus: " + strings.Repeat("R",
			1000) + "\r\n\r\n",
			strings.Repeat("x", 1000) + "\r\nStatus: " + strings.Repeat("R", 1000) + "\r\n"},
		{"empty", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			digest := sha256.Sum256([]byte(tt.content))
			for chunk := 1; chunk <= 40; chunk++ {
				require.Equal(t, hex.EncodeToString(digest[:]), identityOf(tt.text, chunk), "in pieces of %d", chunk)
			}
		})
	}
}
