package conformance_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// These are peculiarities of real servers that were a problem for some client. Their ids are in
// internal/untested/quirks.txt.

func TestQuirksOfFraming(t *testing.T) {
	playAll(t, []dialogue{
		{id: "Q-1 a mail with a false end-of-message line and a forged reply",
			script: serverSends("+OK\r\nline\n.\nrest\r\n.\n+OK injected\r\n.\r\n"), do: retr,
			want: returns("line\n.\nrest\r\n.\n+OK injected\r\n")},
		{id: "Q-1 LF, dot, CRLF", script: serverSends("+OK\r\nline\n.\r\nrest\r\n.\r\n"), do: retr,
			want: returns("line\n.\r\nrest\r\n")},
		{id: "Q-3 no stuffing", script: serverSends("+OK\r\n.com/path\r\n.\r\n"), do: retr,
			want: returns(".com/path\r\n")},
		{id: "Q-4 the end glued to the last line", script: serverSends("+OK\r\nlast line without eol.\r\n"),
			do: retr, want: returns("last line without eol.\r\n", timedOut), after: closed,
			takes: 2 * time.Minute},
		{id: "Q-6 the end in pieces", script: serverSends("+OK\r\nabc\r\n.\r\n"), do: retr,
			want: returns("abc\r\n")},
		{id: "Q-7 a capability with a dot", script: serverSends("+OK\r\n.capability\r\nTOP\r\n.\r\n"), do: capa,
			want: returns(pop3.Capabilities{".CAPABILITY": nil, "TOP": nil})},
		{id: "Q-8 blank lines among capabilities", script: serverSends("+OK\r\nSTLS\r\n\r\nUSER\r\n\r\n.\r\n"),
			do: capa, want: returns(pop3.Capabilities{"STLS": nil, "USER": nil})},
		{id: "Q-10 two answers to TOP", script: serverSends("+OK\r\n.\r\n+OK\r\n"), do: top, want: returns(""),
			after: surplus, onePiece: true},
		{id: "Q-11 a blank line for DELE", script: serverSends("\r\n"), do: dele, want: failsWith(fatal),
			after: closed},
		{id: "Q-11 the rest of a message for DELE", script: serverSends("\r\n.\r\n+OK\r\n"), do: dele,
			want: failsWith(fatal), after: closed},
		{id: "Q-12 NUL in a body", script: serverSends("+OK\r\na\x00b\r\n\x00c\r\n.\r\n"), do: retr,
			want: returns("a\x00b\r\n\x00c\r\n")},
		{id: "Q-12 NUL in a unique-id", script: serverSends("+OK 1 a\x00\r\n"), do: uidlOne, want: failsWith(fatal),
			after: closed},
		{id: "Q-13 a line of 9,000 octets",
			script: serverSends("+OK\r\n" + strings.Repeat("x", 9000) + "\r\n.\r\n"), do: retr,
			want: returns(strings.Repeat("x", 9000) + "\r\n")},
		{id: "Q-14 Latin-1", script: serverSends("+OK\r\ncaf\xe9\r\n.\r\n"), do: retr,
			want: returns("caf\xe9\r\n")},
		{id: "Q-15 LF CR in a body", script: serverSends("+OK\r\na\n\rb\r\r\n.\r\n"), do: retr,
			want: returns("a\n\rb\r\r\n")},
		{id: "Q-57 a size in the status line", script: serverSends("+OK 832 octets\r\na\r\n.\r\n"), do: retr,
			want: returns("a\r\n")},
	})
	var lf script
	for _, line := range withGreeting("+OK").add(loginTurns...).turns("RETR 1", "+OK\nSubject: x\n\nbody\n.", "UIDL",
		"+OK\n1 a\n.",
		"NOOP", "+OK") {
		if text, server := strings.CutPrefix(line, "S: "); server {
			lf = lf.sends(text + "\n")
		} else {
			lf = lf.add(line)
		}
	}
	playAll(t, []dialogue{{id: "Q-2 all lines end in LF", script: lf,
		do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			require.NoError(t, byUser(ctx, c))
			content, err := retr.do(t, ctx, c)
			assert.NoError(t, err)
			assert.Equal(t, "Subject: x\n\nbody\n", content)
			_, err = c.UidlAll(ctx)
			assert.NoError(t, err)
			assert.NoError(t, c.Noop(ctx))
		})}})
}

