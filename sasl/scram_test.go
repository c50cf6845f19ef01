package sasl_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	xdg "github.com/xdg-go/scram"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// These are the optional methods, declared as in a program that carries out an exchange.
type (
	tlsUser interface{ UseTLS(*tls.ConnectionState) }
	prover  interface{ ServerProved() bool }
)

// tlsPair returns the two ends of a TLS connection of one version.
func tlsPair(t *testing.T, version uint16) (client, server tls.ConnectionState) {
	t.Helper()
	authority := testcert.New("pop.example.com")
	left, right := net.Pipe()
	c := tls.Client(left, &tls.Config{
		ServerName: "pop.example.com", RootCAs: authority.Pool(), MinVersion: version, MaxVersion: version,
	})
	s := tls.Server(right, &tls.Config{
		Certificates: []tls.Certificate{authority.Certificate},
		// The client would not read a session ticket, so the server could not write it.
		SessionTicketsDisabled: true,
	})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	require.NoError(t, c.Handshake())
	require.NoError(t, <-done)
	t.Cleanup(func() { _, _ = left.Close(), right.Close() })
	return c.ConnectionState(), s.ConnectionState()
}

// scramServer returns a server of package scram, with the user bob and the password secret.
func scramServer(t *testing.T, mech string, binding xdg.ChannelBinding) *xdg.ServerConversation {
	t.Helper()
	hash := map[string]xdg.HashGeneratorFcn{
		"SCRAM-SHA-1": xdg.SHA1, "SCRAM-SHA-256": xdg.SHA256, "SCRAM-SHA-512": xdg.SHA512,
	}[strings.TrimSuffix(mech, "-PLUS")]
	bob, err := hash.NewClient("bob", "secret", "")
	require.NoError(t, err)
	stored, err := bob.GetStoredCredentialsWithError(xdg.KeyFactors{Salt: "some salt", Iters: 4096})
	require.NoError(t, err)
	server, err := hash.NewServer(func(name string) (xdg.StoredCredentials, error) {
		if name != "bob" {
			return xdg.StoredCredentials{}, errors.New("unknown user")
		}
		return stored, nil
	})
	require.NoError(t, err)
	return server.NewConversationWithChannelBinding(binding)
}

// exchange carries messages between the two sides until one of them has ended. It returns the initial response and the
// error of the client. An error message of the server is passed on like any other message.
func exchange(t *testing.T, c sasl.Client, s *xdg.ServerConversation) (ir []byte, err error) {
	t.Helper()
	_, ir, err = c.Start()
	require.NoError(t, err)
	for response := ir; !s.Done(); {
		challenge, _ := s.Step(string(response))
		require.NotEmpty(t, challenge)
		if response, err = c.Next([]byte(challenge)); err != nil {
			return ir, err
		}
	}
	return ir, nil
}

func TestScramExchange(t *testing.T) {
	client13, server13 := tlsPair(t, tls.VersionTLS13)
	client12, server12 := tlsPair(t, tls.VersionTLS12)
	exporter, err := xdg.NewTLSExporterBinding(&server13)
	require.NoError(t, err)
	unique := xdg.NewTLSUniqueBinding(server12.TLSUnique)
	require.NotEmpty(t, server12.TLSUnique)

	for _, tc := range []struct {
		name    string
		suffix  string
		state   *tls.ConnectionState
		binding xdg.ChannelBinding // the server's binding, if it offers -PLUS
		flag    string
	}{
		{name: "in clear", flag: "n,,"},
		{name: "over TLS, the server binds", state: &client13, binding: exporter, flag: "n,,"},
		{
			name: "R1-147 tls-exporter", suffix: "-PLUS", state: &client13, binding: exporter,
			flag: "p=tls-exporter,,",
		},
		{name: "tls-unique", suffix: "-PLUS", state: &client12, binding: unique, flag: "p=tls-unique,,"},
	} {
		for _, hash := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
			mech := hash + tc.suffix
			t.Run(mech+" "+tc.name, func(t *testing.T) {
				c, err := sasl.Scram(mech, "bob", "secret")
				require.NoError(t, err)
				c.(tlsUser).UseTLS(tc.state)
				s := scramServer(t, mech, tc.binding)
				ir, err := exchange(t, c, s)
				require.NoError(t, err)
				assert.Equal(t, tc.flag, string(ir[:len(tc.flag)]))
				assert.True(t, s.Valid())
				assert.True(t, c.(prover).ServerProved())
				assert.NoError(t, c.(failer).Failure())
			})
		}
	}
}

