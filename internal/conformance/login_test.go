package conformance_test

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
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

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// A loginRow is a login by one way with a server that does not do as it should. The script begins behind the
// greeting.
type loginRow struct {
	id     string
	login  func(ctx context.Context, c *pop3.Client) error
	script []string
	err    problem
	after  loginAfter
	takes  time.Duration
	pieces bool // as of a hostileRow
}

// loginAfter is what the client is good for after a login.
type loginAfter int

const (
	mayRetry  loginAfter = iota // another login works
	isIn                        // it is in the TRANSACTION state
	isDead                      // the connection is closed
	seemsGone                   // the server has hung up, and the client will find out
)

func by(mech func() sasl.Client) func(context.Context, *pop3.Client) error {
	return func(ctx context.Context, c *pop3.Client) error { return c.Auth(ctx, mech()) }
}

var (
	byPlain = by(func() sasl.Client { return sasl.Plain("", "u", canary) })
	byLogin = by(func() sasl.Client { return sasl.Login("u", canary) })
	byCram  = by(func() sasl.Client { return sasl.CramMD5("u", canary) })
	byToken = by(func() sasl.Client { return sasl.OAuthBearer("u", canary) })
	byOldTk = by(func() sasl.Client { return sasl.XOAuth2("u", canary) })
	byScram = by(func() sasl.Client { return must(sasl.Scram("SCRAM-SHA-256", "u", canary)) })
	byUser  = func(ctx context.Context, c *pop3.Client) error {
		if err := c.User(ctx, "u"); err != nil {
			return err
		}
		return c.Pass(ctx, canary)
	}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (row loginRow) run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, chunk := range cuts(row.pieces) {
			row.play(t, chunk)
		}
	})
}

// play plays a row with the replies cut in one way.
func (row loginRow) play(t *testing.T, chunk string) {
	lines := append([]string{chunk, "S: +OK ready <1@example.com>"}, row.script...)
	switch row.after {
	case mayRetry:
		lines = append(lines, "C: USER v", "S: +OK", "C: PASS w", "S: +OK", "HOLD")
	case isIn:
		lines = append(lines, "C: NOOP", "S: +OK", "HOLD")
	case isDead:
		lines = append(lines, "HOLD")
	}
	conn, done := pop3test.Script(strings.Join(lines, "\n"))
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Trace: watchful(t)})
	require.NoError(t, err)
	start := time.Now()
	err = row.login(t.Context(), c)
	assert.Equal(t, row.takes, time.Since(start), chunk)
	row.err.check(t, chunk, err)
	row.after.check(t, c, err)
	assert.NoError(t, c.Close())
	assert.NoError(t, done(), chunk)
}

func (a loginAfter) check(t *testing.T, c *pop3.Client, err error) {
	switch a {
	case isIn:
		assert.Equal(t, pop3.StateTransaction, c.State())
		assert.NoError(t, c.Noop(t.Context()))
	case mayRetry:
		assert.Equal(t, pop3.StateAuthorization, c.State())
		assert.NoError(t, c.User(t.Context(), "v"))
		assert.NoError(t, c.Pass(t.Context(), "w"))
	case isDead:
		next := c.User(t.Context(), "u")
		assert.ErrorIs(t, next, errClosed)
		sameCause(t, err, next)
		checkError(t, next)
	case seemsGone:
		next := c.User(t.Context(), "u")
		assert.ErrorContains(t, next, "EOF")
		checkError(t, next)
	}
}

