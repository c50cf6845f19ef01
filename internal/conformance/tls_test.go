package conformance_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// tlsHost is the host that the tests with TLS dial.
const tlsHost = "pop.example.com"

// tlsOptions returns options that connect over conn, trust the certificates of the tests, and check every text of the
// trace.
func tlsOptions(t *testing.T, conn net.Conn) *pop3.Options {
	return &pop3.Options{TLSConfig: clientTLS(), DialContext: dialTo(conn), Trace: checkingTrace(t)}
}

var tlsRequired = wraps(pop3.ErrTLSRequired)

func TestHostileUpgrade(t *testing.T) {
	ask := func(reply string) script { return withGreeting("+OK ready", "CAPA", reply) }
	offered := ask("+OK\nSTLS\n.").turns("STLS")
	fatal := allOf(fatal, notRequired)
	playAll(t, []dialogue{
		{id: "H-140 not offered (O_1)", script: ask("+OK\nUSER\nSASL PLAIN\n."), do: upgrade,
			want: failsWith(tlsRequired)},
		{id: "3.7a nothing offered", script: ask("+OK\n."), do: upgrade, want: failsWith(tlsRequired)},
		{id: "3.7b garbage offered", script: ask("+OK\n\x00\x01\nSTL\n."), do: upgrade, want: failsWith(tlsRequired)},
		{id: "H-141 refused (O_2)", script: offered.add("S: -ERR STARTTLS not supported."), do: upgrade,
			want: failsWith(tlsRequired, refusedWith("", "STARTTLS not supported."))},
		{id: "3.7c refused without CAPA", script: ask("-ERR").turns("STLS", "-ERR"), do: upgrade,
			want: failsWith(tlsRequired)},
		{id: "3.7d refused for now", script: offered.add("S: -ERR [SYS/TEMP] later"), do: upgrade,
			want: failsWith(tlsRequired, refusedWith(pop3.CodeSysTemp, "later"))},
		{id: "H-143 other ways in (O_4)",
			script: withGreeting("+OK <1@example.com>", "CAPA", "+OK\nUSER\nSASL PLAIN\nSTLS\n.", "STLS", "-ERR"),
			do:     upgrade, want: failsWith(tlsRequired)},
		{id: "3.7e a greeting that says that the client is logged in", script: withGreeting("+OK [PREAUTH] logged in",
			"CAPA", "+OK\n."),
			do: upgrade, want: failsWith(tlsRequired)},
		{id: "H-144 a list after it (B_1)", script: offered.sends("+OK Begin\r\n+OK\r\nPLAIN\r\nLOGIN\r\n.\r\n"),
			do: upgrade, want: failsWith(fatal, hasText("injected")), onePiece: true},
		{id: "H-145 garbage after it (B_2)", script: offered.sends("+OK Begin\r\n\x00garbage"), do: upgrade,
			want: failsWith(fatal, hasText("injected")), onePiece: true},
		{id: "3.7f a line end after it", script: offered.sends("+OK Begin\r\n\r\n"), do: upgrade,
			want: failsWith(fatal, hasText("injected")), onePiece: true},
		{id: "3.7g one octet after it", script: offered.sends("+OK Begin\r\n\x16"), do: upgrade,
			want: failsWith(fatal, hasText("injected")), onePiece: true},
		{id: "H-147 half a line", script: offered.sends("+OK Begin"), do: upgrade,
			want: failsWith(timedOut), takes: 2 * time.Minute},
		{id: "H-147 half a line, then TLS", script: offered.sends("+OK Begin\x16\x03\x03\x00\x02\x02\x28"),
			do: upgrade, want: failsWith(timedOut), takes: 2 * time.Minute},
		{id: "3.7h half a line, and the connection is closed", script: offered.sends("+OK Begin").add("EOF"),
			do:   upgrade,
			want: failsWith(connLost)},
		{id: "H-148 refused with answers after it", script: offered.sends("-ERR no\r\n+OK user\r\n+OK auth\r\n"),
			do: upgrade, want: failsWith(tlsRequired)},
		{id: "3.7i plus", script: offered.add("S: +"), do: upgrade, want: failsWith(fatal)},
		{id: "3.7j almost OK", script: offered.add("S: +OKAY"), do: upgrade, want: failsWith(fatal)},
		{id: "3.7k OK in LF", script: offered.sends("+OK\n"), do: upgrade, want: failsWith(fatal)},
		{id: "3.7l gone", script: offered.add("EOF"), do: upgrade, want: failsWith(connLost)},
		{id: "H-149 OK, then silence", script: offered.add("S: +OK", "ANY"), do: upgrade,
			want: failsWith(timedOut), takes: 2 * time.Minute},
		{id: "3.7m OK, and the connection is closed", script: offered.add("S: +OK", "ANY", "EOF"), do: upgrade,
			want: failsWith(wraps(io.ErrUnexpectedEOF))},
		{id: "3.7n OK, and the connection is reset", script: offered.add("S: +OK", "PAUSE 1s", "ANY", "RESET"),
			do:   upgrade,
			want: failsWith(wraps(errReset)), takes: time.Second},
		{id: "H-151 OK, then an error in clear",
			script: offered.add("S: +OK", "PAUSE 1s", "S: -ERR TLS not available due to local problem", "ANY"),
			do:     upgrade, want: failsWith(repliedInClear, hasText("-ERR")), takes: time.Second},
		{id: "3.7o OK, then a list after 50 ms",
			script: offered.add("S: +OK", "PAUSE 50ms", "S: +OK", "S: USER", "S: .", "ANY"), do: upgrade,
			want: failsWith(repliedInClear), takes: 50 * time.Millisecond},
		{id: "3.7p OK, then a list at once",
			script: offered.add("S: +OK", "CHUNK 5 0", "S: +OK", "S: USER", "S: .", "ANY"), do: upgrade,
			want: failsWith(repliedInClear)},
		{id: "3.7q OK, then an alert",
			script: offered.add("S: +OK", "PAUSE 1s").sends("\x15\x03\x03\x00\x02\x02\x28").add("ANY"), do: upgrade,
			want: failsWith(hasText("handshake failure")), takes: time.Second},
		{
			id:       "H-152 CVE-2026-42246 OK before STLS, with the greeting",
			script:   serverSends("+OK ready\r\n+OK\r\n"),
			do:       upgrade,
			want:     failsWith(fatal),
			onePiece: true,
		},
		{id: "H-152 OK before STLS, with CAPA",
			script: withGreeting("+OK ready").turns("CAPA").sends("+OK\r\nSTLS\r\n.\r\n+OK\r\n"), do: upgrade,
			want: failsWith(fatal), onePiece: true},
		{id: "3.7r greeting refused", script: withGreeting("-ERR"), do: upgrade, want: failsWith(refusedWith("", ""))},
	})
}

