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
	otherService := also(protocolError, says("this is an"))
	playAll(t, []dialogue{
		{id: "H-001 silence", do: greet, want: fails(late), takes: 2 * time.Minute},
		{id: "3.1a half a line, then silence", script: sends("+OK read"), do: greet, want: fails(late),
			takes: 2 * time.Minute},
		{id: "H-002 end at once", script: script{"EOF"}, do: greet, want: fails(cut,
			says("greeting: the server closed the connection instead of replying"))},
		{id: "H-003 reset", script: script{"RESET"}, do: greet, want: fails(is(syscall.ECONNRESET))},
		{id: "3.1b reset within the line", script: sends("+OK re").then("RESET"), do: greet,
			want: fails(is(syscall.ECONNRESET))},
		{id: "H-005 no line end", script: sends("+OK ready").then("EOF"), do: greet,
			want: fails(cut, says("in the middle of the reply"))},
		{id: "3.1c CR and no LF", script: sends("+OK ready\r").then("EOF"), do: greet, want: fails(cut)},
		{id: "H-006 a line without end", script: sends("+OK " + strings.Repeat("A", 20_000)), do: greet,
			want: fails(protocolError)},
		{id: "3.1d the longest line", script: sends("+OK " + strings.Repeat("A", 8192-6) + "\r\n"),
			do: greet, want: gives(strings.Repeat("A", 509) + "…")},
		{id: "3.1e one octet too long", script: sends("+OK " + strings.Repeat("A", 8192-5) + "\r\n"),
			do: greet, want: fails(protocolError)},
		{id: "H-007 other lines", script: sends(strings.Repeat("A\r\n", 1000)), do: greet,
			want: fails(protocolError)},
		{id: "H-009 Q-16 refused", script: sends("-ERR\r\n"), do: greet, want: fails(refused("", ""))},
		{id: "3.1f refused with a code", script: sends("-ERR [SYS/TEMP] busy\r\n"), do: greet,
			want: fails(refused(pop3.CodeSysTemp, "busy"))},
		{id: "3.1g refused and gone", script: sends("-ERR go away\r\n").then("EOF"), do: greet,
			want: fails(refused("", "go away"))},
		{id: "H-010 IMAP", script: sends("* OK IMAP4 ready\r\n"), do: greet, want: fails(otherService)},
		{id: "3.1h IMAP that is logged in", script: sends("* PREAUTH\r\n"), do: greet,
			want: fails(otherService)},
		{id: "H-010 SMTP", script: sends("220 smtp\r\n"), do: greet, want: fails(otherService)},
		{id: "H-010 HTTP", script: sends("HTTP/1.1 400\r\n"), do: greet, want: fails(otherService)},
		{id: "H-010 SSH", script: sends("SSH-2.0-x\r\n"), do: greet, want: fails(otherService)},
		{id: "3.1i Q-65 TLS alert", script: sends("\x15\x03\x01\x00\x02\x02\x0a").then("EOF"), do: greet,
			want: fails(says("DialTLS"))},
		{id: "H-011 another plus", script: sends("+Do you even care?\r\n"), do: greet, want: fails(protocolError)},
		{id: "3.1j plus", script: sends("+\r\n"), do: greet, want: fails(protocolError)},
		{id: "3.1k challenge", script: sends("+ PDE+\r\n"), do: greet, want: fails(protocolError)},
		{id: "H-014 unknown code", script: sends("+OK [XCLIENT] Dovecot ready.\r\n"), do: greet,
			want: gives("[XCLIENT] Dovecot ready.")},
		{id: "H-015 preauth", script: sends("+OK[PREAUTH] x\r\n"), do: greet, want: gives("[PREAUTH] x")},
		{id: "H-019 blank line", script: sends("\r\n+OK x\r\n"), do: greet, want: fails(protocolError)},
		{id: "H-019 blank", script: sends(" +OK x\r\n"), do: greet, want: fails(protocolError)},
		{id: "H-019 byte order mark", script: sends("\xEF\xBB\xBF+OK x\r\n"), do: greet,
			want: fails(protocolError)},
		{id: "3.1l NUL", script: sends("+OK \x00\r\n"), do: greet, want: fails(protocolError)},
		{id: "3.1m NUL at the start", script: sends("\x00+OK\r\n"), do: greet, want: fails(protocolError)},
		{id: "3.1n nothing but a line end", script: sends("\n"), do: greet, want: fails(protocolError)},
		{id: "H-021 colours", script: sends("+OK \x1b[31;1;4mPOP3\x1b[0m\r\n"), do: greet,
			want: gives("[31;1;4mPOP3[0m")},
		{id: "3.1o direction", script: sends("+OK a\u202eb\u2066c\u200f\r\n"), do: greet,
			want: gives("abc")},
		{id: "3.1p Latin-1", script: sends("+OK caf\xe9\r\n"), do: greet, want: gives("caf\ufffd")},
		{id: "H-025 the line end takes a second", script: sends("+OK x\r").then("PAUSE 1s").sends("\n"),
			do: greet, want: gives("x"), takes: time.Second},
	})
}

// Data after the greeting is an error, because the client has not asked for it.
func TestHostileGreetingAndMore(t *testing.T) {
	withGreeting := session(func(t *testing.T, ctx context.Context, c *pop3.Client) {
		err := c.User(ctx, "u")
		fails(protocolError)(t, nil, err)
		closed.check(t, c, err)
	})
	playAll(t, []dialogue{
		{id: "H-017 two greetings", script: sends("+OK a\r\n+OK b\r\n"), do: withGreeting, whole: true},
		{id: "H-018 an unsolicited list", script: sends("+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n"),
			do: withGreeting, whole: true},
		{id: "3.1q the beginning of a line", script: sends("+OK a\r\n+"), do: withGreeting, whole: true},
		{id: "3.1r a blank line", script: sends("+OK a\r\n\r\n"), do: withGreeting, whole: true},
		{id: "3.1s a dot", script: sends("+OK a\r\n.\r\n"), do: withGreeting, whole: true},
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
	d := dialogue{id: id, script: sends("+OK " + text + "\r\n"),
		do: session(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			if err := c.Apop(ctx, "u", canary); stamp == "" {
				fails(is(errUnsupported))(t, nil, err)
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
			sent, _ = io.Copy(server, io.MultiReader(strings.NewReader("+OK "), endless("A")))
		}()
		_, err := pop3.NewClient(t.Context(), client, nil)
		protocolError(t, err)
		checkError(t, err)
		<-wait
		assert.Less(t, sent, int64(128<<10), "H-006: octets that were taken")
	})
}
