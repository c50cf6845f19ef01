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
	mech       string // "" to use what the server announces
	opts       *pop3.Options
	tokens     *tokens
}

// mechanisms are the two that use a token.
var mechanisms = map[string]func(name, token string) sasl.Client{
	"XOAUTH2":     sasl.XOAuth2,
	"OAUTHBEARER": sasl.OAuthBearer,
}

// logIn returns a client that is logged in. A token may become invalid before it expires, so a refused one is
// renewed once.
func (a *account) logIn(ctx context.Context) (*pop3.Client, error) {
	token, err := a.tokens.get(ctx)
	if err != nil {
		return nil, err
	}
	c, err := a.attempt(ctx, token)
	if !refused(err) {
		return c, err
	}
	token, renewal := a.tokens.renew(ctx)
	if renewal != nil {
		return nil, fmt.Errorf("%w; and it can't be renewed: %w", err, renewal)
	}
	return a.attempt(ctx, token)
}

// attempt tries one token, on a connection of its own, because some servers hang up after a refusal.
func (a *account) attempt(ctx context.Context, token string) (*pop3.Client, error) {
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

// mechanism returns OAUTHBEARER (RFC 7628), the standard, if the server announces it. Otherwise it returns XOAUTH2,
// even if that is not announced.
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

// refused reports whether the server has refused the token, so that another token may help. A *sasl.OAuthError means
// that; Microsoft 365 sends only -ERR. refused returns false if the maildrop is locked or the server has a problem.
func refused(err error) bool {
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
