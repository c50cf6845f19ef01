package mailheader

import (
	"net/mail"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		want         mail.Header
	}{
		{"two fields", "From: ann\r\nsubject: a: b\r\n\r\n", mail.Header{"From": {"ann"}, "Subject": {"a: b"}}},
		{"field twice", "Received: a\r\nReceived: b\r\n", mail.Header{"Received": {"a", "b"}}},
		{"LF", "From: ann\nTo: bob\n\nBcc: eve\n", mail.Header{"From": {"ann"}, "To": {"bob"}}},
		{"no line end", "From: ann", mail.Header{"From": {"ann"}}},
		{"folded line", "Subject: a\r\n\tb\r\n c\r\n", mail.Header{"Subject": {"a b c"}}},
		{"body", "From: ann\r\n\r\nTo: bob\r\n", mail.Header{"From": {"ann"}}},
		{"line without a colon", "From: ann\r\nno field\r\nTo: bob\r\n", mail.Header{"From": {"ann"}, "To": {"bob"}}},
		{"folded line after a line without a colon", "From: ann\r\nno field\r\n x\r\nTo: bob\r\n",
			mail.Header{"From": {"ann"}, "To": {"bob"}}},
		{"folded line at the top", " x\r\nTo: bob\r\n", mail.Header{"To": {"bob"}}},
		{"folded line that is blank", "From: ann\r\n \r\nTo: bob\r\n", mail.Header{"From": {"ann "}, "To": {"bob"}}},
		{"space before the colon", "From : ann\r\n", mail.Header{"From": {"ann"}}},
		{"empty", "", mail.Header{}},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, Parse([]byte(tt.header))) })
	}
}
