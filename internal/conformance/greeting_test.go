package conformance_test

import (
	"context"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3"
)

func TestHostileGreeting(t *testing.T) {
	otherService := allOf(fatal, hasText("this is an"))
	playAll(t, []dialogue{
		{id: "H-001 silence", do: greet, want: failsWith(timedOut), takes: 2 * time.Minute},
		{id: "3.1a half a line, then silence", script: serverSends("+OK read"), do: greet, want: failsWith(timedOut),
			takes: 2 * time.Minute},
		{id: "H-002 end at once", script: script{"EOF"}, do: greet, want: failsWith(connLost,
			hasText("greeting: the server closed the connection instead of replying"))},
		{id: "H-003 reset", script: script{"RESET"}, do: greet, want: failsWith(wraps(syscall.ECONNRESET))},
		{id: "3.1b reset within the line", script: serverSends("+OK re").add("RESET"), do: greet,
			want: failsWith(wraps(syscall.ECONNRESET))},
		{id: "H-005 no line end", script: serverSends("+OK ready").add("EOF"), do: greet,
			want: failsWith(connLost, hasText("in the middle of the reply"))},
		{id: "3.1c CR and no LF", script: serverSends("+OK ready\r").add("EOF"), do: greet, want: failsWith(connLost)},
		{id: "H-006 a line without end", script: serverSends("+OK " + strings.Repeat("A", 20_000)), do: greet,
			want: failsWith(fatal)},
		{id: "3.1d the longest line", script: serverSends("+OK " + strings.Repeat("A", 8192-6) + "\r\n"),
			do: greet, want: returns(strings.Repeat("A", 509) + "…")},
		{id: "3.1e one octet too long", script: serverSends("+OK " + strings.Repeat("A", 8192-5) + "\r\n"),
			do: greet, want: failsWith(fatal)},
		{id: "H-007 other lines", script: serverSends(strings.Repeat("A\r\n", 1000)), do: greet,
			want: failsWith(fatal)},
		{id: "H-009 Q-16 refused", script: serverSends("-ERR\r\n"), do: greet, want: failsWith(refusedWith("", ""))},
		{id: "3.1f refused with a code", script: serverSends("-ERR [SYS/TEMP] busy\r\n"), do: greet,
			want: failsWith(refusedWith(pop3.CodeSysTemp, "busy"))},
		{id: "3.1g refused, and the connection is closed", script: serverSends("-ERR go away\r\n").add("EOF"),
			do:   greet,
			want: failsWith(refusedWith("", "go away"))},
		{id: "H-010 IMAP", script: serverSends("* OK IMAP4 ready\r\n"), do: greet, want: failsWith(otherService)},
		{id: "3.1h IMAP that is logged in", script: serverSends("* PREAUTH\r\n"), do: greet,
			want: failsWith(otherService)},
		{id: "H-010 SMTP", script: serverSends("220 smtp\r\n"), do: greet, want: failsWith(otherService)},
		{id: "H-010 HTTP", script: serverSends("HTTP/1.1 400\r\n"), do: greet, want: failsWith(otherService)},
		{id: "H-010 SSH", script: serverSends("SSH-2.0-x\r\n"), do: greet, want: failsWith(otherService)},
		{id: "3.1i Q-65 TLS alert", script: serverSends("\x15\x03\x01\x00\x02\x02\x0a").add("EOF"), do: greet,
			want: failsWith(hasText("DialTLS"))},
		{id: "H-011 another plus", script: serverSends("+Do you even care?\r\n"), do: greet, want: failsWith(fatal)},
		{id: "3.1j plus", script: serverSends("+\r\n"), do: greet, want: failsWith(fatal)},
		{id: "3.1k challenge", script: serverSends("+ PDE+\r\n"), do: greet, want: failsWith(fatal)},
		{id: "H-014 unknown code", script: serverSends("+OK [XCLIENT] Dovecot ready.\r\n"), do: greet,
			want: returns("[XCLIENT] Dovecot ready.")},
		{id: "H-015 preauth", script: serverSends("+OK[PREAUTH] x\r\n"), do: greet, want: returns("[PREAUTH] x")},
		{id: "H-019 blank line", script: serverSends("\r\n+OK x\r\n"), do: greet, want: failsWith(fatal)},
		{id: "H-019 blank", script: serverSends(" +OK x\r\n"), do: greet, want: failsWith(fatal)},
		{id: "H-019 byte order mark", script: serverSends("\xEF\xBB\xBF+OK x\r\n"), do: greet,
			want: failsWith(fatal)},
		{id: "3.1l NUL", script: serverSends("+OK \x00\r\n"), do: greet, want: failsWith(fatal)},
		{id: "3.1m NUL at the start", script: serverSends("\x00+OK\r\n"), do: greet, want: failsWith(fatal)},
		{id: "3.1n nothing but a line end", script: serverSends("\n"), do: greet, want: failsWith(fatal)},
		{id: "H-021 colours", script: serverSends("+OK \x1b[31;1;4mPOP3\x1b[0m\r\n"), do: greet,
			want: returns("[31;1;4mPOP3[0m")},
		{id: "3.1o direction", script: serverSends("+OK a\u202eb\u2066c\u200f\r\n"), do: greet,
			want: returns("abc")},
		{id: "3.1p Latin-1", script: serverSends("+OK caf\xe9\r\n"), do: greet, want: returns("caf\ufffd")},
		{id: "H-025 the line end takes a second", script: serverSends("+OK x\r").add("PAUSE 1s").sends("\n"),
			do: greet, want: returns("x"), takes: time.Second},
	})
}