func TestHostileLogin(t *testing.T) {
	challenges := func(n int) (lines []string) {
		for range n {
			lines = append(lines, "C~ *", "S: + "+b64("again"))
		}
		return lines
	}
	say := func(lines ...string) []string { return lines }
	offers := func(line string) []string { return say("C: CAPA", "S: +OK", "S: "+line, "S: .") }
	plainIR := b64("\x00u\x00" + canary)
	for _, row := range []loginRow{
		{id: "H-170 challenges without end", login: by(func() sasl.Client { return &parrot{mech: "PARROT"} }),
			script: append(append(say("C: AUTH PARROT", "S: + "+b64("a")), challenges(16)...), "C: *",
				"S: -ERR no"),
			err: nonsense},
		{id: "3.8a sixteen challenges", login: by(func() sasl.Client { return &parrot{mech: "PARROT"} }),
			script: append(append(say("C: AUTH PARROT", "S: + "+b64("a")), challenges(15)...), "C~ *",
				"S: +OK"),
			after: isIn},
		{id: "3.8b a challenge too many", login: byLogin,
			script: say("C: AUTH LOGIN", "S: +", "C: "+b64("u"), "S: +",
				"C: "+b64(canary), "S: + "+b64("more"), "C: *", "S: -ERR"), err: says("one too many")},
		{id: "H-172 OK after the end", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + !", "C: *", "S: +OK in"),
			err:    broken, after: isDead},
		{id: "H-173 a challenge after the end", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + !", "C: *", "S: + eA=="),
			err:    broken, after: isDead},
		{id: "3.8c gone after the end", login: byLogin, script: say("C: AUTH LOGIN", "S: + !", "C: *", "EOF"),
			err: also(nonsenseOrCut, cut), after: seemsGone},
		{id: "H-174 no space", login: byLogin, script: say("C: AUTH LOGIN", "S: +QUJD"), err: broken,
			after: isDead},
		{id: "3.8d OK with a plus", login: byLogin, script: say("C: AUTH LOGIN", "S: +OK+"), err: broken,
			after: isDead},
		{id: "3.8e equals sign", login: byLogin, script: say("C: AUTH LOGIN", "S: +="), err: broken,
			after: isDead},
		{id: "H-174 plus alone", login: byLogin, script: say("C: AUTH LOGIN", "S: +", "C: "+b64("u"), "S: + ",
			"C: "+b64(canary), "S: +OK"), after: isIn},
		{id: "CVE-2025-61962 equals sign", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + =", "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "CVE-2025-61962 equals signs", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + ====", "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "CVE-2025-61962 two spaces", login: byLogin,
			script: say("C: AUTH LOGIN", "S: +  ", "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "3.8f padding in the middle", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + QQ==QUJD", "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "3.8g no padding", login: byLogin, script: say("C: AUTH LOGIN", "S: + QQ", "C: *", "S: -ERR"),
			err: nonsense},
		{id: "3.8h bits left over", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + QR==", "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "3.8i CR in the middle", login: byLogin,
			script: say("C: AUTH LOGIN", `s: "+ QUJD\rREVG\r\n"`, "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "3.8j the other alphabet", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + _-_-", "C: *", "S: -ERR"),
			err:    nonsense},
		{id: "3.8k words", login: byLogin, script: say("C: AUTH LOGIN", "S: + Password:", "C: *", "S: -ERR"),
			err: nonsense},
		{id: "3.8l a challenge of 64 KiB", login: byLogin,
			script: say("C: AUTH LOGIN", "S: + "+b64(strings.Repeat("x", 70_000))),
			err:    broken, after: isDead},

		{id: "H-176 asks again", login: byPlain,
			script: append(offers("SASL PLAIN"), "C: AUTH PLAIN "+plainIR, "S: + ",
				"C: "+plainIR, "S: +OK"), after: isIn},
		{id: "H-176 asks and asks", login: byPlain,
			script: append(offers("SASL PLAIN"), "C: AUTH PLAIN "+plainIR, "S: + ",
				"C: "+plainIR, "S: + ", "C: *", "S: -ERR"), err: says("one too many")},
		{id: "H-177 OK at once, CRAM-MD5", login: byCram, script: say("C: AUTH CRAM-MD5", "S: +OK"),
			err: broken, after: isDead},
		{id: "H-177 OK at once, LOGIN", login: byLogin, script: say("C: AUTH LOGIN", "S: +OK"), err: broken,
			after: isDead},
		{id: "H-177 OK at once, PLAIN in two steps", login: byPlain,
			script: say("C: CAPA", "S: -ERR", "C: AUTH PLAIN",
				"S: +OK"), err: broken, after: isDead},
		{id: "H-177 OK at once, SCRAM", login: byScram,
			script: append(offers("SASL SCRAM-SHA-256"), "C~ AUTH SCRAM-SHA-256 *",
				"S: +OK"), err: also(broken, says("proved")), after: isDead},
		{id: "3.8m empty challenge, CRAM-MD5", login: byCram,
			script: say("C: AUTH CRAM-MD5", "S: + ", "C: *", "S: -ERR"),
			err:    says("empty")},

		{id: "H-181 OAuth error", login: byToken,
			script: tokenScript("OAUTHBEARER", bearerIR, `{"status":"invalid_token"}`, "AQ=="),
			err:    also(refused("", "no"), oauth("invalid_token", ""))},
		{id: "H-181 broken JSON", login: byToken,
			script: tokenScript("OAUTHBEARER", bearerIR, `{"status":`, "AQ=="),
			err:    also(refused("", "no"), oauth("", `{"status":`))},
		{id: "3.8n no JSON", login: byToken,
			script: tokenScript("OAUTHBEARER", bearerIR, "\x1b[2Jno \u202etoken", "AQ=="),
			err:    also(refused("", "no"), oauth("", "[2Jno token"))},
		{id: "3.8p JSON of something else", login: byToken,
			script: tokenScript("OAUTHBEARER", bearerIR, `[1,2]`, "AQ=="),
			err:    also(refused("", "no"), oauth("", "[1,2]"))},
		{id: "3.8q XOAUTH2 error", login: byOldTk,
			script: tokenScript("XOAUTH2", xoauth2IR, `{"status":"400"}`, ""),
			err:    also(refused("", "no"), oauth("400", ""))},
		{id: "3.8aa OAuth error without padding", login: byToken,
			script: append(offers("SASL OAUTHBEARER"), "C: AUTH OAUTHBEARER "+bearerIR,
				"S: + eyJzdGF0dXMiOiI0MDAifQ", "C: AQ==", "S: -ERR [AUTH] no"),
			err: also(refused(pop3.CodeAuth, "no"), oauth("400", ""))},
		{id: "3.8ab OAuth error without padding, in two steps", login: byOldTk,
			script: append(tokenInTwoSteps, "S: + eyJzdGF0dXMiOiI0MDAifQ", "C: ", "S: -ERR [AUTH] no"),
			err:    also(refused(pop3.CodeAuth, "no"), oauth("400", ""))},
		{id: "3.8ac OAuth error that is no base64", login: byOldTk,
			script: append(tokenInTwoSteps, `S: + {"status":"401"}`, "C: ", "S: -ERR [AUTH] no"),
			err:    also(refused(pop3.CodeAuth, "no"), oauth("401", ""))},
		{id: "3.8ad OAuth error of one octet", login: byOldTk,
			script: append(tokenInTwoSteps, "S: + x", "C: ", "S: -ERR [AUTH] no"),
			err:    also(refused(pop3.CodeAuth, "no"), oauth("", "x"))},
		{id: "3.8ae OK after an OAuth error without padding", login: byOldTk,
			script: append(tokenInTwoSteps, "S: + eyJzdGF0dXMiOiI0MDAifQ", "C: ", "S: +OK"),
			err:    broken, after: isDead},
		{id: "3.8af no base64 before the token has left", login: byOldTk,
			script: append(tokenInTwoSteps[:3:3], "S: + QQ", "C: *", "S: -ERR"), err: nonsense},
		{id: "3.8ag the token in an OAuth error that is no base64", login: byOldTk,
			script: append(tokenInTwoSteps, "S: + <"+canary+">", "C: ", "S: -ERR "+canary),
			err:    also(refused("", leftOut), oauth("", leftOut))},
		{id: "3.8ah the token in an OAuth error without padding", login: byOldTk,
			script: append(tokenInTwoSteps, "S: + "+strings.TrimRight(b64(`{"status":"`+canary+`"}`), "="), "C: ",
				"S: -ERR no"),
			err: also(refused("", "no"), oauth(leftOut, ""))},
		{id: "3.8r OK after an OAuth error", login: byToken,
			script: append(tokenScript("OAUTHBEARER", bearerIR, `{"status":"invalid_token"}`, "AQ==")[:7],
				"S: +OK"),
			err: broken, after: isDead},
		{id: "H-181 JSON of 1 MiB", login: byToken, script: tokenScript("OAUTHBEARER", bearerIR,
			`{"status":"`+strings.Repeat("x", 1<<20)+`"}`, "")[:6], err: broken, after: isDead},

		{id: "H-182 locked", login: byUser,
			script: say("C: USER u", "S: +OK", "C: PASS "+canary, "S: -ERR [IN-USE] locked"),
			err:    also(refused(pop3.CodeInUse, "locked"), temporary, judged(false, true))},
		{id: "H-184 wrong", login: byUser,
			script: say("C: USER u", "S: +OK", "C: PASS "+canary, "S: -ERR [AUTH] bad"),
			err:    also(refused(pop3.CodeAuth, "bad"), judged(true, true))},
		{id: "3.8s wrong, with SASL", login: byPlain,
			script: append(offers("SASL PLAIN"), "C: AUTH PLAIN "+plainIR,
				"S: -ERR [AUTH] bad"), err: also(refused(pop3.CodeAuth, "bad"), judged(true, true))},
		{id: "H-185 gone", login: byUser, script: say("C: USER u", "S: +OK", "C: PASS "+canary, "EOF"),
			err: also(cut, notRefused), after: isDead},
		{id: "3.8t gone at AUTH", login: byLogin, script: say("C: AUTH LOGIN", "EOF"),
			err: also(cut, notRefused), after: isDead},
		{id: "3.8u gone within AUTH", login: byLogin,
			script: say("C: AUTH LOGIN", "S: +", "C: "+b64("u"), "EOF"),
			err:    also(cut, notRefused), after: isDead},
		{id: "H-186 no such user", login: byUser, script: say("C: USER u", "S: -ERR no"),
			err: refused("", "no")},
		{id: "H-190 in, and yet not", login: func(ctx context.Context, c *pop3.Client) error {
			if err := byUser(ctx, c); err != nil {
				return err
			}
			_, err := c.Stat(ctx)
			return err
		}, script: say("C: USER u", "S: +OK", "C: PASS "+canary, "S: +OK", "C: STAT", "S: -ERR not logged in"),
			err: refused("", "not logged in"), after: isIn},
		{id: "3.8v silence", login: byLogin, script: say("C: AUTH LOGIN"), err: late, after: isDead,
			takes: 2 * time.Minute},
		{id: "3.8w silence behind a challenge", login: byLogin,
			script: say("C: AUTH LOGIN", "S: +", "C: "+b64("u")),
			err:    late, after: isDead, takes: 2 * time.Minute},
		{id: "3.8x challenge in LF", login: byLogin, script: say("C: AUTH LOGIN", `s: "+\n"`), err: broken,
			after: isDead},
		{id: "3.8y two challenges at once", login: byLogin, script: say("C: AUTH LOGIN", `s: "+ \r\n+ \r\n"`),
			err: broken, after: isDead, pieces: true},
		{id: "3.8z OK behind a challenge", login: byLogin, script: say("C: AUTH LOGIN", `s: "+ \r\n+OK\r\n"`),
			err: broken, after: isDead, pieces: true},
		{id: "3.8A challenge to PASS", login: byUser,
			script: say("C: USER u", "S: +OK", "C: PASS "+canary, "S: + "),
			err:    broken, after: isDead},
		{id: "3.8B answer to USER and PASS at once", login: byUser,
			script: say("C: USER u", `s: "+OK\r\n+OK\r\n"`),
			err:    broken, after: isDead, pieces: true},
	} {
		t.Run(row.id, row.run)
	}
}

// nonsenseOrCut is for an error that tells two things.
func nonsenseOrCut(t *testing.T, err error) { nonsense(t, err) }

func notRefused(t *testing.T, err error) {
	var refusal *pop3.Error
	assert.False(t, errors.As(err, &refusal), "not the server's refusal: %v", err)
}

func temporary(t *testing.T, err error) {
	var refusal *pop3.Error
	assert.True(t, errors.As(err, &refusal) && refusal.Temporary())
}

func oauth(status, text string) problem {
	return func(t *testing.T, err error) {
		var failure *sasl.OAuthError
		if assert.ErrorAs(t, err, &failure) {
			assert.Equal(t, status, failure.Status)
			assert.Equal(t, text, failure.Text)
		}
	}
}

var (
	bearerIR  = b64("n,a=u,\x01auth=Bearer " + canary + "\x01\x01")
	xoauth2IR = b64("user=u\x01auth=Bearer " + canary + "\x01\x01")

	tokenInTwoSteps = slices.Clip(say("C: CAPA", "S: -ERR", "C: AUTH XOAUTH2", "S: +", "C: "+xoauth2IR))
)

// tokenScript is a login with a token that the server refuses within the exchange.
func tokenScript(mech, ir, challenge, answer string) []string {
	return []string{"C: CAPA", "S: +OK", "S: SASL " + mech, "S: .", "C: AUTH " + mech + " " + ir,
		"S: + " + b64(challenge),
		"C: " + answer, "S: -ERR no"}
}

// A parrot is a mechanism that answers everything.
type parrot struct{ mech string }

func (p *parrot) Start() (string, []byte, error)        { return p.mech, nil, nil }
func (p *parrot) Next(challenge []byte) ([]byte, error) { return []byte("answer"), nil }

// Three wrong passwords and the door is shut: the last error is the one that counts.
func TestHostileThreeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := []string{"S: +OK"}
		for _, text := range []string{"one", "two", "three"} {
			script = append(script, "C: USER u", "S: +OK", "C: PASS "+canary, "S: -ERR "+text)
		}
		conn, done := pop3test.Script(strings.Join(append(script, "EOF", "C: USER u"), "\n"))
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
		require.NoError(t, err)
		for _, text := range []string{"one", "two", "three"} {
			refused("", text)(t, byUser(t.Context(), c))
		}
		err = byUser(t.Context(), c)
		cut(t, err)
		isDead.check(t, c, err)
		assert.NoError(t, done(), "H-188")
	})
}

