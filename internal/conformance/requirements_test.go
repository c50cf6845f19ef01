package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// loginScript returns a script with a greeting and a login with USER and PASS. The lines follow, as in turns.
func loginScript(lines ...string) script {
	return withGreeting("+OK").add(loginTurns...).turns(lines...)
}

// greetedDialogue returns a dialogue that begins at the greeting. do makes the calls and all checks.
func greetedDialogue(id string, s script, do func(t *testing.T, ctx context.Context, c *pop3.Client)) dialogue {
	return dialogue{id: id, script: s, do: loggedInTest(do)}
}

// These are the rules for framing and grammar.
func TestRequirementsFraming(t *testing.T) {
	line := strings.Repeat("x", 512-2)
	playAll(t, []dialogue{
		greetedDialogue("R1-001 R1-059 commands as they go over the wire",
			turns("STAT", "+OK 0 0", "LIST 1", "+OK 1 1",
				"UIDL 1", "+OK 1 a", "RETR 1", "+OK\n.", "TOP 1 0", "+OK\n.", "DELE 1", "+OK", "NOOP", "+OK",
				"RSET", "+OK",
				"LANG de", "+OK", "LANG", "+OK\n.", "XTND a b", "+OK"), callAll),
		greetedDialogue("R1-005 a status line of 512 octets", turns("NOOP", "+OK "+line[4:], "RETR 1",
			"-ERR "+line[5:]),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Noop(ctx))
				_, err := c.Retr(ctx, 1)
				refusedWith("", line[5:])(t, err)
			}),
		greetedDialogue("R1-007 a capability of 512 octets", turns("CAPA", "+OK\nX "+line[2:]+"\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Equal(t, []string{line[2:]}, caps["X"])
			}),
		greetedDialogue("R1-010 nothing after the status", turns("NOOP", "+OK", "NOOP", "+OK ", "NOOP", "-ERR",
			"NOOP", "-ERR "),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Noop(ctx))
				assert.NoError(t, c.Noop(ctx))
				refusedWith("", "")(t, c.Noop(ctx))
				refusedWith("", "")(t, c.Noop(ctx))
			}),
		greetedDialogue("R1-012 one line or many is known from the command",
			turns("LIST 1", "+OK 1 120", "UIDL 1", "+OK 1 a",
				"LANG de", "+OK de", "LIST", "-ERR", "UIDL", "-ERR", "LANG", "-ERR", "CAPA", "-ERR", "RETR 1",
				"-ERR",
				"TOP 1 0", "-ERR", "NOOP", "+OK"), refusedLists),
		greetedDialogue("R1-014 R1-016 dots", turns("RETR 1", "+OK\n..\n...\n..a\n.b\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				content, err := retr.do(t, ctx, c)
				assert.NoError(t, err)
				assert.Equal(t, ".\r\n..\r\n.a\r\n.b\r\n", content, "a dot where no server would put one stays")
			}),
		greetedDialogue("R1-015 dots in every reply", turns("CAPA", "+OK\n..X\n.", "TOP 1 0", "+OK\n..a\n.",
			"XTND", "+OK\n..a\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.True(t, caps.Has(".X"))
				content, err := top.do(t, ctx, c)
				assert.NoError(t, err)
				assert.Equal(t, ".a\r\n", content)
				m, err := c.CmdMulti(ctx, "XTND")
				require.NoError(t, err)
				b, err := io.ReadAll(m)
				assert.NoError(t, err)
				assert.Equal(t, ".a\r\n", string(b))
			}),
		greetedDialogue("R1-003 255 octets", turns("XTND "+strings.Repeat("x", 248), "+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				_, err := c.Cmd(ctx, "XTND "+strings.Repeat("x", 248))
				assert.NoError(t, err)
				_, err = c.Cmd(ctx, "XTND "+strings.Repeat("x", 249))
				assert.ErrorIs(t, err, pop3.ErrArgument)
			}),
	})
}

