package conformance_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// What servers in use do, each met by somebody's client. The numbers are those of the project's list.

func TestQuirksOfFraming(t *testing.T) {
	playHostile(t, []hostileRow{
		{id: "Q-1 a mail that ends itself and forges a reply", call: retr,
			reply: "+OK\r\nline\n.\nrest\r\n.\n+OK injected\r\n.\r\n", value: "line\n.\nrest\r\n.\n+OK injected\r\n"},
		{id: "Q-1 LF, dot, CRLF", call: retr, reply: "+OK\r\nline\n.\r\nrest\r\n.\r\n",
			value: "line\n.\r\nrest\r\n"},
		{id: "Q-3 no stuffing", call: retr, reply: "+OK\r\n.com/path\r\n.\r\n", value: ".com/path\r\n"},
		{id: "Q-4 the end glued to the last line", call: retr, reply: "+OK\r\nlast line without eol.\r\n",
			value: "last line without eol.\r\n", err: late, after: poisoned, takes: 2 * time.Minute},
		{id: "Q-5 no body", call: retr, reply: "+OK\r\n.\r\n", value: ""},
		{id: "Q-6 the end in pieces", call: retr, reply: "+OK\r\nabc\r\n.\r\n", value: "abc\r\n"},
		{id: "Q-7 a capability with a dot", call: capa, reply: "+OK\r\n.capability\r\nTOP\r\n.\r\n",
			value: pop3.Capabilities{".CAPABILITY": nil, "TOP": nil}},
		{id: "Q-8 blank lines among capabilities", call: capa, reply: "+OK\r\nSTLS\r\n\r\nUSER\r\n\r\n.\r\n",
			value: pop3.Capabilities{"STLS": nil, "USER": nil}},
		{id: "Q-10 two answers to TOP", call: top, reply: "+OK\r\n.\r\n+OK\r\n", value: "", after: spoiled,
			pieces: true},
		{id: "Q-11 a blank line for DELE", call: dele, reply: "\r\n", err: broken, after: poisoned},
		{id: "Q-11 the rest of a message for DELE", call: dele, reply: "\r\n.\r\n+OK\r\n", err: broken,
			after: poisoned},
		{id: "Q-12 NUL in a body", call: retr, reply: "+OK\r\na\x00b\r\n\x00c\r\n.\r\n",
			value: "a\x00b\r\n\x00c\r\n"},
		{id: "Q-12 NUL in a unique-id", call: uidlOne, reply: "+OK 1 a\x00\r\n", err: broken, after: poisoned},
		{id: "Q-13 a line of 9,000 octets", call: retr,
			reply: "+OK\r\n" + strings.Repeat("x", 9000) + "\r\n.\r\n",
			value: strings.Repeat("x", 9000) + "\r\n"},
		{id: "Q-14 Latin-1", call: retr, reply: "+OK\r\ncaf\xe9\r\n.\r\n", value: "caf\xe9\r\n"},
		{id: "Q-15 LF CR in a body", call: retr, reply: "+OK\r\na\n\rb\r\r\n.\r\n", value: "a\n\rb\r\r\n"},
		{id: "Q-57 a size in the status line", call: retr, reply: "+OK 832 octets\r\na\r\n.\r\n",
			value: "a\r\n"},
	})
	t.Run("Q-2 LF and nothing else", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var script []string
			for _, line := range in("RETR 1", "+OK\nSubject: x\n\nbody\n.", "UIDL", "+OK\n1 a\n.", "NOOP",
				"+OK") {
				if text, server := strings.CutPrefix(line, "S: "); server {
					line = "s: " + quoted(text+"\n")
				}
				script = append(script, line)
			}
			conn, done := pop3test.Script(strings.Join(append(script, "HOLD"), "\n"))
			c := hostileLogin(t, conn)
			content, err := retr.do(t.Context(), c)
			assert.NoError(t, err)
			assert.Equal(t, "Subject: x\n\nbody\n", content)
			_, err = c.UidlAll(t.Context())
			assert.NoError(t, err)
			assert.NoError(t, c.Noop(t.Context()))
			assert.NoError(t, c.Close())
			assert.NoError(t, done())
		})
	})
}

