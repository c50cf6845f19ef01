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

// drips returns a script in which the server waits for pause before each octet.
func (s script) drips(octets, pause string) script {
	s = slices.Clip(s)
	for i := range len(octets) {
		s = append(s, "s: "+strconv.Quote(octets[i:i+1]), "PAUSE "+pause)
	}
	return s
}

func TestHostileStatus(t *testing.T) {
	playAll(t, []dialogue{
		{id: "H-030 lower case", script: sends("+ok\r\n")},
		{id: "H-030 mixed case", script: sends("+Ok x\r\n")},
		{id: "H-030 lower case refusal", script: sends("-err x\r\n"), want: fails(refused("", "x"))},
		{id: "3.2a mixed case refusal", script: sends("-eRr\r\n"), want: fails(refused("", ""))},
		{id: "3.2b nothing after it", script: sends("+OK\r\n")},
		{id: "3.2c a space after it", script: sends("+OK \r\n")},
		{id: "3.2d a tab after it", script: sends("-ERR\tx\r\n"), want: fails(refused("", "x"))},

		{id: "H-031 a letter after it", script: sends("+OKx\r\n"), want: fails(protocolError), after: closed},
		{id: "H-031 longer word", script: sends("+OKAY\r\n"), want: fails(protocolError), after: closed},
		{id: "H-031 a letter after the refusal", script: sends("-ERRx\r\n"), want: fails(protocolError),
			after: closed},
		{id: "3.2e a digit after it", script: sends("+OK1\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2f plural", script: sends("-ERRORS\r\n"), want: fails(protocolError), after: closed},
		{id: "H-033 no plus", script: sends("OK\r\n"), want: fails(protocolError), after: closed},
		{id: "H-033 no minus", script: sends("ERR\r\n"), want: fails(protocolError), after: closed},
		{id: "H-033 plus", script: sends("+\r\n"), want: fails(protocolError), after: closed},
		{id: "H-033 minus", script: sends("-\r\n"), want: fails(protocolError), after: closed},
		{id: "H-033 blank line", script: sends("\r\n"), want: fails(protocolError), after: closed},
		{id: "H-033 dot", script: sends(".\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2g challenge", script: sends("+ T0s=\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2h half a word", script: sends("+O\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2i a space at the start", script: sends(" +OK\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2j a dot at the start", script: sends(".+OK\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2k the other sign", script: sends("-OK\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2l the other sign again", script: sends("+ERR\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2m both", script: sends("+OK-ERR\r\n")},
		{id: "3.2n full-width plus", script: sends("\uff0bOK\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2o a letter that folds to K", script: sends("+O\u212a\r\n"), want: fails(protocolError),
			after: closed},
		{id: "3.2p IMAP", script: sends("* BYE\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2q a warning without a status", script: sends("warning: disk full\r\n"),
			want: fails(protocolError), after: closed},

		{id: "H-034 NUL", script: sends("+OK a\x00b\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2r NUL in a refusal", script: sends("-ERR\x00\r\n"), want: fails(protocolError), after: closed},
		{id: "3.2s NUL at the end", script: sends("+OK\x00\r\n"), want: fails(protocolError), after: closed},
		{id: "H-035 CR in the text", script: sends("-ERR a\rb\r\n"), want: fails(refused("", "ab"))},
		{id: "3.2t two CRs at the end", script: sends("+OK\r\r\n")},
		{id: "3.2u LF CR", script: sends("+OK\n\r\n"), want: fails(protocolError), after: closed, whole: true},
		{id: "3.2v LF alone", script: sends("+OK\n"), want: fails(protocolError), after: closed},

		{id: "H-037 long", script: sends("-ERR " + strings.Repeat("x", 8192-7) + "\r\n"),
			want: fails(refused("", strings.Repeat("x", 509)+"…"))},
		{id: "3.2w too long by one", script: sends("-ERR " + strings.Repeat("x", 8192-6) + "\r\n"),
			want: fails(protocolError), after: closed},
		{id: "3.2x long and in two octets each",
			script: sends("-ERR " + strings.Repeat("é", 4000) + "\r\n"),
			want:   fails(refused("", strings.Repeat("é", 254)+"…"))},
		{id: "3.2y cut within a character", script: sends("-ERR x" + strings.Repeat("é", 4000) + "\r\n"),
			want: fails(refused("", "x"+strings.Repeat("é", 254)+"…"))},

		{id: "H-038 Latin-1", script: sends("-ERR caf\xe9\r\n"), want: fails(refused("", "caf\ufffd"))},
		{id: "H-038 UTF-8", script: sends("-ERR café\r\n"), want: fails(refused("", "café"))},
		{id: "3.2z broken UTF-8", script: sends("-ERR \xff\xfe\xc0\x80\r\n"),
			want: fails(refused("", strings.Repeat("\ufffd", 4)))},
		{id: "H-039 title and clear", script: sends("-ERR \x1b]0;owned\x07\x1b[2J\r\n"),
			want: fails(refused("", "]0;owned[2J"))},
		{id: "H-039 C1", script: sends("-ERR \u009b31m\r\n"), want: fails(refused("", "31m"))},
		{id: "H-039 C1 as an octet", script: sends("-ERR \x9b31m\r\n"),
			want: fails(refused("", "\ufffd31m"))},
		{id: "H-039 override", script: sends("-ERR abc\u202edef\r\n"), want: fails(refused("", "abcdef"))},
		{id: "H-039 backspaces", script: sends("-ERR no" + strings.Repeat("\x08", 20) + "\r\n"),
			want: fails(refused("", "no"))},
		{id: "3.2A other directions",
			script: sends("-ERR \u200e\u200f\u202a\u202d\u2066\u2069\u061cx\r\n"),
			want:   fails(refused("", "x"))},
		{id: "3.2B line separators", script: sends("-ERR a\u2028b\u2029c\u0085d\r\n"),
			want: fails(refused("", "abcd"))},
		{id: "3.2C DEL", script: sends("-ERR a\x7fb\r\n"), want: fails(refused("", "ab"))},
		{id: "3.2D escape in a broken line", script: sends("\x1b[2J\u202e\r\n"), want: fails(protocolError),
			after: closed},

		{id: "H-043 AUTH where none was due", script: sends("-ERR [AUTH] x\r\n"),
			want: fails(refused(pop3.CodeAuth, "x"), judged(never))},
	})
}

func TestHostileCodes(t *testing.T) {
	class := func(code, class pop3.Code, temporary bool) problem {
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
		{id: "H-041 levels below", script: sends("-ERR [sys/temp/disk/7] x\r\n"),
			want: fails(class("SYS/TEMP/DISK/7", pop3.CodeSysTemp, true), refused("SYS/TEMP/DISK/7", "x"))},
		{id: "3.2E below IN-USE", script: sends("-ERR [IN-USE/x] x\r\n"),
			want: fails(class("IN-USE/X", pop3.CodeInUse, true))},
		{id: "3.2F only looks like it", script: sends("-ERR [SYS/TEMPO] x\r\n"),
			want: fails(func(t *testing.T, err error) {
				var refusal *pop3.Error
				if assert.ErrorAs(t, err, &refusal) {
					assert.False(t, refusal.Code.Is(pop3.CodeSysTemp))
					assert.False(t, refusal.Temporary())
				}
			})},
		{id: "3.2G glued", script: sends("-ERR[AUTH] x\r\n"), want: fails(refused(pop3.CodeAuth, "x"))},
		{id: "3.2H no text", script: sends("-ERR [AUTH]\r\n"), want: fails(refused(pop3.CodeAuth, ""))},
		{id: "3.2I not at the start", script: sends("-ERR x [AUTH]\r\n"), want: fails(refused("", "x [AUTH]"))},
		{id: "3.2J two", script: sends("-ERR [AUTH] [IN-USE] x\r\n"),
			want: fails(refused(pop3.CodeAuth, "[IN-USE] x"))},
		{id: "H-042 open", script: sends("-ERR [\r\n"), want: fails(refused("", "["))},
		{id: "H-042 empty", script: sends("-ERR []\r\n"), want: fails(refused("", "[]"))},
		{id: "H-042 not closed", script: sends("-ERR [A\r\n"), want: fails(refused("", "[A"))},
		{id: "H-042 empty level", script: sends("-ERR [A/] x\r\n"), want: fails(refused("", "[A/] x"))},
		{id: "H-042 nested", script: sends("-ERR [[A]] x\r\n"), want: fails(refused("", "[[A]] x"))},
		{id: "3.2K empty first level", script: sends("-ERR [/A] x\r\n"),
			want: fails(refused("", "[/A] x"))},
		{id: "3.2L space inside", script: sends("-ERR [A B] x\r\n"), want: fails(refused("", "[A B] x"))},
		{id: "3.2M control inside", script: sends("-ERR [A\x1b] x\r\n"), want: fails(refused("", "[A] x"))},
		{id: "3.2N 8-bit inside", script: sends("-ERR [\xe9] x\r\n"),
			want: fails(refused("", "[\ufffd] x"))},
		{id: "3.2O far too long", script: sends("-ERR [" + long + "] x\r\n"),
			want: fails(refused("", "["+long[:508]+"…"))},
	})
}

// The server sends a text before any command, for example when it closes an idle session.
func TestHostileEarlyReply(t *testing.T) {
	idle := "-ERR Disconnected for inactivity.\r\n"
	playAll(t, []dialogue{
		{id: "H-045 read as the answer", script: sends(idle).then("EOF"),
			want: fails(refused("", "Disconnected for inactivity.")), after: hungUp},
		{id: "H-045 read as the answer to QUIT", script: sends(idle).then("EOF"), do: quit,
			want: fails(refused("", "Disconnected for inactivity.")), after: over},
		{id: "H-046 silence", want: fails(late), after: closed, takes: 2 * time.Minute},
		{id: "3.2P half a line, then silence", script: sends("+OK no"), want: fails(late), after: closed,
			takes: 2 * time.Minute},
		{id: "H-047 an octet every 59 s", script: script{}.drips("+OK slowly\r\n", "59s"), want: fails(late),
			after: closed, takes: 2 * time.Minute},
		{id: "3.2Q slow and in time", script: script{}.drips("+OK\r\n", "23s"), takes: 4 * 23 * time.Second},
	})
	for id, do := range map[string]action{"H-045 before NOOP": noop, "H-045 before QUIT": quit} {
		withLogin := session(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			require.NoError(t, byUser(ctx, c))
			_, err := do.do(t, ctx, c)
			fails(protocolError, says("Disconnected for inactivity."))(t, nil, err)
			closed.check(t, c, err)
		})
		playAll(t, []dialogue{{id: id,
			script: greets("+OK", "USER u", "+OK", "PASS "+canary).sends("+OK\r\n" + idle).then("EOF"), do: withLogin,
			whole: true}})
	}
}
