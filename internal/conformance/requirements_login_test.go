package conformance_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
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

func login(t *testing.T, ctx context.Context, c *pop3.Client) {
	assert.NoError(t, c.Login(ctx, "u", canary))
	assert.Equal(t, pop3.StateTransaction, c.State())
}

// auth returns a dialogue with a SASL exchange that succeeds.
func auth(id string, mech func() sasl.Client, lines ...string) dialogue {
	return dialogue{id: id, script: turns(lines...), do: loginAction(authWith(mech))}
}

// These are the rules for USER, PASS and APOP (R1-121 to R1-126), and for the choice of a method (R1-130).
func TestRequirementsPasswords(t *testing.T) {
	withSpaces := " two  words "
	stamp := "<1896.697170952@dbc.mtview.ca.us>"
	playAll(t, []dialogue{
		{id: "R1-121 spaces in PASS", script: withGreeting("+OK", "USER u", "+OK", "PASS "+withSpaces, "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.User(ctx, "u"))
				assert.NoError(t, c.Pass(ctx, withSpaces))
			})},
		{id: "R1-121 no spaces in USER", script: withGreeting("+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for _, name := range []string{"two words", " u", "u ", ""} {
					assert.ErrorIs(t, c.User(ctx, name), pop3.ErrArgument)
				}
			})},
		{id: "R1-123 the digest of the RFC", script: withGreeting("+OK POP3 server ready "+stamp,
			"APOP mrose c4c9334bac560ecc979e58001b3e22fb", "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.Apop(ctx, "mrose", "tanstaaf"))
			})},
		{id: "R1-126 APOP that is not ASCII", script: withGreeting("+OK " + stamp),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.Apop(ctx, "u", "größer"), pop3.ErrArgument)
				checkError(t, c.Apop(ctx, "u", "größer"))
			})},
		{id: "R1-126 APOP for a name that is not ASCII",
			script: withGreeting("+OK "+stamp, "CAPA", "+OK\nUTF8\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.Apop(ctx, "jürgen", canary), pop3.ErrArgument)
			})},
		{id: "R1-130 no SASL line, no AUTH",
			script: withGreeting("+OK", "CAPA", "+OK\nTOP\n.", "USER u", "+OK", "PASS "+canary, "+OK"),
			do:     greetedTest(login)},
		{id: "R1-130 SASL without mechanisms",
			script: withGreeting("+OK", "CAPA", "+OK\nSASL\nUSER\n.", "USER u", "+OK",
				"PASS "+canary, "+OK"), do: greetedTest(login)},
		{id: "R1-119 PASS is sent after the reply to USER",
			script: withGreeting("+OK", "CAPA", "+OK\nUSER\nPIPELINING\n.", "USER u").add("PAUSE 10s", "S: +OK",
				"C: PASS "+canary, "S: +OK"), do: greetedTest(login), takes: 10 * time.Second},
	})
}

// These are the rules for SASL (R1-130 to R1-150).
func TestRequirementsSASL(t *testing.T) {
	plain := func() sasl.Client { return sasl.Plain("", "u", canary) }
	ir := b64("\x00u\x00" + canary)
	playAll(t, []dialogue{
		auth("R1-131 forced, and nothing announced", plain, "CAPA", "-ERR", "AUTH PLAIN", "+ ", ir, "+OK"),
		auth("R1-131 forced, and no SASL line", plain, "CAPA", "+OK\nTOP\n.", "AUTH PLAIN", "+", ir, "+OK"),
		auth("R1-133 nothing as initial response", func() sasl.Client { return sasl.External("") }, "CAPA",
			"+OK\nSASL EXTERNAL\n.", "AUTH EXTERNAL =", "+OK"),
		auth("R1-133 nothing as initial response, in two steps",
			func() sasl.Client { return sasl.External("") }, "CAPA",
			"-ERR", "AUTH EXTERNAL", "+ ", "", "+OK"),
		auth("R1-134 no initial response where the server begins",
			func() sasl.Client { return sasl.CramMD5("tim", "tanstaaftanstaaf") },
			"AUTH CRAM-MD5", "+ PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+",
			"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", "+OK"),
		{id: "R1-137 R1-135 canceled, and the session can be used",
			script: withGreeting("+OK", "AUTH LOGIN", "+ not base64!", "*", "-ERR cancelled",
				"AUTH LOGIN", "+", b64("u"), "+", b64(canary), "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				nonFatal(t, byLogin(ctx, c))
				assert.Equal(t, pop3.StateAuthorization, c.State())
				assert.NoError(t, byLogin(ctx, c))
			})},
		{id: "R1-141 NUL, nothing, no UTF-8", script: withGreeting("+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for _, mech := range []sasl.Client{
					sasl.Plain("\x00", "u", canary), sasl.Plain("", "u\x00", canary), sasl.Plain("", "u",
						canary+"\x00"),
					sasl.Plain("", "", canary), sasl.Plain("", "u", ""), sasl.Plain("", "\xff",
						canary), sasl.Plain("", "u", "\xff"),
				} {
					err := c.Auth(ctx, mech)
					assert.ErrorIs(t, err, pop3.ErrArgument)
					checkError(t, err)
				}
			})},
		{id: "R1-094 no mechanism with a layer",
			script: withGreeting("+OK", "CAPA", "+OK\nSASL GSSAPI DIGEST-MD5 NTLM KERBEROS_V4\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.Login(ctx, "u", canary), errors.ErrUnsupported)
			})},
		{id: "R1-150 CRAM-MD5 is not used by default",
			script: withGreeting("+OK <1@example.com>", "CAPA", "+OK\nSASL CRAM-MD5 PLAIN\n.",
				"AUTH PLAIN "+ir, "+OK"), do: greetedTest(login)},
	})
	initial := strings.Repeat("i", 180) // 240 octets in base64
	for mech, length := range map[string]int{"X-SEVEN": 255, "X-EIGHTS": 256} {
		command := "AUTH " + mech + " " + b64(initial)
		require.Len(t, command+"\r\n", length)
		lines := []string{"CAPA", "+OK\nSASL X\n.", command, "+OK"}
		if length > 255 {
			lines = []string{"CAPA", "+OK\nSASL X\n.", "AUTH " + mech, "+", b64(initial), "+OK"}
		}
		auth("R1-132 "+mech, func() sasl.Client { return &foreignIR{mech, initial} }, lines...).run(t)
	}
}

