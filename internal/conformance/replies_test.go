package conformance_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// slowly returns a script in which the server waits for pause before each octet.
func (s script) slowly(octets, pause string) script {
	s = slices.Clip(s)
	for i := range len(octets) {
		s = append(s, "s: "+strconv.Quote(octets[i:i+1]), "PAUSE "+pause)
	}
	return s
}

func TestHostileStatus(t *testing.T) {
	playAll(t, []dialogue{
		{id: "H-030 lower case", script: serverSends("+ok\r\n")},
		{id: "H-030 mixed case", script: serverSends("+Ok x\r\n")},
		{id: "H-030 lower case refusal", script: serverSends("-err x\r\n"), want: failsWith(refusedWith("", "x"))},
		{id: "3.2a mixed case refusal", script: serverSends("-eRr\r\n"), want: failsWith(refusedWith("", ""))},
		{id: "3.2b nothing after it", script: serverSends("+OK\r\n")},
		{id: "3.2c a space after it", script: serverSends("+OK \r\n")},
		{id: "3.2d a tab after it", script: serverSends("-ERR\tx\r\n"), want: failsWith(refusedWith("", "x"))},

		{id: "H-031 a letter after it", script: serverSends("+OKx\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-031 longer word", script: serverSends("+OKAY\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-031 a letter after the refusal", script: serverSends("-ERRx\r\n"), want: failsWith(fatal),
			after: closed},
		{id: "3.2e a digit after it", script: serverSends("+OK1\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2f plural", script: serverSends("-ERRORS\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-033 no plus", script: serverSends("OK\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-033 no minus", script: serverSends("ERR\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-033 plus", script: serverSends("+\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-033 minus", script: serverSends("-\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-033 blank line", script: serverSends("\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-033 dot", script: serverSends(".\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2g challenge", script: serverSends("+ T0s=\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2h half a word", script: serverSends("+O\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2i a space at the start", script: serverSends(" +OK\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2j a dot at the start", script: serverSends(".+OK\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2k -OK", script: serverSends("-OK\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2l +ERR", script: serverSends("+ERR\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2m both", script: serverSends("+OK-ERR\r\n")},
		{id: "3.2n full-width plus", script: serverSends("\uff0bOK\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2o a letter that folds to K", script: serverSends("+O\u212a\r\n"), want: failsWith(fatal),
			after: closed},
		{id: "3.2p IMAP", script: serverSends("* BYE\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2q a warning without a status", script: serverSends("warning: disk full\r\n"),
			want: failsWith(fatal), after: closed},

		{id: "H-034 NUL", script: serverSends("+OK a\x00b\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2r NUL in a refusal", script: serverSends("-ERR\x00\r\n"), want: failsWith(fatal), after: closed},
		{id: "3.2s NUL at the end", script: serverSends("+OK\x00\r\n"), want: failsWith(fatal), after: closed},
		{id: "H-035 CR in the text", script: serverSends("-ERR a\rb\r\n"), want: failsWith(refusedWith("", "ab"))},
		{id: "3.2t two CRs at the end", script: serverSends("+OK\r\r\n")},
		{id: "3.2u LF CR", script: serverSends("+OK\n\r\n"), want: failsWith(fatal), after: closed, onePiece: true},
		{id: "3.2v LF alone", script: serverSends("+OK\n"), want: failsWith(fatal), after: closed},

		{id: "H-037 long", script: serverSends("-ERR " + strings.Repeat("x", 8192-7) + "\r\n"),
			want: failsWith(refusedWith("", strings.Repeat("x", 509)+"…"))},
		{id: "3.2w one octet too long", script: serverSends("-ERR " + strings.Repeat("x", 8192-6) + "\r\n"),
			want: failsWith(fatal), after: closed},
		{id: "3.2x a long text of two-octet characters",
			script: serverSends("-ERR " + strings.Repeat("é", 4000) + "\r\n"),
			want:   failsWith(refusedWith("", strings.Repeat("é", 254)+"…"))},
		{id: "3.2y cut within a character", script: serverSends("-ERR x" + strings.Repeat("é", 4000) + "\r\n"),
			want: failsWith(refusedWith("", "x"+strings.Repeat("é", 254)+"…"))},

		{id: "H-038 Latin-1", script: serverSends("-ERR caf\xe9\r\n"), want: failsWith(refusedWith("", "caf\ufffd"))},
		{id: "H-038 UTF-8", script: serverSends("-ERR café\r\n"), want: failsWith(refusedWith("", "café"))},
		{id: "3.2z broken UTF-8", script: serverSends("-ERR \xff\xfe\xc0\x80\r\n"),
			want: failsWith(refusedWith("", strings.Repeat("\ufffd", 4)))},
		{id: "H-039 title and clear", script: serverSends("-ERR \x1b]0;owned\x07\x1b[2J\r\n"),
			want: failsWith(refusedWith("", "]0;owned[2J"))},
		{id: "H-039 C1", script: serverSends("-ERR \u009b31m\r\n"), want: failsWith(refusedWith("", "31m"))},
		{id: "H-039 C1 as an octet", script: serverSends("-ERR \x9b31m\r\n"),
			want: failsWith(refusedWith("", "\ufffd31m"))},
		{id: "H-039 override", script: serverSends("-ERR abc\u202edef\r\n"), want: failsWith(refusedWith("",
			"abcdef"))},
		{id: "H-039 backspaces", script: serverSends("-ERR no" + strings.Repeat("\x08", 20) + "\r\n"),
			want: failsWith(refusedWith("", "no"))},
		{id: "3.2A other directions",
			script: serverSends("-ERR \u200e\u200f\u202a\u202d\u2066\u2069\u061cx\r\n"),
			want:   failsWith(refusedWith("", "x"))},
		{id: "3.2B line separators", script: serverSends("-ERR a\u2028b\u2029c\u0085d\r\n"),
			want: failsWith(refusedWith("", "abcd"))},
		{id: "3.2C DEL", script: serverSends("-ERR a\x7fb\r\n"), want: failsWith(refusedWith("", "ab"))},
		{id: "3.2D escape in a broken line", script: serverSends("\x1b[2J\u202e\r\n"), want: failsWith(fatal),
			after: closed},

		{id: "H-043 the code AUTH in the reply to another command", script: serverSends("-ERR [AUTH] x\r\n"),
			want: failsWith(refusedWith(pop3.CodeAuth, "x"), hasVerdict(otherByCode))},
	})
}

func TestHostileCodes(t *testing.T) {
	class := func(code, class pop3.Code, temporary bool) errorCheck {
		return func(t *testing.T, err error) {
			var refusal *pop3.Error
			if assert.ErrorAs(t, err, &refusal) {
				assert.Equal(t, code, refusal.Code)
				assert.True(t, refusal.Code.Is(class))
				assert.Equal(t, temporary, refusal.Temporary())
			}
		}
	}
	long := strings.Repeat("A", 2000)
	playAll(t, []dialogue{
		{id: "H-041 levels below", script: serverSends("-ERR [sys/temp/disk/7] x\r\n"),
			want: failsWith(class("SYS/TEMP/DISK/7", pop3.CodeSysTemp, true), refusedWith("SYS/TEMP/DISK/7", "x"))},
		{id: "3.2E below IN-USE", script: serverSends("-ERR [IN-USE/x] x\r\n"),
			want: failsWith(class("IN-USE/X", pop3.CodeInUse, true))},
		{id: "3.2F a text that only looks like a code", script: serverSends("-ERR [SYS/TEMPO] x\r\n"),
			want: failsWith(func(t *testing.T, err error) {
				var refusal *pop3.Error
				if assert.ErrorAs(t, err, &refusal) {
					assert.False(t, refusal.Code.Is(pop3.CodeSysTemp))
					assert.False(t, refusal.Temporary())
				}
			})},
		{id: "3.2G glued", script: serverSends("-ERR[AUTH] x\r\n"), want: failsWith(refusedWith(pop3.CodeAuth, "x"))},
		{id: "3.2H no text", script: serverSends("-ERR [AUTH]\r\n"), want: failsWith(refusedWith(pop3.CodeAuth, ""))},
		{id: "3.2I not at the start", script: serverSends("-ERR x [AUTH]\r\n"), want: failsWith(refusedWith("",
			"x [AUTH]"))},
		{id: "3.2J two", script: serverSends("-ERR [AUTH] [IN-USE] x\r\n"),
			want: failsWith(refusedWith(pop3.CodeAuth, "[IN-USE] x"))},
		{id: "H-042 open", script: serverSends("-ERR [\r\n"), want: failsWith(refusedWith("", "["))},
		{id: "H-042 empty", script: serverSends("-ERR []\r\n"), want: failsWith(refusedWith("", "[]"))},
		{id: "H-042 not closed", script: serverSends("-ERR [A\r\n"), want: failsWith(refusedWith("", "[A"))},
		{id: "H-042 empty level", script: serverSends("-ERR [A/] x\r\n"), want: failsWith(refusedWith("", "[A/] x"))},
		{id: "H-042 nested", script: serverSends("-ERR [[A]] x\r\n"), want: failsWith(refusedWith("", "[[A]] x"))},
		{id: "3.2K empty first level", script: serverSends("-ERR [/A] x\r\n"),
			want: failsWith(refusedWith("", "[/A] x"))},
		{id: "3.2L space inside", script: serverSends("-ERR [A B] x\r\n"), want: failsWith(refusedWith("", "[A B] x"))},
		{id: "3.2M control inside", script: serverSends("-ERR [A\x1b] x\r\n"), want: failsWith(refusedWith("",
			"[A] x"))},
		{id: "3.2N 8-bit inside", script: serverSends("-ERR [\xe9] x\r\n"),
			want: failsWith(refusedWith("", "[\ufffd] x"))},
		{id: "3.2O far too long", script: serverSends("-ERR [" + long + "] x\r\n"),
			want: failsWith(refusedWith("", "["+long[:508]+"…"))},
	})
}

// The server sends a text before any command, for example when it closes an idle session.
func TestHostileEarlyReply(t *testing.T) {
	idle := "-ERR Disconnected for inactivity.\r\n"
	playAll(t, []dialogue{
		{id: "H-045 read as the reply", script: serverSends(idle).add("EOF"),
			want: failsWith(refusedWith("", "Disconnected for inactivity.")), after: hungUp},
		{id: "H-045 read as the answer to QUIT", script: serverSends(idle).add("EOF"), do: quit,
			want: failsWith(refusedWith("", "Disconnected for inactivity.")), after: quitDone},
		{id: "H-046 silence", want: failsWith(timedOut), after: closed, takes: 2 * time.Minute},
		{id: "3.2P half a line, then silence", script: serverSends("+OK no"), want: failsWith(timedOut), after: closed,
			takes: 2 * time.Minute},
		{id: "H-047 an octet every 59 s", script: script{}.slowly("+OK slowly\r\n", "59s"), want: failsWith(timedOut),
			after: closed, takes: 2 * time.Minute},
		{id: "3.2Q slow and in time", script: script{}.slowly("+OK\r\n", "23s"), takes: 4 * 23 * time.Second},
	})
	for id, do := range map[string]action{"H-045 before NOOP": noop, "H-045 before QUIT": quit} {
		withLogin := greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			require.NoError(t, byUser(ctx, c))
			_, err := do.do(t, ctx, c)
			failsWith(fatal, hasText("Disconnected for inactivity."))(t, nil, err)
			closed.check(t, c, err)
		})
		playAll(t, []dialogue{{id: id,
			script: withGreeting("+OK", "USER u", "+OK", "PASS "+canary).sends("+OK\r\n" +
				idle).add("EOF"), do: withLogin,
			onePiece: true}})
	}
}
