package sasl_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	gosasl "github.com/emersion/go-sasl"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// The interface Client of this package and that of go-sasl can be assigned to each other.
var (
	_ gosasl.Client = sasl.Client(nil)
	_ sasl.Client   = gosasl.Client(nil)
)

// allMechanisms returns each mechanism, with valid arguments and the given secret.
func allMechanisms(t testing.TB, secret string) map[string]sasl.Client {
	t.Helper()
	mechs := map[string]sasl.Client{
		"PLAIN":       sasl.Plain("", "bob", secret),
		"LOGIN":       sasl.Login("bob", secret),
		"CRAM-MD5":    sasl.CramMD5("bob", secret),
		"XOAUTH2":     sasl.XOAuth2("bob", secret),
		"OAUTHBEARER": sasl.OAuthBearer("bob", secret),
		"EXTERNAL":    sasl.External("bob"),
		"ANONYMOUS":   sasl.Anonymous("bob"),
	}
	for _, mech := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		for _, name := range []string{mech, mech + "-PLUS"} {
			c, err := sasl.Scram(name, "bob", secret)
			require.NoError(t, err)
			mechs[name] = c
		}
	}
	return mechs
}

func TestVectors(t *testing.T) {
	type step struct{ challenge, response string }
	for _, tc := range []struct {
		name  string
		c     sasl.Client
		mech  string
		ir    string
		noIR  bool
		steps []step
	}{
		{
			name: "PLAIN of RFC 4616 section 4, first example",
			c:    sasl.Plain("", "tim", "tanstaaftanstaaf"),
			mech: "PLAIN", ir: "\x00tim\x00tanstaaftanstaaf",
		},
		{
			name: "PLAIN of RFC 4616 section 4, second example",
			c:    sasl.Plain("Ursel", "Kurt", "xipj3plmq"),
			mech: "PLAIN", ir: "Ursel\x00Kurt\x00xipj3plmq",
		},
		{
			name: "PLAIN, not ASCII, with spaces and controls other than NUL",
			c:    sasl.Plain("", "zoë b", "päss\x01 \r\nwörd "),
			mech: "PLAIN", ir: "\x00zoë b\x00päss\x01 \r\nwörd ",
		},
		{
			name: "LOGIN",
			c:    sasl.Login("tim", "tanstaaf"),
			mech: "LOGIN", noIR: true,
			steps: []step{{"Username:", "tim"}, {"Password:", "tanstaaf"}},
		},
		{
			name: "LOGIN, prompts of the draft",
			c:    sasl.Login("tim", "tanstaaf"),
			mech: "LOGIN", noIR: true,
			steps: []step{{"User Name\x00", "tim"}, {"Password\x00", "tanstaaf"}},
		},
		{
			name: "LOGIN, no prompts at all",
			c:    sasl.Login("tim", "tanstaaf"),
			mech: "LOGIN", noIR: true,
			steps: []step{{"", "tim"}, {"", "tanstaaf"}},
		},
		{
			name: "R1-150 CRAM-MD5 of RFC 2195 section 2",
			c:    sasl.CramMD5("tim", "tanstaaftanstaaf"),
			mech: "CRAM-MD5", noIR: true,
			steps: []step{{
				"<1896.697170952@postoffice.reston.mci.net>",
				"tim b913a602c7eda7a495b4e6e7334d3890",
			}},
		},
		{
			name: "XOAUTH2",
			c:    sasl.XOAuth2("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"),
			mech: "XOAUTH2",
			ir: "user=someuser@example.com\x01" +
				"auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01",
		},
		{
			name: "OAUTHBEARER without a name",
			c:    sasl.OAuthBearer("", "abc=="),
			mech: "OAUTHBEARER", ir: "n,,\x01auth=Bearer abc==\x01\x01",
		},
		{
			name: "OAUTHBEARER escapes the name (RFC 5801 section 4)",
			c:    sasl.OAuthBearer("a=b,c=2C,n,ä", "abc"),
			mech: "OAUTHBEARER", ir: "n,a=a=3Db=2Cc=3D2C=2Cn=2Cä,\x01auth=Bearer abc\x01\x01",
		},
		{name: "R1-133 EXTERNAL, empty", c: sasl.External(""), mech: "EXTERNAL", ir: ""},
		{name: "EXTERNAL", c: sasl.External("fred@example.com"), mech: "EXTERNAL", ir: "fred@example.com"},
		{name: "R1-133 ANONYMOUS, empty", c: sasl.Anonymous(""), mech: "ANONYMOUS", ir: ""},
		{
			name: "ANONYMOUS of RFC 4505 section 3", c: sasl.Anonymous("sirhc"),
			mech: "ANONYMOUS", ir: "sirhc",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 { // Start begins a new exchange
				mech, ir, err := tc.c.Start()
				require.NoError(t, err)
				assert.Equal(t, tc.mech, mech)
				assert.Equal(t, tc.ir, string(ir))
				assert.Equal(t, tc.noIR, ir == nil, "R1-134: an initial response is nil only if there is none")
				for _, s := range tc.steps {
					response, err := tc.c.Next([]byte(s.challenge))
					require.NoError(t, err)
					assert.Equal(t, s.response, string(response))
				}
			}
		})
	}
}

