package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestDiagnose(t *testing.T) {
	plain := pop3test.NewServer()
	defer plain.Close()
	secure := pop3test.NewTLSServer()
	defer secure.Close()
	noTLS := pop3test.NewUnstartedServer()
	noTLS.Caps = []string{"USER", "LOGIN-DELAY 1800", "EXPIRE 0"}
	noTLS.Start()
	defer noTLS.Close()
	noCapa := pop3test.NewServer()
	defer noCapa.Close()
	noCapa.SetFaults(pop3test.Fault{At: "CAPA", Reply: "-ERR what?"})

	p := newWorkspace(t)
	tests := []struct {
		name  string
		srv   *pop3test.Server
		trust bool
		want  []string
	}{
		{"STLS", plain, true, []string{
			plain.Addr + ": STLS on a connection in clear", "before TLS", "after TLS", "TLS 1.3, TLS_", "STLS",
			"SCRAM-SHA-256",
			"trusted, and valid for the name of the server", "expires on ",
			"pipelining     yes: many messages in one round trip",
			"recognized by unique-id (UIDL)", "server = \"" + plain.Addr + "\"", `tls = "starttls"`, ", round trip "}},
		{"implicit TLS", secure, true, []string{
			secure.Addr + ": TLS from the first byte", "capabilities", "SCRAM-SHA-256-PLUS",
			`tls = "implicit"`, "certificate"}},
		{"not trusted", secure, false, []string{"NOT TRUSTED: ", `ca_file = "/path/to/authority.pem"`}},
		{"no TLS", noTLS, false, []string{
			noTLS.Addr + ": no TLS", "login          USER and PASS",
			"not announced: one round trip for each message",
			"at least 30m0s between two logins", "AT ONCE: the server may delete retrieved messages", `tls = "none"`,
			`interval = "30m0s"`, "insecure_auth = true", "UIDL not announced"}},
		{"no CAPA", noCapa, true, []string{"after TLS      not announced", "login          nothing announced"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"--diagnose", tt.srv.Addr}
			if tt.trust {
				args = append(args, "--ca-file", p.writeCA(tt.srv))
			}
			r := p.run(args...)
			assert.Equal(t, exitDone, r.status)
			for _, want := range tt.want {
				assert.Contains(t, r.out, want)
			}
			assert.Empty(t, r.err)
			for _, line := range tt.srv.Commands() {
				assert.NotRegexp(t, "^(USER|PASS|APOP|AUTH)", line)
			}
		})
	}
}

func TestDiagnoseJSON(t *testing.T) {
	srv := pop3test.NewTLSServer()
	defer srv.Close()
	r := newWorkspace(t).run("--json", "--diagnose", srv.Addr)
	assert.Equal(t, exitDone, r.status)
	var d diagnosis
	require.NoError(t, json.Unmarshal([]byte(r.out), &d))
	require.Len(t, d.Endpoints, 1)
	e := d.Endpoints[0]
	assert.Equal(t, tlsImplicit, e.TLS)
	assert.True(t, e.Encrypted.Capabilities.Has("UIDL"))
	assert.NotEmpty(t, e.Distrust)
	assert.Positive(t, e.RoundTrip)
	assert.True(t, e.Certificates[0].Expires.After(time.Now()))
}

// The diagnosis finds no POP3 server if another kind of server listens, or if nothing listens.
func TestDiagnoseFindsNoServer(t *testing.T) {
	smtp := serveText(t, "220 mail.example.org ESMTP\r\n")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, tt := range map[string]struct{ host, want string }{
		"SMTP":      {smtp, "SMTP"},
		"no server": {closed.Addr().String(), "refused"},
		"port 995":  {"127.0.0.77", "127.0.0.77:995: no POP3 server"},
		"port 110":  {"127.0.0.77", "127.0.0.77:110: no POP3 server"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newWorkspace(t).run("--diagnose", tt.host)
			assert.Equal(t, exitNoPOP3, r.status)
			assert.Contains(t, r.out, tt.want)
			assert.Contains(t, r.out, "No POP3 server was found.")
		})
	}
}

// serveText starts a server that sends text on each connection.
func serveText(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, text)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		left time.Duration
		want string
	}{
		{90 * 24 * time.Hour, "expires on 2026-04-01, in 90 days"},
		{3 * 24 * time.Hour, "expires on 2026-01-04, in 3 days: SOON"},
		{-24 * time.Hour, "EXPIRED on 2025-12-31"},
	} {
		assert.Equal(t, tt.want, expiryText(now.Add(tt.left), now))
	}
}