// A server that offers less than the caller wants to use.
func TestHostileClosedList(t *testing.T) {
	for _, row := range []struct {
		id    string
		mechs []string
		caps  []string
	}{
		{"H-189 PLAIN for SCRAM", []string{"SCRAM-SHA-256"}, []string{"SASL PLAIN", "USER"}},
		{"CVE-2006-5867 USER for SCRAM", []string{"SCRAM-SHA-256"}, []string{"USER"}},
		{"3.8C nothing for SCRAM", []string{"SCRAM-SHA-256"}, nil},
		{"3.8D nothing allowed", []string{}, []string{"SASL PLAIN LOGIN SCRAM-SHA-256", "USER"}},
		{"3.8E APOP and CRAM-MD5 by default", nil, []string{"SASL CRAM-MD5"}},
		{"3.8F weird mechanisms only", nil,
			[]string{"SASL NTLM GSSAPI DIGEST-MD5 X-\x1b[2J " + strings.Repeat("Y", 4000)}},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := "S: +OK <1@example.com>\nC: CAPA\nS: +OK"
				for _, line := range row.caps {
					script += "\nS: " + line
				}
				conn, done := pop3test.Script(script + "\nS: .\nHOLD")
				c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true,
					Mechanisms: row.mechs})
				require.NoError(t, err)
				err = c.Login(t.Context(), "u", canary)
				assert.ErrorIs(t, err, errUnsupported)
				checkError(t, err)
				assert.NoError(t, c.Close())
				assert.NoError(t, done(), "nothing was sent")
			})
		})
	}
}

