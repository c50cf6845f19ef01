package conformance_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// drip is a script in which each octet takes its time.
func drip(octets, pause string) []string {
	var lines []string
	for i := range len(octets) {
		lines = append(lines, "s: "+quoted(octets[i:i+1]), "PAUSE "+pause)
	}
	return lines
}

func TestHostileStatus(t *testing.T) {
	playHostile(t, []hostileRow{
		{id: "H-030 lower case", reply: "+ok\r\n"},
		{id: "H-030 mixed case", reply: "+Ok x\r\n"},
		{id: "H-030 lower case refusal", reply: "-err x\r\n", err: refused("", "x")},
		{id: "3.2a mixed case refusal", reply: "-eRr\r\n", err: refused("", "")},
		{id: "3.2b nothing behind it", reply: "+OK\r\n"},
		{id: "3.2c a space behind it", reply: "+OK \r\n"},
		{id: "3.2d a tab behind it", reply: "-ERR\tx\r\n", err: refused("", "x")},

		{id: "H-031 a letter behind it", reply: "+OKx\r\n", err: broken, after: poisoned},
		{id: "H-031 longer word", reply: "+OKAY\r\n", err: broken, after: poisoned},
		{id: "H-031 a letter behind the refusal", reply: "-ERRx\r\n", err: broken, after: poisoned},
		{id: "3.2e a digit behind it", reply: "+OK1\r\n", err: broken, after: poisoned},
		{id: "3.2f plural", reply: "-ERRORS\r\n", err: broken, after: poisoned},
		{id: "H-033 no plus", reply: "OK\r\n", err: broken, after: poisoned},
		{id: "H-033 no minus", reply: "ERR\r\n", err: broken, after: poisoned},
		{id: "H-033 plus", reply: "+\r\n", err: broken, after: poisoned},
		{id: "H-033 minus", reply: "-\r\n", err: broken, after: poisoned},
		{id: "H-033 blank line", reply: "\r\n", err: broken, after: poisoned},
		{id: "H-033 dot", reply: ".\r\n", err: broken, after: poisoned},
		{id: "3.2g challenge", reply: "+ T0s=\r\n", err: broken, after: poisoned},
		{id: "3.2h half a word", reply: "+O\r\n", err: broken, after: poisoned},
		{id: "3.2i a space in front", reply: " +OK\r\n", err: broken, after: poisoned},
		{id: "3.2j a dot in front", reply: ".+OK\r\n", err: broken, after: poisoned},
		{id: "3.2k the other sign", reply: "-OK\r\n", err: broken, after: poisoned},
		{id: "3.2l the other sign again", reply: "+ERR\r\n", err: broken, after: poisoned},
		{id: "3.2m both", reply: "+OK-ERR\r\n"},
		{id: "3.2n full-width plus", reply: "\uff0bOK\r\n", err: broken, after: poisoned},
		{id: "3.2o a letter that folds to K", reply: "+O\u212a\r\n", err: broken, after: poisoned},
		{id: "3.2p IMAP", reply: "* BYE\r\n", err: broken, after: poisoned},
		{id: "3.2q a warning without a status", reply: "warning: disk full\r\n", err: broken, after: poisoned},

		{id: "H-034 NUL", reply: "+OK a\x00b\r\n", err: broken, after: poisoned},
		{id: "3.2r NUL in a refusal", reply: "-ERR\x00\r\n", err: broken, after: poisoned},
		{id: "3.2s NUL at the end", reply: "+OK\x00\r\n", err: broken, after: poisoned},
		{id: "H-035 CR in the text", reply: "-ERR a\rb\r\n", err: refused("", "ab")},
		{id: "3.2t two CRs at the end", reply: "+OK\r\r\n"},
		{id: "3.2u LF CR", reply: "+OK\n\r\n", err: broken, after: poisoned, pieces: true},
		{id: "3.2v LF alone", reply: "+OK\n", err: broken, after: poisoned},

		{id: "H-037 long", reply: "-ERR " + strings.Repeat("x", 8192-7) + "\r\n",
			err: refused("", strings.Repeat("x", 509)+"…")},
		{id: "3.2w too long by one", reply: "-ERR " + strings.Repeat("x", 8192-6) + "\r\n", err: broken,
			after: poisoned},
		{id: "3.2x long and in two octets each", reply: "-ERR " + strings.Repeat("é", 4000) + "\r\n",
			err: refused("", strings.Repeat("é", 254)+"…")},
		{id: "3.2y cut within a character", reply: "-ERR x" + strings.Repeat("é", 4000) + "\r\n",
			err: refused("", "x"+strings.Repeat("é", 254)+"…")},

		{id: "H-038 Latin-1", reply: "-ERR caf\xe9\r\n", err: refused("", "caf\ufffd")},
		{id: "H-038 UTF-8", reply: "-ERR café\r\n", err: refused("", "café")},
		{id: "3.2z broken UTF-8", reply: "-ERR \xff\xfe\xc0\x80\r\n",
			err: refused("", strings.Repeat("\ufffd", 4))},
		{id: "H-039 title and clear", reply: "-ERR \x1b]0;owned\x07\x1b[2J\r\n",
			err: refused("", "]0;owned[2J")},
		{id: "H-039 C1", reply: "-ERR \u009b31m\r\n", err: refused("", "31m")},
		{id: "H-039 C1 as an octet", reply: "-ERR \x9b31m\r\n", err: refused("", "\ufffd31m")},
		{id: "H-039 override", reply: "-ERR abc\u202edef\r\n", err: refused("", "abcdef")},
		{id: "H-039 backspaces", reply: "-ERR no" + strings.Repeat("\x08", 20) + "\r\n",
			err: refused("", "no")},
		{id: "3.2A other directions", reply: "-ERR \u200e\u200f\u202a\u202d\u2066\u2069\u061cx\r\n",
			err: refused("", "x")},
		{id: "3.2B line separators", reply: "-ERR a\u2028b\u2029c\u0085d\r\n", err: refused("", "abcd")},
		{id: "3.2C DEL", reply: "-ERR a\x7fb\r\n", err: refused("", "ab")},
		{id: "3.2D escape in a broken line", reply: "\x1b[2J\u202e\r\n", err: broken, after: poisoned},

		{id: "H-043 AUTH where none was due", reply: "-ERR [AUTH] x\r\n",
			err: also(refused(pop3.CodeAuth, "x"), blameless)},
	})
}

