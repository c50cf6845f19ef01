package sasl

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/xdg-go/scram"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// newScramWithNonce is like Scram, with a given nonce.
func newScramWithNonce(t testing.TB, mech, name, password, nonce string) *scramClient {
	t.Helper()
	c, err := newScram(nil, mech, name, password)
	require.NoError(t, err)
	c.inner().WithNonceGenerator(func() string { return nonce })
	return c
}

func TestScramVectors(t *testing.T) {
	for _, tc := range []struct{ name, mech, nonce, first, serverFirst, final, serverFinal string }{
		{
			name:        "RFC 5802 section 5",
			mech:        "SCRAM-SHA-1",
			nonce:       "fyko+d2lbbFgONRv9qkxdawL",
			first:       "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			serverFirst: "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			final:       "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			serverFinal: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		{
			name:        "RFC 7677 section 3",
			mech:        "SCRAM-SHA-256",
			nonce:       rfc7677nonce,
			first:       "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
			serverFirst: rfc7677first,
			final: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
				"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			serverFinal: rfc7677final,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newScramWithNonce(t, tc.mech, "user", "pencil", tc.nonce)
			for range 2 {
				mech, ir, err := c.Start()
				require.NoError(t, err)
				assert.Equal(t, tc.mech, mech)
				assert.Equal(t, tc.first, string(ir))

				final, err := c.Next([]byte(tc.serverFirst))
				require.NoError(t, err)
				assert.Equal(t, tc.final, string(final))
				assert.False(t, c.ServerProved(), "R1-138: nothing is proved before the signature")

				last, err := c.Next([]byte(tc.serverFinal))
				require.NoError(t, err)
				assert.Equal(t, []byte{}, last, "R1-133: an empty message, not nil")
				assert.True(t, c.ServerProved())
				assert.NoError(t, c.Failure())
			}
			_, err := c.Next([]byte(tc.serverFinal))
			require.Error(t, err)
			assert.False(t, c.ServerProved(), "after an error the proof no longer counts")
		})
	}
}