func TestFold(t *testing.T) {
	assert.Equal(t, "aa, bb,\ncc", fold("aa, bb, cc", 8))
	assert.Equal(t, strings.Repeat("a", 9), fold(strings.Repeat("a", 9), 4))
}

// best prefers trusted TLS, then any TLS, then no TLS.
func TestBestEndpoint(t *testing.T) {
	encrypted := new(offer)
	implicit := &endpoint{TLS: tlsImplicit, Encrypted: encrypted}
	distrusted := &endpoint{TLS: tlsImplicit, Encrypted: encrypted, Distrust: "why"}
	start := &endpoint{TLS: tlsStart, Encrypted: encrypted}
	none := &endpoint{TLS: tlsNone}
	unreachable := &endpoint{TLS: tlsImplicit, Error: "refused"}
	for _, tt := range []struct {
		name      string
		endpoints []*endpoint
		want      *endpoint
	}{
		{"implicit", []*endpoint{implicit, start}, implicit},
		{"only STLS is trusted", []*endpoint{distrusted, start}, start},
		{"no TLS", []*endpoint{unreachable, none}, none},
		{"TLS not trusted", []*endpoint{none, distrusted}, distrusted},
		{"nothing", []*endpoint{unreachable}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Same(t, tt.want, (&diagnosis{Endpoints: tt.endpoints}).best())
		})
	}
}

// dropAtCapa makes the server reply to the given number of CAPA commands in each session. At the next CAPA the server
// closes the connection. A server behind stunnel does that.
func dropAtCapa(t *testing.T, srv *pop3test.Server, replies int) {
	t.Helper()
	var faults []pop3test.Fault
	for session := range 10 {
		faults = append(faults,
			pop3test.Fault{Session: session + 1, At: "CAPA", Skip: replies, Drop: pop3test.BeforeReply})
	}
	srv.SetFaults(faults...)
}

// advisedConfig returns the configuration that a diagnosis advises, without the keys in omit. It contains the user and
// the paths of the test.
func advisedConfig(p *workspace, out, user string, omit ...string) string {
	_, advice, _ := strings.Cut(out, "For the configuration:\n\n")
	text := ""
	for _, line := range regexp.MustCompile(`(?m)^  (\[\[account\]\]|\w+ = .*)$`).FindAllString(advice, -1) {
		key, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case key == "user":
			text += fmt.Sprintf("user = %q\n", user)
		case key == "password_command":
			text += "password_env = \"POPFETCH_TEST_PASSWORD\"\n"
		case key == "maildir":
			text += fmt.Sprintf("maildir = %q\n", p.path("advised"))
		case !slices.Contains(omit, key):
			text += line + "\n"
		}
	}
	return text
}