// blameless wants a refusal that is certainly not about name and password.
func blameless(t *testing.T, err error) { judged(false, true)(t, err) }

// judged wants a refusal that says so much about name and password.
func judged(rejects, certain bool) problem {
	return func(t *testing.T, err error) {
		var refusal *pop3.Error
		if assert.ErrorAs(t, err, &refusal) {
			r, c := refusal.RejectsCredentials()
			assert.Equal(t, rejects, r, "rejects")
			assert.Equal(t, certain, c, "certain")
		}
	}
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
	playHostile(t, []hostileRow{
		{id: "H-041 levels below", reply: "-ERR [sys/temp/disk/7] x\r\n",
			err: also(class("SYS/TEMP/DISK/7", pop3.CodeSysTemp, true), refused("SYS/TEMP/DISK/7", "x"))},
		{id: "3.2E below IN-USE", reply: "-ERR [IN-USE/x] x\r\n", err: class("IN-USE/X", pop3.CodeInUse, true)},
		{id: "3.2F only looks like it", reply: "-ERR [SYS/TEMPO] x\r\n",
			err: func(t *testing.T, err error) {
				var refusal *pop3.Error
				if assert.ErrorAs(t, err, &refusal) {
					assert.False(t, refusal.Code.Is(pop3.CodeSysTemp))
					assert.False(t, refusal.Temporary())
				}
			}},
		{id: "3.2G glued", reply: "-ERR[AUTH] x\r\n", err: refused(pop3.CodeAuth, "x")},
		{id: "3.2H no text", reply: "-ERR [AUTH]\r\n", err: refused(pop3.CodeAuth, "")},
		{id: "3.2I not in front", reply: "-ERR x [AUTH]\r\n", err: refused("", "x [AUTH]")},
		{id: "3.2J two", reply: "-ERR [AUTH] [IN-USE] x\r\n", err: refused(pop3.CodeAuth, "[IN-USE] x")},
		{id: "H-042 open", reply: "-ERR [\r\n", err: refused("", "[")},
		{id: "H-042 empty", reply: "-ERR []\r\n", err: refused("", "[]")},
		{id: "H-042 not closed", reply: "-ERR [A\r\n", err: refused("", "[A")},
		{id: "H-042 empty level", reply: "-ERR [A/] x\r\n", err: refused("", "[A/] x")},
		{id: "H-042 nested", reply: "-ERR [[A]] x\r\n", err: refused("", "[[A]] x")},
		{id: "3.2K empty first level", reply: "-ERR [/A] x\r\n", err: refused("", "[/A] x")},
		{id: "3.2L space inside", reply: "-ERR [A B] x\r\n", err: refused("", "[A B] x")},
		{id: "3.2M control inside", reply: "-ERR [A\x1b] x\r\n", err: refused("", "[A] x")},
		{id: "3.2N 8-bit inside", reply: "-ERR [\xe9] x\r\n", err: refused("", "[\ufffd] x")},
		{id: "3.2O far too long", reply: "-ERR [" + long + "] x\r\n", err: refused("", "["+long[:508]+"…")},
	})
}

// The server speaks before it is asked, as it does when it hangs up on an idle client.
func TestHostileEarlyReply(t *testing.T) {
	idle := "-ERR Disconnected for inactivity.\r\n"
	playHostile(t, []hostileRow{
		{id: "H-045 read as the answer", reply: idle, then: "EOF",
			err: refused("", "Disconnected for inactivity."), after: hungUp},
		{id: "H-045 read as the answer to QUIT", call: quit, reply: idle, then: "EOF",
			err: refused("", "Disconnected for inactivity."), after: over},
		{id: "H-046 silence", err: late, after: poisoned, takes: 2 * time.Minute},
		{id: "3.2P half a line, then silence", reply: "+OK no", err: late, after: poisoned,
			takes: 2 * time.Minute},
		{id: "H-047 an octet every 59 s", script: drip("+OK slowly\r\n", "59s"), err: late, after: poisoned,
			takes: 2 * time.Minute},
		{id: "3.2Q slow and in time", script: drip("+OK\r\n", "23s"), takes: 4 * 23 * time.Second},
	})
	for id, call := range map[string]call{"H-045 before NOOP": noop, "H-045 before QUIT": quit} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lines := append(loginLines(), "S: -ERR Disconnected for inactivity.", "EOF")
				lines[len(lines)-3] = "s: " + quoted("+OK\r\n"+idle) // in one piece with the reply to PASS
				lines[len(lines)-2] = "EOF"
				conn, done := pop3test.Script(strings.Join(lines[:len(lines)-1], "\n"))
				c := hostileLogin(t, conn)
				_, err := call.do(t.Context(), c)
				if assert.Error(t, err) {
					says("Disconnected for inactivity.")(t, err)
					checkError(t, err)
				}
				broken(t, err)
				poisoned.check(t, c, err)
				assert.NoError(t, done(), "no octet was sent")
			})
		})
	}
}