// RFC 7628 section 4.1. The host and the port of the RFC's example are optional and are left out
// here.
func TestOAuthBearerVector(t *testing.T) {
	const example = "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI" +
		"HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
	want, err := base64.StdEncoding.DecodeString(example)
	require.NoError(t, err)
	wantIR := strings.NewReplacer("\x01host=server.example.com", "", "\x01port=143", "").Replace(string(want))

	c := sasl.OAuthBearer("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
	mech, ir, err := c.Start()
	require.NoError(t, err)
	assert.Equal(t, "OAUTHBEARER", mech)
	assert.Equal(t, wantIR, string(ir))
}

// Every mechanism returns an error for a challenge that it does not expect: before Start, after the
// end of the exchange, and after an error.
func TestUnexpectedChallenge(t *testing.T) {
	responses := map[string]int{ // number of challenges that get a response
		"PLAIN": 0, "EXTERNAL": 0, "ANONYMOUS": 0, "LOGIN": 2, "CRAM-MD5": 1, "XOAUTH2": 1, "OAUTHBEARER": 1,
	}
	for name, c := range allMechanisms(t, "secret") {
		t.Run("H-170 "+name, func(t *testing.T) {
			_, err := c.Next([]byte("x"))
			require.Error(t, err, "before Start")
			if strings.HasSuffix(name, "-PLUS") {
				_, _, err = c.Start()
				require.ErrorIs(t, err, sasl.ErrChannelBinding)
			} else {
				_, _, err = c.Start()
				require.NoError(t, err)
			}
			for range responses[name] {
				_, err := c.Next([]byte("x"))
				require.NoError(t, err)
			}
			for range 3 {
				response, err := c.Next([]byte("x"))
				require.Error(t, err)
				assert.Nil(t, response)
			}
		})
	}
}

func TestChallengeTooLong(t *testing.T) {
	long := []byte(strings.Repeat("x", 64<<10+1))
	for _, name := range []string{"LOGIN", "CRAM-MD5", "SCRAM-SHA-256"} {
		t.Run(name, func(t *testing.T) {
			c := allMechanisms(t, "secret")[name]
			_, _, err := c.Start()
			require.NoError(t, err)
			_, err = c.Next(long)
			require.ErrorContains(t, err, "65536 octets")
			_, err = c.Next([]byte("x"))
			require.Error(t, err, "nothing is answered after an error")
		})
	}
	c := sasl.Login("bob", "secret")
	_, _, err := c.Start()
	require.NoError(t, err)
	_, err = c.Next(long[1:])
	require.NoError(t, err)
}

func TestCramMD5EmptyChallenge(t *testing.T) {
	c := sasl.CramMD5("bob", "secret")
	_, _, err := c.Start()
	require.NoError(t, err)
	_, err = c.Next(nil)
	require.ErrorContains(t, err, "empty")
}

// scram calls Scram. If Scram fails, scram returns a mechanism whose Start fails with the same error, so that SCRAM can
// be tested like the other mechanisms.
func scram(mech, name, password string) sasl.Client {
	c, err := sasl.Scram(mech, name, password)
	if err != nil {
		return failingClient{err}
	}
	return c
}

type failingClient struct{ err error }

func (r failingClient) Start() (string, []byte, error)        { return "", nil, r.err }
func (r failingClient) Next(challenge []byte) ([]byte, error) { return nil, r.err }

func TestArguments(t *testing.T) {
	const notUTF8 = "a\xff"
	for _, tc := range []struct {
		name string
		c    sasl.Client
		want string // part of the error; "" for none
	}{
		{"R1-141 PLAIN, NUL in the identity", sasl.Plain("a\x00b", "bob", "pw"), "identity contains NUL"},
		{"R1-141 PLAIN, NUL in the name", sasl.Plain("", "bob\x00", "pw"), "name contains NUL"},
		{"R1-141 PLAIN, NUL in the password", sasl.Plain("", "bob", "\x00pw"), "password contains NUL"},
		{"R1-141 PLAIN, empty name", sasl.Plain("", "", "pw"), "name is empty"},
		{"R1-141 PLAIN, empty password", sasl.Plain("", "bob", ""), "password is empty"},
		{"R1-141 PLAIN, identity not UTF-8", sasl.Plain(notUTF8, "bob", "pw"), "identity is not UTF-8"},
		{"R1-141 PLAIN, name not UTF-8", sasl.Plain("", notUTF8, "pw"), "name is not UTF-8"},
		{"R1-141 PLAIN, password not UTF-8", sasl.Plain("", "bob", notUTF8), "password is not UTF-8"},
		{"PLAIN, all else", sasl.Plain("ü \r\n\x01", "ü \r\n\x01", "ü \r\n\x01"), ""},

		{"LOGIN, empty name", sasl.Login("", "pw"), "name is empty"},
		{"LOGIN, empty password", sasl.Login("bob", ""), "password is empty"},
		{"LOGIN, NUL in the name", sasl.Login("b\x00ob", "pw"), "name contains NUL"},
		{"LOGIN, NUL in the password", sasl.Login("bob", "p\x00w"), "password contains NUL"},
		{"LOGIN, not UTF-8", sasl.Login(notUTF8, "pw"), "name is not UTF-8"},
		{"LOGIN, all else", sasl.Login("bob ü\n", "p w\t"), ""},

		{"CRAM-MD5, empty name", sasl.CramMD5("", "pw"), "name is empty"},
		{"CRAM-MD5, empty secret", sasl.CramMD5("bob", ""), "secret is empty"},
		{"CRAM-MD5, control in the name", sasl.CramMD5("bob\r\nx", "pw"), "name contains control"},
		{"CRAM-MD5, NUL in the secret", sasl.CramMD5("bob", "p\x00w"), "secret contains NUL"},
		{"CRAM-MD5, not UTF-8", sasl.CramMD5("bob", notUTF8), "secret is not UTF-8"},
		{"CRAM-MD5, spaces and not ASCII", sasl.CramMD5("böb b", "p w"), ""},

		{"XOAUTH2, empty name", sasl.XOAuth2("", "tok"), "name is empty"},
		{"XOAUTH2, empty token", sasl.XOAuth2("bob", ""), "token is empty"},
		{"XOAUTH2, ^A in the name", sasl.XOAuth2("bob\x01auth=Bearer x", "tok"), "name contains control"},
		{"XOAUTH2, C1 in the name", sasl.XOAuth2("bob\u0085", "tok"), "name contains control"},
		{"XOAUTH2, ^A in the token", sasl.XOAuth2("bob", "tok\x01\x01"), "token contains"},
		{"XOAUTH2, space in the token", sasl.XOAuth2("bob", "Bearer tok"), "token contains"},
		{"XOAUTH2, line end after the token", sasl.XOAuth2("bob", "tok\n"), "token contains"},
		{"XOAUTH2, token not ASCII", sasl.XOAuth2("bob", "tök"), "token contains"},
		{"XOAUTH2, token not UTF-8", sasl.XOAuth2("bob", notUTF8), "token contains"},
		{"XOAUTH2, Gmail's recent mode", sasl.XOAuth2("recent:bob@gmail.com", "ya29.a0_-~+/="), ""},

		{"OAUTHBEARER, empty token", sasl.OAuthBearer("bob", ""), "token is empty"},
		{"OAUTHBEARER, ^A in the name", sasl.OAuthBearer("bob\x01host=x", "tok"), "name contains control"},
		{"OAUTHBEARER, DEL in the name", sasl.OAuthBearer("bob\x7f", "tok"), "name contains control"},
		{"OAUTHBEARER, name not UTF-8", sasl.OAuthBearer(notUTF8, "tok"), "name is not UTF-8"},
		{"OAUTHBEARER, CR LF in the token", sasl.OAuthBearer("bob", "tok\r\nDELE 1"), "token contains"},

		{"EXTERNAL, NUL", sasl.External("\x00"), "identity contains NUL"},
		{"EXTERNAL, not UTF-8", sasl.External(notUTF8), "identity is not UTF-8"},

		{"ANONYMOUS, control", sasl.Anonymous("a\tb"), "trace contains control"},
		{"ANONYMOUS, not UTF-8", sasl.Anonymous(notUTF8), "trace is not UTF-8"},
		{"ANONYMOUS, 255 characters", sasl.Anonymous(strings.Repeat("é", 255)), ""},
		{"ANONYMOUS, 256 characters", sasl.Anonymous(strings.Repeat("é", 256)), "more than 255"},

		{"SCRAM, no such hash", scram("SCRAM-SHA-224", "bob", "pw"), "mechanism"},
		{"SCRAM, -PLUS twice", scram("SCRAM-SHA-256-PLUS-PLUS", "bob", "pw"), "mechanism"},
		{"SCRAM, command in the mechanism", scram("SCRAM-SHA-1\r\nDELE 1", "bob", "pw"), "mechanism"},
		{"SCRAM, arguments in the wrong order", scram("pw", "SCRAM-SHA-1", "bob"), "mechanism"},
		{"SCRAM, lower case", scram("scram-sha-256", "bob", "pw"), ""},
		{"SCRAM, empty name", scram("SCRAM-SHA-1", "", "pw"), "name is empty"},
		{"SCRAM, nothing left of the name", scram("SCRAM-SHA-1", "\u00ad", "pw"), "name is empty"},
		{"SCRAM, empty password", scram("SCRAM-SHA-1", "bob", ""), "password is empty"},
		{"R1-145 SCRAM, control in the name", scram("SCRAM-SHA-1", "bob\x01", "pw"), "name has characters"},
		{"R1-145 SCRAM, NUL in the password", scram("SCRAM-SHA-1", "bob", "p\x00w"), "password has characters"},
		{"R1-145 SCRAM, not UTF-8", scram("SCRAM-SHA-1", notUTF8, "pw"), "name has characters"},
		{"R1-145 SCRAM, emoji in the password", scram("SCRAM-SHA-1", "bob", "p🔑"), "password has characters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, ir, err := tc.c.Start()
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, sasl.ErrArgument)
			require.ErrorContains(t, err, tc.want)
			assert.Nil(t, ir)
			_, err = tc.c.Next([]byte("x"))
			require.Error(t, err, "the exchange was not started")
		})
	}
}

func TestScramErrorIsNilClient(t *testing.T) {
	c, err := sasl.Scram("SCRAM-SHA-256", "", "pw")
	require.Error(t, err)
	assert.True(t, c == nil)
	c, err = sasl.ScramNoPlus("SCRAM-SHA-256", "", "pw")
	require.Error(t, err)
	assert.True(t, c == nil)
	c, err = sasl.ScramNoPlus("SCRAM-SHA-256-PLUS", "bob", "pw")
	require.ErrorIs(t, err, sasl.ErrArgument)
	assert.True(t, c == nil)
}
