package sasl_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/sasl"
)

// canary is a secret that looks different in every encoding.
const canary = "Canary~9f3b+5d1e/7a=="

// encodings returns the encodings of the secret that must not appear.
func encodings(secret string) []string {
	all := []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), hex.EncodeToString([]byte(secret)),
		strings.ToUpper(hex.EncodeToString([]byte(secret))),
		strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
		strings.Trim(fmt.Sprintf("%#v", []byte(secret)), "[]byte{}"),
	}
	for skip := range 3 { // the part of the base64 that does not depend on the surrounding text
		middle := []byte(secret)[skip:]
		middle = middle[:len(middle)/3*3]
		all = append(all, base64.StdEncoding.EncodeToString(middle), base64.URLEncoding.EncodeToString(middle))
	}
	return all
}

// A holder is a struct of a program that has a mechanism in an unexported field. fmt calls no methods on such a field.
type holder struct {
	mech   sasl.Client
	Public sasl.Client
}

// A writer is a TestingT that stores the text of a failed assertion.
type writer struct{ *strings.Builder }

func (w writer) Errorf(format string, args ...any) { fmt.Fprintf(w, format, args...) }

func TestSecretStaysHidden(t *testing.T) {
	for name, c := range allMechanisms(t, canary) {
		t.Run(name, func(t *testing.T) {
			// In the middle of an exchange the mechanism holds more secrets than at the beginning.
			_, _, _ = c.Start()
			_, _ = c.Next([]byte("x"))

			var out strings.Builder
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%100v"} {
				for _, v := range []any{
					c, &c, holder{c, c}, &holder{c, c}, []sasl.Client{c}, map[string]any{"c": c},
				} {
					fmt.Fprintf(&out, verb+"\n", v)
				}
			}
			for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
				slog.New(h).LogAttrs(context.Background(), slog.LevelInfo, "x",
					slog.Any("c", c), slog.Any("h", holder{c, c}), slog.Any("l", []sasl.Client{c}))
			}
			text, err := json.Marshal(holder{c, c})
			require.NoError(t, err)
			out.Write(text)
			var buf bytes.Buffer // errors do not matter here, only what the encoders write
			_ = xml.NewEncoder(&buf).Encode(holder{c, c})
			_ = gob.NewEncoder(&buf).Encode(holder{c, c})
			out.Write(buf.Bytes())

			// A failed comparison in a user's test prints both values.
			assert.Equal(writer{&out}, holder{c, c}, holder{})

			for _, form := range encodings(canary) {
				require.False(t, strings.Contains(out.String(), form), "%q is in the output", form)
			}
			assert.Equal(t, "sasl.Client("+name+")", fmt.Sprintf("%v", c))
			assert.Equal(t, "sasl.Client("+name+")", fmt.Sprintf("%#v", c))
			assert.Equal(t, "sasl.Client("+name+")", c.(fmt.GoStringer).GoString())
		})
	}
}

// No error contains a secret, even if the secret is not valid, or was passed as another argument by mistake.
func TestSecretNotInErrors(t *testing.T) {
	for _, suffix := range []string{"", "\x00", "\xff", " \x01", "🔑"} {
		secret := canary + suffix
		for name, c := range map[string]sasl.Client{
			"PLAIN":        sasl.Plain(secret, secret, secret),
			"LOGIN":        sasl.Login(secret, secret),
			"CRAM-MD5":     sasl.CramMD5(secret, secret),
			"XOAUTH2":      sasl.XOAuth2(secret, secret),
			"OAUTHBEARER":  sasl.OAuthBearer(secret, secret),
			"EXTERNAL":     sasl.External(secret),
			"ANONYMOUS":    sasl.Anonymous(secret),
			"SCRAM":        scram("SCRAM-SHA-1", secret, secret),
			"SCRAM, mech":  scram(secret, "bob", secret),
			"SCRAM, bob":   scram("SCRAM-SHA-1", "bob", secret),
			"SCRAM, -PLUS": scram("SCRAM-SHA-1-PLUS", "bob", secret),
		} {
			_, _, err := c.Start()
			texts := fmt.Sprintf("%v %+v %#v", err, err, err)
			for range 3 {
				_, err := c.Next([]byte("e=" + secret + " " + base64.StdEncoding.EncodeToString([]byte(secret))))
				texts += fmt.Sprintf("%v %+v %#v", err, err, err)
			}
			if f, ok := c.(failer); ok && f.Failure() != nil {
				texts += fmt.Sprintf("%v %+v %#v", f.Failure(), f.Failure(), f.Failure())
			}
			for _, form := range encodings(canary) {
				assert.NotContains(t, texts, form, name)
			}
		}
	}
}

// C-102: somebody who knows the challenge can guess the secret from the digest of CRAM-MD5.
func TestDigestIsSecret(t *testing.T) {
	c := sasl.CramMD5("tim", "tanstaaftanstaaf")
	_, _, err := c.Start()
	require.NoError(t, err)
	response, err := c.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	require.NoError(t, err)
	secrets := c.(interface{ ShowsSecret(text string) bool })
	for _, text := range []string{
		string(response), strings.ToUpper(string(response)[10:]), base64.StdEncoding.EncodeToString(response),
	} {
		assert.True(t, secrets.ShowsSecret("-ERR "+text), text)
	}
	assert.False(t, secrets.ShowsSecret("-ERR tim, <1896.697170952@postoffice.reston.mci.net>"))
}

func TestNoSecret(t *testing.T) {
	for _, c := range []sasl.Client{sasl.External("bob"), sasl.Anonymous("bob")} {
		assert.False(t, c.(interface{ ShowsSecret(text string) bool }).ShowsSecret("bob"))
	}
}