func TestScramExchangeRefused(t *testing.T) {
	client, server := tlsPair(t, tls.VersionTLS13)
	_, otherServer := tlsPair(t, tls.VersionTLS13)
	binding, err := xdg.NewTLSExporterBinding(&server)
	require.NoError(t, err)
	otherBinding, err := xdg.NewTLSExporterBinding(&otherServer)
	require.NoError(t, err)
	newClient := func(f func(m, n, p string) (sasl.Client, error), mech, name, password string) sasl.Client {
		c, err := f(mech, name, password)
		require.NoError(t, err)
		c.(tlsUser).UseTLS(&client)
		return c
	}
	for _, tc := range []struct {
		name    string
		c       sasl.Client
		binding xdg.ChannelBinding
		want    string
	}{
		{
			"wrong password", newClient(sasl.Scram, "SCRAM-SHA-256", "bob", "wrong"),
			xdg.ChannelBinding{}, "invalid-proof",
		},
		{
			"unknown user", newClient(sasl.Scram, "SCRAM-SHA-256", "eve", "secret"),
			xdg.ChannelBinding{}, "unknown-user",
		},
		{
			"somebody in between", newClient(sasl.Scram, "SCRAM-SHA-256-PLUS", "bob", "secret"),
			otherBinding, "channel-bindings-dont-match",
		},
		{
			"R1-146 the -PLUS form was cut from the list",
			newClient(sasl.ScramNoPlus, "SCRAM-SHA-256", "bob", "secret"),
			binding, "server-does-support-channel-binding",
		},
		{
			"the server does not bind", newClient(sasl.Scram, "SCRAM-SHA-256-PLUS", "bob", "secret"),
			xdg.ChannelBinding{}, "channel-binding-not-supported",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := exchange(t, tc.c, scramServer(t, "SCRAM-SHA-256", tc.binding))
			var e *sasl.ScramError
			require.ErrorAs(t, err, &e)
			assert.Equal(t, tc.want, e.Value)
			assert.Equal(t, err, tc.c.(failer).Failure())
			assert.False(t, tc.c.(prover).ServerProved())
		})
	}
}

func TestScramNoPlus(t *testing.T) {
	for _, mech := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run("R1-146 "+mech, func(t *testing.T) {
			c, err := sasl.ScramNoPlus(mech, "bob", "secret")
			require.NoError(t, err)
			s := scramServer(t, mech, xdg.ChannelBinding{})
			ir, err := exchange(t, c, s)
			require.NoError(t, err)
			assert.Equal(t, "y,,", string(ir[:3]))
			assert.True(t, s.Valid())
			assert.True(t, c.(prover).ServerProved())
		})
	}
}

func TestChannelBindingMissing(t *testing.T) {
	client12, _ := tlsPair(t, tls.VersionTLS12)
	client13, _ := tlsPair(t, tls.VersionTLS13)
	resumed, old, early := client12, client12, client13
	resumed.TLSUnique = nil
	old.Version = tls.VersionTLS11
	early.HandshakeComplete = false
	for _, tc := range []struct {
		name  string
		state *tls.ConnectionState
		want  string
	}{
		{"in clear", nil, "not known to be TLS"},
		{"before the handshake", &early, "handshake"},
		{"empty state", &tls.ConnectionState{}, "handshake"},
		{"R1-147 TLS 1.2 resumed without extended master secret", &resumed, "tls-unique"},
		{"TLS 1.1", &old, "before 1.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := sasl.Scram("SCRAM-SHA-256-PLUS", "bob", "secret")
			require.NoError(t, err)
			c.(tlsUser).UseTLS(&client13)
			c.(tlsUser).UseTLS(tc.state) // replaces the binding of the previous call
			mech, ir, err := c.Start()
			require.ErrorIs(t, err, sasl.ErrChannelBinding)
			require.ErrorContains(t, err, tc.want)
			assert.Equal(t, "SCRAM-SHA-256-PLUS", mech)
			assert.Nil(t, ir)
			_, err = c.Next([]byte("r=x,s=QQ==,i=4096"))
			require.Error(t, err)
		})
	}
}

// Two exchanges must not have the same nonce.
func TestScramNonceIsNew(t *testing.T) {
	c, err := sasl.Scram("SCRAM-SHA-256", "bob", "secret")
	require.NoError(t, err)
	seen := map[string]bool{}
	for range 100 {
		_, ir, err := c.Start()
		require.NoError(t, err)
		require.Len(t, string(ir), len("n,,n=bob,r=")+32)
		require.False(t, seen[string(ir)])
		seen[string(ir)] = true
	}
}