func TestQuirksOfGreetings(t *testing.T) {
	for _, row := range []greetingRow{
		{id: "Q-9 a picture in front", octets: "   _   _ ____\r\n  | | | |\r\n+OK ready\r\n", err: broken},
		{id: "Q-9 SMTP", octets: "220 mail.example.org ESMTP\r\n", err: also(broken, says("SMTP"))},
		{id: "Q-16 no text", octets: "+OK\r\n", text: ""},
		{id: "Q-16 a refusal without text", octets: "-ERR\r\n", err: refused("", "")},
		{id: "Q-65 TLS on the port of clear text", octets: "\x15\x03\x01\x00\x02\x02\x0a", then: "EOF",
			err: says("DialTLS")},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, chunk := range deliveries(row.octets) {
					row.play(t, chunk)
				}
			})
		})
	}
	for _, row := range []struct{ id, text, stamp string }{
		{"Q-17 text in front", "POP3 server ready, go ahead <1@example.com>", "<1@example.com>"},
		{"Q-17 no at sign", "E.Novation POP3 server ready <a.b.c>", ""},
		{"Q-17 a code in front", "[XYZ] ready <1@example.com>", "<1@example.com>"},
		{"Q-17 brackets of another kind", "The Microsoft Exchange POP3 service is ready. [QWxhZGRpbg==]", ""},
		{"Q-18 octets that break MD5", "<\xbf\xbf\xbf@\xbf\xbf>", ""},
		{"Q-18 a control", "<a\x01b@c>", ""},
	} {
		t.Run(row.id, func(t *testing.T) { checkTimestamp(t, row.text, row.stamp) })
	}
}

func TestQuirksOfCapabilities(t *testing.T) {
	names := func(id, lines string, want pop3.Capabilities) scene {
		return loggedInScene(id, say("CAPA", "+OK\n"+lines+"\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Equal(t, want, caps)
			})
	}
	for _, s := range []scene{
		{id: "Q-20 CAPA is refused",
			lines: dialogue("+OK", "CAPA", "-ERR", "USER u", "+OK", "PASS "+canary, "+OK"), do: login},
		{id: "Q-20 CAPA ends the session", lines: append(dialogue("+OK", "CAPA"), "EOF"),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) { cut(t, c.Login(ctx, "u", canary)) }},
		{id: "Q-21 CAPA fails after the login",
			lines: dialogue("+OK", "CAPA", "+OK\nPIPELINING\nUSER\n.", "USER u", "+OK",
				"PASS "+canary, "+OK", "CAPA", "-ERR"),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				login(t, ctx, c)
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Nil(t, caps)
			}},
		{id: "Q-22 PIPELINING only after the login",
			lines: append(dialogue("+OK", "CAPA", "+OK\nUSER\n.", "USER u", "+OK",
				"PASS "+canary, "+OK", "CAPA", "+OK\nPIPELINING\n."), "C: DELE 1", "C: DELE 2", "S: +OK",
				"S: +OK"),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				login(t, ctx, c)
				assert.NoError(t, c.Dele(ctx, 1, 2))
			}},
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
			lines: dialogue("+OK", "CAPA", "+OK\nSASL PLAIN\n.", "AUTH XOAUTH2 "+xoauth2IR,
				"+OK"), do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t,
					byOldTk(ctx, c))
			}},
		{id: "Q-43 LOGIN-DELAY", lines: in("CAPA", "+OK\nLOGIN-DELAY 300 USER\n."),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				require.NoError(t, byUser(ctx, c))
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				d, ok := caps.LoginDelay()
				assert.True(t, ok)
				assert.Equal(t, 5*time.Minute, d)
			}},
	} {
		s.play(t)
	}
	t.Run("Q-26 STLS that is not announced where CAPA works", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn, done := pop3test.Script("S: +OK\nC: CAPA\nS: +OK\nS: TOP\nS: .\nHOLD")
			_, err := pop3.DialStartTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			assert.ErrorIs(t, err, pop3.ErrTLSRequired)
			assert.NoError(t, done(), "nothing was sent")
		})
	})
	t.Run("Q-64 STLS, and then nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn, _ := pop3test.Script("S: +OK\nC: CAPA\nS: -ERR\nC: STLS\nS: +OK\nANY\nHOLD")
			start := time.Now()
			_, err := pop3.DialStartTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			late(t, err)
			assert.Equal(t, 2*time.Minute, time.Since(start), "CVE-2011-1947")
		})
	})
}