func callAll(t *testing.T, ctx context.Context, c *pop3.Client) {
	for _, call := range []action{stat, listOne, uidlOne, retr, top, dele, noop, rset, langDe, langAll} {
		_, err := call.do(t, ctx, c)
		assert.NoError(t, err, call.line)
	}
	_, err := c.Cmd(ctx, "XTND a b")
	assert.NoError(t, err)
}

func refusedLists(t *testing.T, ctx context.Context, c *pop3.Client) {
	for _, call := range []action{listOne, uidlOne, langDe} {
		_, err := call.do(t, ctx, c)
		assert.NoError(t, err, call.line)
	}
	for _, call := range []action{listAll, uidlAll, langAll, retr, top} {
		if call.line == "RETR 1" {
			_, err := c.Capa(ctx)
			assert.NoError(t, err)
		}
		_, err := call.do(t, ctx, c)
		refusedWith("", "")(t, err)
	}
	assert.NoError(t, c.Noop(ctx))
}

// The text after +OK has no effect (R1-009). The texts of IMPLEMENTATION and of the greeting have no effect either
// (R1-097).
func TestRequirementsWords(t *testing.T) {
	for i, words := range []string{
		"", " ok", " error", " -ERR", " +OK", " 0 octets", " [AUTH] no", " Maillennium POP3",
		" Microsoft Exchange 2000",
		" (version 1.0) \x1b[2J", " FTGate 2", " \xff",
	} {
		dialogue{id: fmt.Sprintf("R1-009 R1-097 %d", i),
			script: []string{"s: " + quoted("+OK"+words+"\r\n"), "C: CAPA", "s: " + quoted("+OK"+words+"\r\n"),
				"s: " + quoted("IMPLEMENTATION"+words+"\r\n"), "S: USER", "S: .", "C: USER u",
				"s: " + quoted("+OK"+words+"\r\n"),
				"C: PASS " + canary, "s: " + quoted("+OK"+words+"\r\n"), "C: RETR 1",
				"s: " + quoted("+OK"+words+"\r\n"), "S: a",
				"S: .", "C: DELE 1", "s: " + quoted("+OK"+words+"\r\n"), "C: QUIT",
				"s: " + quoted("+OK"+words+"\r\n"), "EOF"},
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				require.NoError(t, c.Login(ctx, "u", canary))
				content, err := retr.do(t, ctx, c)
				assert.NoError(t, err)
				assert.Equal(t, "a\r\n", content)
				assert.NoError(t, c.Dele(ctx, 1))
				assert.NoError(t, c.Quit(ctx))
			})}.run(t)
	}
}