const (
	rfc7677nonce = "rOprNGfwEbeRWgbNEkqO"
	rfc7677first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfc7677final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

// A countingScram counts how often keys are derived.
func countingScram(t *testing.T, count *int) *scramClient {
	t.Helper()
	counting := scram.HashGeneratorFcn(func() hash.Hash {
		*count++
		return sha256.New()
	})
	c := newScramWithNonce(t, "SCRAM-SHA-256", "user", "pencil", rfc7677nonce)
	inner, err := counting.NewClient("user", "pencil", "")
	require.NoError(t, err)
	c.inner = newSecret(inner.WithNonceGenerator(func() string { return rfc7677nonce }))
	return c
}

func TestServerFirst(t *testing.T) {
	const r, s, i = "r=" + rfc7677nonce + "xyz", "s=W22ZaJ0SNY7soEsUEjb6gQ==", "i=4096"
	for _, tc := range []struct {
		name, msg string
		want      string // part of the error; "" for none
	}{
		{"good", r + "," + s + "," + i, ""},
		{"H-178 an extension after i", r + "," + s + "," + i + ",x=1", ""},
		{"R1-142 several extensions", r + "," + s + "," + i + ",x=1,Y==,z=ü =", ""},

		{"R1-142 H-178 nonce does not extend ours", "r=x" + rfc7677nonce + "," + s + "," + i, "begin with"},
		{"H-178 nonce is a part of ours", "r=" + rfc7677nonce[:19] + "," + s + "," + i, "begin with the client's"},
		{"H-178 nonce in another case", "r=" + strings.ToLower(rfc7677nonce) + "x," + s + "," + i, "begin with"},
		{"H-178 nonce is ours", "r=" + rfc7677nonce + "," + s + "," + i, "adds nothing"},
		{"H-178 nonce with a comma", r + ",y," + s + "," + i, "no salt"},
		{"H-178 nonce with a space", r + " ," + s + "," + i, "printable"},
		{"H-178 nonce with DEL", r + "\x7f," + s + "," + i, "printable"},
		{"H-178 nonce not ASCII", r + "é," + s + "," + i, "printable"},
		{"H-178 nonce empty", "r=," + s + "," + i, "begin with the client's"},
		{"H-178 no nonce", s + "," + i + ",x=1", "nonce"},

		{"R1-142 H-178 mandatory extension first", "m=ext," + r + "," + s + "," + i, "mandatory"},
		{"H-178 mandatory extension alone", "m=ext", "mandatory"},
		{"H-178 mandatory extension last", r + "," + s + "," + i + ",m=ext", "mandatory"},
		{"H-178 mandatory extension between", r + "," + s + ",m=ext," + i, "iterations"},

		{"H-178 no i", r + "," + s, "three fields"},
		{"H-178 something else for i", r + "," + s + ",x=4096", "iterations"},
		{"H-178 i in upper case", r + "," + s + ",I=4096", "iterations"},
		{"R1-142 another order", r + "," + i + "," + s, "salt"},
		{"R1-142 another order, i first", i + "," + r + "," + s, "nonce"},
		{"H-178 i empty", r + "," + s + ",i=", "iterations"},
		{"H-178 i=0", r + "," + s + ",i=0", "iterations"},
		{"H-178 i=-1", r + "," + s + ",i=-1", "iterations"},
		{"H-178 i=-4096", r + "," + s + ",i=-4096", "iterations"},
		{"H-178 i=+4096", r + "," + s + ",i=+4096", "iterations"},
		{"H-178 i=4096x", r + "," + s + ",i=4096x", "iterations"},
		{"H-178 i=04096", r + "," + s + ",i=04096", "iterations"},
		{"H-178 i with spaces", r + "," + s + ",i= 4096 ", "iterations"},
		{"H-178 i=4_096", r + "," + s + ",i=4_096", "iterations"},
		{"H-178 i=0x1000", r + "," + s + ",i=0x1000", "iterations"},
		{"H-178 i=4096.0", r + "," + s + ",i=4096.0", "iterations"},
		{"H-178 i in Arabic digits", r + "," + s + ",i=٤٠٩٦", "iterations"},
		{"H-178 i with a line end", r + "," + s + ",i=4096\n", "iterations"},
		{"R1-144 i=1", r + "," + s + ",i=1", "less than 4,096"},
		{"R1-144 i=4095", r + "," + s + ",i=4095", "less than 4,096"},
		{"R1-144 i=1000001", r + "," + s + ",i=1000001", "more than 1,000,000"},
		{"H-178 H-180 i=2147483647", r + "," + s + ",i=2147483647", "more than 1,000,000"},
		{"H-178 i=2147483648", r + "," + s + ",i=2147483648", "more than 1,000,000"},
		{"H-178 i=4294971392, which is 4096 in 32 bits", r + "," + s + ",i=4294971392", "more than"},
		{"H-178 i=18446744073709555712, 4096 in 64", r + "," + s + ",i=18446744073709555712", "more than"},
		{"H-178 i=99999999999999999999", r + "," + s + ",i=99999999999999999999", "more than"},
		{"H-178 i of 60,000 digits", r + "," + s + ",i=" + strings.Repeat("9", 60000), "more than"},

		{"H-178 salt empty", r + ",s=," + i, "salt"},
		{"H-178 salt not base64", r + ",s=!!!!," + i, "salt"},
		{"H-178 salt without padding", r + ",s=W22ZaJ0SNY7soEsUEjb6gQ," + i, "salt"},
		{"H-178 salt in base64url", r + ",s=-_-_," + i, "salt"},
		{"H-178 salt with CR", r + ",s=QUJD\rREVG," + i, "salt"},
		{"H-178 salt with LF", r + ",s=QUJDREVG\n," + i, "salt"},
		{"H-178 salt with bits after the end", r + ",s=QUJDRB==," + i, "salt"},
		{"H-178 salt that is only padding", r + ",s=====," + i, "salt"},
		{"H-178 no salt", r + "," + i + ",x=1", "salt"},

		{"extension without a value", r + "," + s + "," + i + ",x=", "extension"},
		{"extension without a name", r + "," + s + "," + i + ",=1", "extension"},
		{"extension with a long name", r + "," + s + "," + i + ",xy=1", "extension"},
		{"extension with a digit for a name", r + "," + s + "," + i + ",1=1", "extension"},
		{"extension with a bracket for a name", r + "," + s + "," + i + ",[=1", "extension"},
		{"extension with NUL", r + "," + s + "," + i + ",x=a\x00", "extension"},
		{"extension not UTF-8", r + "," + s + "," + i + ",x=\xff", "extension"},
		{"comma at the end", r + "," + s + "," + i + ",", "extension"},
		{"i a second time", r + "," + s + "," + i + ",i=4097", "out of its place"},
		{"r a second time", r + "," + s + "," + i + ",r=x", "out of its place"},
		{"signature too early", r + "," + s + "," + i + ",v=QUJD", "out of its place"},

		{"empty", "", "three fields"},
		{"commas", ",,", "nonce"},
		{"only commas", strings.Repeat(",", 60000), "nonce"},
		{"final message instead", rfc7677final, "three fields"},
		{"space before", " " + r + "," + s + "," + i, "nonce"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hashes := 0
			c := countingScram(t, &hashes)
			_, _, err := c.Start()
			require.NoError(t, err)
			response, err := c.Next([]byte(tc.msg))
			if tc.want == "" {
				require.NoError(t, err)
				assert.NotZero(t, hashes, "the hashes are counted")
				return
			}
			require.ErrorContains(t, err, tc.want)
			assert.Nil(t, response)
			assert.Zero(t, hashes, "H-180: refused before any hashing")
			assert.False(t, c.ServerProved())
			assert.NoError(t, c.Failure())
			_, err = c.Next([]byte(rfc7677final))
			require.ErrorContains(t, err, "no answer", "nothing is answered after an error")
			assert.False(t, c.ServerProved())
		})
	}
}