func TestQuirksOfGreetings(t *testing.T) {
	playAll(t, []dialogue{
		{id: "Q-9 a picture before it", script: serverSends("   _   _ ____\r\n  | | | |\r\n+OK ready\r\n"),
			do: greet, want: failsWith(fatal)},
		{id: "Q-9 SMTP", script: serverSends("220 mail.example.org ESMTP\r\n"), do: greet,
			want: failsWith(fatal, hasText("SMTP"))},
		{id: "Q-16 no text", script: serverSends("+OK\r\n"), do: greet, want: returns("")},
		stamped("Q-17 text before it", "POP3 server ready, go ahead <1@example.com>", "<1@example.com>"),
		stamped("Q-17 no at sign", "E.Novation POP3 server ready <a.b.c>", ""),
		stamped("Q-17 a code before it", "[XYZ] ready <1@example.com>", "<1@example.com>"),
		stamped("Q-17 brackets of another kind", "The Microsoft Exchange POP3 service is ready. [QWxhZGRpbg==]", ""),
		stamped("Q-18 octets that break MD5", "<\xbf\xbf\xbf@\xbf\xbf>", ""),
		stamped("Q-18 a control", "<a\x01b@c>", ""),
	})
}

func TestQuirksOfCapabilities(t *testing.T) {
	names := func(id, lines string, want pop3.Capabilities) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + strings.ReplaceAll(lines, "\n", "\r\n") + "\r\n.\r\n"),
			do: capa, want: returns(want)}
	}
	playAll(t, []dialogue{
		{id: "Q-20 CAPA is refused",
			script: withGreeting("+OK", "CAPA", "-ERR", "USER u", "+OK", "PASS "+canary, "+OK"),
			do:     greetedTest(login)},
		{id: "Q-20 CAPA ends the session", script: withGreeting("+OK", "CAPA").add("EOF"),
			do: greetedTest(
				func(t *testing.T, ctx context.Context, c *pop3.Client) { connLost(t, c.Login(ctx, "u", canary)) },
			)},
		{id: "Q-21 CAPA fails after the login",
			script: withGreeting("+OK", "CAPA", "+OK\nPIPELINING\nUSER\n.", "USER u", "+OK",
				"PASS "+canary, "+OK", "CAPA", "-ERR"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				login(t, ctx, c)
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Nil(t, caps)
			})},
		{id: "Q-22 PIPELINING only after the login",
			script: withGreeting("+OK", "CAPA", "+OK\nUSER\n.", "USER u", "+OK",
				"PASS "+canary, "+OK", "CAPA", "+OK\nPIPELINING\n.").add("C: DELE 1", "C: DELE 2", "S: +OK",
				"S: +OK"), do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				login(t, ctx, c)
				assert.NoError(t, c.Dele(ctx, 1, 2))
			})},
		names("Q-23 what nobody knows", "SASL PLAIN X-ZIMBRA XOIP EMAIL\nUTF8 USER\nEXPIRE 31 USER",
			pop3.Capabilities{
				"SASL": {"PLAIN", "X-ZIMBRA", "XOIP", "EMAIL"}, "UTF8": {"USER"}, "EXPIRE": {"31", "USER"}}),
		names("Q-24 spellings", "sasl plain\nRESP_CODES\nIMPLEMENTATION\nLogin-Delay 300 USER\nSASL\nLANG",
			pop3.Capabilities{
				"SASL": {"plain"}, "RESP_CODES": nil, "IMPLEMENTATION": nil, "LOGIN-DELAY": {"300", "USER"},
				"LANG": nil}),
		names("Q-24 words in IMPLEMENTATION", "IMPLEMENTATION Server of some kind", pop3.Capabilities{
			"IMPLEMENTATION": {"Server", "of", "some", "kind"}}),
		names("Q-25 in several packets", "TOP\nUIDL\nUSER", pop3.Capabilities{"TOP": nil, "UIDL": nil,
			"USER": nil}),
		{id: "Q-27 a mechanism that is not listed",
			script: withGreeting("+OK", "CAPA", "+OK\nSASL PLAIN\n.", "AUTH XOAUTH2 "+xoauth2IR,
				"+OK"), do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t,
					byOldTk(ctx, c))
			})},
		{id: "Q-43 LOGIN-DELAY", script: loginScript("CAPA", "+OK\nLOGIN-DELAY 300 USER\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				require.NoError(t, byUser(ctx, c))
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				d, ok := caps.LoginDelay()
				assert.True(t, ok)
				assert.Equal(t, 5*time.Minute, d)
			})},
	})
	playAll(t, []dialogue{
		{id: "Q-26 STLS that is not announced where CAPA works", script: withGreeting("+OK", "CAPA", "+OK\nTOP\n."),
			do: upgrade, want: failsWith(tlsRequired)},
		{id: "Q-64 CVE-2011-1947 STLS, and then nothing",
			script: withGreeting("+OK", "CAPA", "-ERR", "STLS",
				"+OK").add("ANY"), do: upgrade, want: failsWith(timedOut),
			takes: 2 * time.Minute},
	})
}

