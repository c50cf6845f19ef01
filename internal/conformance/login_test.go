package conformance_test

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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

func authWith(mech func() sasl.Client) func(context.Context, *pop3.Client) error {
	return func(ctx context.Context, c *pop3.Client) error { return c.Auth(ctx, mech()) }
}

var (
	byPlain  = authWith(func() sasl.Client { return sasl.Plain("", "u", canary) })
	byLogin  = authWith(func() sasl.Client { return sasl.Login("u", canary) })
	byCram   = authWith(func() sasl.Client { return sasl.CramMD5("u", canary) })
	byToken  = authWith(func() sasl.Client { return sasl.OAuthBearer("u", canary) })
	byOldTk  = authWith(func() sasl.Client { return sasl.XOAuth2("u", canary) })
	byScram  = authWith(func() sasl.Client { return must(sasl.Scram("SCRAM-SHA-256", "u", canary)) })
	byParrot = authWith(func() sasl.Client { return &echoMechanism{mech: "PARROT"} })
	byUser   = func(ctx context.Context, c *pop3.Client) error {
		if err := c.User(ctx, "u"); err != nil {
			return err
		}
		return c.Pass(ctx, canary)
	}
	byChoice = func(ctx context.Context, c *pop3.Client) error { return c.Login(ctx, "u", canary) }
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestHostileLogin(t *testing.T) {
	challenges := func(n int) script {
		s := turns("AUTH PARROT", "+ "+b64("a"))
		for range n {
			s = s.add("C~ *", "S: + "+b64("again"))
		}
		return s
	}
	offers := func(line string) script { return turns("CAPA", "+OK\n"+line+"\n.") }
	plainIR := b64("\x00u\x00" + canary)
	playAll(t, []dialogue{
		{id: "H-170 challenges without end",
			script: challenges(16).turns("*", "-ERR no"), do: loginAction(byParrot),
			want: failsWith(nonFatal)},
		{id: "3.8a sixteen challenges",
			script: challenges(15).add("C~ *", "S: +OK"), do: loginAction(byParrot)},
		{id: "3.8b a challenge too many",
			script: turns("AUTH LOGIN", "+", b64("u"), "+", b64(canary), "+ "+b64("more"), "*", "-ERR"),
			do:     loginAction(byLogin), want: failsWith(hasText("one too many"))},
		{id: "H-172 OK after the end", script: turns("AUTH LOGIN", "+ !", "*", "+OK in"), do: loginAction(byLogin),
			want: failsWith(fatal), after: closed},
		{id: "H-173 a challenge after the end", script: turns("AUTH LOGIN", "+ !", "*", "+ eA=="),
			do: loginAction(byLogin), want: failsWith(fatal), after: closed},
		{id: "3.8c the connection is closed after the cancellation", script: turns("AUTH LOGIN", "+ !",
			"*").add("EOF"),
			do: loginAction(byLogin), want: failsWith(nonFatal, connLost), after: closed},
		{id: "H-174 no space", script: turns("AUTH LOGIN", "+QUJD"), do: loginAction(byLogin), want: failsWith(fatal),
			after: closed},
		{id: "3.8d a plus after OK", script: turns("AUTH LOGIN", "+OK+"), do: loginAction(byLogin),
			want: failsWith(fatal), after: closed},
		{id: "3.8e equals sign", script: turns("AUTH LOGIN", "+="), do: loginAction(byLogin), want: failsWith(fatal),
			after: closed},
		{id: "H-174 Q-30 R1-136 plus alone",
			script: turns("AUTH LOGIN", "+", b64("u"), "+ ", b64(canary), "+OK"), do: loginAction(byLogin)},
		{id: "CVE-2025-61962 equals sign", script: turns("AUTH LOGIN", "+ =", "*", "-ERR"),
			do: loginAction(byLogin), want: failsWith(nonFatal)},
		{id: "CVE-2025-61962 equals signs", script: turns("AUTH LOGIN", "+ ====", "*", "-ERR"),
			do: loginAction(byLogin), want: failsWith(nonFatal)},
		{id: "CVE-2025-61962 two spaces", script: turns("AUTH LOGIN", "+  ", "*", "-ERR"),
			do: loginAction(byLogin), want: failsWith(nonFatal)},
		{id: "3.8f padding in the middle", script: turns("AUTH LOGIN", "+ QQ==QUJD", "*", "-ERR"),
			do: loginAction(byLogin), want: failsWith(nonFatal)},
		{id: "3.8g no padding", script: turns("AUTH LOGIN", "+ QQ", "*", "-ERR"), do: loginAction(byLogin),
			want: failsWith(nonFatal)},
		{id: "3.8h bits left over", script: turns("AUTH LOGIN", "+ QR==", "*", "-ERR"), do: loginAction(byLogin),
			want: failsWith(nonFatal)},
		{id: "3.8i CR in the middle",
			script: turns("AUTH LOGIN").sends("+ QUJD\rREVG\r\n").turns("*", "-ERR"), do: loginAction(byLogin),
			want: failsWith(nonFatal)},
		{id: "3.8j the other alphabet", script: turns("AUTH LOGIN", "+ _-_-", "*", "-ERR"),
			do: loginAction(byLogin), want: failsWith(nonFatal)},
		{id: "3.8k words", script: turns("AUTH LOGIN", "+ Password:", "*", "-ERR"), do: loginAction(byLogin),
			want: failsWith(nonFatal)},
		{id: "3.8l a challenge of 64 KiB",
			script: turns("AUTH LOGIN", "+ "+b64(strings.Repeat("x", 70_000))), do: loginAction(byLogin),
			want: failsWith(fatal), after: closed},

		{id: "H-176 one challenge more", script: offers("SASL PLAIN").turns("AUTH PLAIN "+plainIR, "+ ", plainIR,
			"+OK"),
			do: loginAction(byPlain)},
		{id: "H-176 challenges without end",
			script: offers("SASL PLAIN").turns("AUTH PLAIN "+plainIR, "+ ", plainIR, "+ ", "*", "-ERR"),
			do:     loginAction(byPlain), want: failsWith(hasText("one too many"))},
		{id: "H-177 Q-31 OK at once, CRAM-MD5", script: turns("AUTH CRAM-MD5", "+OK"), do: loginAction(byCram),
			want: failsWith(fatal), after: closed},
		{id: "H-177 OK at once, LOGIN", script: turns("AUTH LOGIN", "+OK"), do: loginAction(byLogin),
			want: failsWith(fatal), after: closed},
		{id: "H-177 OK at once, PLAIN in two steps", script: turns("CAPA", "-ERR", "AUTH PLAIN", "+OK"),
			do: loginAction(byPlain), want: failsWith(fatal), after: closed},
		{id: "H-177 OK at once, SCRAM", script: offers("SASL SCRAM-SHA-256").add("C~ AUTH SCRAM-SHA-256 *", "S: +OK"),
			do: loginAction(byScram), want: failsWith(fatal, hasText("proved")), after: closed},
		{id: "3.8m Q-33 empty challenge, CRAM-MD5", script: turns("AUTH CRAM-MD5", "+ ", "*", "-ERR"),
			do: loginAction(byCram), want: failsWith(hasText("empty"))},

		{id: "H-181 OAuth error",
			script: tokenScript("OAUTHBEARER", bearerIR, `{"status":"invalid_token"}`, "AQ=="),
			do:     loginAction(byToken), want: failsWith(refusedWith("", "no"), oauth("invalid_token", ""))},
		{id: "H-181 broken JSON", script: tokenScript("OAUTHBEARER", bearerIR, `{"status":`, "AQ=="),
			do: loginAction(byToken), want: failsWith(refusedWith("", "no"), oauth("", `{"status":`))},
		{id: "3.8n no JSON", script: tokenScript("OAUTHBEARER", bearerIR, "\x1b[2Jno \u202etoken", "AQ=="),
			do: loginAction(byToken), want: failsWith(refusedWith("", "no"), oauth("", "[2Jno token"))},
		{id: "3.8p JSON without the fields of an error", script: tokenScript("OAUTHBEARER", bearerIR, `[1,2]`, "AQ=="),
			do: loginAction(byToken), want: failsWith(refusedWith("", "no"), oauth("", "[1,2]"))},
		{id: "3.8q XOAUTH2 error", script: tokenScript("XOAUTH2", xoauth2IR, `{"status":"400"}`, ""),
			do: loginAction(byOldTk), want: failsWith(refusedWith("", "no"), oauth("400", ""))},
		{id: "3.8aa OAuth error without padding",
			script: offers("SASL OAUTHBEARER").turns("AUTH OAUTHBEARER "+bearerIR, "+ eyJzdGF0dXMiOiI0MDAifQ", "AQ==",
				"-ERR [AUTH] no"), do: loginAction(byToken), want: failsWith(refusedWith(pop3.CodeAuth,
				"no"), oauth("400", ""))},
		{id: "3.8ab OAuth error without padding, in two steps",
			script: tokenInTwoSteps.add("S: + eyJzdGF0dXMiOiI0MDAifQ").turns("", "-ERR [AUTH] no"),
			do:     loginAction(byOldTk), want: failsWith(refusedWith(pop3.CodeAuth, "no"), oauth("400", ""))},
		{id: "3.8ac OAuth error that is not base64",
			script: tokenInTwoSteps.add(`S: + {"status":"401"}`).turns("", "-ERR [AUTH] no"),
			do:     loginAction(byOldTk), want: failsWith(refusedWith(pop3.CodeAuth, "no"), oauth("401", ""))},
		{id: "3.8ad OAuth error of one octet",
			script: tokenInTwoSteps.add("S: + x").turns("", "-ERR [AUTH] no"), do: loginAction(byOldTk),
			want: failsWith(refusedWith(pop3.CodeAuth, "no"), oauth("", "x"))},
		{id: "3.8ae OK after an OAuth error without padding",
			script: tokenInTwoSteps.add("S: + eyJzdGF0dXMiOiI0MDAifQ").turns("", "+OK"), do: loginAction(byOldTk),
			want: failsWith(fatal), after: closed},
		{id: "3.8af a challenge that is not base64 before the token was sent",
			script: tokenInTwoSteps[:3].add("S: + QQ").turns("*", "-ERR"), do: loginAction(byOldTk),
			want: failsWith(nonFatal)},
		{id: "3.8ag the token in an OAuth error that is not base64",
			script: tokenInTwoSteps.add("S: + <"+canary+">").turns("", "-ERR "+canary), do: loginAction(byOldTk),
			want: failsWith(refusedWith("", hiddenText), oauth("", hiddenText))},
		{id: "3.8ah the token in an OAuth error without padding",
			script: tokenInTwoSteps.add("S: + "+strings.TrimRight(b64(`{"status":"`+canary+`"}`), "=")).turns("",
				"-ERR no"), do: loginAction(byOldTk), want: failsWith(refusedWith("", "no"), oauth(hiddenText, ""))},
		{id: "3.8r OK after an OAuth error",
			script: tokenScript("OAUTHBEARER", bearerIR, `{"status":"invalid_token"}`, "AQ==")[:7].add("S: +OK"),
			do:     loginAction(byToken), want: failsWith(fatal), after: closed},
		{id: "H-181 JSON of 1 MiB", script: tokenScript("OAUTHBEARER", bearerIR,
			`{"status":"`+strings.Repeat("x", 1<<20)+`"}`, "")[:6], do: loginAction(byToken), want: failsWith(fatal),
			after: closed},

		{id: "H-182 locked", script: turns("USER u", "+OK", "PASS "+canary, "-ERR [IN-USE] locked"),
			do: loginAction(byUser), want: failsWith(refusedWith(pop3.CodeInUse, "locked"),
				hasVerdict(temporaryByCode))},
		{id: "H-184 wrong", script: turns("USER u", "+OK", "PASS "+canary, "-ERR [AUTH] bad"),
			do: loginAction(byUser), want: failsWith(refusedWith(pop3.CodeAuth, "bad"), hasVerdict(wrongByCode))},
		{id: "3.8s wrong, with SASL", script: offers("SASL PLAIN").turns("AUTH PLAIN "+plainIR, "-ERR [AUTH] bad"),
			do: loginAction(byPlain), want: failsWith(refusedWith(pop3.CodeAuth, "bad"), hasVerdict(wrongByCode))},
		{id: "H-185 Q-34 the connection is closed", script: turns("USER u", "+OK", "PASS "+canary).add("EOF"),
			do:   loginAction(byUser),
			want: failsWith(connLost, notRefused, hasText("login failed")), after: closed},
		{id: "3.8t the connection is closed at AUTH", script: turns("AUTH LOGIN").add("EOF"), do: loginAction(byLogin),
			want: failsWith(connLost, notRefused), after: closed},
		{id: "3.8u the connection is closed within AUTH", script: turns("AUTH LOGIN", "+", b64("u")).add("EOF"),
			do: loginAction(byLogin), want: failsWith(connLost, notRefused), after: closed},
		{id: "H-186 Q-39 no such user", script: turns("USER u", "-ERR no"), do: loginAction(byUser),
			want: failsWith(refusedWith("", "no"))},
		{id: "H-190 logged in, but STAT is not allowed", script: serverSends("-ERR not logged in\r\n"), do: stat,
			want: failsWith(refusedWith("", "not logged in"))},
		{id: "3.8v silence", script: turns("AUTH LOGIN"), do: loginAction(byLogin), want: failsWith(timedOut),
			after: closed, takes: 2 * time.Minute},
		{id: "3.8w silence after a challenge", script: turns("AUTH LOGIN", "+", b64("u")),
			do: loginAction(byLogin), want: failsWith(timedOut), after: closed, takes: 2 * time.Minute},
		{id: "3.8x challenge in LF", script: turns("AUTH LOGIN").sends("+\n"), do: loginAction(byLogin),
			want: failsWith(fatal), after: closed},
		{id: "3.8y two challenges at once", script: turns("AUTH LOGIN").sends("+ \r\n+ \r\n"),
			do: loginAction(byLogin), want: failsWith(fatal), after: closed, onePiece: true},
		{id: "3.8z OK after a challenge", script: turns("AUTH LOGIN").sends("+ \r\n+OK\r\n"),
			do: loginAction(byLogin), want: failsWith(fatal), after: closed, onePiece: true},
		{id: "3.8A challenge to PASS", script: turns("USER u", "+OK", "PASS "+canary, "+ "),
			do: loginAction(byUser), want: failsWith(fatal), after: closed},
		{id: "C-004 two replies to PASS", script: turns("USER u", "+OK", "PASS "+canary).sends("+OK\r\n+OK\r\n"),
			do: loginAction(byUser), after: surplus, onePiece: true},
		{id: "3.8B answer to USER and PASS at once", script: turns("USER u").sends("+OK\r\n+OK\r\n"),
			do: loginAction(byUser), want: failsWith(fatal), after: closed, onePiece: true},
	})
}

func notRefused(t *testing.T, err error) {
	var refusal *pop3.Error
	assert.False(t, errors.As(err, &refusal), "not the server's refusal: %v", err)
}

func oauth(status, text string) errorCheck {
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

	tokenInTwoSteps = turns("CAPA", "-ERR", "AUTH XOAUTH2", "+", xoauth2IR)
)

// tokenScript is a login with a token. The server refuses the token with a challenge, and then with -ERR.
func tokenScript(mech, ir, challenge, answer string) script {
	return turns("CAPA", "+OK\nSASL "+mech+"\n.", "AUTH "+mech+" "+ir, "+ "+b64(challenge), answer, "-ERR no")
}

// An echoMechanism sends the same response to every challenge.
type echoMechanism struct{ mech string }

func (p *echoMechanism) Start() (string, []byte, error)        { return p.mech, nil, nil }
func (p *echoMechanism) Next(challenge []byte) ([]byte, error) { return []byte("answer"), nil }

// The server refuses three passwords with a different text each, and hangs up. Each login returns its own error.
func TestHostileThreeTries(t *testing.T) {
	s := withGreeting("+OK")
	for _, text := range []string{"one", "two", "three"} {
		s = s.turns("USER u", "+OK", "PASS "+canary, "-ERR "+text)
	}
	playAll(t, []dialogue{{id: "H-188", script: s.add("EOF", "C: USER u"),
		do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			for _, text := range []string{"one", "two", "three"} {
				refusedWith("", text)(t, byUser(ctx, c))
			}
			err := byUser(ctx, c)
			connLost(t, err)
			closed.check(t, c, err)
		})}})
}