// scramFirst is what a server says first, by the client's nonce.
type scramFirst func(nonce string) string

func TestHostileScramFirst(t *testing.T) {
	fill := func(format string) scramFirst {
		return func(nonce string) string { return strings.ReplaceAll(format, "NONCE", nonce) }
	}
	for _, row := range []struct {
		id    string
		first scramFirst
	}{
		{"H-178 another nonce", fill("r=abc,s=QUJD,i=4096")},
		{"H-178 nonce of the client", fill("r=NONCE,s=QUJD,i=4096")},
		{"3.8G the beginning of the nonce",
			func(nonce string) string { return "r=" + nonce[:4] + ",s=QUJD,i=4096" }},
		{"3.8H something in front of the nonce", fill("r=xNONCEx,s=QUJD,i=4096")},
		{"H-178 comma in the nonce", fill("r=NONCEx,y,s=QUJD,i=4096")},
		{"3.8I control in the nonce", fill("r=NONCE\x00x,s=QUJD,i=4096")},
		{"H-178 mandatory extension", fill("m=ext,r=NONCEx,s=QUJD,i=4096")},
		{"3.8J mandatory extension in the end", fill("r=NONCEx,s=QUJD,i=4096,m=ext")},
		{"H-178 no iterations", fill("r=NONCEx,s=QUJD")},
		{"H-178 i=0", fill("r=NONCEx,s=QUJD,i=0")},
		{"H-178 i=-1", fill("r=NONCEx,s=QUJD,i=-1")},
		{"H-178 i=+4096", fill("r=NONCEx,s=QUJD,i=+4096")},
		{"H-178 i=4096x", fill("r=NONCEx,s=QUJD,i=4096x")},
		{"H-178 i=2147483648", fill("r=NONCEx,s=QUJD,i=2147483648")},
		{"H-178 i of 20 digits", fill("r=NONCEx,s=QUJD,i=99999999999999999999")},
		{"3.8K i=1", fill("r=NONCEx,s=QUJD,i=1")},
		{"3.8L i=4095", fill("r=NONCEx,s=QUJD,i=4095")},
		{"3.8M i=1000001", fill("r=NONCEx,s=QUJD,i=1000001")},
		{"3.8N i with a space", fill("r=NONCEx,s=QUJD,i= 4096")},
		{"3.8O i with a zero", fill("r=NONCEx,s=QUJD,i=04096")},
		{"H-180 i=2147483647", fill("r=NONCEx,s=QUJD,i=2147483647")},
		{"H-178 no salt", fill("r=NONCEx,s=,i=4096")},
		{"H-178 bad salt", fill("r=NONCEx,s=!,i=4096")},
		{"3.8P salt with a line end", fill("r=NONCEx,s=QUJD\r\n,i=4096")},
		{"3.8Q another order", fill("s=QUJD,r=NONCEx,i=4096")},
		{"3.8R a blank", fill(" ")},
		{"3.8S an error", fill("e=unknown-user")},
		{"3.8T the last message first", fill("v=QUJD")},
		{"3.8U i twice", fill("r=NONCEx,s=QUJD,i=4096,i=1")},
		{"3.8V the canary in an error", fill("e=" + canary)},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, most := range sips {
					c := scramPeer(t, most, func(p *peer, first string) {
						p.says("+ " + b64(row.first(first[strings.LastIndex(first, "r=")+2:])) + "\r\n")
						p.hears("*")
						p.says("-ERR no\r\n")
						p.hears("USER v")
						p.says("+OK\r\n")
						p.silence()
					})
					err := byScram(t.Context(), c)
					if assert.Error(t, err) {
						checkError(t, err)
					}
					assert.NoError(t, c.User(t.Context(), "v"), "the session can be used")
					assert.NoError(t, c.Close())
				}
			})
		})
	}
}

