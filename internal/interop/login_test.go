package interop_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
	"github.com/seed-2d50cddb/pop3/sasl"
)

func plain(a interop.Account) pop3.SASLClient { return sasl.Plain("", a.Name, a.Password) }

// A method is a way to log in. It gets the secret of the account, or another one.
type method struct {
	name  string
	login func(t *testing.T, c *pop3.Client, name, secret string) error
	wrong refusal // what the server says to a wrong secret
}

func useSASL(t *testing.T, c *pop3.Client, mech pop3.SASLClient) error {
	return c.Auth(t.Context(), mech)
}

func scram(mech string) func(t *testing.T, c *pop3.Client, name, secret string) error {
	return func(t *testing.T, c *pop3.Client, name, secret string) error {
		client, err := sasl.Scram(mech, name, secret)
		require.NoError(t, err)
		return useSASL(t, c, client)
	}
}

var (
	withUser = func(t *testing.T, c *pop3.Client, name, secret string) error {
		if err := c.User(t.Context(), name); err != nil {
			return err
		}
		return c.Pass(t.Context(), secret)
	}
	withApop = func(t *testing.T, c *pop3.Client, name, secret string) error {
		return c.Apop(t.Context(), name, secret)
	}
	withPlain = func(t *testing.T, c *pop3.Client, name, secret string) error {
		return useSASL(t, c, sasl.Plain("", name, secret))
	}
	withLogin = func(t *testing.T, c *pop3.Client, name, secret string) error {
		return useSASL(t, c, sasl.Login(name, secret))
	}
	withCramMD5 = func(t *testing.T, c *pop3.Client, name, secret string) error {
		return useSASL(t, c, sasl.CramMD5(name, secret))
	}
)

var (
	_ = tls.VersionTLS12
	_ = time.Now
	_ = assert.Equal
)
