package interop_test

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A method is a login method of a server.
type method struct {
	name  string
	try   func(t *testing.T, c *pop3.Client, name, secret string) error
	wrong *refusal // reply to a wrong secret; nil if the method has no wrong secret

	secrets func(name string) (right, wrong string) // returns the secrets, if they are not passwords
	reason  string                                  // the status of the server when it refuses a token
	cert    bool                                    // the method needs a client certificate for the name
	tls12   bool                                    // the method needs TLS 1.2, for the channel binding tls-unique
}

// mechanism returns a method for the SASL mechanism that newClient returns.
func mechanism(name string, wrong *refusal, newClient func(name, secret string) (sasl.Client, error)) method {
	return method{name: name, wrong: wrong, try: func(t *testing.T, c *pop3.Client, name, secret string) error {
		mech, err := newClient(name, secret)
		require.NoError(t, err)
		return c.Auth(t.Context(), mech)
	}}
}

func user(wrong *refusal) method {
	return method{name: "USER", wrong: wrong, try: func(t *testing.T, c *pop3.Client, name, pass string) error {
		if err := c.User(t.Context(), name); err != nil {
			return err
		}
		return c.Pass(t.Context(), pass)
	}}
}

// apop is not tested over STLS. After STLS the client cannot use the timestamp of a greeting that it received in clear.
func apop(wrong *refusal) method {
	return method{name: "APOP", wrong: wrong, try: func(t *testing.T, c *pop3.Client, name, pass string) error {
		return c.Apop(t.Context(), name, pass)
	}}
}

func plain(wrong *refusal) method {
	return mechanism("PLAIN", wrong, func(name, secret string) (sasl.Client, error) {
		return sasl.Plain("", name, secret), nil
	})
}

func loginMech(wrong *refusal) method {
	return mechanism("LOGIN", wrong, func(name, secret string) (sasl.Client, error) {
		return sasl.Login(name, secret), nil
	})
}

func cramMD5(wrong *refusal) method {
	return mechanism("CRAM-MD5", wrong, func(name, secret string) (sasl.Client, error) {
		return sasl.CramMD5(name, secret), nil
	})
}

func scram(mech string, wrong *refusal) method {
	return mechanism(mech, wrong, func(name, secret string) (sasl.Client, error) {
		return sasl.Scram(mech, name, secret)
	})
}

// scramPlus uses the channel binding tls-unique, the only one that Cyrus supports. TLS 1.3 does not have it.
func scramPlus(mech string, wrong *refusal) method {
	m := scram(mech, wrong)
	m.tls12 = true
	return m
}

// external sends the name in the certificate as the identity. The wrong secret is the name of another user.
func external(wrong *refusal) method {
	m := mechanism("EXTERNAL", wrong, func(_, identity string) (sasl.Client, error) {
		return sasl.External(identity), nil
	})
	m.cert = true
	m.secrets = func(name string) (right, wrong string) { return name, interop.Carol.Name }
	return m
}

// externalEmpty sends no identity, so that the server takes it from the certificate. The empty initial response is
// sent as "=" (finding 11).
func externalEmpty() method {
	m := external(nil)
	m.name = "EXTERNAL with no name"
	m.secrets = func(string) (right, wrong string) { return "", "" }
	return m
}

func anonymous() method {
	return mechanism("ANONYMOUS", nil, func(string, string) (sasl.Client, error) {
		return sasl.Anonymous("interop"), nil
	})
}

func oauth(name, reason string, wrong *refusal, newClient func(name, token string) sasl.Client,
	bad func(name string, expires time.Time) string, expires time.Duration) method {
	m := mechanism(name, wrong, func(name, token string) (sasl.Client, error) { return newClient(name, token), nil })
	m.reason = reason
	m.secrets = func(name string) (right, wrong string) {
		return interop.Token(name, time.Now().Add(time.Hour)), bad(name, time.Now().Add(expires))
	}
	return m
}

var (
	dovecotWrong = &refusal{pop3.CodeAuth, `Authentication failed\.`}
	courierWrong = &refusal{text: `Authentication failed\.`}
	cyrusWrong   = &refusal{pop3.CodeAuth, `authenticating: authentication failure`}
)