// notRequired checks that the error does not wrap ErrTLSRequired.
func notRequired(t *testing.T, err error) { assert.NotErrorIs(t, err, pop3.ErrTLSRequired) }

// repliedInClear checks the error of a TLS handshake to which the server replied in clear.
func repliedInClear(t *testing.T, err error) {
	var header tls.RecordHeaderError
	assert.ErrorAs(t, err, &header)
	assert.NotContains(t, err.Error(), "DialStartTLS", "advice that does not help")
}

// The dialogue before TLS is cut off at every place. The client sends only CAPA and STLS (CVE-2021-22946,
// CVE-2006-5867, CVE-2021-39272, R1-163).
func TestHostileUpgradeCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := []string{"+OK ready <1@example.com>\r\n", "+OK\r\nSASL PLAIN\r\nUSER\r\nSTLS\r\n.\r\n",
			"+OK Begin\r\n"}
		for i, reply := range server {
			for cut := range len(reply) {
				received := cutUpgrade(t, server[:i], reply[:cut])
				assert.Contains(t, []string{"", "CAPA\r\n", "CAPA\r\nSTLS\r\n"}, received)
			}
		}
	})
}

// cutUpgrade dials a server that sends the complete replies whole and then the incomplete reply part. It returns what
// the server received.
func cutUpgrade(t *testing.T, whole []string, part string) string {
	client, server := net.Pipe()
	received := make(chan string)
	go func() {
		defer server.Close()
		var sent strings.Builder
		defer func() { received <- sent.String() }()
		for i, reply := range append(whole[:len(whole):len(whole)], part) {
			if i > 0 {
				b := make([]byte, 64)
				n, _ := server.Read(b)
				sent.Write(b[:n])
			}
			io.WriteString(server, reply)
		}
		server.SetDeadline(time.Now().Add(time.Second))
		server.Close()
	}()
	_, err := pop3.DialStartTLS(t.Context(), tlsHost, tlsOptions(t, client))
	assert.Error(t, err)
	checkError(t, err)
	return <-received
}

