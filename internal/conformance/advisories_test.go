package conformance_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

// These are mistakes of other clients that this client must not make. Each advisory has a row, even if a test of the
// hostile servers covers it already, so that it can be found by its number.

// Injection before TLS: CVE-2021-22947, CVE-2026-41319, CVE-2020-9941, CVE-2021-30696, CVE-2020-15917, CVE-2020-14954,
// CVE-2020-14928, CVE-2020-15953, CVE-2020-14093, CVE-2021-29969.
func TestAdvisoriesInjection(t *testing.T) {
	before := withGreeting("+OK", "CAPA", "+OK\nSTLS\n.", "STLS")
	const reply, injected = "+OK go\r\n", "+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
	rows := []dialogue{
		{id: "CVE-2021-22947 R1-161 in one segment", script: before.sends(reply + injected), do: upgrade,
			want: failsWith(fatal, hasText("injected")), onePiece: true},
	}
	for cut := range len(reply) {
		rows = append(rows, dialogue{id: fmt.Sprintf("CVE-2021-22947 cut at %d", cut),
			script: before.add(fmt.Sprintf("CHUNK %d 0", cut)).sends(reply + injected), do: upgrade,
			want: failsWith(fatal, hasText("injected")), onePiece: true})
	}
	for _, pause := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond} {
		rows = append(rows, dialogue{id: "CVE-2021-22947 after " + pause.String(),
			script: before.sends(reply).add("PAUSE " + pause.String()).sends(injected).add("ANY"), do: upgrade,
			want: failsWith(repliedInClear), takes: pause})
	}
	playAll(t, rows)
	for id, greeting := range map[string]string{
		"CVE-2020-14093 CVE-2021-29969 logged in by the greeting": "+OK [PREAUTH] logged in\r\n",
		"CVE-2021-29969 a list with the greeting":                 "+OK 2 messages\r\n1 120\r\n2 200\r\n.\r\n",
	} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, done := pop3test.Script("s: " + quoted(greeting) + "\nANY\nHOLD")
				c, err := pop3.NewClient(t.Context(), conn, nil)
				require.NoError(t, err)
				assert.Equal(t, pop3.StateAuthorization, c.State())
				_, err = c.ListAll(t.Context())
				assert.ErrorIs(t, err, pop3.ErrState)
				assert.NoError(t, c.Close())
				assert.NoError(t, done())
			})
		})
	}
}

// The server cannot make the client continue without TLS: CVE-2021-22946, CVE-2006-5867, CVE-2021-39272, CVE-2016-0772,
// CVE-2020-15954 and others.
func TestAdvisoriesDowngrade(t *testing.T) {
	// the rows fail with different errors; the script checks what the client sends
	anything := func(*testing.T, error) {}
	capa := map[string]script{
		"refused": {"S: -ERR"}, "without STLS": {"S: +OK", "S: TOP", "S: ."}, "empty": {"S: +OK", "S: ."},
		"garbage": {"S: garbage"}, "gone": {"EOF"}, "challenge": {"S: +"}, "half": {"S: +OK", "S: STLS", "EOF"},
		"with STLS": {"S: +OK", "S: STLS", "S: ."},
	}
	stls := map[string]script{
		"refused": {"S: -ERR"}, "plus": {"S: +"}, "OKAY": {"S: +OKAY"}, "gone": {"EOF"},
		"OK and gone":       {"S: +OK", "ANY", "EOF"},
		"OK and clear text": {"S: +OK", "PAUSE 1s", "S: +OK welcome", "ANY", "EOF"},
	}
	refuses := func(id string, s script, takes time.Duration) dialogue {
		return dialogue{
			id:     "R1-162 CVE-2021-22946 CVE-2006-5867 CVE-2021-39272 CVE-2016-0772 " + id,
			script: s,
			do:     upgrade,
			want:   failsWith(anything),
			opts:   pop3.Options{Mechanisms: []string{"USER", "APOP"}},
			takes:  takes,
		}
	}
	start := withGreeting("+OK <1@example.com>").turns("CAPA")
	for name, reply := range capa {
		if name != "refused" && name != "with STLS" {
			refuses("CAPA "+name, start.add(reply...), 0).run(t)
			continue
		}
		for stlsName, stlsReply := range stls {
			takes := time.Duration(0)
			if stlsName == "OK and clear text" {
				takes = time.Second
			}
			refuses(
				"CAPA "+name+", STLS "+stlsName,
				start.add(reply...).turns("STLS").add(stlsReply...),
				takes,
			).run(t)
		}
	}
}