// The server offers no mechanism that the caller allows, so the login fails and sends no secret.
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
		playAll(t, []dialogue{{id: row.id,
			script: turns("CAPA", strings.Join(append(append([]string{"+OK"}, row.caps...), "."), "\n")),
			do:     loginAction(byChoice), want: failsWith(wraps(errUnsupported)),
			opts: pop3.Options{Mechanisms: row.mechs}}})
	}
}

// A scramFirst returns the first message of the server. nonce is the client's nonce.
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
		{"3.8H something before the nonce", fill("r=xNONCEx,s=QUJD,i=4096")},
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
				for _, readSize := range readSizes {
					c := scramPeer(t, readSize, func(p *peer, first string) {
						p.send("+ " + b64(row.first(first[strings.LastIndex(first, "r=")+2:])) + "\r\n")
						p.expect("*")
						p.send("-ERR no\r\n")
						p.expect("USER v")
						p.send("+OK\r\n")
						p.expectNothing()
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

// scramPeer returns a client of a server that starts SCRAM. Then the function server continues. Its argument first is
// the client's first message without the header. The client reads at most readSize octets at once.
func scramPeer(t *testing.T, readSize int, server func(p *peer, first string)) *pop3.Client {
	conn := serve(t, func(p *peer) {
		p.send("+OK\r\n")
		p.expect("CAPA")
		p.send("+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n")
		ir, ok := strings.CutPrefix(p.line(), "AUTH SCRAM-SHA-256 ")
		assert.True(t, ok)
		first, _ := base64.StdEncoding.DecodeString(ir)
		server(p, strings.TrimPrefix(string(first), "n,,"))
	})
	opts := &pop3.Options{InsecureAuth: true, Trace: checkingTrace(t)}
	c, err := pop3.NewClient(t.Context(), chunkedConn{conn, readSize}, opts)
	require.NoError(t, err)
	return c
}

// The server's last message is accepted only if it proves that the server knows the password.
func TestHostileScramFinal(t *testing.T) {
	for _, row := range []struct {
		id       string
		final    func(signature string) string // the message; if it begins with "+OK" it is sent as a status line
		accepted bool
		expired  bool
	}{
		{"H-178 an extension", func(s string) string { return "v=" + s }, true, false},
		{"3.8W an extension in the end", func(s string) string { return "v=" + s + ",x=1" }, true, false},
		{"R1-138 OK before the signature", func(string) string { return "+OK" }, false, true},
		{"3.8X OK with the signature after it", func(s string) string { return "+OK v=" + s }, false, true},
		{"R1-143 wrong signature", func(string) string { return "v=" + b64(strings.Repeat("x", 32)) },
			false, false},
		{"3.8Y half a signature", func(s string) string { return "v=" + s[:20] }, false, false},
		{"3.8Z no signature", func(string) string { return "v=" }, false, false},
		{"3.8AA invalid-proof", func(string) string { return "e=invalid-proof" }, false, false},
		{"3.8AB both", func(s string) string { return "e=other-error,v=" + s }, false, false},
		{"3.8AC empty", func(string) string { return "" }, false, false},
	} {
		t.Run(row.id, func(t *testing.T) {
			for _, readSize := range readSizes {
				c := scramPeer(t, readSize, func(p *peer, first string) {
					signature := scramExchange(p, first, canary)
					final := row.final(signature)
					if strings.HasPrefix(final, "+OK") {
						p.send(final + "\r\n")
						p.expectNothing()
						return
					}
					p.send("+ " + b64(final) + "\r\n")
					if row.accepted {
						p.expect("")
						p.send("+OK in\r\n")
					} else {
						p.expect("*")
						p.send("-ERR no\r\n")
					}
					p.expectNothing()
				})
				err := byScram(t.Context(), c)
				if row.accepted {
					assert.NoError(t, err)
					assert.Equal(t, pop3.StateTransaction, c.State())
				} else if assert.Error(t, err) {
					checkError(t, err)
					assert.NotEqual(t, pop3.StateTransaction, c.State())
					assert.Equal(t, row.expired, c.State() == pop3.StateClosed)
				}
				assert.NoError(t, c.Close())
			}
		})
	}
}

// scramExchange carries out the server's part of SCRAM until the client has sent its proof. It returns the signature
// that the server must send.
func scramExchange(p *peer, first, password string) (signature string) {
	_, signature = scramProofs(p, first, password)
	return signature
}

// scramProofs is like scramExchange, and also returns the client's proof.
func scramProofs(p *peer, first, password string) (proof, signature string) {
	nonce := first[strings.LastIndex(first, "r=")+2:] + "server"
	reply := "r=" + nonce + ",s=" + b64("salt") + ",i=4096,x=1"
	p.send("+ " + b64(reply) + "\r\n")
	final, _ := base64.StdEncoding.DecodeString(p.line())
	bare, proof, _ := strings.Cut(string(final), ",p=")
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 4096, sha256.Size)
	assert.NoError(p.t, err)
	key := hmacSHA256(salted, "Server Key")
	return proof, base64.StdEncoding.EncodeToString(hmacSHA256(key, first+","+reply+","+bare))
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// Long responses to a challenge are sent on one line (R1-004), and long challenges are accepted (R1-006).
func TestLongChallenges(t *testing.T) {
	token := strings.Repeat("t", 15_000)
	playAll(t, []dialogue{{id: "R1-004 R1-006 R1-132",
		script: turns("CAPA", "+OK\nSASL XOAUTH2\n.", "AUTH XOAUTH2", "+",
			b64("user=u\x01auth=Bearer "+token+"\x01\x01"), "+ "+b64(strings.Repeat("c", 9_000)), "",
			"-ERR [AUTH] no"), do: loginAction(authWith(func() sasl.Client { return sasl.XOAuth2("u", token) })),
		want: failsWith(refusedWith(pop3.CodeAuth, "no"))}})
}

// TestLoginChooses checks which method Login uses, depending on what the server offers and the caller allows.
func TestLoginChooses(t *testing.T) {
	all := "SASL PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"
	for _, row := range []struct {
		name    string
		caps    []string
		allowed []string
		verb    string // the beginning of the command that logs in; "" if Login must send none
	}{
		{"everything", []string{"USER", all}, nil, "AUTH SCRAM-SHA-256"},
		{"SCRAM-SHA-1 only", []string{"USER", "SASL SCRAM-SHA-1"}, nil, "AUTH SCRAM-SHA-1"},
		{"PLAIN before LOGIN", []string{"USER", "SASL LOGIN PLAIN"}, nil, "AUTH PLAIN"},
		{"LOGIN before USER", []string{"USER", "SASL LOGIN"}, nil, "AUTH LOGIN"},
		{"CRAM-MD5 is not chosen", []string{"USER", "SASL CRAM-MD5"}, nil, "USER u"},
		{"no SASL", []string{"USER"}, nil, "USER u"},
		{"neither", []string{"UIDL"}, nil, "USER u"},
		{"SASL of others, no USER", []string{"SASL GSSAPI"}, nil, ""},
		{"H-189 closed list, not offered", []string{"USER", "SASL PLAIN"}, []string{"SCRAM-SHA-256"}, ""},
		{"closed list, in any case", []string{"USER", all}, []string{"plain"}, "AUTH PLAIN"},
		{"CRAM-MD5 by name", []string{all}, []string{"CRAM-MD5"}, "AUTH CRAM-MD5"},
		{"APOP by name", []string{all}, []string{"APOP"}, "APOP u "},
		{"empty list", []string{"USER", all}, []string{}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: "secret"})
			srv.Caps = row.caps
			srv.Start()
			defer srv.Close()
			c, err := pop3.DialInsecure(t.Context(), srv.Addr, &pop3.Options{Mechanisms: row.allowed})
			require.NoError(t, err)
			defer c.Close()
			err = c.Login(t.Context(), "u", "secret")
			if row.verb == "" {
				require.ErrorIs(t, err, errors.ErrUnsupported)
				assert.Equal(t, []string{"CAPA"}, srv.Commands())
				return
			}
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(srv.Commands()[1], row.verb), "%q", srv.Commands())
		})
	}
}