func TestHostileCertificates(t *testing.T) {
	good := trustedAuthority()
	issue := func(template x509.Certificate) *tls.Config {
		template.DNSNames = []string{tlsHost}
		return configWith(good.Issue(&template))
	}
	for _, row := range []struct {
		id     string
		server *tls.Config
		host   string
	}{
		{"H-153 self-signed (T_1)", selfSigned(), tlsHost},
		{"H-153 unknown root (T_2)", configWith(testcert.New().Server(tlsHost)), tlsHost},
		{"H-153 other name (T_3)", configWith(good.Server("other.example.com")), tlsHost},
		{"H-153 expired (T_4)", issue(x509.Certificate{NotAfter: time.Unix(1<<20, 0)}), tlsHost},
		{"3.7s not valid yet", issue(x509.Certificate{NotBefore: time.Unix(1<<33, 0)}), tlsHost},
		{"3.7t name in the subject only (R1-166)", configWith(good.Issue(&x509.Certificate{
			Subject: pkix.Name{CommonName: tlsHost}})), tlsHost},
		{"3.7u address that is not in it", configWith(good.Server(tlsHost)), "192.0.2.1"},
		{"3.7v address as a name", configWith(good.Issue(&x509.Certificate{DNSNames: []string{"192.0.2.1"}})),
			"192.0.2.1"},
		{"3.7w wildcard of another level (R1-165)", configWith(good.Server("*.com")), tlsHost},
		{"3.7x wildcard for the domain itself (R1-165)", configWith(good.Server("*.pop.example.com")), tlsHost},
		{"3.7y wildcard in a label (R1-165)", configWith(good.Server("p*.example.com")), tlsHost},
		{"3.7z NUL in a name (CVE-2009-2666)", configWith(good.Server(tlsHost + "\x00.example.net")), tlsHost},
		{"3.7A for clients, not servers", issue(x509.Certificate{
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), tlsHost},
		{"3.7B escape codes in names", configWith(good.Server("\x1b[2Jx", "\x1b]0;owned\x07")), tlsHost},
		{"3.7C very many names", configWith(good.Server(manyNames()...)), tlsHost},
	} {
		t.Run(row.id, func(t *testing.T) {
			for _, config := range []*tls.Config{nil, clientTLS()} {
				refusesCertificate(t, row.server, row.host, config)
			}
		})
	}
	t.Run("R1-164 an address with a zone", func(t *testing.T) {
		c := dialPeer(t, "fe80::1%eth0", configWith(good.Server("fe80::1")), clientTLS())
		assert.NoError(t, c.Close())
	})
	t.Run("R1-165 a wildcard that fits", func(t *testing.T) {
		c := dialPeer(t, tlsHost, configWith(good.Server("*.example.com")), clientTLS())
		assert.NoError(t, c.Close())
	})
}

func selfSigned() *tls.Config { return configWith(testcert.New(tlsHost).Certificate) }

func manyNames() []string {
	var names []string
	for range 90 {
		names = append(names, strings.Repeat("x", 60)+".example.net")
	}
	return names
}

type dialFunc = func(context.Context, string, *pop3.Options) (*pop3.Client, error)

// tlsModes are the two ways to begin TLS, with the dialogue before the handshake.
var tlsModes = []struct {
	name   string
	dial   dialFunc
	before func(p *peer)
}{
	{"implicit", pop3.DialTLS, func(*peer) {}},
	{"STLS", pop3.DialStartTLS, func(p *peer) {
		p.send("+OK <1@example.com>\r\n")
		p.expect("CAPA")
		p.send("+OK\r\nSTLS\r\nPIPELINING\r\nSASL PLAIN\r\nX-CLEAR\r\n.\r\n")
		p.expect("STLS")
		p.send("+OK\r\n")
	}},
}

// refusesCertificate dials in both ways and checks that the certificate is refused. The server must receive nothing
// inside TLS.
func refusesCertificate(t *testing.T, server *tls.Config, host string, config *tls.Config) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		for _, way := range tlsModes {
			conn := serve(t, func(p *peer) {
				way.before(p)
				if p.startTLS(server) {
					p.expectNothing()
				}
			})
			opts := tlsOptions(t, conn)
			opts.TLSConfig = config
			_, err := way.dial(t.Context(), host, opts)
			var verification *tls.CertificateVerificationError
			if assert.ErrorAs(t, err, &verification, way.name) {
				checkError(t, err)
			}
		}
	})
}

