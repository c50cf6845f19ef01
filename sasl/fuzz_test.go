package sasl

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// fuzzSecret is the password and the token in the fuzz targets.
const fuzzSecret = "Canary~9f3b+5d1e/7a=="

// checkExchange runs one exchange with the challenges msgs. No challenge may make a mechanism panic, send a long
// response, or put the secret into an error.
func checkExchange(t *testing.T, c Client, secret string, msgs ...[]byte) {
	t.Helper()
	_, _, err := c.Start()
	require.NoError(t, err)
	for _, msg := range msgs {
		response, err := c.Next(msg)
		require.LessOrEqual(t, len(response), len(msg)+200)
		checkError(t, err, secret)
		if f, ok := c.(interface{ Failure() error }); ok {
			checkError(t, f.Failure(), secret)
		}
		if err != nil {
			require.Nil(t, response)
		}
	}
}

func checkError(t *testing.T, err error, secret string) {
	t.Helper()
	if err == nil {
		return
	}
	text := fmt.Sprintf("%v %+v", err, err)
	require.NotContains(t, text, secret)
	require.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte(secret))[:27])
	require.Less(t, len(text), 20_000)
	require.Equal(t, -1, strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }))
}

func addChallenges(f *testing.F) {
	f.Add([]byte(""), []byte(""), []byte(""))
	f.Add([]byte("Username:"), []byte("Password:"), []byte("Password:"))
	f.Add([]byte("<1896.697170952@postoffice.reston.mci.net>"), []byte("x"), []byte("x"))
	f.Add([]byte(fuzzSecret), []byte("e="+fuzzSecret), []byte("\x00\xff\x1b[2J"))
}

func fuzzMechanism(f *testing.F, c Client) {
	addChallenges(f)
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		checkExchange(t, c, fuzzSecret, first, second, third)
	})
}

func FuzzPlain(f *testing.F)     { fuzzMechanism(f, Plain("", "bob", fuzzSecret)) }
func FuzzLogin(f *testing.F)     { fuzzMechanism(f, Login("bob", fuzzSecret)) }
func FuzzCramMD5(f *testing.F)   { fuzzMechanism(f, CramMD5("bob", fuzzSecret)) }
func FuzzExternal(f *testing.F)  { fuzzMechanism(f, External("bob")) }
func FuzzAnonymous(f *testing.F) { fuzzMechanism(f, Anonymous("bob")) }

func FuzzXOAuth2(f *testing.F)     { fuzzOAuth(f, XOAuth2("bob", fuzzSecret), "") }
func FuzzOAuthBearer(f *testing.F) { fuzzOAuth(f, OAuthBearer("bob", fuzzSecret), "\x01") }

// fuzzOAuth makes the checks of fuzzMechanism. It also checks that every first challenge counts as a refusal and gets a
// response.
func fuzzOAuth(f *testing.F, c Client, dummy string) {
	for _, seed := range []string{
		`{"status":"invalid_token","schemes":"bearer mac","scope":"https://mail.example.com/"}`,
		`{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`,
		`{"status":401,"openid-configuration":"https://example.com/.well-known/openid-config"}`,
		`{"status":"` + fuzzSecret + `","scope":"\u001b[2J\u202e"}`,
		`{"status":`, `null`, `[]`, ``, strings.Repeat(`{"a":`, 200),
		"Canary~9f3b\x00+5d1e/7a==",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, challenge []byte) {
		_, _, err := c.Start()
		require.NoError(t, err)
		response, err := c.Next(challenge)
		require.NoError(t, err)
		require.NotNil(t, response)
		require.Equal(t, dummy, string(response))
		failure := c.(*oauthClient).Failure()
		var e *OAuthError
		require.ErrorAs(t, failure, &e)
		checkError(t, failure, fuzzSecret)
		for _, text := range []string{e.Status, e.Scope, e.Schemes, e.Config, e.Text} {
			require.LessOrEqual(t, len(text), 512)
			checkError(t, errors.New(text), fuzzSecret)
		}
		_, err = c.Next(challenge)
		require.Error(t, err)
	})
}

// FuzzScram compares the client with the function serverSignature, which shares no code with it. The nonce is fixed, so
// that the seeds contain it. If sign is true, the final message begins with the correct signature, because a fuzzer
// would never find it by chance.
func FuzzScram(f *testing.F) {
	const salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
	f.Add("r="+rfc7677nonce+"x,s="+salt+",i=4096", "v=", true)
	f.Add(rfc7677first, rfc7677final, false)
	f.Add("r="+rfc7677nonce+"x,s="+salt+",i=4096,x=1", "e=invalid-proof", true)
	f.Add("r="+rfc7677nonce+"x,s="+salt+",i=+4096", "v=,m=x", true)
	f.Add("r="+rfc7677nonce+",s=,i=0", "", false)
	f.Add("e="+fuzzSecret, "e="+fuzzSecret, false)
	f.Fuzz(func(t *testing.T, first, final string, sign bool) {
		if hasManyIterations(first) {
			t.Skip("hundreds of thousands of iterations are allowed, and take long")
		}
		c := newScramWithNonce(t, "SCRAM-SHA-256", "user", fuzzSecret, rfc7677nonce)
		_, _, err := c.Start()
		require.NoError(t, err)
		response, err := c.Next([]byte(first))
		require.False(t, c.ServerProved())
		checkError(t, err, fuzzSecret)
		checkError(t, c.Failure(), fuzzSecret)
		signature := ""
		if err == nil {
			signature = serverSignature(t, first, string(response))
		}
		if sign {
			final = signature + final
		}
		_, err = c.Next([]byte(final))
		checkError(t, err, fuzzSecret)
		checkError(t, c.Failure(), fuzzSecret)
		value, _, _ := strings.Cut(final, ",")
		genuine := signature != "" && value == signature
		if c.ServerProved() {
			require.True(t, genuine, "proved without the signature")
			require.NoError(t, err)
		}
		if final == signature && signature != "" {
			require.True(t, c.ServerProved())
		}
		_, err = c.Next([]byte(final))
		require.Error(t, err)
		require.False(t, c.ServerProved())
	})
}

// hasManyIterations reports whether a message requests so many iterations that fuzzing would be slow.
func hasManyIterations(first string) bool {
	_, digits, _ := strings.Cut(first, ",i=")
	digits, _, _ = strings.Cut(digits, ",")
	return len(digits) > 4
}

// serverSignature returns "v=" and the signature of a server that knows the password (RFC 5802
// section 3).
func serverSignature(t *testing.T, first, clientFinal string) string {
	t.Helper()
	fields := strings.Split(first, ",")
	salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[1], "s="))
	require.NoError(t, err)
	iterations, err := strconv.Atoi(strings.TrimPrefix(fields[2], "i="))
	require.NoError(t, err)
	salted, err := pbkdf2.Key(sha256.New, fuzzSecret, salt, iterations, sha256.Size)
	require.NoError(t, err)
	sign := func(key []byte, text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	withoutProof := clientFinal[:strings.LastIndex(clientFinal, ",p=")]
	all := "n=user,r=" + rfc7677nonce + "," + first + "," + withoutProof
	return "v=" + base64.StdEncoding.EncodeToString(sign(sign(salted, "Server Key"), all))
}