func TestQuirksOfLogins(t *testing.T) {
	token := strings.Repeat("t", 2000)
	longIR := b64("user=u\x01auth=Bearer " + token + "\x01\x01")
	fails := func(id string, turns []string, more []string, do func(context.Context, *pop3.Client) error, want problem) scene {
		return scene{id: id, lines: append(dialogue(append(say("+OK"), turns...)...), more...),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				err := do(ctx, c)
				if assert.Error(t, err) {
					want(t, err)
					checkError(t, err)
				}
			}}
	}
	for _, s := range []scene{
		{id: "Q-19 APOP that never works",
			lines: dialogue("+OK Bigfoot <1@example.com>", "CAPA", "-ERR", "USER u", "+OK",
				"PASS "+canary, "+OK"), do: login},
		auth("Q-28 a token longer than a line", func() sasl.Client { return sasl.XOAuth2("u", token) },
			"CAPA", "+OK\nSASL XOAUTH2\n.", "AUTH XOAUTH2", "+", longIR, "+OK"),
		auth("Q-29 equals sign and blank line", func() sasl.Client { return sasl.Anonymous("") }, "CAPA",
			"+OK\nSASL ANONYMOUS\n.", "AUTH ANONYMOUS =", "+", "", "+OK"),
		auth("Q-30 plus without a space", func() sasl.Client { return sasl.Login("u", canary) }, "AUTH LOGIN",
			"+", b64("u"),
			"+ ", b64(canary), "+OK"),
		fails("Q-30 plus and words", say("AUTH LOGIN", "+ go ahead", "*", "-ERR"), nil, byLogin, nonsense),
		fails("Q-31 OK where a challenge is due", say("AUTH CRAM-MD5", "+OK"), nil, byCram, broken),
		fails("Q-32 the reason within the exchange", say("CAPA", "+OK\nSASL XOAUTH2\n.",
			"AUTH XOAUTH2 "+xoauth2IR,
			"+ "+b64(`{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}`), "",
			"-ERR no"), nil, byOldTk,
			also(refused("", "no"), oauth("401", ""), says("https://mail.google.com/"))),
		fails("Q-33 CRAM-MD5 has no empty step", say("AUTH CRAM-MD5", "+ ", "*", "-ERR"), nil, byCram,
			says("empty")),
		fails("Q-34 hangs up after a wrong password", say("USER u", "+OK", "PASS "+canary), []string{"EOF"},
			byUser,
			also(cut, says("login failed"))),
		fails("Q-35 neither OK nor ERR", say("USER u", "+OK", "PASS "+canary,
			"warning: auth_error: authorization failed"), nil,
			byUser, also(broken, says("authorization failed"))),
		fails("Q-36 wrong, after more than a minute", say("USER u", "+OK", "PASS "+canary),
			[]string{"PAUSE 90s", "S: -ERR [AUTH] no"}, byUser, refused(pop3.CodeAuth, "no")),
		fails("Q-37 too soon, says the code", say("USER u", "+OK", "PASS "+canary,
			"-ERR [LOGIN-DELAY] wait a few minutes"), nil,
			byUser, also(temporary, judged(false, true))),
		fails("Q-37 too soon, say the words", say("USER u", "+OK", "PASS "+canary, "-ERR wait a few minutes"),
			nil,
			byUser, judged(true, false)),
		fails("Q-38 in, but STAT is refused", say("USER u", "+OK", "PASS "+canary, "+OK", "STAT",
			"-ERR login allowed only every 15 minutes"), nil, func(ctx context.Context, c *pop3.Client) error {
			if err := byUser(ctx, c); err != nil {
				return err
			}
			return second(c.Stat(ctx))
		}, says("every 15 minutes")),
		fails("Q-39 no PASS after a refused USER", say("USER u", "-ERR"), nil, byUser, refused("", "")),
		{id: "Q-40 line ends in names", lines: dialogue("+OK"),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.User(ctx, "u\r\nDELE 1"), pop3.ErrArgument)
				assert.ErrorIs(t, c.Login(ctx, "u", "p\r\nDELE 1"), pop3.ErrArgument)
			}},
		{id: "Q-41 a password in UTF-8",
			lines: dialogue("+OK", "CAPA", "+OK\nSASL PLAIN\n.", "AUTH PLAIN "+b64("\x00jürgen\x00größer"),
				"+OK"), do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Login(ctx, "jürgen", "größer"))
			}},
		{id: "Q-42 the recent mail of Gmail",
			lines: dialogue("+OK", "USER recent:u@gmail.com", "+OK", "PASS "+canary, "+OK"),
			do: func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.User(ctx, "recent:u@gmail.com"))
				assert.NoError(t, c.Pass(ctx, canary))
			}},
	} {
		s.play(t)
	}
}