// TestRefusedOnce: after a refusal, Login does not send the same secret with another method.
func TestRefusedOnce(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: "secret"})
	defer srv.Close()
	c, err := pop3.DialInsecure(t.Context(), srv.Addr, nil)
	require.NoError(t, err)
	defer c.Close()
	var refusal *pop3.Error
	require.ErrorAs(t, c.Login(t.Context(), "u", "wrong"), &refusal)
	logins := 0
	for _, cmd := range srv.Commands() {
		if strings.HasPrefix(cmd, "AUTH") || strings.HasPrefix(cmd, "PASS") {
			logins++
		}
	}
	assert.Equal(t, 1, logins)
	require.NoError(t, c.Login(t.Context(), "u", "secret"), "the session can continue")
}

// TestChannelBinding: over TLS 1.3 Login binds SCRAM to the channel if the server supports that. Some servers announce
// channel binding but do not support it, for example Cyrus 3.6. With them Login tries SCRAM once more without binding,
// and no other method.
func TestChannelBinding(t *testing.T) {
	unsupported := pop3test.Fault{At: "AUTH SCRAM-SHA-256-PLUS", Reply: "-ERR [AUTH] bad protocol / cancel"}
	offer := []string{"SASL PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256"}
	both := []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}
	for _, row := range []struct {
		name     string
		caps     []string
		faults   []pop3test.Fault
		mechs    []string
		refusals int // the number of refusals in the error; 0 means no error
	}{
		{"the server can", nil, nil, []string{"SCRAM-SHA-512-PLUS"}, 0},
		{"the server can't", offer, []pop3test.Fault{unsupported}, both, 0},
		{"the server can't, and has no other SCRAM", []string{"SASL PLAIN SCRAM-SHA-256-PLUS"},
			[]pop3test.Fault{unsupported},
			[]string{"SCRAM-SHA-256-PLUS"}, 1},
		{"the password is wrong", nil, []pop3test.Fault{{At: "AUTH", Reply: "-ERR [AUTH] no"}},
			[]string{"SCRAM-SHA-512-PLUS", "SCRAM-SHA-512"}, 1},
		{"C-110 the server can't, and the password is wrong", offer, []pop3test.Fault{unsupported,
			{At: "AUTH SCRAM-SHA-256", Reply: "-ERR [AUTH] no"}}, both, 2},
		{"C-110 the server can't, and has another reason with the same words", offer, []pop3test.Fault{unsupported,
			{At: "AUTH SCRAM-SHA-256", Reply: "-ERR [SYS/TEMP] bad protocol / cancel"}}, both, 2},
		{"it is not about the binding", nil, []pop3test.Fault{{At: "AUTH", Reply: "-ERR [IN-USE] open elsewhere"}},
			[]string{"SCRAM-SHA-512-PLUS"}, 1},
		{"somebody is in between", nil,
			[]pop3test.Fault{{At: "AUTH", Reply: "+ " + b64("e=channel-bindings-dont-match")}},
			[]string{"SCRAM-SHA-512-PLUS"}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: "secret"})
			srv.Caps = row.caps
			srv.SetFaults(row.faults...)
			srv.StartTLS()
			defer srv.Close()
			c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
			require.NoError(t, err)
			defer c.Close()
			err = c.Login(t.Context(), "u", "secret")
			assert.Equal(t, row.refusals == 0, err == nil, "%v", err)
			assert.Equal(t, row.mechs, mechanisms(srv))
			assert.Equal(t, row.refusals, strings.Count(fmt.Sprint(err), "-ERR"), "%v", err)
		})
	}
}