// In each row a connection needs special keys. The diagnosis advises these keys, and popfetch can fetch with the
// advised configuration.
func TestAdviceWorks(t *testing.T) {
	tests := []struct {
		name     string
		names    string // the names in the server's certificate
		onlySTLS bool   // the server has no implicit TLS
		change   func(*testcert.Authority, *tls.Config)
		faults   func(*testing.T, *pop3test.Server)
		want     []string
		omit     []string // keys of the advice that the test leaves out
	}{
		{name: "unknown authority", names: "127.0.0.1", omit: []string{"ca_file"},
			want: []string{"NOT TRUSTED: ", "Or ask for the SHA-256 of the certificate."}},
		{name: "expired", change: func(a *testcert.Authority, c *tls.Config) {
			c.Certificates = []tls.Certificate{a.Issue(&x509.Certificate{
				IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1e9, 0),
			})}
		}, want: []string{"EXPIRED on 2001-09-09",
			"The certificate has expired, or the clock of this machine is wrong"}},
		{name: "another name", names: "mail.example.org",
			want: []string{"The certificate is not valid for 127.0.0.1.", `certificate_name = "mail.example.org"`}},
		{name: "TLS 1.1", names: "127.0.0.1", change: func(_ *testcert.Authority, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
		}, want: []string{"encryption     TLS 1.1", `tls_min = "1.1"`, "TLS 1.1 is out of date"},
			omit: []string{"ca_file"}},
		{name: "stunnel and a server that accepts one CAPA", names: "127.0.0.1", omit: []string{"ca_file"},
			faults: func(t *testing.T, srv *pop3test.Server) { dropAtCapa(t, srv, 1) },
			want:   []string{"capabilities   "}},
		{name: "connection closed at CAPA", names: "127.0.0.1", omit: []string{"ca_file"},
			faults: func(t *testing.T, srv *pop3test.Server) { dropAtCapa(t, srv, 0) },
			want:   []string{"no_capa = true", "closes the connection at the command CAPA"}},
		{name: "STLS", names: "127.0.0.1", onlySTLS: true, omit: []string{"ca_file"},
			want: []string{`tls = "starttls"`}},
		{name: "STLS, connection closed at CAPA", names: "127.0.0.1", onlySTLS: true, omit: []string{"ca_file"},
			faults: func(t *testing.T, srv *pop3test.Server) { dropAtCapa(t, srv, 0) },
			want:   []string{`tls = "starttls"`, "no_capa = true"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			authority := testcert.New()
			srv := pop3test.NewUnstartedServer(mailbox("ann", newMessages("one")...))
			srv.TLS = &tls.Config{}
			if tt.names != "" {
				srv.TLS.Certificates = []tls.Certificate{authority.Server(tt.names)}
			}
			if tt.change != nil {
				tt.change(authority, srv.TLS)
			}
			if tt.onlySTLS {
				srv.Start()
			} else {
				srv.StartTLS()
			}
			defer srv.Close()
			if tt.faults != nil {
				tt.faults(t, srv)
			}
			p := newWorkspace(t)
			cert, _ := testcert.PEM(authority.Certificate)
			args := []string{"--diagnose", srv.Addr}
			if !slices.Contains(tt.omit, "ca_file") && tt.change == nil {
				require.NoError(t, os.WriteFile(p.path("ca"), cert, 0o600))
				args = append(args, "--ca-file", p.path("ca"))
			}
			r := p.run(args...)
			require.Equal(t, exitDone, r.status, r)
			for _, want := range tt.want {
				assert.Contains(t, r.out, want)
			}
			text := advisedConfig(p, r.out, "ann", tt.omit...)
			if len(args) > 2 {
				text += fmt.Sprintf("ca_file = %q\n", p.path("ca"))
			}
			r = p.run("-c", p.configure(text))
			assert.Equal(t, exitDone, r.status, "%s\n%s", text, r.err)
			assert.Len(t, p.stored("advised"), 1)
		})
	}
}

// C-042: a server whose greeting is -ERR is a POP3 server too, so the diagnosis shows the text of the greeting.
func TestDiagnoseRefusedConnection(t *testing.T) {
	srv := pop3test.NewServer()
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR too many connections, come back at noon"})
	r := newWorkspace(t).run("--diagnose", srv.Addr)
	assert.Equal(t, exitFailed, r.status)
	assert.Contains(t, r.out, "a POP3 server that refuses the connection")
	assert.Contains(t, r.out, "too many connections, come back at noon")
	assert.Contains(t, r.out, "Its reply is above.")
}

// C-108: the diagnosis shows text of the server without control characters.
func TestDiagnoseRemovesControlCharacters(t *testing.T) {
	const evil = "\x1b[2K\x1b]0;owned\x07\u202etrusted\nand it fits\u200b"
	authority := testcert.New()
	srv := pop3test.NewUnstartedServer(mailbox("ann"))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: evil, Organization: []string{evil}},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})}}
	srv.Caps = []string{"USER", "IMPLEMENTATION " + strings.ReplaceAll(evil, "\n", ""), "X-\x1b[31m"}
	srv.StartTLS()
	defer srv.Close()
	for _, args := range [][]string{{"--diagnose", srv.Addr}, {"--json", "--diagnose", srv.Addr}} {
		r := newWorkspace(t).run(args...)
		assert.Equal(t, exitDone, r.status)
		for _, c := range r.out {
			assert.True(t, c == '\n' || unicode.IsGraphic(c), "%q", c)
		}
		assert.NotContains(t, r.out, "\\u001b")
		assert.NotContains(t, r.out, `\u202e`)
	}
	srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR " + strings.ReplaceAll(evil, "\n", "")})
	r := newWorkspace(t).run("--diagnose", srv.Addr)
	assert.NotContains(t, r.out, "\x1b")
	r = newWorkspace(t).run("--diagnose", "h\x1b[2Kost\n")
	assert.NotContains(t, r.out, "\x1b")
}