// scramPeer is a server that lets the client begin with SCRAM, and then goes its own way. first is the client's
// message without the header. The client reads at most so many octets at once.
func scramPeer(t *testing.T, most int, server func(p *peer, first string)) *pop3.Client {
	conn := serve(t, func(p *peer) {
		p.says("+OK\r\n")
		p.hears("CAPA")
		p.says("+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n")
		ir, ok := strings.CutPrefix(p.line(), "AUTH SCRAM-SHA-256 ")
		assert.True(t, ok)
		first, _ := base64.StdEncoding.DecodeString(ir)
		server(p, strings.TrimPrefix(string(first), "n,,"))
	})
	opts := &pop3.Options{InsecureAuth: true, Trace: watchful(t)}
	c, err := pop3.NewClient(t.Context(), sipper{conn, most}, opts)
	require.NoError(t, err)
	return c
}

// What a server says last, and whether that is the proof.
func TestHostileScramFinal(t *testing.T) {
	for _, row := range []struct {
		id    string
		final func(signature string) string // what is said; "+OK" in front is a status line
		fine  bool
		dead  bool
	}{
		{"H-178 an extension", func(s string) string { return "v=" + s }, true, false},
		{"3.8W an extension in the end", func(s string) string { return "v=" + s + ",x=1" }, true, false},
		{"R1-138 OK before the signature", func(string) string { return "+OK" }, false, true},
		{"3.8X OK with the signature behind it", func(s string) string { return "+OK v=" + s }, false, true},
		{"R1-143 wrong signature", func(string) string { return "v=" + b64(strings.Repeat("x", 32)) },
			false, false},
		{"3.8Y half a signature", func(s string) string { return "v=" + s[:20] }, false, false},
		{"3.8Z no signature", func(string) string { return "v=" }, false, false},
		{"3.8AA invalid-proof", func(string) string { return "e=invalid-proof" }, false, false},
		{"3.8AB both", func(s string) string { return "e=other-error,v=" + s }, false, false},
		{"3.8AC empty", func(string) string { return "" }, false, false},
	} {
		t.Run(row.id, func(t *testing.T) {
			for _, most := range sips {
				c := scramPeer(t, most, func(p *peer, first string) {
					signature := scramExchange(p, first, canary)
					final := row.final(signature)
					if strings.HasPrefix(final, "+OK") {
						p.says(final + "\r\n")
						p.silence()
						return
					}
					p.says("+ " + b64(final) + "\r\n")
					if row.fine {
						p.hears("")
						p.says("+OK in\r\n")
					} else {
						p.hears("*")
						p.says("-ERR no\r\n")
					}
					p.silence()
				})
				err := byScram(t.Context(), c)
				if row.fine {
					assert.NoError(t, err)
					assert.Equal(t, pop3.StateTransaction, c.State())
				} else if assert.Error(t, err) {
					checkError(t, err)
					assert.NotEqual(t, pop3.StateTransaction, c.State())
					assert.Equal(t, row.dead, c.State() == pop3.StateClosed)
				}
				assert.NoError(t, c.Close())
			}
		})
	}
}