// If the caller accepts a certificate for one host, it is not accepted for another host (CVE-2020-24661).
func TestHostileException(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pinned := selfSigned()
		pin := pinned.Certificates[0].Leaf
		config := &tls.Config{InsecureSkipVerify: true,
			VerifyConnection: func(state tls.ConnectionState) error {
				if state.ServerName != tlsHost || !state.PeerCertificates[0].Equal(pin) {
					return errors.New("not the one")
				}
				return nil
			}}
		for host, accepted := range map[string]bool{tlsHost: true, "other.example.com": false} {
			conn := serve(t, func(p *peer) {
				if p.startTLS(pinned) {
					p.send("+OK\r\n")
					p.expectNothing()
				}
			})
			c, err := pop3.DialTLS(t.Context(), host, &pop3.Options{TLSConfig: config,
				DialContext: dialTo(conn)})
			if accepted && assert.NoError(t, err) {
				assert.NoError(t, c.Close())
			} else if !accepted {
				assert.Error(t, err)
			}
		}
	})
}

// overTLS runs a test in both ways to begin TLS. The function server plays the server: with TLS from the beginning it
// starts with the greeting, with STLS after the handshake.
func overTLS(t *testing.T, id string, server func(p *peer), client func(t *testing.T, c *pop3.Client)) {
	t.Helper()
	for _, way := range tlsModes {
		t.Run(id+" "+way.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := serve(t, func(p *peer) {
					way.before(p)
					if !assert.True(p.t, p.startTLS(serverTLS())) {
						return
					}
					if way.name == "implicit" {
						p.send("+OK inside <2@example.com>\r\n")
					}
					server(p)
				})
				c, err := way.dial(t.Context(), tlsHost, tlsOptions(t, conn))
				require.NoError(t, err)
				client(t, c)
				assert.NoError(t, c.Close())
			})
		})
	}
}

// loginTLS accepts the login of the client, which sends only USER and PASS.
func loginTLS(p *peer) {
	p.expect("USER u")
	p.send("+OK\r\n")
	p.expect("PASS " + canary)
	p.send("+OK\r\n")
}

func userPass(t *testing.T, c *pop3.Client) {
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), canary))
}

// rawClose hangs up without the close alert of TLS.
func (p *peer) rawClose() { p.Conn.(*tls.Conn).NetConn().Close() }