// Each command is allowed only in some states (R1-030 to R1-041).
func TestRequirementsStates(t *testing.T) {
	dialogue{id: "R1-030 nothing is sent before the greeting",
		script: script{"PAUSE 10s"}.sends("+OK re").add("PAUSE 10s").sends("ady\r\n"), do: greet,
		takes: 20 * time.Second}.run(t)
	t.Run("R1-033 before the login", func(t *testing.T) {
		c, conn, _ := countingClient(t, false)
		checkErrState(t, c, conn, noop, stat, listOne, listAll, uidlOne, uidlAll, retr, top, dele, rset)
		assert.NoError(t, c.Login(t.Context(), "u", canary))
	})
	t.Run("R1-034 R1-035 after the login", func(t *testing.T) {
		c, conn, _ := countingClient(t, true)
		checkErrState(t, c, conn,
			errorAction("USER", func(c *pop3.Client, ctx context.Context) error { return c.User(ctx, "u") }),
			errorAction("PASS", func(c *pop3.Client, ctx context.Context) error { return c.Pass(ctx, canary) }),
			errorAction("APOP", func(c *pop3.Client, ctx context.Context) error { return c.Apop(ctx, "u", canary) }),
			errorAction("AUTH", func(c *pop3.Client, ctx context.Context) error { return byPlain(ctx, c) }),
			errorAction("login", func(c *pop3.Client, ctx context.Context) error { return byChoice(ctx, c) }),
			errorAction("UTF8", (*pop3.Client).Utf8),
		)
		assert.NoError(t, c.Noop(t.Context()))
	})
	playAll(t, []dialogue{
		{id: "R1-031 R1-032 R1-100 the greeting does not log in",
			script: withGreeting("+OK [PREAUTH] welcome back u"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.Equal(t, pop3.StateAuthorization, c.State())
				assert.ErrorIs(t, c.Noop(ctx), pop3.ErrState)
				assert.ErrorIs(t, c.Apop(ctx, "u", canary), errors.ErrUnsupported, "no timestamp, no APOP")
			})},
		{id: "R1-036 PASS comes right after USER",
			script: withGreeting("+OK", "USER u", "+OK", "CAPA", "-ERR", "USER u", "-ERR",
				"USER u", "+OK", "PASS "+canary, "-ERR"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.Pass(ctx, canary), pop3.ErrState, "no USER")
				assert.NoError(t, c.User(ctx, "u"))
				_, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.ErrorIs(t, c.Pass(ctx, canary), pop3.ErrState, "CAPA between")
				assert.Error(t, c.User(ctx, "u"))
				assert.ErrorIs(t, c.Pass(ctx, canary), pop3.ErrState, "USER was refused")
				assert.NoError(t, c.User(ctx, "u"))
				refusedWith("", "")(t, c.Pass(ctx, canary))
				assert.ErrorIs(t, c.Pass(ctx, canary), pop3.ErrState, "PASS was used")
			})},
		{id: "R1-037 R1-137 another try after a refusal",
			script: withGreeting("+OK <1@example.com>", "APOP u "+apopDigest("<1@example.com>", canary), "-ERR",
				"AUTH LOGIN", "+ !", "*", "-ERR", "USER u", "+OK", "PASS "+canary, "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.Error(t, c.Apop(ctx, "u", canary))
				assert.Error(t, byLogin(ctx, c))
				assert.NoError(t, byUser(ctx, c))
			})},
		greetedDialogue("R1-038 a refusal is not for ever", turns("TOP 1 0", "-ERR", "TOP 1 0", "+OK\n.", "UIDL",
			"-ERR",
			"UIDL", "+OK\n."), func(t *testing.T, ctx context.Context, c *pop3.Client) {
			for _, call := range []action{top, uidlAll} {
				_, err := call.do(t, ctx, c)
				refusedWith("", "")(t, err)
				_, err = call.do(t, ctx, c)
				assert.NoError(t, err)
			}
		}),
		greetedDialogue("R1-041 a message of a session that is over", turns("RETR 1", "+OK\na"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				m, err := c.Retr(ctx, 1)
				require.NoError(t, err)
				require.NoError(t, c.Close())
				_, err = io.ReadAll(m)
				assert.ErrorIs(t, err, net.ErrClosed)
				assert.NoError(t, m.Close())
			}),
	})
}

// checkErrState checks that calls fail with ErrState and that nothing is sent.
func checkErrState(t *testing.T, c *pop3.Client, conn *countingConn, calls ...action) {
	before := conn.written.Load()
	for _, call := range calls {
		_, err := call.do(t, t.Context(), c)
		assert.ErrorIs(t, err, pop3.ErrState, call.line)
		checkError(t, err)
	}
	for _, err := range c.Messages(t.Context(), 1) {
		if c.State() == pop3.StateAuthorization {
			assert.ErrorIs(t, err, pop3.ErrState)
		}
		before = conn.written.Load()
		break
	}
	assert.Equal(t, before, conn.written.Load())
}

