package conformance_test

import (
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A greetingRow is a greeting and what comes of it: an error, or a client.
type greetingRow struct {
	id     string
	octets string
	script []string // in place of octets
	then   string   // HOLD if it is empty
	err    problem
	text   string // of Greeting

	takes time.Duration
}

func (row greetingRow) write(chunk string) string {
	lines := []string{chunk}
	if row.script != nil {
		lines = append(lines, row.script...)
	} else {
		lines = append(lines, "s: "+strconv.Quote(row.octets))
	}
	if row.err == nil {
		lines = append(lines, "ANY")
	}
	if row.then == "" {
		row.then = "HOLD"
	}
	return strings.Join(append(lines, row.then), "\n")
}

func (row greetingRow) play(t *testing.T, chunk string) {
	conn, done := pop3test.Script(row.write(chunk))
	start := time.Now()
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Trace: watchful(t)})
	assert.Equal(t, row.takes, time.Since(start), chunk)
	if row.err != nil {
		assert.Nil(t, c)
		require.Error(t, err, chunk)
		row.err(t, err)
		checkError(t, err)
		_, err = conn.Write([]byte("x"))
		assert.ErrorIs(t, err, net.ErrClosed, "the connection is closed")
	} else {
		require.NoError(t, err, chunk)
		assert.Equal(t, row.text, c.Greeting(), chunk)
		assert.Equal(t, pop3.StateAuthorization, c.State())
		assert.NoError(t, c.Close())
	}
	assert.NoError(t, done(), "no octet was sent")
	if t.Failed() {
		t.FailNow()
	}
}

func TestHostileGreeting(t *testing.T) {
	otherService := also(broken, says("this is an"))
	for _, row := range []greetingRow{
		{id: "H-001 silence", err: late, takes: 2 * time.Minute},
		{id: "3.1a half a line, then silence", octets: "+OK read", err: late, takes: 2 * time.Minute},
		{id: "H-002 end at once", then: "EOF", err: also(cut, says("greeting"))},
		{id: "H-003 reset", then: "RESET", err: is(syscall.ECONNRESET)},
		{id: "3.1b reset within the line", octets: "+OK re", then: "RESET", err: is(syscall.ECONNRESET)},
		{id: "H-005 no line end", octets: "+OK ready", then: "EOF", err: cut},
		{id: "3.1c CR and no LF", octets: "+OK ready\r", then: "EOF", err: cut},
		{id: "H-006 a line without end", octets: "+OK " + strings.Repeat("A", 20_000), err: broken},
		{id: "3.1d the longest line", octets: "+OK " + strings.Repeat("A", 8192-6) + "\r\n",
			text: strings.Repeat("A", 509) + "…"},
		{id: "3.1e one octet too long", octets: "+OK " + strings.Repeat("A", 8192-5) + "\r\n", err: broken},
		{id: "H-007 other lines", octets: strings.Repeat("A\r\n", 1000), err: broken},
		{id: "H-009 refused", octets: "-ERR\r\n", err: refused("", "")},
		{id: "3.1f refused with a code", octets: "-ERR [SYS/TEMP] busy\r\n",
			err: refused(pop3.CodeSysTemp, "busy")},
		{id: "3.1g refused and gone", octets: "-ERR go away\r\n", then: "EOF", err: refused("", "go away")},
		{id: "H-010 IMAP", octets: "* OK IMAP4 ready\r\n", err: otherService},
		{id: "3.1h IMAP that is logged in", octets: "* PREAUTH\r\n", err: otherService},
		{id: "H-010 SMTP", octets: "220 smtp\r\n", err: otherService},
		{id: "H-010 HTTP", octets: "HTTP/1.1 400\r\n", err: otherService},
		{id: "H-010 SSH", octets: "SSH-2.0-x\r\n", err: otherService},
		{id: "3.1i TLS alert", octets: "\x15\x03\x01\x00\x02\x02\x0a", then: "EOF", err: says("DialTLS")},
		{id: "H-011 another plus", octets: "+Do you even care?\r\n", err: broken},
		{id: "3.1j plus", octets: "+\r\n", err: broken},
		{id: "3.1k challenge", octets: "+ PDE+\r\n", err: broken},
		{id: "H-014 unknown code", octets: "+OK [XCLIENT] Dovecot ready.\r\n",
			text: "[XCLIENT] Dovecot ready."},
		{id: "H-015 preauth", octets: "+OK[PREAUTH] x\r\n", text: "[PREAUTH] x"},
		{id: "H-019 blank line", octets: "\r\n+OK x\r\n", err: broken},
		{id: "H-019 blank", octets: " +OK x\r\n", err: broken},
		{id: "H-019 byte order mark", octets: "\xEF\xBB\xBF+OK x\r\n", err: broken},
		{id: "3.1l NUL", octets: "+OK \x00\r\n", err: broken},
		{id: "3.1m NUL in front", octets: "\x00+OK\r\n", err: broken},
		{id: "3.1n nothing but a line end", octets: "\n", err: broken},
		{id: "H-021 colours", octets: "+OK \x1b[31;1;4mPOP3\x1b[0m\r\n", text: "[31;1;4mPOP3[0m"},
		{id: "3.1o direction", octets: "+OK a\u202eb\u2066c\u200f\r\n", text: "abc"},
		{id: "3.1p Latin-1", octets: "+OK caf\xe9\r\n", text: "caf\ufffd"},
		{id: "H-025 the line end takes a second", script: []string{`s: "+OK x\r"`, "PAUSE 1s", `s: "\n"`},
			text: "x", takes: time.Second},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, chunk := range deliveries(row.octets) {
					row.play(t, chunk)
				}
			})
		})
	}
}