func TestQuirksOfLogins(t *testing.T) {
	token := strings.Repeat("t", 2000)
	longIR := b64("user=u\x01auth=Bearer " + token + "\x01\x01")
	refuses := func(
		id string, lines script, do func(context.Context, *pop3.Client) error, checks ...errorCheck,
	) dialogue {
		return dialogue{id: id, script: lines, do: loginAction(do), want: failsWith(checks...)}
	}
	playAll(t, []dialogue{
		{id: "Q-19 APOP that never works",
			script: withGreeting("+OK Bigfoot <1@example.com>", "CAPA", "-ERR", "USER u", "+OK",
				"PASS "+canary, "+OK"), do: greetedTest(login)},
		auth("Q-28 a token longer than a line", func() sasl.Client { return sasl.XOAuth2("u", token) },
			"CAPA", "+OK\nSASL XOAUTH2\n.", "AUTH XOAUTH2", "+", longIR, "+OK"),
		auth("Q-29 equals sign and blank line", func() sasl.Client { return sasl.Anonymous("") }, "CAPA",
			"+OK\nSASL ANONYMOUS\n.", "AUTH ANONYMOUS =", "+", "", "+OK"),
		refuses("Q-30 plus and words", turns("AUTH LOGIN", "+ go ahead", "*", "-ERR"), byLogin, nonFatal),
		refuses("Q-32 the reason within the exchange", turns(
			"CAPA",
			"+OK\nSASL XOAUTH2\n.",
			"AUTH XOAUTH2 "+xoauth2IR,
			"+ "+b64(
				`{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}`,
			),
			"",
			"-ERR no",
		), byOldTk,
			refusedWith("", "no"), oauth("401", ""), hasText("https://mail.google.com/")),
		refuses("Q-37 too soon, says the code", turns("USER u", "+OK", "PASS "+canary,
			"-ERR [LOGIN-DELAY] wait a few minutes"), byUser, hasVerdict(temporaryByCode)),
		refuses("Q-37 too soon, say the words", turns("USER u", "+OK", "PASS "+canary, "-ERR wait a few minutes"),
			byUser, hasVerdict(lockedByText)),
		{id: "Q-35 neither OK nor ERR", script: turns("USER u", "+OK", "PASS "+canary,
			"warning: auth_error: authorization failed"), do: loginAction(byUser),
			want: failsWith(fatal, hasText("authorization failed")), after: closed},
		{id: "Q-36 wrong, after more than a minute",
			script: turns("USER u", "+OK", "PASS "+canary).add("PAUSE 90s",
				"S: -ERR [AUTH] no"), do: loginAction(byUser),
			want: failsWith(refusedWith(pop3.CodeAuth, "no")), takes: 90 * time.Second},
		{id: "Q-38 logged in, but STAT is refused", script: serverSends("-ERR login allowed only every 15 minutes\r\n"),
			do:   stat,
			want: failsWith(hasText("every 15 minutes"))},
		{id: "Q-40 line ends in names", script: withGreeting("+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.User(ctx, "u\r\nDELE 1"), pop3.ErrArgument)
				assert.ErrorIs(t, c.Login(ctx, "u", "p\r\nDELE 1"), pop3.ErrArgument)
			})},
		{id: "Q-41 a password in UTF-8",
			script: withGreeting("+OK", "CAPA", "+OK\nSASL PLAIN\n.", "AUTH PLAIN "+b64("\x00jürgen\x00größer"),
				"+OK"), do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Login(ctx, "jürgen", "größer"))
			})},
		{id: "Q-42 the recent mail of Gmail",
			script: withGreeting("+OK", "USER recent:u@gmail.com", "+OK", "PASS "+canary, "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.User(ctx, "recent:u@gmail.com"))
				assert.NoError(t, c.Pass(ctx, canary))
			})},
	})
}