// foreignIR is a mechanism with an initial response.
type foreignIR struct{ mech, ir string }

func (f *foreignIR) Start() (string, []byte, error)        { return f.mech, []byte(f.ir), nil }
func (f *foreignIR) Next(challenge []byte) ([]byte, error) { return nil, errors.New("no more") }

// Secrets may be sent only on some connections (R1-122, R1-139, R1-140, R1-148, R1-169). On the others the server
// receives no secret.
func TestRequirementsWhereSecretsGo(t *testing.T) {
	ways := map[string]func(ctx context.Context, c *pop3.Client) error{
		"USER": func(ctx context.Context, c *pop3.Client) error { return c.User(ctx, "u") }, "PLAIN": byPlain,
		"LOGIN":       byLogin,
		"OAUTHBEARER": byToken, "XOAUTH2": byOldTk,
		"APOP":    func(ctx context.Context, c *pop3.Client) error { return c.Apop(ctx, "u", canary) },
		"login":   func(ctx context.Context, c *pop3.Client) error { return c.Login(ctx, "u", canary) },
		"foreign": func(ctx context.Context, c *pop3.Client) error { return c.Auth(ctx, &foreignMechanism{canary}) },
	}
	for name, way := range ways {
		t.Run("R1-122 R1-140 R1-148 in clear, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lines := withGreeting("+OK <1@example.com>")
				if name == "login" {
					lines = withGreeting("+OK <1@example.com>", "CAPA", "+OK\nSASL PLAIN LOGIN\nUSER\n.")
				}
				conn, done := pop3test.Script(lines.add("HOLD").String())
				c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{Trace: checkingTrace(t)})
				require.NoError(t, err)
				err = way(t.Context(), c)
				assert.ErrorIs(t, err, pop3.ErrInsecureAuth)
				checkError(t, err)
				assert.NoError(t, c.Close())
				assert.NoError(t, done())
			})
		})
		t.Run("R1-169 over TLS that nobody verified, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := serve(t, func(p *peer) {
					if p.startTLS(serverTLS()) {
						p.send("+OK <1@example.com>\r\n")
						if name == "login" {
							p.expect("CAPA")
							p.send("+OK\r\nSASL PLAIN LOGIN\r\nUSER\r\n.\r\n")
						}
						p.expectNothing()
					}
				})
				c, err := pop3.DialTLS(t.Context(), tlsHost, &pop3.Options{
					TLSConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: dialTo(conn),
					Trace: checkingTrace(t),
				})
				require.NoError(t, err)
				assert.ErrorIs(t, way(t.Context(), c), pop3.ErrInsecureAuth)
				assert.NoError(t, c.Close())
			})
		})
	}
	t.Run("R1-139 PLAIN over TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn := serve(t, func(p *peer) {
				if p.startTLS(serverTLS()) {
					p.send("+OK\r\n")
					p.expect("CAPA")
					p.send("+OK\r\nSASL PLAIN\r\n.\r\n")
					p.expect("AUTH PLAIN " + b64("\x00u\x00"+canary))
					p.send("+OK\r\n")
					p.expectNothing()
				}
			})
			c, err := pop3.DialTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			require.NoError(t, err)
			login(t, t.Context(), c)
			assert.NoError(t, c.Close())
		})
	})
}