// TestScramKeys: the keys are kept for later logins if a login with SCRAM has succeeded and the server has proved that
// it knows the password. SCRAM-SHA-256 and SCRAM-SHA-256-PLUS share the keys.
func TestScramKeys(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: "secret"})
	defer srv.Close()
	keys := sasl.NewScramKeys(10)
	for i, login := range []struct {
		password string
		mech     string
		wantKeys int
	}{
		{"wrong", "SCRAM-SHA-256", 0},
		{"secret", "SCRAM-SHA-256-PLUS", 1},
		{"secret", "SCRAM-SHA-256", 1},
		{"secret", "SCRAM-SHA-1", 2},
		{"wrong", "SCRAM-SHA-256", 2},
		{"secret", "PLAIN", 2},
	} {
		c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{
			TLSConfig: srv.ClientTLS(), ScramKeys: keys, Mechanisms: []string{login.mech},
		})
		require.NoError(t, err)
		err = c.Login(t.Context(), "u", login.password)
		assert.Equal(t, login.password == "secret", err == nil, "login %d: %v", i, err)
		assert.Equal(t, login.wantKeys, keys.Len(), "login %d", i)
		require.NoError(t, c.Close())
	}
}

// mechanisms returns the mechanisms of the AUTH commands that the server received.
func mechanisms(srv *pop3test.Server) (mechs []string) {
	for _, cmd := range srv.Commands() {
		if mech, ok := strings.CutPrefix(cmd, "AUTH "); ok {
			mech, _, _ = strings.Cut(mech, " ")
			mechs = append(mechs, mech)
		}
	}
	return mechs
}