// Data after the greeting is an error, because the client has not asked for it.
func TestHostileGreetingAndMore(t *testing.T) {
	withGreeting := greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
		err := c.User(ctx, "u")
		failsWith(fatal)(t, nil, err)
		closed.check(t, c, err)
	})
	playAll(t, []dialogue{
		{id: "H-017 two greetings", script: serverSends("+OK a\r\n+OK b\r\n"), do: withGreeting, onePiece: true},
		{id: "H-018 an unsolicited list", script: serverSends("+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n"),
			do: withGreeting, onePiece: true},
		{id: "3.1q the beginning of a line", script: serverSends("+OK a\r\n+"), do: withGreeting, onePiece: true},
		{id: "3.1r a blank line", script: serverSends("+OK a\r\n\r\n"), do: withGreeting, onePiece: true},
		{id: "3.1s a dot", script: serverSends("+OK a\r\n.\r\n"), do: withGreeting, onePiece: true},
	})
}

// The client finds the timestamp in a greeting and uses it for APOP.
func TestHostileTimestamp(t *testing.T) {
	playAll(t, []dialogue{
		stamped("H-022 many brackets", "<"+strings.Repeat("<", 8000), ""),
		stamped("3.1t many brackets that close", strings.Repeat("<>", 4000), ""),
		stamped("3.1u many beginnings", strings.Repeat("<a@", 2700), ""),
		stamped("H-023 CVE-2018-1060 two", "<1@a> <2@b>", "<1@a>"),
		stamped("3.1v the second is one", "<1> <2@b>", "<2@b>"),
	})
}

// stamped returns a dialogue with the greeting text. The digest of APOP shows whether the client uses stamp as the
// timestamp. If stamp is empty, the client must find no timestamp.
func stamped(id, text, stamp string) dialogue {
	d := dialogue{id: id, script: serverSends("+OK " + text + "\r\n"),
		do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			if err := c.Apop(ctx, "u", canary); stamp == "" {
				failsWith(wraps(errUnsupported))(t, nil, err)
			} else {
				assert.NoError(t, err)
			}
		})}
	if stamp != "" {
		d.script = d.script.turns("APOP u "+apopDigest(stamp, canary), "+OK")
	}
	return d
}

// A greeting line without an end is read up to the limit and no further.
func TestHostileEndlessGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		var sent int64
		wait := make(chan struct{})
		go func() {
			defer close(wait)
			sent, _ = io.Copy(server, io.MultiReader(strings.NewReader("+OK "), repeatReader("A")))
		}()
		_, err := pop3.NewClient(t.Context(), client, nil)
		fatal(t, err)
		checkError(t, err)
		<-wait
		assert.Less(t, sent, int64(128<<10), "H-006: octets that were taken")
	})
}
