package interop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// tokenSecret signs the tokens that Dovecot can check without an authorization server.
const tokenSecret = "interop-hmac-secret-0123456789"

// Token returns an OAuth 2.0 access token for name. It is a JWT, signed with HS256 and valid until expires. Dovecot
// accepts it for OAUTHBEARER and XOAUTH2, and refuses it after that time.
func Token(name string, expires time.Time) string {
	return sign(name, expires, tokenSecret)
}

// ForgedToken is like [Token], but the token is signed with another key.
func ForgedToken(name string, expires time.Time) string {
	return sign(name, expires, "not the secret of the server")
}

func sign(name string, expires time.Time, secret string) string {
	head := segment(map[string]any{"alg": "HS256", "typ": "JWT"})
	// Dovecot refuses a token whose time of issue is in the future, according to its own clock.
	issued := time.Now().Add(-time.Hour)
	body := segment(map[string]any{"sub": name, "iat": issued.Unix(), "exp": expires.Unix()})
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(head + "." + body))
	return head + "." + body + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func segment(claims map[string]any) string {
	text, _ := json.Marshal(claims) // strings and integers can always be encoded
	return base64.RawURLEncoding.EncodeToString(text)
}