// The zero Options verify certificates: CVE-2014-7275, CVE-2019-8337, CVE-2021-44549, CVE-2009-2666. This test only
// checks the default. TestHostileCertificates checks all combinations.
func TestAdvisoriesCertificates(t *testing.T) {
	for id, opts := range map[string]*pop3.Options{
		"CVE-2014-7275 CVE-2019-8337 zero options": {},
		"CVE-2021-44549 a zero configuration":      {TLSConfig: &tls.Config{}},
	} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, way := range tlsModes {
					opts.DialContext = dialTo(serve(t, func(p *peer) {
						way.before(p)
						if p.startTLS(selfSigned()) {
							p.expectNothing()
						}
					}))
					_, err := way.dial(t.Context(), tlsHost, opts)
					var verification *tls.CertificateVerificationError
					assert.ErrorAs(t, err, &verification)
				}
			})
		})
	}
}

// An attacker can choose the timestamp of APOP: CVE-2007-1558, CVE-2018-1060. The client ignores malformed timestamps.
// By default Login does not use APOP, and Apop is refused in clear.
func TestAdvisoriesAPOP(t *testing.T) {
	for text, stamp := range map[string]string{
		"<>": "", "<a>": "", "<a@>": "", "<@b>": "", "<a b@c>": "", "<\x80a@b>": "", "<a@b": "",
		"<a@b@c>": "", "<a\x7f@b>": "",
		"<<a@b>>": "<a@b>", "\x1b[2J <1@a>": "<1@a>", "a@b> <c": "",
		strings.Repeat("<", 8000): "", strings.Repeat("<a@b", 2000): "", "<" + strings.Repeat("a",
			4000) + "@b": "",
	} {
		playAll(t, []dialogue{stamped("CVE-2007-1558 CVE-2018-1060", text, stamp)})
	}
	playAll(t, []dialogue{{id: "CVE-2007-1558 APOP is not used by default",
		script: turns("CAPA", "+OK\nUSER\n.", "USER u", "+OK", "PASS "+canary, "+OK"), do: loginAction(byChoice)}})
	t.Run("CVE-2007-1558 not in clear", func(t *testing.T) {
		conn, done := pop3test.Script("S: +OK <1@example.com>\nHOLD")
		c, err := pop3.NewClient(t.Context(), conn, nil)
		require.NoError(t, err)
		assert.ErrorIs(t, c.Apop(t.Context(), "u", canary), pop3.ErrInsecureAuth)
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	})
}

// The client refuses SCRAM if the server asks for too many or too few iterations: CVE-2026-42256. 2^31 iterations
// would take minutes, so the test would not end.
func TestAdvisoriesSCRAM(t *testing.T) {
	for _, iterations := range []string{"2147483647", "1000001", "1", "4095"} {
		t.Run("CVE-2026-42256 i="+iterations, func(t *testing.T) {
			c := scramPeer(t, 1, func(p *peer, first string) {
				nonce := first[strings.LastIndex(first, "r=")+2:]
				p.send("+ " + b64("r="+nonce+"x,s=QUJD,i="+iterations) + "\r\n")
				p.expect("*")
				p.send("-ERR\r\n")
				p.expectNothing()
			})
			assert.ErrorContains(t, byScram(t.Context(), c), "iterations")
			assert.NoError(t, c.Close())
		})
	}
}

// These challenges made other clients crash or hang: CVE-2025-61962, CVE-2013-0249, CVE-2018-16839, CVE-2026-8925,
// CVE-2012-3482. With this client every exchange ends, and the client sends only base64 and "*".
func TestAdvisoriesChallenges(t *testing.T) {
	for _, challenge := range []string{
		"+", "+ ", "+  ", "+=", "+OK+", "+ =", "+ ====", "+ " + strings.Repeat("=", 5000),
		"+ " + strings.Repeat("QUFB", 15_000),
		"+\x00", "+ \x00", "+ QUJD\x00", "+ QUJD QUJD", "+\tQUJD", "+ ä",
	} {
		for name, way := range map[string]func(context.Context, *pop3.Client) error{
			"LOGIN": byLogin, "PLAIN": byPlain, "CRAM-MD5": byCram, "OAUTHBEARER": byToken,
			"XOAUTH2": byOldTk, "SCRAM": byScram,
		} {
			t.Run("CVE-2025-61962 CVE-2013-0249 CVE-2018-16839 CVE-2026-8925 CVE-2012-3482 "+name,
				func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						conn := serve(t, func(p *peer) {
							p.send("+OK\r\n")
							for line := p.line(); line != ""; line = p.line() {
								switch {
								case line == "CAPA":
									p.send("-ERR\r\n")
								case line == "*":
									p.send("-ERR no\r\n")
								default:
									p.send(challenge + "\r\n")
								}
							}
						})
						c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true,
							Trace: checkingTrace(t)})
						require.NoError(t, err)
						err = way(t.Context(), c)
						if challenge != "+OK+" || name == "SCRAM" || name == "CRAM-MD5" {
							require.Error(t, err)
							checkError(t, err)
						}
						assert.NoError(t, c.Close())
					})
				})
		}
	}
}