func TestHostileTLSSession(t *testing.T) {
	hangUp := func(p *peer) { p.Conn.Close() }
	inClear := func(octets string) func(p *peer) {
		return func(p *peer) {
			io.WriteString(p.Conn.(*tls.Conn).NetConn(), octets)
			p.expectNothing()
		}
	}
	anyError := allOf()
	for _, row := range []struct {
		id    string
		do    action
		says  string
		then  func(p *peer)
		want  resultCheck
		after afterwards
	}{
		{"H-156 R1-171 cut without a word", retr, "+OK\r\nhalf a\r\n", (*peer).rawClose,
			returns("half a\r\n", connLost), closed},
		{"H-157 close_notify within a message", retr, "+OK\r\nhalf a\r\n", hangUp,
			returns("half a\r\n", connLost), closed},
		{"3.7D close_notify within a status line", noop, "+OK", hangUp, failsWith(connLost), closed},
		{"H-155 clear text within a session", noop, "", inClear("+OK in clear\r\n"), failsWith(anyError), closed},
		{"H-155 alert within a session", retr, "+OK\r\nhalf a\r\n", inClear("\x15\x03\x03\x00\x02\x02\x28"),
			failsWith(anyError), closed},
		{"3.7E a reply too many in one record", noop, "+OK\r\n+OK\r\n", (*peer).expectNothing, failsWith(), surplus},
	} {
		overTLS(t, row.id, func(p *peer) {
			loginTLS(p)
			p.expect(row.do.line)
			p.send(row.says)
			row.then(p)
		}, func(t *testing.T, c *pop3.Client) {
			userPass(t, c)
			value, err := row.do.do(t, t.Context(), c)
			row.want(t, value, err)
			row.after.check(t, c, err)
		})
	}
}

// The sizes of the TLS records in which a message arrives have no effect on its content.
func TestHostileRecords(t *testing.T) {
	wire := "+OK\r\n" + strings.Repeat("..a\r\n.b\r\n", 2000) + "\r\n.\r\n"
	content := strings.Repeat(".a\r\n.b\r\n", 2000) + "\r\n"
	for id, sizes := range map[string][]int{
		"H-159 one octet at a time": {1}, "H-159 16 KiB": {16 << 10},
		"H-159 by and by":      {1, 2, 3, 5, 8, 13, 21, 1000},
		"H-159 the end in two": {len(wire) - 2, 2}, "H-159 the end in three": {len(wire) - 3, 1, 1, 1},
	} {
		overTLS(t, id, func(p *peer) {
			loginTLS(p)
			p.expect("RETR 1")
			for i, rest := 0, wire; rest != ""; i++ {
				n := min(len(rest), sizes[i%len(sizes)])
				p.send(rest[:n])
				rest = rest[n:]
			}
			p.expectNothing()
		}, func(t *testing.T, c *pop3.Client) {
			userPass(t, c)
			got, err := retr.do(t, t.Context(), c)
			assert.NoError(t, err)
			assert.Equal(t, content, got)
		})
	}
}