// These are the rules for the commands (R1-050 to R1-069).
func TestRequirementsCommands(t *testing.T) {
	playAll(t, []dialogue{
		greetedDialogue("R1-050 R1-051 STAT", turns("STAT", "+OK 2 320 octets", "DELE 1", "+OK", "STAT",
			"+OK 1 200"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				drop, err := c.Stat(ctx)
				assert.NoError(t, err)
				assert.Equal(t, pop3.DropListing{Count: 2, Size: 320}, drop)
				assert.NoError(t, c.Dele(ctx, 1))
				drop, err = c.Stat(ctx)
				assert.NoError(t, err)
				assert.Equal(t, pop3.DropListing{Count: 1, Size: 200}, drop)
			}),
		greetedDialogue("R1-052 R1-053 R1-054 LIST", turns("LIST", "+OK\n1 120 x\n3 200\n.", "LIST", "+OK\n.",
			"UIDL",
			"+OK\n3 a\n7 b\n."), func(t *testing.T, ctx context.Context, c *pop3.Client) {
			infos, err := c.ListAll(ctx)
			assert.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 120}, {Num: 3, Size: 200}}, infos)
			infos, err = c.ListAll(ctx)
			assert.NoError(t, err)
			assert.Empty(t, infos)
			infos, err = c.UidlAll(ctx)
			assert.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{{Num: 3, UID: "a"}, {Num: 7, UID: "b"}}, infos)
		}),
		greetedDialogue("R1-055 about another message", turns("LIST 1", "+OK 2 120", "UIDL 1", "+OK 2 a", "NOOP",
			"+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				nonFatal(t, errorOf(c.List(ctx, 1)))
				nonFatal(t, errorOf(c.Uidl(ctx, 1)))
				assert.NoError(t, c.Noop(ctx))
			}),
		greetedDialogue("R1-056 R1-057 of a deleted message", turns("DELE 1", "+OK", "RETR 1", "-ERR gone",
			"TOP 1 0", "-ERR gone",
			"LIST 1", "-ERR gone", "UIDL 1", "-ERR gone", "DELE 1", "-ERR gone", "NOOP", "+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Dele(ctx, 1))
				for _, call := range []action{retr, top, listOne, uidlOne, dele} {
					_, err := call.do(t, ctx, c)
					refusedWith("", "gone")(t, err)
				}
				assert.NoError(t, c.Noop(ctx))
			}),
		greetedDialogue("R1-058 R1-069 sizes are hints", turns("LIST", "+OK\n1 5\n.", "RETR 1",
			"+OK 7 octets\nabc\n.", "NOOP", "+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				_, err := c.ListAll(ctx)
				assert.NoError(t, err)
				content, err := retr.do(t, ctx, c)
				assert.NoError(t, err)
				assert.Equal(t, "abc\r\n", content)
				assert.NoError(t, c.Noop(ctx))
			}),
		greetedDialogue("R1-060 TOP of more lines than there are", turns("TOP 1 1000", "+OK\na: b\n\nbody\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				m, err := c.Top(ctx, 1, 1000)
				require.NoError(t, err)
				b, err := io.ReadAll(m)
				assert.NoError(t, err)
				assert.Equal(t, "a: b\r\n\r\nbody\r\n", string(b))
			}),
		greetedDialogue("R1-064 R1-065 the same unique-id", turns("UIDL", "+OK\n1 a\n2 a\n3 A\n."),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				infos, err := c.UidlAll(ctx)
				assert.NoError(t, err)
				assert.Equal(t, []pop3.MessageInfo{{Num: 1, UID: "a"}, {Num: 2, UID: "a"},
					{Num: 3, UID: "A"}}, infos)
			}),
		greetedDialogue("R1-067 DELE is sent whatever EXPIRE says", turns("CAPA", "+OK\nEXPIRE 0\n.", "DELE 1",
			"+OK"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				days, ok := caps.Expire()
				assert.True(t, ok)
				assert.Zero(t, days)
				assert.NoError(t, c.Dele(ctx, 1))
			}),
	})
}