func TestQuirksOfLists(t *testing.T) {
	playHostile(t, []hostileRow{
		{id: "Q-44 no size", call: stat, reply: "+OK 7\r\n", value: pop3.DropListing{Count: 7, Size: -1}},
		{id: "Q-44 no count", call: stat, reply: "+OK seven 1800662\r\n", err: nonsense},
		{id: "Q-44 a negative size", call: stat, reply: "+OK 5 -1073741824\r\n",
			value: pop3.DropListing{Count: 5, Size: -1}},
		{id: "Q-45 more than 32 bits", call: listAll, reply: "+OK\r\n1 100\r\n2 4294967400\r\n.\r\n",
			value: []pop3.MessageInfo{{Num: 1, Size: 100}, {Num: 2, Size: 4294967400}}},
		{id: "Q-47 a number twice", call: uidlAll, reply: "+OK\r\n1 a\r\n2 b\r\n1 c\r\n.\r\n", err: nonsense},
		{id: "Q-47 far beyond", call: uidlAll, reply: "+OK\r\n2 b\r\n103 a\r\n.\r\n",
			value: []pop3.MessageInfo{{Num: 2, UID: "b"}, {Num: 103, UID: "a"}}},
		{id: "Q-48 many spaces", call: uidlAll, reply: "+OK\r\n1   2011071307115510400ae3e9e00bmu9\r\n.\r\n",
			value: []pop3.MessageInfo{{Num: 1, UID: "2011071307115510400ae3e9e00bmu9"}}},
		{id: "Q-48 OK in front of each line", call: uidlAll, reply: "+OK\r\n+OK 1 uid\r\n.\r\n", err: nonsense},
		{id: "Q-48 no number", call: uidlOne, reply: "+OK 00001a1457b5a851\r\n", err: nonsense},
		{id: "Q-48 no unique-id", call: uidlAll, reply: "+OK\r\n1 a\r\n3\r\n.\r\n", err: nonsense},
		{id: "Q-49 200 octets", call: uidlOne, reply: "+OK 1 " + strings.Repeat("u", 200) + "\r\n",
			value: pop3.MessageInfo{Num: 1, UID: strings.Repeat("u", 200)}},
		{id: "Q-50 twice the same", call: uidlAll, reply: "+OK\r\n1 a\r\n2 a\r\n.\r\n",
			value: []pop3.MessageInfo{{Num: 1, UID: "a"}, {Num: 2, UID: "a"}}},
		{id: "Q-53 any order, always all", call: uidlAll, reply: "+OK\r\n2 b\r\n1 new\r\n3 c\r\n.\r\n",
			value: []pop3.MessageInfo{{Num: 2, UID: "b"}, {Num: 1, UID: "new"}, {Num: 3, UID: "c"}}},
	})
	for _, s := range []scene{
		loggedInScene("Q-51 not announced, and not there", say("CAPA", "-ERR", "LIST", "+OK\n1 5\n.", "UIDL",
			"-ERR"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				infos, err := c.Listing(ctx)
				assert.ErrorIs(t, err, errors.ErrUnsupported)
				assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 5}}, infos)
			}),
		loggedInScene("Q-51 not announced, and there", say("CAPA", "-ERR", "LIST", "+OK\n1 5\n.", "UIDL",
			"+OK\n1 a\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				infos, err := c.Listing(ctx)
				assert.NoError(t, err)
				assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 5, UID: "a"}}, infos)
			}),
		loggedInScene("Q-51 not announced, and refused for now", say("CAPA", "-ERR", "LIST", "+OK\n1 5\n.", "UIDL",
			"-ERR [SYS/TEMP] later"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				infos, err := c.Listing(ctx)
				refused(pop3.CodeSysTemp, "later")(t, err)
				assert.Nil(t, infos)
			}),
		loggedInScene("Q-51 announced, and refused", say("CAPA", "+OK\nUIDL\n.", "LIST", "+OK\n1 5\n.",
			"UIDL", "-ERR locked"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				infos, err := c.Listing(ctx)
				refused("", "locked")(t, err)
				assert.Nil(t, infos)
			}),
		loggedInScene("Q-52 new mail between the two", say("CAPA", "+OK\nUIDL\n.", "LIST", "+OK\n1 5\n.",
			"UIDL", "+OK\n1 a\n2 b\n."), func(t *testing.T, ctx context.Context, c *pop3.Client) {
			infos, err := c.Listing(ctx)
			assert.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 5, UID: "a"}}, infos)
		}),
	} {
		s.play(t)
	}
}