// Numbers and lists of the server are parsed safely: CVE-2001-1009, CVE-2002-0146, CVE-2005-2335, CVE-2004-0757,
// CVE-2018-14356, CVE-2018-14362, CVE-2026-42245, CVE-2013-1752.
func TestAdvisoriesParsing(t *testing.T) {
	listed := func(id string, line string) dialogue {
		return dialogue{id: id, script: serverSends("+OK\r\n" + line + "\r\n.\r\n"), do: listAll,
			want: returns([]pop3.MessageInfo(nil), nonFatal)}
	}
	playAll(t, []dialogue{
		listed("CVE-2001-1009 negative", "-1 120"),
		listed("CVE-2001-1009 zero", "0 120"),
		{id: "CVE-2005-2335 CVE-2004-0757 71 octets",
			script: serverSends("+OK 1 " + strings.Repeat("u", 71) + "\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{Num: 1, UID: strings.Repeat("u", 71)})},
		{id: "CVE-2005-2335 CVE-2004-0757 512 octets",
			script: serverSends("+OK 1 " + strings.Repeat("u", 512) + "\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{Num: 1, UID: strings.Repeat("u", 512)})},
		{id: "CVE-2005-2335 CVE-2004-0757 8,192 octets",
			script: serverSends("+OK 1 " + strings.Repeat("u", 8192) + "\r\n"), do: uidlOne, want: failsWith(fatal),
			after: closed},
		{id: "CVE-2005-2335 CVE-2004-0757 1 MiB",
			script: serverSends("+OK 1 " + strings.Repeat("u", 1<<20) + "\r\n"), do: uidlOne, want: failsWith(fatal),
			after: closed},
		{id: "CVE-2018-14362 a path", script: serverSends("+OK 1 ../../etc/passwd\r\n"), do: uidlOne,
			want: returns(pop3.MessageInfo{Num: 1, UID: "../../etc/passwd"})},
		{id: "CVE-2013-1752 a line without end", script: serverSends("+OK " + strings.Repeat("x", 100_000)),
			want: failsWith(fatal), after: closed},
		{id: "NeoMutt .foo", script: serverSends("+OK\r\n.foo\r\nrest\r\n.\r\n"), do: retr,
			want: returns(".foo\r\nrest\r\n")},
		{id: "CVE-2001-0996 a mail that was not stuffed",
			script: serverSends("+OK\r\na\r\n.\r\n-ERR x\r\n.\r\n"), do: retr, want: returns("a\r\n"), after: surplus,
			onePiece: true},
	})
	t.Run("CVE-2013-1752 a gigabyte without a line end", func(t *testing.T) {
		c := loginOver(t, endlessReply(t, "NOOP", "+OK ", "x"))
		before := heapInUse()
		fatal(t, c.Noop(t.Context()))
		assert.Less(t, heapInUse()-before, int64(1<<20))
	})
	t.Run("CVE-2026-42245 work that grows with the list and no faster", func(t *testing.T) {
		few := testing.AllocsPerRun(1, func() { uidlOf(t, 20_000) })
		many := testing.AllocsPerRun(1, func() { uidlOf(t, 40_000) })
		assert.Less(t, many, 2.5*few)
	})
}

func uidlOf(t *testing.T, n int) {
	c := loginOver(t, serve(t, func(p *peer) {
		p.login()
		p.expect("UIDL")
		p.send("+OK\r\n")
		io.Copy(p.Conn, &numberedLines{format: "%d the-same-for-all\r\n", last: n})
		p.send(".\r\n")
		p.expectNothing()
	}))
	infos, err := c.UidlAll(t.Context())
	assert.NoError(t, err)
	assert.Len(t, infos, n)
	assert.NoError(t, c.Close())
}

// The server's text cannot harm the log: CVE-2021-36386, CVE-2008-2711, CVE-2010-1167.
func TestAdvisoriesLogging(t *testing.T) {
	for id, text := range map[string]string{
		"CVE-2021-36386 long":                  strings.Repeat("x", 8180),
		"CVE-2008-2711 long, in octets of two": strings.Repeat("é", 4000),
		"CVE-2010-1167 not UTF-8":              strings.Repeat("\xff\xc0\x80", 2000),
		"CVE-2008-2711 verbs":                  "%s%n%x%d%!",
		"3.2R line ends":                       "a\rb level=ERROR msg=forged", "3.2S quotes": `" msg="forged`,
	} {
		t.Run(id, func(t *testing.T) {
			var log bytes.Buffer
			trace := pop3.LogTrace(slog.New(slog.NewTextHandler(&log,
				&slog.HandlerOptions{Level: slog.LevelDebug})))
			c := loggedInClient(t, turns("NOOP").sends("-ERR "+text+"\r\n").add("HOLD"), pop3.Options{Trace: trace})
			before := strings.Count(log.String(), "\n")
			assert.Error(t, c.Noop(t.Context()))
			for _, line := range strings.SplitAfter(log.String(), "\n")[before:] {
				checkShown(t, strings.TrimSuffix(line, "\n"))
				assert.Less(t, len(line), 2<<10)
			}
			assert.Equal(t, before+3, strings.Count(log.String(), "\n"), "command, reply, failure")
		})
	}
}

// In knadh/go-pop3 a message ended if a line exactly filled the client's buffer and a dot followed. So the sender of a
// mail could forge a reply. With net/textproto, a caller that stops reading an endless message waits forever. This
// client has neither problem.
func TestAdvisoriesOfGoClients(t *testing.T) {
	for _, size := range []int{16, 512, 4096, 8192, 65536} {
		for _, times := range []int{1, 2, 3} {
			if size == 8192 && times == 1 {
				continue // the row with 4096 octets has the same content
			}
			content := strings.Repeat("x", size*times) + ".\r\n+OK forged\r\n"
			playAll(t, []dialogue{{id: fmt.Sprintf("knadh/go-pop3 %d times %d", times, size),
				script: serverSends(stuffed(content)), do: retr, want: returns(content)}})
		}
	}
	t.Run("net/textproto a drain without bound", func(t *testing.T) {
		c := loginOver(t, endlessReply(t, "RETR 1", "+OK\r\n", "spam\r\n"))
		m, err := c.Retr(t.Context(), 1)
		require.NoError(t, err)
		assert.ErrorIs(t, m.Close(), net.ErrClosed)
		assert.Equal(t, pop3.StateClosed, c.State())
	})
}

// When Dovecot cannot read its own file, it sends part of the message and ends it normally. The client cannot see that
// the message is cut. The caller can compare it with the announced size, as package fetch does.
func TestAdvisoriesShortMessage(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary,
		Messages: [][]byte{[]byte("a: b\r\n\r\nbody\r\n")}})
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR", Short: true, Octets: 6})
	c, err := pop3.DialInsecure(t.Context(), srv.Addr, nil)
	require.NoError(t, err)
	require.NoError(t, byUser(t.Context(), c))
	info, err := c.List(t.Context(), 1)
	require.NoError(t, err)
	content, err := retr.do(t, t.Context(), c)
	assert.NoError(t, err)
	assert.Less(t, int64(len(content.(string))), info.Size, "the announced size is greater")
	assert.NoError(t, c.Close())
}

// The error contains both the refusal of the server and the failure of the mechanism, and a caller can get each of
// them.
func TestAdvisoriesOAuthFailure(t *testing.T) {
	playAll(t, []dialogue{{id: "curl 889 the error is answered",
		script: tokenScript("OAUTHBEARER", bearerIR,
			`{"status":"invalid_token","openid-configuration":"https://example.com/.well-known"}`, "AQ=="),
		do: loginAction(byToken), want: failsWith(refusedWith("", "no"), func(t *testing.T, err error) {
			var failure *sasl.OAuthError
			assert.True(t, errors.As(err, &failure) && failure.Config == "https://example.com/.well-known")
		})}})
}