// If the announced sizes are exact, they are equal to the sizes of the received messages (R1-017). DELE only marks
// messages (R1-061).
func TestRequirementsOfAServer(t *testing.T) {
	c, _, srv := countingClient(t, true)
	infos, err := c.Listing(t.Context())
	require.NoError(t, err)
	for _, info := range infos {
		m, err := c.Retr(t.Context(), info.Num)
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, m)
		assert.NoError(t, err)
		assert.Equal(t, info.Size, n, "R1-017")
	}
	assert.NoError(t, c.Dele(t.Context(), 1, 2))
	assert.Len(t, srv.Left("u"), 3, "R1-061")
	assert.NoError(t, c.Quit(t.Context()))
	assert.Len(t, srv.Left("u"), 1, "R1-082")
}

// The client works with a server that has only the required commands of RFC 1939 (R1-092).
func TestRequirementsOldServer(t *testing.T) {
	dialogue{id: "R1-092 R1-130",
		script: withGreeting("+OK", "CAPA", "-ERR what?", "USER u", "+OK", "PASS "+canary, "+OK", "STAT", "+OK 1 3",
			"LIST",
			"+OK\n1 3\n.", "RETR 1", "+OK\na\n.", "DELE 1", "+OK", "RSET", "+OK", "NOOP", "+OK", "CAPA", "-ERR what?",
			"DELE 1", "+OK", "DELE 2", "-ERR", "LIST", "+OK\n1 3\n.", "UIDL", "-ERR what?", "QUIT", "+OK").add("EOF"),
		do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			require.NoError(t, c.Login(ctx, "u", canary))
			for _, call := range []action{stat, listAll, retr, dele, rset, noop} {
				_, err := call.do(t, ctx, c)
				assert.NoError(t, err)
			}
			refusedWith("", "")(t, c.Dele(ctx, 1, 2))
			infos, err := c.Listing(ctx)
			assert.ErrorIs(t, err, errors.ErrUnsupported)
			assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 3}}, infos)
			assert.NoError(t, c.Quit(ctx))
		})}.run(t)
}

// These are the rules for capabilities (R1-090 to R1-102).
func TestRequirementsCapabilities(t *testing.T) {
	playAll(t, []dialogue{
		{id: "R1-090 R1-095 R1-096 CAPA is sent once in each state",
			script: withGreeting("+OK", "CAPA", "+OK\nSTLS\nUSER\n.",
				"USER u", "+OK", "PASS "+canary, "+OK", "CAPA", "+OK\nPIPELINING\nLOGIN-DELAY 5 USER\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for range 2 {
					caps, err := c.Capa(ctx)
					assert.NoError(t, err)
					assert.True(t, caps.Has("STLS"))
				}
				assert.NoError(t, byUser(ctx, c))
				for range 2 {
					caps, err := c.Capa(ctx)
					assert.NoError(t, err)
					assert.Equal(t, pop3.Capabilities{"PIPELINING": nil, "LOGIN-DELAY": {"5", "USER"}}, caps)
				}
			})},
		{id: "R1-090 nil and empty capabilities differ",
			script: withGreeting("+OK", "CAPA", "-ERR", "USER u", "+OK", "PASS "+canary, "+OK",
				"CAPA", "+OK\n."), do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Nil(t, caps)
				assert.NoError(t, byUser(ctx, c))
				caps, err = c.Capa(ctx)
				assert.NoError(t, err)
				assert.NotNil(t, caps)
				assert.Empty(t, caps)
			})},
		{id: "R1-091 R1-101 R1-102 names",
			script: withGreeting("+OK", "CAPA", "+OK\ntop\nUser\nSASL\nRESP-CODES\nCAPA\nX-Unknown a B\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Equal(t, pop3.Capabilities{"TOP": nil, "USER": nil, "SASL": nil, "RESP-CODES": nil,
					"CAPA":      nil,
					"X-UNKNOWN": {"a", "B"}}, caps)
				assert.True(t, caps.Has("Top"))
				assert.Empty(t, caps.SASL())
			})},
	})
	for line, want := range map[string]time.Duration{
		"900": 900 * time.Second, "900 USER": 900 * time.Second, "0": 0, "": -1, "x": -1, "-1": -1, "1.5": -1,
		"99999999999999999999": -1,
		// C-078: a LOGIN-DELAY that is longer than a day counts as a day
		"9223372036854775807": 24 * time.Hour, "9223372036": 24 * time.Hour, "86401": 24 * time.Hour,
		"86399": 86399 * time.Second,
	} {
		d, ok := pop3.Capabilities{"LOGIN-DELAY": strings.Fields(line)}.LoginDelay()
		assert.Equal(t, want >= 0, ok, "R1-098 %q", line)
		assert.Equal(t, max(want, 0), d, "R1-098 %q", line)
	}
	for line, want := range map[string]int{
		"0": 0, "31": 31, "31 USER": 31, "NEVER": -1, "never USER": -1, "": -2, "soon": -2, "-1": -2,
		"4294967296": -2,
	} {
		days, ok := pop3.Capabilities{"EXPIRE": strings.Fields(line)}.Expire()
		assert.Equal(t, want > -2, ok, "R1-099 %q", line)
		if ok {
			assert.Equal(t, want, days, "R1-099 %q", line)
		}
	}
}