// What comes behind the greeting was not asked for.
func TestHostileGreetingAndMore(t *testing.T) {
	for _, row := range []struct{ id, octets string }{
		{"H-017 two greetings", "+OK a\r\n+OK b\r\n"},
		{"H-018 an unsolicited list", "+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n"},
		{"3.1q the beginning of a line", "+OK a\r\n+"},
		{"3.1r a blank line", "+OK a\r\n\r\n"},
		{"3.1s a dot", "+OK a\r\n.\r\n"},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script("s: " + strconv.Quote(row.octets) + "\nHOLD")
				c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true,
					Trace: watchful(t)})
				require.NoError(t, err)
				err = c.User(t.Context(), "u")
				require.Error(t, err)
				broken(t, err)
				checkError(t, err)
				poisoned.check(t, c, err)
				assert.NoError(t, done(), "no octet was sent")
			})
		})
	}
}

// The timestamp is the one that Apop uses.
func TestHostileTimestamp(t *testing.T) {
	for _, row := range []struct{ id, text, stamp string }{
		{"H-022 many brackets", "<" + strings.Repeat("<", 8000), ""},
		{"3.1t many brackets that close", strings.Repeat("<>", 4000), ""},
		{"3.1u many beginnings", strings.Repeat("<a@", 2700), ""},
		{"H-023 two", "<1@a> <2@b>", "<1@a>"},
		{"3.1v the second is one", "<1> <2@b>", "<2@b>"},
	} {
		t.Run(row.id, func(t *testing.T) {
			checkTimestamp(t, row.text, row.stamp)
		})
	}
}

// checkTimestamp tells from the digest which timestamp was taken from a greeting.
func checkTimestamp(t *testing.T, text, stamp string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		script := "s: " + strconv.Quote("+OK "+text+"\r\n")
		if stamp != "" {
			script += "\nC: APOP u " + apopDigest(stamp, canary) + "\nS: +OK"
		}
		conn, done := pop3test.Script(script + "\nHOLD")
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
		require.NoError(t, err)
		err = c.Apop(t.Context(), "u", canary)
		if stamp != "" {
			assert.NoError(t, err)
		} else {
			assert.ErrorIs(t, err, errUnsupported)
			checkError(t, err)
		}
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	})
}

// An endless line is read up to the limit and no further.
func TestHostileEndlessGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		var sent int64
		wait := make(chan struct{})
		go func() {
			defer close(wait)
			sent, _ = io.Copy(server, io.MultiReader(strings.NewReader("+OK "), endless("A")))
		}()
		_, err := pop3.NewClient(t.Context(), client, nil)
		broken(t, err)
		checkError(t, err)
		<-wait
		assert.Less(t, sent, int64(128<<10), "H-006: octets that were taken")
	})
}