// Passwords may be sent in clear to a server on this machine, but tokens may not. Neither may be sent to a server that
// only seems to be on this machine.
func TestRequirementsLoopback(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary})
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Addr)
	require.NoError(t, err)
	toServer := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Addr)
	}
	for host, local := range map[string]bool{
		"127.0.0.1": true, "localhost": true, "LOCALHOST.": true,
		"127.1.2.3": false, "[::1]": false, // C-105: the connection leads to a different address
		"192.0.2.1":       false,
		"pop.example.com": false, "localhost.example.com": false, "127.0.0.1.example.com": false,
		"0.0.0.0": false,
	} {
		c, err := pop3.DialInsecure(t.Context(), strings.TrimSuffix(host+":"+port, ":"),
			&pop3.Options{DialContext: toServer})
		require.NoError(t, err, host)
		assert.ErrorIs(t, byToken(t.Context(), c), pop3.ErrInsecureAuth, "R1-148 %s", host)
		if local {
			assert.NoError(t, byUser(t.Context(), c), host)
		} else {
			assert.ErrorIs(t, byUser(t.Context(), c), pop3.ErrInsecureAuth, "R1-122 %s", host)
		}
		assert.NoError(t, c.Close())
	}
}

// The dialed name must be a name of this machine, and the connection must lead to this machine too (R1-122).
func TestRequirementsElsewhere(t *testing.T) {
	conn, done := pop3test.Script("S: +OK\nEOF")
	c, err := pop3.DialInsecure(t.Context(), "localhost", &pop3.Options{DialContext: dialTo(elsewhere{conn})})
	require.NoError(t, err)
	assert.ErrorIs(t, c.User(t.Context(), "u"), pop3.ErrInsecureAuth)
	assert.NoError(t, c.Close())
	assert.NoError(t, done())
}

// elsewhere is a connection to another machine.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 110} }

// These are the rules for the commands UTF8 and LANG.
func TestRequirementsUTF8(t *testing.T) {
	const name, word = "jürgen", "schlüssel"
	playAll(t, []dialogue{
		{id: "R1-151 announced for USER",
			script: withGreeting("+OK", "CAPA", "+OK\nUTF8 USER\n.", "USER "+name, "+OK", "PASS "+word, "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.User(ctx, name))
				assert.NoError(t, c.Pass(ctx, word))
			})},
		{id: "R1-151 not announced", script: withGreeting("+OK", "CAPA", "+OK\nUTF8\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.User(ctx, name), pop3.ErrArgument)
				assert.ErrorIs(t, c.User(ctx, "\xfc"), pop3.ErrArgument, "not UTF-8")
			})},
		{id: "R1-151 no capabilities are known", script: withGreeting("+OK", "CAPA", "-ERR", "USER u", "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.User(ctx, name), pop3.ErrArgument)
				assert.NoError(t, c.User(ctx, "u"))
				assert.ErrorIs(t, c.Pass(ctx, word), pop3.ErrArgument)
			})},
		{id: "R1-151 R1-036 Capa was not called before User",
			script: withGreeting("+OK", "USER u", "+OK", "PASS p", "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t, c.User(ctx, "u"))
				assert.ErrorIs(t, c.Pass(ctx, word), pop3.ErrArgument)
				assert.NoError(t, c.Pass(ctx, "p"), "nothing came between")
			})},
		{id: "R1-152 UTF8", script: withGreeting("+OK", "CAPA", "+OK\nUTF8\n.", "UTF8", "+OK"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.NoError(t,
					c.Utf8(ctx))
			})},
		{id: "R1-152 UTF8 refused",
			script: withGreeting("+OK", "CAPA", "+OK\nUTF8\n.", "UTF8", "-ERR [SYS/TEMP] no"),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				refusedWith(pop3.CodeSysTemp, "no")(t, c.Utf8(ctx))
			})},
		{id: "R1-152 UTF8 not announced", script: withGreeting("+OK", "CAPA", "+OK\n."),
			do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				assert.ErrorIs(t, c.Utf8(ctx), errors.ErrUnsupported)
			})},
		greetedDialogue("R1-154 8-bit everywhere", turns("RETR 1", "+OK grüß\nSubject: grüß\n.", "UIDL 1",
			"-ERR grüß"),
			func(t *testing.T, ctx context.Context, c *pop3.Client) {
				content, err := retr.do(t, ctx, c)
				assert.NoError(t, err)
				assert.Equal(t, "Subject: grüß\r\n", content)
				refusedWith("", "grüß")(t, errorOf(c.Uidl(ctx, 1)))
			}),
		{id: "R1-155 R1-156 LANG",
			script: withGreeting("+OK", "LANG de", "+OK de Deutsch", "LANG *", "+OK en-GB English", "LANG fr",
				"+OK", "LANG x", "-ERR no", "LANG", "+OK\nen English\npt-BR\nde\t Deutsch\n.", "LANG", "-ERR", "LANG",
				"+OK\n!\n."), do: greetedTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
				for _, row := range [][2]string{{"de", "de"}, {"*", "en-GB"}, {"fr", "fr"}} {
					active, err := c.Lang(ctx, row[0])
					assert.NoError(t, err)
					assert.Equal(t, row[1], active)
				}
				refusedWith("", "no")(t, errorOf(c.Lang(ctx, "x")))
				all, err := c.LangAll(ctx)
				assert.NoError(t, err)
				assert.Equal(t, []pop3.Language{
					{Tag: "en", Description: "English"}, {Tag: "pt-BR"}, {Tag: "de", Description: "Deutsch"},
				}, all)
				refusedWith("", "")(t, errorOf(c.LangAll(ctx)))
				nonFatal(t, errorOf(c.LangAll(ctx)))
			})},
	})
}