// These are the rules for response codes (R1-105 to R1-113).
func TestRequirementsCodes(t *testing.T) {
	for _, row := range []struct {
		id, caps, reply string
		code            pop3.Code
		text            string
		verdict         verdict
	}{
		{"R1-111 later", "RESP-CODES", "-ERR [LOGIN-DELAY] wait", pop3.CodeLoginDelay, "wait", temporaryByCode},
		{"R1-111 locked", "RESP-CODES", "-ERR [IN-USE] locked", pop3.CodeInUse, "locked", temporaryByCode},
		{"R1-111 R1-107 trouble", "RESP-CODES", "-ERR [sys/temp] oops", pop3.CodeSysTemp, "oops", temporaryByCode},
		{"R1-111 for good", "RESP-CODES", "-ERR [SYS/PERM] oops", pop3.CodeSysPerm, "oops", otherByCode},
		{"R1-111 wrong", "RESP-CODES", "-ERR [AUTH] no", pop3.CodeAuth, "no", wrongByCode},
		{"R1-108 deeper", "RESP-CODES", "-ERR [IN-USE/FOO] x", "IN-USE/FOO", "x", temporaryByCode},
		{"R1-108 deeper and small", "RESP-CODES", "-ERR [sys/temp/disk] full", "SYS/TEMP/DISK", "full",
			temporaryByCode},
		{"R1-108 unknown", "RESP-CODES", "-ERR [FOO] x", "FOO", "x", otherByCode},
		{"R1-106 R1-109 not announced", "USER", "-ERR [AUTH] no", pop3.CodeAuth, "no", wrongByCode},
		{"R1-112 announced, and no code", "AUTH-RESP-CODE", "-ERR no", "", "no", otherByCode},
		{"R1-112 announced, AUTH", "AUTH-RESP-CODE", "-ERR [AUTH] no", pop3.CodeAuth, "no", wrongByCode},
		{"R1-112 not announced", "USER", "-ERR no", "", "no", wrongByText},
		{"R1-110 malformed", "RESP-CODES", "-ERR [A B] x", "", "[A B] x", wrongByText},
	} {
		dialogue{id: row.id, script: withGreeting("+OK", "CAPA", "+OK\n"+row.caps+"\n.", "USER u", "+OK",
			"PASS "+canary, row.reply), do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			_, err := c.Capa(ctx)
			require.NoError(t, err)
			err = byUser(ctx, c)
			refusedWith(row.code, row.text)(t, err)
			hasVerdict(row.verdict)(t, err)
		})}.run(t)
	}
	greetedDialogue("R1-113 a message in UTF-8", turns("RETR 1", "-ERR [UTF8] not for you", "LIST",
		"-ERR [UTF8] no"),
		func(t *testing.T, ctx context.Context, c *pop3.Client) {
			_, err := c.Retr(ctx, 1)
			refusedWith(pop3.CodeUTF8, "not for you")(t, err)
			_, err = c.ListAll(ctx)
			refusedWith(pop3.CodeUTF8, "no")(t, err)
		}).run(t)
}

