package conformance_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// TestLoginChooses: which way Login takes on a real exchange, by what the server offers and the caller allows.
func TestLoginChooses(t *testing.T) {
	all := "SASL PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"
	for _, row := range []struct {
		name    string
		caps    []string
		allowed []string
		verb    string // how the command that logs in begins; "" if nothing is sent
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

// TestRefusedOnce: a refused secret is not tried in another form.
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
	require.NoError(t, c.Login(t.Context(), "u", "secret"), "the session goes on")
}

// TestChannelBinding: over TLS 1.3 Login binds SCRAM to the channel where the server can. Where it announces that and
// can't (as Cyrus 3.6), it is tried once more without, and with nothing else.
func TestChannelBinding(t *testing.T) {
	unable := pop3test.Fault{At: "AUTH SCRAM-SHA-256-PLUS", Reply: "-ERR [AUTH] bad protocol / cancel"}
	for _, row := range []struct {
		name   string
		caps   []string
		faults []pop3test.Fault
		mechs  []string
		ok     bool
	}{
		{"the server can", nil, nil, []string{"SCRAM-SHA-512-PLUS"}, true},
		{"the server can't", []string{"SASL PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256"}, []pop3test.Fault{unable},
			[]string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}, true},
		{"the server can't, and has no other SCRAM", []string{"SASL PLAIN SCRAM-SHA-256-PLUS"},
			[]pop3test.Fault{unable},
			[]string{"SCRAM-SHA-256-PLUS"}, false},
		{"the password is wrong", nil, []pop3test.Fault{{At: "AUTH", Reply: "-ERR [AUTH] no"}},
			[]string{"SCRAM-SHA-512-PLUS", "SCRAM-SHA-512"}, false},
		{"it is not about the binding", nil, []pop3test.Fault{{At: "AUTH", Reply: "-ERR [IN-USE] open elsewhere"}},
			[]string{"SCRAM-SHA-512-PLUS"}, false},
		{"somebody is in between", nil,
			[]pop3test.Fault{{At: "AUTH", Reply: "+ " + b64("e=channel-bindings-dont-match")}},
			[]string{"SCRAM-SHA-512-PLUS"}, false},
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
			assert.Equal(t, row.ok, err == nil, "%v", err)
			assert.Equal(t, row.mechs, mechanisms(srv))
			if !row.ok {
				assert.Equal(t, 1, strings.Count(err.Error(), "-ERR"), "%v", err)
			}
		})
	}
}

// TestScramKeys: what SCRAM derived is there for the next login, in whatever form, once the server has proved itself.
func TestScramKeys(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: "secret"})
	defer srv.Close()
	keys := sasl.NewScramKeys(10)
	for i, login := range []struct {
		password string
		mech     string
		kept     int
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
		assert.Equal(t, login.kept, keys.Len(), "login %d", i)
		require.NoError(t, c.Close())
	}
}

// mechanisms lists those of the AUTH commands that the server got.
func mechanisms(srv *pop3test.Server) (mechs []string) {
	for _, cmd := range srv.Commands() {
		if mech, ok := strings.CutPrefix(cmd, "AUTH "); ok {
			mech, _, _ = strings.Cut(mech, " ")
			mechs = append(mechs, mech)
		}
	}
	return mechs
}

// TestCredentials: who is to blame for a refused login (R1-112).
func TestCredentials(t *testing.T) {
	for _, row := range []struct {
		name, caps, reply string
		rejects, certain  bool
	}{
		{"no codes", "USER", "-ERR no", true, false},
		{"AUTH", "USER", "-ERR [AUTH] no", true, true},
		{"announced, no code", "USER\nS: AUTH-RESP-CODE", "-ERR disk full", false, true},
		{"announced, AUTH", "USER\nS: AUTH-RESP-CODE", "-ERR [AUTH] no", true, true},
		{"IN-USE", "USER", "-ERR [IN-USE] locked", false, true},
		{"SYS/TEMP", "USER", "-ERR [sys/temp/disk] full", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := open(
				t,
				script{
					"S: +OK\nC: CAPA\nS: +OK\nS: " + row.caps +
						"\nS: .\nC: USER u\nS: +OK\nC: PASS secret\nS: " + row.reply,
				},
				insecure,
			)
			var refusal *pop3.Error
			require.ErrorAs(t, c.Login(t.Context(), "u", "secret"), &refusal)
			rejects, certain := refusal.RejectsCredentials()
			assert.Equal(t, row.rejects, rejects)
			assert.Equal(t, row.certain, certain)
		})
	}
}

// TestLongPassword: a password that has no room behind PASS is refused before USER is sent.
func TestLongPassword(t *testing.T) {
	c := open(t, script{"S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\nC: USER u\nS: +OK\nC: PASS secret\nS: +OK"}, insecure)
	require.ErrorIs(t, c.Login(t.Context(), "u", strings.Repeat("p", 249)), pop3.ErrArgument)
	require.NoError(t, c.Login(t.Context(), "u", "secret"))
}