func TestServerFinal(t *testing.T) {
	for _, tc := range []struct {
		name, msg string
		want      string // part of the error; "" for none
	}{
		{"good", rfc7677final, ""},
		{"good, with extensions", rfc7677final + ",x=1,y=2", ""},
		{"R1-143 signature of zeros", "v=" + strings.Repeat("A", 43) + "=", "signature is wrong"},
		{"R1-143 signature of one wrong bit", "v=7" + rfc7677final[3:], "signature is wrong"},
		{"R1-143 signature too short", "v=6rriTRBi23WpRR/w", "signature is wrong"},
		{"R1-143 signature too long", rfc7677final[:len(rfc7677final)-1] + "AAAA", "signature"},
		{"signature empty", "v=", "no signature"},
		{"signature with a line end", rfc7677final + "\r\n", "no signature"},
		{"signature with LF inside", "v=6rri\n" + rfc7677final[6:], "no signature"},
		{"signature without padding", strings.TrimSuffix(rfc7677final, "="), "no signature"},
		{"signature in upper case", "V=" + rfc7677final[2:], "no signature"},
		{"empty", "", "no signature"},
		{"server's first message again", rfc7677first, "no signature"},
		{"mandatory extension", rfc7677final + ",m=x", "mandatory"},
		{"mandatory extension first", "m=x," + rfc7677final, "no signature"},
		{"error after the signature", rfc7677final + ",e=invalid-proof", "out of its place"},
		{"comma at the end", rfc7677final + ",", "extension"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newScramWithNonce(t, "SCRAM-SHA-256", "user", "pencil", rfc7677nonce)
			_, _, err := c.Start()
			require.NoError(t, err)
			_, err = c.Next([]byte(rfc7677first))
			require.NoError(t, err)
			response, err := c.Next([]byte(tc.msg))
			assert.Equal(t, tc.want == "", c.ServerProved())
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			assert.Nil(t, response)
			_, err = c.Next([]byte(rfc7677final))
			require.Error(t, err, "no later message is accepted")
			assert.False(t, c.ServerProved())
		})
	}
}

