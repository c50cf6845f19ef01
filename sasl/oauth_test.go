package sasl_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/printable"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// failer is the method that an exchange looks for.
type failer interface{ Failure() error }

func TestOAuthRefusal(t *testing.T) {
	const token = "canary.token-0123456789"
	for _, tc := range []struct {
		name      string
		challenge string
		want      sasl.OAuthError
	}{
		{
			name: "R1-149 RFC 7628 section 4.3",
			challenge: `{"status":"invalid_token","scope":"example_scope",` +
				`"openid-configuration":"https://example.com/.well-known/openid-config"}`,
			want: sasl.OAuthError{
				Status: "invalid_token", Scope: "example_scope",
				Config: "https://example.com/.well-known/openid-config",
			},
		},
		{
			name: "RFC 7628 section 4.4",
			challenge: `{"status":"invalid_token","schemes":"bearer mac",` +
				`"scope":"https://mail.example.com/"}`,
			want: sasl.OAuthError{
				Status: "invalid_token", Schemes: "bearer mac", Scope: "https://mail.example.com/",
			},
		},
		{
			name:      "Q-32 Gmail",
			challenge: `{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`,
			want:      sasl.OAuthError{Status: "400", Schemes: "Bearer", Scope: "https://mail.google.com/"},
		},
		{
			name:      "status is a number",
			challenge: `{"status":401}`,
			want:      sasl.OAuthError{Status: "401"},
		},
		{
			name:      "unknown members, and members of other types",
			challenge: `{"status":["a"],"scope":{"b":1},"schemes":null,"x":true}`,
			want:      sasl.OAuthError{},
		},
		{name: "empty object", challenge: `{}`, want: sasl.OAuthError{}},
		{name: "empty challenge", challenge: ``, want: sasl.OAuthError{}},
		{
			name:      "H-181 broken JSON",
			challenge: `{"status":"invalid_token"`,
			want:      sasl.OAuthError{Text: `{"status":"invalid_token"`},
		},
		{name: "H-181 not an object", challenge: `"no"`, want: sasl.OAuthError{Text: `"no"`}},
		{name: "H-181 null", challenge: `null`, want: sasl.OAuthError{Text: `null`}},
		{
			name:      "H-181 no JSON, with controls and bidirectional ones",
			challenge: "go\x1b[31m\r\n away\u202e\u2028\x7f\xff\u0085",
			want:      sasl.OAuthError{Text: "go[31m away\uFFFD"},
		},
		{
			name:      "controls escaped in JSON",
			challenge: `{"status":"a\u001b[2J\u202eb\r\n"}`,
			want:      sasl.OAuthError{Status: "a[2Jb"},
		},
		{
			name:      "H-181 1 MiB of JSON",
			challenge: `{"status":"` + strings.Repeat("x", 1<<20) + `"}`,
			want:      sasl.OAuthError{Text: "more than 65536 octets"},
		},
		{
			name:      "long value, cut at a character",
			challenge: `{"status":"x` + strings.Repeat("é", 10000) + `"}`,
			want:      sasl.OAuthError{Status: "x" + strings.Repeat("é", 254) + "…"},
		},
		{
			name:      "H-181 nested too deep",
			challenge: strings.Repeat("[", 20000),
			want:      sasl.OAuthError{Text: strings.Repeat("[", 509) + "…"},
		},
		{
			name:      "the token comes back",
			challenge: `{"status":"bad token ` + token + `","scope":"` + url.QueryEscape(token) + `"}`,
			want:      sasl.OAuthError{Status: printable.Hidden, Scope: printable.Hidden},
		},
		{
			name:      "the token comes back, parted by control characters",
			challenge: "bad canary.\x00token-\x1b0123456789",
			want:      sasl.OAuthError{Text: printable.Hidden},
		},
		{
			name:      "the token comes back, at the place of the cut",
			challenge: strings.Repeat("x", 505) + token,
			want:      sasl.OAuthError{Text: printable.Hidden},
		},
		{
			name:      "the token comes back in hex",
			challenge: hex.EncodeToString([]byte(token)) + " " + strings.ToUpper(hex.EncodeToString([]byte(token))),
			want:      sasl.OAuthError{Text: printable.Hidden},
		},
	} {
		for mech, dummy := range map[string][]byte{"XOAUTH2": {}, "OAUTHBEARER": {1}} {
			t.Run(tc.name+" "+mech, func(t *testing.T) {
				c := allMechanisms(t, token)[mech]
				_, _, err := c.Start()
				require.NoError(t, err)
				require.NoError(t, c.(failer).Failure())

				response, err := c.Next([]byte(tc.challenge))
				require.NoError(t, err)
				assert.Equal(t, dummy, response, "the answer that the server waits for, not nil")

				var e *sasl.OAuthError
				require.ErrorAs(t, c.(failer).Failure(), &e)
				tc.want.Mech = mech
				assert.Equal(t, &tc.want, e)
				assert.NotContains(t, e.Error(), token)

				_, err = c.Next([]byte(tc.challenge))
				require.Error(t, err)
				_, _, err = c.Start()
				require.NoError(t, err)
				require.NoError(t, c.(failer).Failure(), "a new exchange has not failed yet")
			})
		}
	}
}

// A server may quote the client's message, in base64.
func TestOAuthRefusalQuotesMessage(t *testing.T) {
	const token = "canary.token-0123456789"
	for dots := range 3 {
		message := strings.Repeat(".", dots) + token + "\x01\x01"
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			c := sasl.XOAuth2("bob", token)
			_, _, err := c.Start()
			require.NoError(t, err)
			_, err = c.Next([]byte("bad: " + enc.EncodeToString([]byte(message))))
			require.NoError(t, err)
			assert.Contains(t, c.(failer).Failure().Error(), printable.Hidden)
		}
	}
}

func TestOAuthErrorText(t *testing.T) {
	err := &sasl.OAuthError{
		Mech: "XOAUTH2", Status: "400", Schemes: "Bearer", Scope: "https://mail.google.com/",
	}
	assert.Equal(t, `sasl: XOAUTH2: the server refused the token, get a new one; status "400"; `+
		`scope "https://mail.google.com/"; schemes "Bearer"`, err.Error())
}
