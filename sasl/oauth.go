package sasl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	gosasl "github.com/emersion/go-sasl"
)

// XOAuth2 returns a client of XOAUTH2, which Google and Microsoft introduced before [OAuthBearer]
// was standardised. It sends a user name and an OAuth 2.0 access token. The name must not be empty
// and must not contain control characters. The token must be printable ASCII without spaces. The
// token is revealed to the server.
//
// This package implements XOAUTH2 itself, because go-sasl does not have it.
func XOAuth2(name, token string) Client {
	return &oauthClient{
		exchange: newExchange("XOAUTH2", token, cmp.Or(
			notEmpty("name", name), noControls("name", name),
			notEmpty("token", token), printableASCII("token", token),
		)),
		ir:    newSecret("user=" + name + "\x01auth=Bearer " + token + "\x01\x01"),
		dummy: []byte{},
	}
}

// OAuthBearer returns a client of OAUTHBEARER (RFC 7628). It sends an OAuth 2.0 access token, and
// the name of the user whose maildrop it opens; the name may be empty if the token identifies the
// user. The name must not contain control characters. The token must be printable ASCII without
// spaces. The token is revealed to the server.
//
// The initial response is made by go-sasl, which does not escape the name. Next of go-sasl is not
// used, because it fails where RFC 7628 section 3.2.3 asks for a response.
func OAuthBearer(name, token string) Client {
	_, ir, _ := gosasl.NewOAuthBearerClient(&gosasl.OAuthBearerOptions{
		Username: saslname.Replace(name),
		Token:    token,
	}).Start() // never fails
	return &oauthClient{
		exchange: newExchange(gosasl.OAuthBearer, token, cmp.Or(
			noControls("name", name),
			notEmpty("token", token), printableASCII("token", token),
		)),
		ir:    newSecret(string(ir)),
		dummy: []byte{1},
	}
}

// saslname escapes a name for a GS2 header, as RFC 5801 section 4 says.
var saslname = strings.NewReplacer("=", "=3D", ",", "=2C")

type oauthClient struct {
	exchange
	ir      secret[string]
	dummy   []byte // the response to a refusal; the server sends -ERR after it
	failure error
}

func (c *oauthClient) Start() (mech string, ir []byte, err error) {
	c.failure = nil
	if mech, err = c.begin(1); err != nil {
		return mech, nil, err
	}
	return mech, []byte(c.ir()), nil
}

// Next responds to the only possible challenge, which contains the reason why the server refused the token. After that
// response the server sends -ERR.
func (c *oauthClient) Next(challenge []byte) (response []byte, err error) {
	if c.challengesLeft == 0 {
		return nil, c.countChallenge(challenge)
	}
	c.challengesLeft = 0
	c.failure = c.refusal(challenge)
	return bytes.Clone(c.dummy), nil
}

// Failure returns the *OAuthError that the server sent, or nil.
func (c *oauthClient) Failure() error { return c.failure }

// An OAuthError is the reason why a server refused a token, as it was sent in the challenge of
// [OAuthBearer] (RFC 7628 section 3.2.2) or [XOAuth2]. Its texts come from the server, without
// invisible characters, cut to 512 bytes each. A text that contains the token is left out.
type OAuthError struct {
	Mech    string // the mechanism, "OAUTHBEARER" or "XOAUTH2"
	Status  string // "invalid_token" (RFC 6750 section 3.1), or HTTP's "400" or "401"
	Scope   string // the scope that a token must have, or ""
	Schemes string // the accepted kinds of token, "bearer" or "bearer mac", or ""
	Config  string // the URL of the OpenID configuration, for getting tokens, or ""
	Text    string // the challenge, if it is not the JSON that it should be
}

// Error returns the reason why the token was refused, and the advice to get a new one.
func (e *OAuthError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sasl: %s: the server refused the token, get a new one", e.Mech)
	for _, f := range [...]struct{ name, value string }{
		{"status", e.Status}, {"scope", e.Scope}, {"schemes", e.Schemes}, {"configuration", e.Config},
		{"server said", e.Text},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, "; %s %q", f.name, f.value)
		}
	}
	return b.String()
}

// refusal parses the challenge of a server that refused the token. A challenge that is not JSON is stored as text,
// because the text may say why the login failed.
func (c *oauthClient) refusal(challenge []byte) *OAuthError {
	e := &OAuthError{Mech: c.mech}
	if len(challenge) > maxChallenge {
		e.Text = fmt.Sprintf("more than %d octets", maxChallenge)
		return e
	}
	var fields map[string]any
	if json.Unmarshal(challenge, &fields) != nil || fields == nil {
		e.Text = c.secrets.Hide(string(challenge))
		return e
	}
	e.Status = c.field(fields["status"])
	if status, ok := fields["status"].(string); ok && slices.Contains(tokenErrors, status) {
		e.Status = status // a code is never hidden, even if the token is the same word
	}
	e.Scope = c.field(fields["scope"])
	e.Schemes = c.field(fields["schemes"])
	e.Config = c.field(fields["openid-configuration"])
	return e
}

// tokenErrors are the codes of RFC 6750 section 3.1.
var tokenErrors = []string{"invalid_request", "invalid_token", "insufficient_scope"}

// field returns the text of a JSON value. A status may be a number; other values that are not
// strings are ignored.
func (c *oauthClient) field(value any) string {
	switch v := value.(type) {
	case string:
		return c.secrets.Hide(v)
	case float64:
		return c.secrets.Hide(fmt.Sprint(v))
	}
	return ""
}