func TestServerError(t *testing.T) {
	for _, tc := range []struct{ name, msg, value, text string }{
		{"invalid-proof", "e=invalid-proof", "invalid-proof", "the password is wrong"},
		{"with extension", "e=invalid-proof,x=1", "invalid-proof", "the password is wrong"},
		{"unknown-user", "e=unknown-user", "unknown-user", "the server refused"},
		{"binding", "e=channel-bindings-dont-match", "channel-bindings-dont-match", "somebody is in between"},
		{
			"downgrade", "e=server-does-support-channel-binding",
			"server-does-support-channel-binding", "removed -PLUS from its list",
		},
		{"empty", "e=", "", `the server refused: ""`},
		{
			"hostile", "e=\x1b[2J\u202e\xff" + strings.Repeat("x", 600),
			"[2J\uFFFD" + strings.Repeat("x", 503) + "…", "[2J",
		},
		{"C-101 the password", "e=\u202epe\u200bncil", printable.Hidden, "the server refused"},
	} {
		for _, first := range []bool{true, false} {
			t.Run(tc.name, func(t *testing.T) {
				c := newScramWithNonce(t, "SCRAM-SHA-256", "user", "pencil", rfc7677nonce)
				_, _, err := c.Start()
				require.NoError(t, err)
				if !first {
					_, err = c.Next([]byte(rfc7677first))
					require.NoError(t, err)
				}
				_, err = c.Next([]byte(tc.msg))
				var e *ScramError
				require.ErrorAs(t, err, &e)
				assert.Equal(t, ScramError{Mech: "SCRAM-SHA-256", Value: tc.value}, *e)
				assert.Contains(t, e.Error(), tc.text)
				assert.NotContains(t, e.Error(), "pencil")
				assert.Equal(t, err, c.Failure())
				assert.False(t, c.ServerProved())

				_, err = c.Next([]byte(rfc7677final))
				require.Error(t, err)
				assert.False(t, c.ServerProved())
				_, _, err = c.Start()
				require.NoError(t, err)
				assert.NoError(t, c.Failure(), "a new exchange has not failed yet")
			})
		}
	}
}

// C-100: even if the password is a word of the protocol, the server's error is shown unchanged and keeps its meaning.
func TestServerErrorIsPassword(t *testing.T) {
	for _, password := range []string{"invalid-proof", "server", "password"} {
		c := newScramWithNonce(t, "SCRAM-SHA-256", "user", password, rfc7677nonce)
		_, _, err := c.Start()
		require.NoError(t, err)
		_, err = c.Next([]byte("e=invalid-proof"))
		assert.EqualError(t, err, `sasl: SCRAM-SHA-256: the server refused: "invalid-proof": the password is wrong`)
	}
}

// C-102: somebody who knows the server's signature or the client's proof can guess the password.
func TestScramProofsAreSecret(t *testing.T) {
	c := newScramWithNonce(t, "SCRAM-SHA-256", "user", "pencil", rfc7677nonce)
	_, _, err := c.Start()
	require.NoError(t, err)
	proof, err := c.Next([]byte(rfc7677first))
	require.NoError(t, err)
	for _, text := range []string{rfc7677final, base64.StdEncoding.EncodeToString([]byte(rfc7677final))} {
		assert.True(t, c.ShowsSecret("+OK "+text), "in place of the final message: %s", text)
	}
	_, err = c.Next([]byte(rfc7677final + ",x=1"))
	require.NoError(t, err)
	_, proof, _ = bytes.Cut(proof, []byte("p="))
	for _, text := range []string{rfc7677final, rfc7677final[5:20], string(proof),
		base64.StdEncoding.EncodeToString(append([]byte("c=biws,"), proof...))} {
		assert.True(t, c.ShowsSecret("no "+text), text)
	}
	assert.False(t, c.ShowsSecret("no such user: user"))
}

// ServerProved is false in a new exchange, even if the server has proved itself in an earlier one.
func TestServerProvedInNewExchange(t *testing.T) {
	c := newScramWithNonce(t, "SCRAM-SHA-256", "user", "pencil", rfc7677nonce)
	_, _, err := c.Start()
	require.NoError(t, err)
	for _, msg := range []string{rfc7677first, rfc7677final} {
		_, err = c.Next([]byte(msg))
		require.NoError(t, err)
	}
	require.True(t, c.ServerProved())
	_, _, err = c.Start()
	require.NoError(t, err)
	assert.False(t, c.ServerProved())
}

// Names are escaped. Names and passwords are prepared with SASLprep (R1-145).
func TestScramNames(t *testing.T) {
	for _, tc := range []struct{ name, user, want string }{
		{"R1-145 comma and equals sign", "a,b=c=2C", "n=a=2Cb=3Dc=3D2C,"},
		{"space", "bob b", "n=bob b,"},
		{"not ASCII", "zoë", "n=zoë,"},
		{"RFC 4013 section 3, soft hyphen", "I\u00adX", "n=IX,"},
		{"RFC 4013 section 3, ordinal", "\u00aa", "n=a,"},
		{"RFC 4013 section 3, roman nine", "\u2168", "n=IX,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newScramWithNonce(t, "SCRAM-SHA-1", tc.user, "pw", "abc")
			_, ir, err := c.Start()
			require.NoError(t, err)
			assert.Equal(t, "n,,"+tc.want+"r=abc", string(ir))
		})
	}
}