// methods are the login methods of each server.
var methods = map[interop.Kind][]method{
	interop.Dovecot: {
		user(dovecotWrong), apop(dovecotWrong),
		plain(dovecotWrong), loginMech(dovecotWrong), cramMD5(dovecotWrong),
		scram("SCRAM-SHA-1", dovecotWrong), scram("SCRAM-SHA-256", dovecotWrong),
		external(dovecotWrong), externalEmpty(), anonymous(),
		oauth("OAUTHBEARER", "invalid_token", dovecotWrong, sasl.OAuthBearer, interop.ForgedToken, time.Hour),
		oauth("OAUTHBEARER stale", "invalid_token", dovecotWrong, sasl.OAuthBearer, interop.Token, -time.Minute),
		oauth("XOAUTH2", "401", dovecotWrong, sasl.XOAuth2, interop.ForgedToken, time.Hour),
		oauth("XOAUTH2 stale", "401", dovecotWrong, sasl.XOAuth2, interop.Token, -time.Minute),
	},
	interop.Courier: {
		user(&courier.wrongPassword),
		plain(courierWrong), loginMech(courierWrong), cramMD5(courierWrong),
		external(courierWrong), externalEmpty(),
	},
	interop.Cyrus: {
		user(&cyrus.wrongPassword), apop(cyrusWrong),
		plain(cyrusWrong), loginMech(cyrusWrong), cramMD5(cyrusWrong),
		scram("SCRAM-SHA-1", cyrusWrong), scram("SCRAM-SHA-256", cyrusWrong),
		scramPlus("SCRAM-SHA-1-PLUS", cyrusWrong), scramPlus("SCRAM-SHA-256-PLUS", cyrusWrong),
		external(cyrusWrong), externalEmpty(),
	},
	interop.Mailutils: {user(&mailutils.wrongPassword), apop(&mailutils.wrongPassword)},
	interop.Popa3d:    {user(&popa3d.wrongPassword)},
	interop.Solid:     {user(&solid.wrongPassword), apop(&solid.wrongPassword)},
}

// TestMethods logs in to every server inside TLS, with each of its methods. A wrong secret is refused. Unless the
// server then hangs up, the login with the right secret follows in the same session.
func TestMethods(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		for _, via := range f.transports() {
			for _, m := range methods[f.kind] {
				if !via.tls || m.name == "APOP" && via.name == overSTLS.name {
					continue
				}
				t.Run(via.name+"/"+m.name, func(t *testing.T) {
					t.Parallel()
					tryMethod(t, f, s, via, m)
				})
			}
		}
	})
}

func tryMethod(t *testing.T, f *facts, s *interop.Server, via transport, m method) {
	a := interop.Dave // an empty maildrop, so that sessions can use it at the same time
	if f.secondLogin != nil {
		a = s.Spare()
	}
	right, wrong := a.Password, "wrong"
	if m.secrets != nil {
		right, wrong = m.secrets(a.Name)
	}
	opts := &pop3.Options{TLSConfig: s.TLSConfig()}
	if m.cert {
		opts.TLSConfig.Certificates = []tls.Certificate{s.ClientCertificate(a.Name)}
	}
	if m.tls12 {
		opts.TLSConfig.MaxVersion = tls.VersionTLS12
	}
	c := dial(t, s, via, opts)
	if m.wrong != nil {
		err := m.try(t, c, a.Name, wrong)
		assertRefused(t, *m.wrong, err)
		assertExplained(t, m, err)
		if f.wrongCloses {
			c = dial(t, s, via, opts)
		}
	}
	require.NoError(t, m.try(t, c, a.Name, right), s.Log())
	require.Equal(t, pop3.StateTransaction, c.State())
	_, err := c.Stat(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Quit(t.Context()))
}

// assertExplained checks that the error contains the status that the server sent inside an OAuth mechanism (finding
// 13).
func assertExplained(t *testing.T, m method, err error) {
	t.Helper()
	var reason *sasl.OAuthError
	if errors.As(err, &reason) || m.reason != "" {
		require.NotNil(t, reason)
		assert.Equal(t, m.reason, reason.Status)
	}
}