// After STLS the client discards what it learned in clear: capabilities, PIPELINING, greeting and timestamp (R1-093,
// R1-125, H-206).
func TestHostileForgets(t *testing.T) {
	start := func(t *testing.T, server func(p *peer)) *pop3.Client {
		way := tlsModes[1]
		conn := serve(t, func(p *peer) {
			way.before(p)
			if p.startTLS(serverTLS()) {
				server(p)
			}
		})
		c, err := way.dial(t.Context(), tlsHost, tlsOptions(t, conn))
		require.NoError(t, err)
		return c
	}
	t.Run("R1-093 capabilities", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, func(p *peer) {
				p.expect("CAPA")
				p.send("+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n")
				p.expectNothing()
			})
			caps, err := c.Capa(t.Context())
			assert.NoError(t, err)
			assert.Equal(t, pop3.Capabilities{"SASL": {"SCRAM-SHA-256"}}, caps)
			assert.Empty(t, c.Greeting())
			assert.ErrorIs(t, c.Apop(t.Context(), "u", canary), errors.ErrUnsupported, "R1-125")
			state, ok := c.TLSConnectionState()
			assert.True(t, ok && state.HandshakeComplete && len(state.VerifiedChains) > 0, "CVE-2026-42246")
			assert.NoError(t, c.Close())
		})
	})
	t.Run("H-130 CAPA is refused inside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, func(p *peer) {
				p.expect("CAPA")
				p.send("-ERR\r\n")
				loginTLS(p)
				p.expect("CAPA")
				p.send("-ERR\r\n")
				p.expect("DELE 1")
				p.send("+OK\r\n")
				p.expect("DELE 2")
				p.send("+OK\r\n")
				p.expectNothing()
			})
			caps, err := c.Capa(t.Context())
			assert.NoError(t, err)
			assert.Nil(t, caps)
			assert.NoError(t, c.Login(t.Context(), "u", canary), "PLAIN was announced only in clear")
			assert.NoError(t, c.Dele(t.Context(), 1, 2), "H-206: not ahead")
			assert.NoError(t, c.Close())
		})
	})
	t.Run("H-206 PIPELINING in clear only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, func(p *peer) {
				loginTLS(p)
				p.expect("CAPA")
				p.send("+OK\r\nTOP\r\n.\r\n")
				p.expect("DELE 1")
				p.send("+OK\r\n")
				p.expect("DELE 2")
				p.send("+OK\r\n")
				p.expectNothing()
			})
			userPass(t, c) // this method does not send CAPA
			assert.NoError(t, c.Dele(t.Context(), 1, 2))
			assert.NoError(t, c.Close())
		})
	})
	t.Run("CVE-2026-41319 a weaker list in clear", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, func(p *peer) {
				p.expect("CAPA")
				p.send("+OK\r\nSASL SCRAM-SHA-256 PLAIN\r\n.\r\n")
				assert.Regexp(t, "^AUTH SCRAM-SHA-256 [A-Za-z0-9+/=]+$", p.line())
				p.send("-ERR [AUTH] no\r\n")
				p.expectNothing()
			})
			assert.Error(t, c.Login(t.Context(), "u", canary))
			assert.NoError(t, c.Close())
		})
	})
}

func TestHostileTLSRest(t *testing.T) {
	t.Run("H-013 clear text on the port of TLS", func(t *testing.T) {
		for _, row := range []struct{ greeting, hint string }{
			{"+OK ready\r\n", "DialStartTLS"}, {"-ERR no\r\n", "DialStartTLS"},
			{"220 smtp\r\n", "SMTP"}, {"* OK \x1b[31m\r\n", "IMAP"}, {"\x1b[2J\u202e!!\r\n",
				"does not speak TLS here"},
		} {
			synctest.Test(t, func(t *testing.T) {
				conn, _ := pop3test.Script("PAUSE 1s\ns: " + quoted(row.greeting) + "\nANY\nHOLD")
				_, err := pop3.DialTLS(t.Context(), tlsHost, tlsOptions(t, conn))
				var header tls.RecordHeaderError
				assert.ErrorAs(t, err, &header)
				assert.ErrorContains(t, err, row.hint)
				checkError(t, err)
			})
		}
	})
	t.Run("H-161 certificate of the client asked for", func(t *testing.T) {
		for auth, accepted := range map[tls.ClientAuthType]bool{tls.RequestClientCert: true,
			tls.RequireAnyClientCert: false} {
			synctest.Test(t, func(t *testing.T) {
				config := serverTLS().Clone()
				config.ClientAuth = auth
				conn := serve(t, func(p *peer) {
					if p.startTLS(config) {
						p.send("+OK\r\n")
						p.expectNothing()
					}
				})
				c, err := pop3.DialTLS(t.Context(), tlsHost, tlsOptions(t, conn))
				if accepted && assert.NoError(t, err) {
					assert.NoError(t, c.Close())
				} else if !accepted && assert.Error(t, err) {
					checkError(t, err)
				}
			})
		}
	})
	t.Run("R1-168 TLS 1.1", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			config := serverTLS().Clone()
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			conn := serve(t, func(p *peer) { assert.False(t, p.startTLS(config)) })
			_, err := pop3.DialTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			assert.Error(t, err)
			checkError(t, err)
		})
	})
	t.Run("H-163 another certificate the next time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			opts := &pop3.Options{TLSConfig: clientTLS()}
			opts.TLSConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for i, config := range []*tls.Config{serverTLS(), serverTLS(), selfSigned()} {
				conn := serve(t, func(p *peer) {
					if p.startTLS(config) {
						p.send("+OK\r\n")
						p.expect("USER u")
						p.send("+OK\r\n")
						p.expectNothing()
					}
				})
				opts.DialContext = dialTo(conn)
				c, err := pop3.DialTLS(t.Context(), tlsHost, opts)
				if i == 2 {
					var verification *tls.CertificateVerificationError
					assert.ErrorAs(t, err, &verification)
					return
				}
				require.NoError(t, err)
				assert.NoError(t, c.User(t.Context(), "u"), "secrets are allowed, resumed or not")
				state, _ := c.TLSConnectionState()
				assert.Equal(t, i > 0, state.DidResume)
				assert.NotEmpty(t, state.VerifiedChains)
				assert.NoError(t, c.Close())
			}
		})
	})
	t.Run("H-164 OK with a code", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			conn := serve(t, func(p *peer) {
				p.send("+OK\r\n")
				p.expect("CAPA")
				p.send("-ERR\r\n")
				p.expect("STLS")
				p.send("+OK [sys/perm] alert\r\n")
				if p.startTLS(serverTLS()) {
					p.expectNothing()
				}
			})
			c, err := pop3.DialStartTLS(t.Context(), tlsHost, tlsOptions(t, conn))
			require.NoError(t, err, "STLS is sent blind where CAPA is refused")
			assert.Empty(t, c.Greeting())
			assert.NoError(t, c.Close())
		})
	})
}

