package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// An account is a maildrop and the tokens that open it.
type account struct {
	addr, user string
	mech       string // SASL mechanism; if it is "", the capabilities of the server decide
	opts       *pop3.Options
	tokens     *tokens
}

// mechanisms contains the SASL mechanisms that use a token.
var mechanisms = map[string]func(name, token string) sasl.Client{
	"XOAUTH2":     sasl.XOAuth2,
	"OAUTHBEARER": sasl.OAuthBearer,
}

// logIn returns a client that is logged in. A token may become invalid before it expires, so logIn renews a refused
// token and tries once more.
func (a *account) logIn(ctx context.Context) (*pop3.Client, error) {
	token, err := a.tokens.get(ctx)
	if err != nil {
		return nil, err
	}
	c, err := a.connect(ctx, token)
	if !isTokenRefused(err) {
		return c, err
	}
	token, renewErr := a.tokens.renew(ctx)
	if renewErr != nil {
		return nil, fmt.Errorf("%w; and the token cannot be renewed: %w", err, renewErr)
	}
	return a.connect(ctx, token)
}

// connect connects and logs in with a token. Each token needs a connection of its own, because some servers close the
// connection after a refusal.
func (a *account) connect(ctx context.Context, token string) (*pop3.Client, error) {
	c, err := pop3.DialTLS(ctx, a.addr, a.opts)
	if err != nil {
		return nil, err
	}
	mech, err := a.mechanism(ctx, c)
	if err == nil {
		err = c.Auth(ctx, mechanisms[mech](a.user, token))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// mechanism returns the configured mechanism. Without one, it returns OAUTHBEARER (RFC 7628) if the server announces
// it, and otherwise XOAUTH2.
func (a *account) mechanism(ctx context.Context, c *pop3.Client) (string, error) {
	if a.mech != "" {
		return a.mech, nil
	}
	caps, err := c.Capa(ctx)
	if slices.Contains(caps.SASL(), "OAUTHBEARER") {
		return "OAUTHBEARER", err
	}
	return "XOAUTH2", err
}

// isTokenRefused reports whether the server has refused the token, so that another token may be accepted. The error of
// such a refusal is a *sasl.OAuthError, or a bare -ERR from Microsoft 365. If the maildrop is locked or the server has
// a problem, isTokenRefused returns false.
func isTokenRefused(err error) bool {
	var token *sasl.OAuthError
	if errors.As(err, &token) {
		return true
	}
	var refusal *pop3.Error
	if !errors.As(err, &refusal) {
		return false
	}
	rejects, _ := refusal.RejectsCredentials()
	return rejects
}