// TestLogin checks which method Login chooses. Login uses only one method, with one exception: some servers announce
// SCRAM with channel binding but do not support it. Then Login uses SCRAM without channel binding (finding 14).
func TestLogin(t *testing.T) {
	wantMethods := map[interop.Kind][]string{
		interop.Dovecot:   {"AUTH SCRAM-SHA-256"},
		interop.Courier:   {"AUTH PLAIN"},
		interop.Cyrus:     {"AUTH SCRAM-SHA-256-PLUS", "AUTH SCRAM-SHA-256"},
		interop.Mailutils: {"USER"},
		interop.Popa3d:    {"USER"},
		interop.Solid:     {"USER"},
	}
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		for _, via := range f.transports() {
			if !via.tls {
				continue
			}
			for _, a := range []interop.Account{interop.Dave, interop.Erin} {
				t.Run(via.name+"/"+a.Name, func(t *testing.T) {
					t.Parallel()
					reserve(t, s, a)
					var log methodLog
					c := dial(t, s, via, &pop3.Options{Trace: log.trace()})
					require.NoError(t, c.Login(t.Context(), a.Name, a.Password))
					assert.Equal(t, wantMethods[f.kind], log.methods())
					_, err := c.Stat(t.Context())
					require.NoError(t, err)
					require.NoError(t, c.Quit(t.Context()))
				})
			}
		}
	})
}

// TestLoginWrong passes a wrong password to Login. The password is sent only once, and the server refuses it.
func TestLoginWrong(t *testing.T) {
	want := map[interop.Kind]refusal{
		interop.Dovecot: *dovecotWrong, interop.Courier: *courierWrong, interop.Cyrus: *cyrusWrong,
		interop.Mailutils: mailutils.wrongPassword, interop.Popa3d: popa3d.wrongPassword,
		interop.Solid: solid.wrongPassword,
	}
	// Dovecot and Cyrus also reply [AUTH], but they offer PLAIN as well as SCRAM. So the refusal of SCRAM is not
	// certain (C-032).
	certain := []interop.Kind{interop.Mailutils}
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		c := dial(t, s, overTLS, &pop3.Options{})
		err := c.Login(t.Context(), interop.Dave.Name, "wrong")
		assertRefused(t, want[f.kind], err)
		var refused *pop3.Error
		require.ErrorAs(t, err, &refused)
		rejects, isCertain := refused.RejectsCredentials()
		assert.True(t, rejects)
		assert.Equal(t, slices.Contains(certain, f.kind), isCertain)
		assert.NotContains(t, err.Error(), "wrong")
	})
}

// TestLoginUnicode logs in with a password that is not ASCII. SASL can send it. USER and PASS can send it only if the
// server announces UTF8 USER.
func TestLoginUnicode(t *testing.T) {
	supported := []interop.Kind{interop.Dovecot, interop.Courier, interop.Cyrus}
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		reserve(t, s, interop.Zoe)
		c := dial(t, s, overTLS, nil)
		err := c.Login(t.Context(), interop.Zoe.Name, interop.Zoe.Password)
		if slices.Contains(supported, f.kind) {
			require.NoError(t, err)
			require.NoError(t, c.Quit(t.Context()))
			return
		}
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Equal(t, pop3.StateAuthorization, c.State())
	})
}

// A methodLog records the login methods that were tried, in order.
type methodLog struct {
	mu   sync.Mutex
	cmds []string
}

func (l *methodLog) trace() *pop3.Trace {
	return &pop3.Trace{WroteCommand: func(_ context.Context, cmd string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cmds = append(l.cmds, cmd)
	}}
}

func (l *methodLog) methods() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, cmd := range l.cmds {
		words := strings.Fields(cmd)
		switch words[0] {
		case "AUTH":
			out = append(out, strings.Join(words[:2], " "))
		case "USER", "APOP":
			out = append(out, words[0])
		}
	}
	return slices.Compact(out) // several lines of one exchange become one entry
}