// These are the rules for pipelining (R1-115 to R1-120).
func TestRequirementsPipelining(t *testing.T) {
	ahead := loginScript(
		"CAPA",
		"+OK\nPIPELINING\n.",
	).add("C: DELE 1", "C: DELE 2").
		turns("DELE 3", "+OK\n-ERR\n+OK", "QUIT", "+OK").
		add("EOF")
	three := func(t *testing.T, ctx context.Context, c *pop3.Client) {
		require.NoError(t, byUser(ctx, c))
		refusedWith("", "")(t, c.Dele(ctx, 1, 2, 3))
		assert.NoError(t, c.Quit(ctx))
	}
	replies := turns("DELE 1", "+OK", "DELE 2", "-ERR", "DELE 3", "+OK", "QUIT", "+OK").add("EOF")
	playAll(t, []dialogue{
		{id: "R1-115 R1-119 R1-120 announced", script: ahead, do: greetedTest(three)},
		{id: "R1-115 not announced", script: loginScript("CAPA", "+OK\nTOP\n.").add(replies...),
			do: greetedTest(three)},
		{id: "R1-115 not known", script: loginScript("CAPA", "-ERR").add(replies...),
			do: greetedTest(three)},
		{id: "R1-115 PipeliningNever", script: loginScript().add(replies...), do: greetedTest(three),
			opts: pop3.Options{Pipelining: pop3.PipeliningNever}},
		{id: "R1-118 no command follows STLS", script: withGreeting("+OK", "CAPA", "+OK\nSTLS\nPIPELINING\n.", "STLS").
			add("PAUSE 10s", "S: -ERR"), do: upgrade, want: failsWith(tlsRequired),
			opts: pop3.Options{Pipelining: pop3.PipeliningAlways}, takes: 10 * time.Second},
	})
}

// The client uses the right default port, and never tries another one (R1-160, R1-172).
func TestRequirementsConnecting(t *testing.T) {
	for _, row := range []struct {
		dial dialFunc
		port string
	}{{pop3.DialTLS, "995"}, {pop3.DialStartTLS, "110"}, {pop3.DialInsecure, "110"}} {
		var dialled []string
		_, err := row.dial(t.Context(), tlsHost,
			&pop3.Options{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
				dialled = append(dialled, addr)
				return nil, errors.New("no network")
			}})
		assert.ErrorContains(t, err, "no network")
		assert.Equal(t, []string{net.JoinHostPort(tlsHost, row.port)}, dialled,
			"R1-160, R1-172: once, and nowhere else")
	}
}

// Close sends a TLS close alert, but does not wait for a peer that does not read it (R1-170).
func TestRequirementsClose(t *testing.T) {
	t.Run("R1-170 close_notify", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var received error
			over := make(chan bool)
			conn := serve(t, func(p *peer) {
				defer close(over)
				if p.startTLS(serverTLS()) {
					p.send("+OK\r\n")
					_, received = p.lines.ReadByte()
				}
			})
			c, err := pop3.DialTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			require.NoError(t, err)
			assert.NoError(t, c.Close())
			<-over
			assert.Equal(t, io.EOF, received, "the end, and not a cut")
		})
	})
	t.Run("R1-170 a peer that does not listen", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stop := make(chan bool)
			conn := serve(t, func(p *peer) {
				if p.startTLS(serverTLS()) {
					p.send("+OK\r\n")
					<-stop
				}
			})
			defer close(stop)
			c, err := pop3.DialTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			require.NoError(t, err)
			start := time.Now()
			assert.NoError(t, c.Close())
			assert.LessOrEqual(t, time.Since(start), maxEndTime)
		})
	})
}