// scramExchange is the server's part of SCRAM up to the client's proof. It returns the server's signature.
func scramExchange(p *peer, first, password string) (signature string) {
	_, signature = scramProofs(p, first, password)
	return signature
}

// scramProofs is scramExchange that returns the client's proof too.
func scramProofs(p *peer, first, password string) (proof, signature string) {
	nonce := first[strings.LastIndex(first, "r=")+2:] + "server"
	reply := "r=" + nonce + ",s=" + b64("salt") + ",i=4096,x=1"
	p.says("+ " + b64(reply) + "\r\n")
	final, _ := base64.StdEncoding.DecodeString(p.line())
	bare, proof, _ := strings.Cut(string(final), ",p=")
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 4096, sha256.Size)
	assert.NoError(p.t, err)
	key := keyed(salted, "Server Key")
	return proof, base64.StdEncoding.EncodeToString(keyed(key, first+","+reply+","+bare))
}

func keyed(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// Long answers to a challenge go out as one line (R1-004), long challenges come in (R1-006).
func TestLongChallenges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := strings.Repeat("t", 15_000)
		long := b64(strings.Repeat("c", 9_000))
		conn, done := pop3test.Script(fmt.Sprintf(
			"S: +OK\nC: CAPA\nS: +OK\nS: SASL XOAUTH2\nS: .\nC: AUTH XOAUTH2\nS: +\nC: %s\nS: + %s\nC: \nS: -ERR [AUTH] no\nHOLD",
			b64("user=u\x01auth=Bearer "+token+"\x01\x01"), long))
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
		require.NoError(t, err)
		err = c.Auth(t.Context(), sasl.XOAuth2("u", token))
		refused(pop3.CodeAuth, "no")(t, err)
		assert.NoError(t, c.Close())
		assert.NoError(t, done(), "R1-004, R1-006, R1-132")
	})
}
