package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestRun(t *testing.T) {
	lines := func(lines ...string) []byte { return []byte(strings.Join(lines, "\r\n") + "\r\n") }
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "alice", Password: "correct horse", Messages: [][]byte{
		lines("Subject: =?iso-8859-1?q?Gr=FC=DFe?=", "Content-Type: multipart/mixed; boundary=b", "",
			"--b", "Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: quoted-printable", "",
			"Sch=F6n",
			"--b", "Content-Type: text/csv", "Content-Disposition: attachment; filename=\"../list.csv\"", "", "1,2",
			"--b--"),
		lines("Subject: unknown", "Content-Type: text/plain; charset=martian", "", "x"),
		lines("no header at all"),
		lines("Subject: plain", "", "last"),
	}})
	defer srv.Close()
	var out strings.Builder
	err := run(t.Context(), &out, srv.Addr, "alice", "correct horse", &pop3.Options{TLSConfig: srv.ClientTLS()})
	assert.NoError(t, err)
	assert.Len(t, srv.Left("alice"), 4)
	text := out.String()
	assert.Contains(t, text, "message 1: Grüße\n  text: \"Schön\"\n  attachment \"../list.csv\": 3 bytes\n")
	assert.Contains(t, text, "message 2: unknown\n  text: \"x\\r\\n\"\n")
	assert.Contains(t, text, "message 3: ")
	assert.Contains(t, text, "message 4: plain\n  text: \"last\\r\\n\"\n")
}