func TestQuirksOfMessages(t *testing.T) {
	playHostile(t, []hostileRow{
		{id: "Q-46 another size than LIST", call: retr, reply: "+OK 10 octets\r\na longer one\r\n.\r\n",
			value: "a longer one\r\n"},
		{id: "Q-55 TOP gives more", call: top, reply: "+OK\r\na: b\r\n\r\nbody\r\n.\r\n",
			value: "a: b\r\n\r\nbody\r\n"},
		{id: "Q-55 TOP is not there", call: top, reply: "-ERR unknown command\r\n",
			err: refused("", "unknown command")},
		{id: "Q-60 gone at DELE", call: dele, then: "EOF", err: cut, after: poisoned},
		{id: "Q-63 not for who has no UTF8", call: retr, reply: "-ERR [UTF8] see RFC 6856\r\n",
			err: refused(pop3.CodeUTF8, "see RFC 6856")},
		{id: "Q-66 glued", reply: "-ERR[SYS/TEMP] x\r\n", err: refused(pop3.CodeSysTemp, "x")},
		{id: "Q-66 another", reply: "-ERR [X-Whatever/2] x\r\n", err: refused("X-WHATEVER/2", "x")},
		{id: "Q-66 of success", reply: "+OK [X-Whatever] x\r\n"},
	})
	for _, s := range []scene{
		loggedInScene("Q-59 STAT still counts what is marked", say("DELE 1", "+OK", "STAT", "+OK 2 10",
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
		loggedInScene("Q-59 a message that has vanished", say("CAPA", "-ERR", "DELE 1", "-ERR gone", "DELE 2",
			"+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				refused("", "gone")(t,
					c.Dele(ctx, 1, 2))
			}),
	} {
		s.play(t)
	}
}

func TestQuirksOfQuit(t *testing.T) {
	marked := []string{"C: DELE 1", "S: +OK"}
	for _, row := range []quitRow{
		{id: "Q-61 the end for an answer", before: marked, script: []string{"EOF"}, err: unknown(cut)},
		{id: "Q-61 some not removed", before: marked,
			script: []string{"S: -ERR some deleted messages not removed", "EOF"},
			err:    unknown(refused("", "some deleted messages not removed"))},
		{id: "Q-61 a minute for the deletions", before: marked,
			script: []string{"PAUSE 60s", "S: +OK", "EOF"}, takes: time.Minute},
	} {
		t.Run(row.id, row.run)
	}
	t.Run("Q-62 the connection is lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			script := append(append(loginLines(), marked...), "C: DELE 2", "EOF")
			conn, done := pop3test.Script(strings.Join(script, "\n"))
			c := hostileLogin(t, conn)
			require.NoError(t, c.Dele(t.Context(), 1))
			cut(t, c.Dele(t.Context(), 2))
			known(says("nothing was deleted"))(t, c.Quit(t.Context()))
			assert.NoError(t, done())
		})
	})
}
