package main

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestDiagnose(t *testing.T) {
	plain := pop3test.NewServer()
	defer plain.Close()
	secure := pop3test.NewTLSServer()
	defer secure.Close()
	bare := pop3test.NewUnstartedServer()
	bare.Caps = []string{"USER", "LOGIN-DELAY 1800", "EXPIRE 0"}
	bare.Start()
	defer bare.Close()
	silent := pop3test.NewServer()
	defer silent.Close()
	silent.SetFaults(pop3test.Fault{At: "CAPA", Reply: "-ERR what?"})

	p := newPlace(t)
	tests := []struct {
		name  string
		srv   *pop3test.Server
		trust bool
		want  []string
	}{
		{"STLS", plain, true, []string{
			plain.Addr + ": in clear, then STLS", "before TLS", "after TLS", "TLS 1.3, TLS_", "STLS", "SCRAM-SHA-256",
			"trusted, and it fits the name of the server", "expires on ",
			"pipelining     yes: many messages in one round trip",
			"known by unique-id (UIDL)", "server = \"" + plain.Addr + "\"", `tls = "starttls"`, "a round trip takes "}},
		{"implicit TLS", secure, true, []string{
			secure.Addr + ": TLS from the first octet", "capabilities", "SCRAM-SHA-256-PLUS",
			`tls = "implicit"`, "certificate"}},
		{"not trusted", secure, false, []string{"NOT TRUSTED: ", `ca_file = "/path/to/authority.pem"`}},
		{"no TLS", bare, false, []string{
			bare.Addr + ": in clear, no TLS", "login          USER and PASS",
			"not announced: a round trip for each message",
			"at least 30m0s between two logins", "AT ONCE: what was retrieved may be gone", `tls = "none"`,
			`interval = "30m0s"`, "insecure_auth = true", "no UIDL announced"}},
		{"no CAPA", silent, true, []string{"it does not say (no CAPA)", "login          nothing announced"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"--diagnose", tt.srv.Addr}
			if tt.trust {
				args = append(args, "--ca-file", p.pem(tt.srv))
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

func TestDiagnoseForMachines(t *testing.T) {
	srv := pop3test.NewTLSServer()
	defer srv.Close()
	r := newPlace(t).run("--json", "--diagnose", srv.Addr)
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

// A server of another kind, a port where nobody is, and a host that has neither port.
func TestDiagnoseWhereThereIsNone(t *testing.T) {
	smtp := speak(t, "220 mail.example.org ESMTP\r\n")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, tt := range map[string]struct{ host, want string }{
		"SMTP":             {smtp, "SMTP"},
		"nobody":           {closed.Addr().String(), "refused"},
		"the usual ports":  {"127.0.0.77", "127.0.0.77:995: nothing usable"},
		"the other of two": {"127.0.0.77", "127.0.0.77:110: nothing usable"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newPlace(t).run("--diagnose", tt.host)
			assert.Equal(t, exitNoPOP3, r.status)
			assert.Contains(t, r.out, tt.want)
			assert.Contains(t, r.out, "No POP3 server was found.")
		})
	}
}

// speak has a server that says one thing to everybody.
func speak(t *testing.T, text string) string {
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
		assert.Equal(t, tt.want, expiry(now.Add(tt.left), now))
	}
}

func TestFold(t *testing.T) {
	assert.Equal(t, "aa, bb,\ncc", fold("aa, bb, cc", 8))
	assert.Equal(t, strings.Repeat("a", 9), fold(strings.Repeat("a", 9), 4))
}

// The best of several ports: trusted TLS, then any TLS, then none.
func TestBestEndpoint(t *testing.T) {
	encrypted := new(offer)
	implicit := &endpoint{TLS: tlsImplicit, Encrypted: encrypted}
	distrusted := &endpoint{TLS: tlsImplicit, Encrypted: encrypted, Distrust: "why"}
	start := &endpoint{TLS: tlsStart, Encrypted: encrypted}
	none := &endpoint{TLS: tlsNone}
	dead := &endpoint{TLS: tlsImplicit, Error: "refused"}
	for _, tt := range []struct {
		name      string
		endpoints []*endpoint
		want      *endpoint
	}{
		{"implicit", []*endpoint{implicit, start}, implicit},
		{"only STLS is trusted", []*endpoint{distrusted, start}, start},
		{"no TLS", []*endpoint{dead, none}, none}, {"TLS not trusted", []*endpoint{none, distrusted}, distrusted},
		{"nothing", []*endpoint{dead}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Same(t, tt.want, (&diagnosis{Endpoints: tt.endpoints}).best())
		})
	}
}
