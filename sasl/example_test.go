package sasl_test

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/seed-2d50cddb/pop3/sasl"
)

// The initial response of XOAUTH2, for Gmail and Microsoft 365. The token comes from an OAuth
// 2.0 library.
func ExampleXOAuth2() {
	mech, ir, err := sasl.XOAuth2("someuser@example.com", "ya29.token").Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n", ir)
	fmt.Println("AUTH", mech, base64.StdEncoding.EncodeToString(ir))
	// Output:
	// "user=someuser@example.com\x01auth=Bearer ya29.token\x01\x01"
	// AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnRva2VuAQE=
}

// A server that refuses a token sends the reason in a challenge, and sends -ERR after the
// client's response.
func ExampleOAuthBearer() {
	c := sasl.OAuthBearer("someuser@example.com", "expired-token")
	mech, ir, err := c.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %q\n", mech, ir)

	answer, err := c.Next([]byte(`{"status":"invalid_token","scope":"https://mail.example.com/"}`))
	fmt.Printf("%q %v\n", answer, err)

	// Client.Auth of package pop3 wraps this error in the one that it returns.
	var refusal *sasl.OAuthError
	if errors.As(c.(interface{ Failure() error }).Failure(), &refusal) {
		fmt.Println(refusal.Status, refusal.Scope)
	}
	// Output:
	// OAUTHBEARER "n,a=someuser@example.com,\x01auth=Bearer expired-token\x01\x01"
	// "\x01" <nil>
	// invalid_token https://mail.example.com/
}

// The initial response of PLAIN, from the second example of RFC 4616.
func ExamplePlain() {
	_, ir, err := sasl.Plain("Ursel", "Kurt", "xipj3plmq").Start()
	fmt.Printf("%q %v\n", ir, err)
	// Output: "Ursel\x00Kurt\x00xipj3plmq" <nil>
}

// The example of RFC 2195.
func ExampleCramMD5() {
	c := sasl.CramMD5("tim", "tanstaaftanstaaf")
	if _, _, err := c.Start(); err != nil {
		fmt.Println(err)
		return
	}
	response, err := c.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	fmt.Printf("%s %v\n", response, err)
	// Output: tim b913a602c7eda7a495b4e6e7334d3890 <nil>
}

// A password that SASLprep does not allow is refused before anything is sent.
func ExampleScram() {
	_, err := sasl.Scram("SCRAM-SHA-256", "bob", "open \x07 sesame")
	fmt.Println(errors.Is(err, sasl.ErrArgument))
	// Output: true
}

// A mechanism does not show its secret.
func ExampleClient() {
	fmt.Printf("%+v\n", sasl.Plain("", "bob", "open sesame"))
	// Output: sasl.Client(PLAIN)
}
