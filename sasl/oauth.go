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

// XOAuth2 is XOAUTH2, the mechanism of Google and Microsoft from before [OAuthBearer] was
// standardised: a user name and an OAuth 2.0 access token. The name must not be empty and has no
// control characters; the token is printable ASCII without spaces. The token is revealed to the
// server.
//
// It is our own because go-sasl refuses to have it.
func XOAuth2(name, token string) Client {
	return &oauthClient{
		exchange: newExchange("XOAUTH2", token, cmp.Or(
			present("name", name), noControls("name", name),
			present("token", token), visible("token", token),
		)),
		ir:    keep("user=" + name + "\x01auth=Bearer " + token + "\x01\x01"),
		dummy: []byte{},
	}
}

// OAuthBearer is OAUTHBEARER (RFC 7628): an OAuth 2.0 access token, and the name of the user whose
// maildrop it is, empty where the token says that itself. The name has no control characters; the
// token is printable ASCII without spaces. The token is revealed to the server.
//
// The message is go-sasl's. Its Next is not used, since it gives up where RFC 7628 section 3.2.3
// wants an answer; neither does it escape the name.
func OAuthBearer(name, token string) Client {
	_, ir, _ := gosasl.NewOAuthBearerClient(&gosasl.OAuthBearerOptions{
		Username: saslname.Replace(name),
		Token:    token,
	}).Start() // never fails
	return &oauthClient{
		exchange: newExchange(gosasl.OAuthBearer, token, cmp.Or(
			noControls("name", name),
			present("token", token), visible("token", token),
		)),
		ir:    keep(string(ir)),
		dummy: []byte{1},
	}
}

// saslname escapes a name for a GS2 header, as RFC 5801 section 4 says.
var saslname = strings.NewReplacer("=", "=3D", ",", "=2C")

type oauthClient struct {
	exchange
	ir      secret[string]
	dummy   []byte // the answer to a challenge, which says that the last word is the server's
	failure error
}

func (c *oauthClient) Start() (mech string, ir []byte, err error) {
	c.failure = nil
	if mech, err = c.begin(1); err != nil {
		return mech, nil, err
	}
	return mech, []byte(c.ir()), nil
}

// Next answers the one challenge that there can be: the server's reason for refusing the token. The
// server says -ERR only after an answer.
func (c *oauthClient) Next(challenge []byte) (response []byte, err error) {
	if c.left == 0 {
		return nil, c.take(challenge)
	}
	c.left = 0
	c.failure = c.refusal(challenge)
	return bytes.Clone(c.dummy), nil
}

// Failure is the *OAuthError that the server sent, or nil.
func (c *oauthClient) Failure() error { return c.failure }

// An OAuthError is the reason for which a server refused a token, from the challenge of
// [OAuthBearer] (RFC 7628 section 3.2.2) or [XOAuth2]. Its texts are the server's words without
// invisible characters, at most 512 octets each. A text in which the token shows is left out.
type OAuthError struct {
	Mech    string // the mechanism, "OAUTHBEARER" or "XOAUTH2"
	Status  string // "invalid_token" (RFC 6750 section 3.1), or HTTP's "400" or "401"
	Scope   string // the scope that a token must have, or ""
	Schemes string // the kinds of token that the server takes, "bearer" or "bearer mac", or ""
	Config  string // the URL of the OpenID configuration, where tokens come from, or ""
	Text    string // what came, where it was not the JSON it should have been
}

// Error says why the token was refused, and what token to get.
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

// refusal reads the challenge of a server that refused the token. What is no JSON is kept as text:
// whatever the server meant, the login has failed, and the reason may be in it.
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
		e.Status = status // a code is never hidden: a token may look like it
	}
	e.Scope = c.field(fields["scope"])
	e.Schemes = c.field(fields["schemes"])
	e.Config = c.field(fields["openid-configuration"])
	return e
}

// tokenErrors are the codes of RFC 6750 section 3.1.
var tokenErrors = []string{"invalid_request", "invalid_token", "insufficient_scope"}

// field is the text of a JSON value. A status may come as a number; anything else that is no string
// has no meaning.
func (c *oauthClient) field(value any) string {
	switch v := value.(type) {
	case string:
		return c.secrets.Hide(v)
	case float64:
		return c.secrets.Hide(fmt.Sprint(v))
	}
	return ""
}