// TestLongPassword: a password that is too long for PASS is refused before USER is sent.
func TestLongPassword(t *testing.T) {
	c := openScript(t, script{"S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\nC: USER u\nS: +OK\nC: PASS secret\nS: +OK"},
		insecure)
	require.ErrorIs(t, c.Login(t.Context(), "u", strings.Repeat("p", 249)), pop3.ErrArgument)
	require.NoError(t, c.Login(t.Context(), "u", "secret"))
}

// Other clients could not log in to these servers (C-030 to C-036). Login succeeds, or its error says what to do.
func TestLoginCompat(t *testing.T) {
	const challenge = "<1896.697170952@postoffice.reston.mci.net>"
	plain, cram := b64("\x00u\x00"+canary), b64(cramResponse(t, "u", canary, challenge))
	noIR := pop3.Options{Compat: pop3.Compat{NoInitialResponse: true}}
	digests := pop3.Options{Mechanisms: []string{"PLAIN", "USER", "CRAM-MD5", "APOP"}}
	noCapa := pop3.Options{Compat: pop3.Compat{NoCapa: true}}
	offers := func(line string, more ...string) script { return turns("CAPA", "+OK\n"+line+"\n.").turns(more...) }
	scram := func(offer, reply string) script {
		return offers("SASL "+offer).add("C~ AUTH SCRAM-SHA-256 *", "S: -ERR "+reply)
	}
	playAll(t, []dialogue{
		{id: "C-030 an initial response is refused", do: loginAction(byChoice),
			script: offers("SASL PLAIN", "AUTH PLAIN "+plain, "-ERR Invalid number of parameters"),
			want: failsWith(hasText("Invalid number of parameters"), hasText("on the same line as AUTH PLAIN"),
				hasText("Options.Compat.NoInitialResponse"))},
		{id: "C-030 an initial response ends the session", do: loginAction(byChoice), after: closed,
			script: offers("SASL PLAIN", "AUTH PLAIN "+plain).add("EOF"),
			want:   failsWith(hasText("closed the connection"), hasText("Options.Compat.NoInitialResponse"))},
		{id: "C-030 the password is wrong", do: loginAction(byChoice),
			script: offers("SASL PLAIN", "AUTH PLAIN "+plain, "-ERR Authentication failed."),
			want:   failsWith(hasText("Authentication failed."), lacksText("Options"))},
		{id: "C-030 a command with a code", do: loginAction(byChoice),
			script: offers("SASL PLAIN", "AUTH PLAIN "+plain, "-ERR [SYS/TEMP] command failed"),
			want:   failsWith(hasText("command failed"), lacksText("Options"))},
		{id: "C-030 two steps", do: loginAction(byChoice), opts: noIR,
			script: offers("SASL PLAIN", "AUTH PLAIN", "+ ", plain, "+OK")},
		{id: "C-031 the server closes the connection at CAPA", do: loginAction(byChoice), after: closed,
			script: turns("CAPA").add("EOF"),
			want:   failsWith(hasText("closed the connection"), hasText("Options.Compat.NoCapa"))},
		{id: "C-031 no CAPA", do: loginAction(byChoice), opts: noCapa, script: turns("USER u", "+OK", "PASS "+canary,
			"+OK")},
		{id: "C-031 no CAPA, Mechanisms has PLAIN", do: loginAction(byChoice),
			opts:   pop3.Options{Compat: noCapa.Compat, Mechanisms: []string{"PLAIN"}},
			script: turns("AUTH PLAIN", "+ ", plain, "+OK")},
		{id: "C-031 no CAPA, Mechanisms has USER", do: loginAction(byChoice),
			opts:   pop3.Options{Compat: noCapa.Compat, Mechanisms: []string{"PLAIN", "USER"}},
			script: turns("USER u", "+OK", "PASS "+canary, "+OK")},
		{id: "C-031 CAPA is refused, Mechanisms has PLAIN", do: loginAction(byChoice),
			opts:   pop3.Options{Mechanisms: []string{"PLAIN"}},
			script: turns("CAPA", "-ERR what?", "AUTH PLAIN", "+ ", plain, "+OK")},
		{id: "C-031 CAPA has no SASL, Mechanisms has PLAIN", do: loginAction(byChoice),
			opts:   pop3.Options{Mechanisms: []string{"PLAIN"}},
			script: offers("UIDL"), want: failsWith(hasText("nothing"))},
		// The server may know the password although it stores no keys for SCRAM.
		{id: "C-032 no keys for SCRAM", do: loginAction(byChoice), script: scram("SCRAM-SHA-256 PLAIN", "[AUTH] no"),
			want: failsWith(hasText("[AUTH] no"), hasText("SCRAM"), hasText("log in with PLAIN"),
				hasText("Options.Mechanisms"),
				hasVerdict(wrongByText))},
		{id: "C-032 SCRAM before LOGIN", do: loginAction(byChoice), script: scram("SCRAM-SHA-256 LOGIN", "[AUTH] no"),
			want: failsWith(hasVerdict(wrongByText))},
		{id: "C-032 nothing but SCRAM", do: loginAction(byChoice), script: scram("SCRAM-SHA-256", "[AUTH] no"),
			want: failsWith(hasText("[AUTH] no"), lacksText("Options"), hasVerdict(wrongByCode))},
		{id: "C-032 in use", do: loginAction(byChoice), script: scram("SCRAM-SHA-256 PLAIN", "[IN-USE] no"),
			want: failsWith(hasText("[IN-USE] no"), lacksText("Options"))},
		{id: "C-035 TLS first", do: loginAction(byChoice), script: offers("STLS\nUIDL"),
			want: failsWith(hasText("before TLS"), hasText("DialStartTLS"))},
		{id: "C-036 a digest before the password", do: loginAction(byChoice), opts: digests,
			script: offers("SASL PLAIN CRAM-MD5", "AUTH CRAM-MD5", "+ "+b64(challenge), cram, "+OK")},
		{id: "C-036 APOP before USER", do: loginAction(byChoice), opts: digests, script: offers("USER",
			"APOP u "+apopDigest("<1@example.com>", canary), "+OK")},
		{id: "C-031 no CAPA before the login and after it", opts: noCapa,
			script: withGreeting("+OK", "USER u", "+OK", "PASS "+canary, "+OK", "DELE 1", "+OK", "DELE 2", "+OK",
				"QUIT",
				"+OK").add("EOF"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				caps, err := c.Capa(ctx)
				assert.NoError(t, err)
				assert.Nil(t, caps)
				assert.NoError(t, errors.Join(byChoice(ctx, c), c.Dele(ctx, 1, 2), c.Quit(ctx)))
			})},
	})
}

// cramResponse returns the response of CRAM-MD5 to the challenge.
func cramResponse(t *testing.T, name, secret, challenge string) string {
	mech := sasl.CramMD5(name, secret)
	_, _, err := mech.Start()
	require.NoError(t, err)
	response, err := mech.Next([]byte(challenge))
	require.NoError(t, err)
	return string(response)
}