// dialPeer returns a client of a server that only sends a greeting.
func dialPeer(t *testing.T, host string, server, client *tls.Config) (c *pop3.Client) {
	conn := serve(t, func(p *peer) {
		if p.startTLS(server) {
			p.send("+OK\r\n")
			p.line()
		}
	})
	c, err := pop3.DialTLS(t.Context(), host, &pop3.Options{TLSConfig: client, DialContext: dialTo(conn)})
	require.NoError(t, err)
	return c
}

// TestLineEndsLearnedInClear: an attacker can change the line end of the greeting in clear to LF. That alone must not
// allow a lone LF to end a message within TLS. A server whose lines end in LF both in clear and within TLS is
// accepted. If its lines end in CRLF in clear and in LF within TLS, that is an error.
func TestLineEndsLearnedInClear(t *testing.T) {
	for id, row := range map[string]struct{ greeting, end, body, want string }{
		"H-072 changed greeting": {"\n", "\r\n", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"},
		"H-072 LF throughout":    {"\n", "\n", "a\nb\n.\n", "a\nb\n"},
		"H-073 LF within TLS":    {"\r\n", "\n", "", ""},
	} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := serve(t, func(p *peer) {
					p.send("+OK ready" + row.greeting)
					p.expect("CAPA")
					p.send("+OK" + row.greeting + "STLS" + row.greeting + "." + row.greeting)
					p.expect("STLS")
					p.send("+OK" + row.greeting)
					if !assert.True(p.t, p.startTLS(serverTLS())) {
						return
					}
					p.expect("USER u")
					p.send("+OK" + row.end)
					if row.want == "" {
						return
					}
					p.expect("PASS " + canary)
					p.send("+OK" + row.end)
					p.expect("RETR 1")
					p.send("+OK" + row.end + row.body)
					p.expectNothing()
				})
				c, err := pop3.DialStartTLS(t.Context(), tlsHost, tlsOptions(t, conn))
				require.NoError(t, err)
				err = c.User(t.Context(), "u")
				if row.want == "" {
					fatal(t, err)
					return
				}
				require.NoError(t, err)
				require.NoError(t, c.Pass(t.Context(), canary))
				m, err := c.Retr(t.Context(), 1)
				require.NoError(t, err)
				octets, err := io.ReadAll(m)
				require.NoError(t, err)
				assert.Equal(t, row.want, string(octets))
				require.NoError(t, c.Close())
			})
		})
	}
}