func TestQuirksOfLists(t *testing.T) {
	playAll(t, []dialogue{
		{id: "Q-44 no size", script: serverSends("+OK 7\r\n"), do: stat,
			want: returns(pop3.DropListing{Count: 7, Size: -1})},
		{id: "Q-44 no count", script: serverSends("+OK seven 1800662\r\n"), do: stat, want: failsWith(nonFatal)},
		{id: "Q-45 more than 32 bits", script: serverSends("+OK\r\n1 100\r\n2 4294967400\r\n.\r\n"), do: listAll,
			want: returns([]pop3.MessageInfo{{Num: 1, Size: 100}, {Num: 2, Size: 4294967400}})},
		{id: "Q-47 a number twice", script: serverSends("+OK\r\n1 a\r\n2 b\r\n1 c\r\n.\r\n"), do: uidlAll,
			want: failsWith(nonFatal)},
		{id: "Q-47 a number far above the count", script: serverSends("+OK\r\n2 b\r\n103 a\r\n.\r\n"), do: uidlAll,
			want: returns([]pop3.MessageInfo{{Num: 2, UID: "b"}, {Num: 103, UID: "a"}})},
		{id: "Q-48 many spaces", script: serverSends("+OK\r\n1   2011071307115510400ae3e9e00bmu9\r\n.\r\n"),
			do: uidlAll, want: returns([]pop3.MessageInfo{{Num: 1, UID: "2011071307115510400ae3e9e00bmu9"}})},
		{id: "Q-48 OK before each line", script: serverSends("+OK\r\n+OK 1 uid\r\n.\r\n"), do: uidlAll,
			want: failsWith(nonFatal)},
		{id: "Q-48 no unique-id", script: serverSends("+OK\r\n1 a\r\n3\r\n.\r\n"), do: uidlAll,
			want: failsWith(nonFatal)},
		{id: "Q-49 200 octets", script: serverSends("+OK 1 " + strings.Repeat("u", 200) + "\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{Num: 1, UID: strings.Repeat("u", 200)})},
		{id: "Q-50 twice the same", script: serverSends("+OK\r\n1 a\r\n2 a\r\n.\r\n"), do: uidlAll,
			want: returns([]pop3.MessageInfo{{Num: 1, UID: "a"}, {Num: 2, UID: "a"}})},
		{id: "Q-53 a list in any order", script: serverSends("+OK\r\n2 b\r\n1 new\r\n3 c\r\n.\r\n"),
			do:   uidlAll,
			want: returns([]pop3.MessageInfo{{Num: 2, UID: "b"}, {Num: 1, UID: "new"}, {Num: 3, UID: "c"}})},
	})
	playAll(t, []dialogue{
		greetedDialogue("Q-52 new mail between the two", turns("CAPA", "+OK\nUIDL\n.", "LIST", "+OK\n1 5\n.",
			"UIDL", "+OK\n1 a\n2 b\n."), func(t *testing.T, ctx context.Context, c *pop3.Client) {
			infos, err := c.Listing(ctx)
			assert.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 5, UID: "a"}}, infos)
		}),
	})
}

func TestQuirksOfMessages(t *testing.T) {
	playAll(t, []dialogue{
		{id: "Q-46 another size than LIST", script: serverSends("+OK 10 octets\r\na longer one\r\n.\r\n"),
			do: retr, want: returns("a longer one\r\n")},
		{id: "Q-55 TOP returns more lines", script: serverSends("+OK\r\na: b\r\n\r\nbody\r\n.\r\n"), do: top,
			want: returns("a: b\r\n\r\nbody\r\n")},
		{id: "Q-55 TOP is not supported", script: serverSends("-ERR unknown command\r\n"), do: top,
			want: failsWith(refusedWith("", "unknown command"))},
		{id: "Q-63 a message that needs UTF8", script: serverSends("-ERR [UTF8] see RFC 6856\r\n"), do: retr,
			want: failsWith(refusedWith(pop3.CodeUTF8, "see RFC 6856"))},
		{id: "Q-66 glued", script: serverSends("-ERR[SYS/TEMP] x\r\n"),
			want: failsWith(refusedWith(pop3.CodeSysTemp, "x"))},
		{id: "Q-66 another", script: serverSends("-ERR [X-Whatever/2] x\r\n"),
			want: failsWith(refusedWith("X-WHATEVER/2", "x"))},
		{id: "Q-66 of success", script: serverSends("+OK [X-Whatever] x\r\n")},
	})
	playAll(t, []dialogue{
		greetedDialogue("Q-59 STAT still counts what is marked", turns("DELE 1", "+OK", "STAT", "+OK 2 10",
			"RETR 2", "+OK\na\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Dele(ctx, 1))
				drop, err := c.Stat(ctx)
				assert.NoError(t, err)
				assert.Equal(t, 2, drop.Count)
				m, err := c.Retr(ctx, 2)
				require.NoError(t, err)
				_, err = io.ReadAll(m)
				assert.NoError(t, err)
			}),
		greetedDialogue("Q-59 a message that has vanished", turns("CAPA", "-ERR", "DELE 1", "-ERR gone", "DELE 2",
			"+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				refusedWith("", "gone")(t,
					c.Dele(ctx, 1, 2))
			}),
	})
}

func TestQuirksOfQuit(t *testing.T) {
	quitting := turns("DELE 1", "+OK", "QUIT")
	playAll(t, []dialogue{
		{id: "Q-61 some not removed", script: quitting.add("S: -ERR some deleted messages not removed", "EOF"),
			do: deleAndQuit, want: failsWith(commitUnknown(refusedWith("",
				"some deleted messages not removed"))), after: quitDone},
		{id: "Q-61 a minute for the deletions", script: quitting.add("PAUSE 60s", "S: +OK", "EOF"), do: deleAndQuit,
			after: quitDone, takes: time.Minute},
	})
}
