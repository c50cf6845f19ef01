// Package sasl has the SASL mechanisms (RFC 4422) with which POP3 servers let clients log in. A
// [Client] is handed to the Auth method of a POP3 client, which carries out the exchange of RFC
// 5034: base64, limits on length and number of challenges, cancellation. This package knows what is
// inside the messages.
//
// Client has the method set of the interface of that name in github.com/emersion/go-sasl, so a
// mechanism of either package serves where one of the other is asked for. PLAIN, EXTERNAL,
// ANONYMOUS and OAUTHBEARER stand on that package, SCRAM on github.com/xdg-go/scram.
//
// # Which mechanism
//
// The best one that both sides have, from strong to weak:
//
//   - [Scram] with a name that ends in -PLUS: the server never learns the password, must prove that
//     it knows it already, and both sides prove that they are the two ends of the same TLS
//     connection.
//   - [Scram] without -PLUS: as above, without the tie to TLS.
//   - [OAuthBearer], [XOAuth2]: a token in place of the password, short-lived and good for one
//     purpose.
//   - [External]: the TLS client certificate is the proof.
//   - [Plain], [Login]: the password itself. They are as safe as the TLS connection that they go
//     through.
//   - [CramMD5]: hides the password from a listener, who can then guess at it offline; the server
//     must keep it in a form as good as the password, and proves nothing. Better than a password in
//     clear, worse than TLS.
//   - [Anonymous]: no proof of anything.
//
// PLAIN, LOGIN, XOAUTH2 and OAUTHBEARER reveal the secret to the server and to whoever reads the
// connection: use them over TLS whose certificate was verified. The others do not reveal it.
//
// What providers and servers want:
//
//   - Gmail: XOAUTH2 or OAUTHBEARER, with a token of scope https://mail.google.com/; or PLAIN with
//     an app password. It hands out each message once, whatever was deleted; with "recent:" before
//     the user name ("recent:someone@gmail.com") it gives the messages of the last 30 days to every
//     client.
//   - Microsoft 365 and Outlook.com: XOAUTH2 only, with a token of scope
//     https://outlook.office.com/POP.AccessAsUser.All. It wants the two-step form, in which the
//     token follows in a line of its own: the exchange uses it for every token too long for the
//     command line, which all of theirs are.
//   - Dovecot: SCRAM-SHA-256 where the passwords are stored for it, otherwise PLAIN; either OAuth
//     mechanism. Dovecot 2.3 has no channel binding.
//   - Cyrus: SCRAM-SHA-256. Cyrus 3.6 announces the -PLUS forms and takes no binding but
//     tls-unique, so they work over TLS 1.2 and not over TLS 1.3.
//   - Courier: PLAIN, LOGIN, CRAM-MD5.
//
// # SCRAM
//
// The server chooses the cost of a SCRAM login, and PBKDF2 cannot be interrupted. From 4,096 to
// 1,000,000 iterations are accepted (the latter takes less than a second): with fewer, whoever
// records the exchange guesses passwords cheaply; with more, a hostile server keeps a client busy
// for minutes. [ScramKeys] saves that cost from the second login on.
//
// User names and passwords are prepared with SASLprep (RFC 4013), which does not know characters
// younger than Unicode 3.2, such as emoji: [Scram] refuses them.
//
// # Optional methods
//
// Beyond Start and Next, a mechanism may have any of these methods, of a package anywhere. Whoever
// carries out an exchange looks for them:
//
//   - UseTLS(state *tls.ConnectionState) is called before Start, with nil where the connection is
//     in clear. SCRAM takes the channel binding from it: tls-exporter (RFC 9266) on TLS 1.3,
//     tls-unique (RFC 5929) on TLS 1.2.
//   - ServerProved() bool says whether the server has proved that it knows the secret. While it is
//     false, a positive reply is no success. Mechanisms in which the server proves nothing do not
//     have it.
//   - ShowsSecret(text string) bool reports whether the secret, or a proof made of it, shows in a
//     text of the server, in any of the forms in which servers quote what they received. Such a text
//     is left out of errors and traces. The errors of a mechanism that has the method are shown as
//     they are. Without the method, the exchange can only look for the responses that it sent.
//   - Failure() error gives the reason for a failure as the server put it inside the mechanism, or
//     nil: an [*OAuthError] or a [*ScramError]. An exchange with a Failure has failed, whatever the
//     reply says.
//
// # Secrets
//
// A Client holds a secret and does not show it: printed by fmt, logged by slog or marshalled to
// JSON it is the name of its mechanism. No error of this package holds one, not even where the
// server repeats it.
package sasl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// A Client is the client's side of one mechanism. It is for one goroutine at a time. It may be used
// for several exchanges, one after the other: Start begins anew.
type Client interface {
	// Start begins an exchange. It returns the name of the mechanism and the initial response: nil
	// where the server speaks first, not nil but empty where the client speaks first and has nothing
	// to say. An error, such as [ErrArgument] or [ErrChannelBinding], means that there is nothing to
	// send.
	Start() (mech string, ir []byte, err error)

	// Next answers a challenge, both without base64. An error means that the exchange is to be
	// cancelled. A challenge that is one too many is an error, and so is one over 64 KiB.
	Next(challenge []byte) (response []byte, err error)
}

var (
	// ErrArgument is in the chain of the error for a name, password, token or mechanism that cannot
	// be used: empty, not UTF-8, or with characters that the mechanism has no room for. [Scram] and
	// [ScramNoPlus] return it; the other mechanisms return it from Start. Nothing was sent.
	ErrArgument = errors.New("sasl: unusable argument")

	// ErrChannelBinding is in the chain of the error from Start of a -PLUS mechanism on a connection
	// that it cannot be bound to: it is not TLS, or TLS gives no binding. Nothing was sent; the form
	// without -PLUS works.
	ErrChannelBinding = errors.New("sasl: no channel binding")
)

// maxChallenge is the longest challenge that is looked at, in octets. It is the bound of the
// exchange too, and is kept here as well for those who carry out the exchange in another way.
const maxChallenge = 64 << 10

// An exchange is what all mechanisms share: the name, the secret, and the count of challenges that may still come.
type exchange struct {
	hidden
	bad     error             // what is wrong with the arguments; Start returns it
	left    int               // challenges that may still be answered
	secret  secret[string]    // nil if there is none
	secrets printable.Secrets // the secret, and what was made of it in the exchange
}

func newExchange(mech, secret string, bad error) exchange {
	e := exchange{hidden: hidden{mech}, bad: bad, secret: keep(secret)}
	e.secrets.Add(secret)
	return e
}

// ShowsSecret reports whether the secret, or a proof made of it, shows in a text.
func (e *exchange) ShowsSecret(text string) bool { return e.secrets.ShownIn(text) }

// begin starts an exchange in which n challenges are answered.
func (e *exchange) begin(n int) (mech string, err error) {
	if e.bad != nil {
		n = 0
	}
	e.left = n
	return e.mech, e.bad
}

// take counts a challenge, and refuses one that is too long or too many.
func (e *exchange) take(challenge []byte) error {
	if e.left == 0 {
		return fmt.Errorf("sasl: %s has no answer to this challenge: the server sent one too many, "+
			"or the exchange has failed or was not started", e.mech)
	}
	e.left--
	if len(challenge) > maxChallenge {
		e.left = 0
		return fmt.Errorf("sasl: %s: the challenge has more than %d octets", e.mech, maxChallenge)
	}
	return nil
}

// A secret is a value that nothing can print. The methods of hidden are not enough: fmt does not
// call them on a mechanism in an unexported field of somebody's struct, and prints the fields of
// the mechanism if the verb does not fit. Nor do the programs that show what differs between two
// values. Into a func, none of them can look.
type secret[T any] func() T

func keep[T any](v T) secret[T] {
	return func() T { return v }
}

// hidden is embedded in every mechanism and answers for it when it is printed, logged or
// marshalled.
type hidden struct {
	mech string // as it goes on the wire: "SCRAM-SHA-256"
}

// String names the mechanism, as in "sasl.Client(PLAIN)".
func (h hidden) String() string { return "sasl.Client(" + h.mech + ")" }

// GoString is String: %#v would otherwise print the fields.
func (h hidden) GoString() string { return h.String() }

// Format is String for every verb: %d and %x would otherwise reach the fields.
func (h hidden) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, h.String()) }

// LogValue is String, for log/slog.
func (h hidden) LogValue() slog.Value { return slog.StringValue(h.String()) }

// MarshalJSON is String, as a JSON string.
func (h hidden) MarshalJSON() ([]byte, error) { return json.Marshal(h.String()) }

// unusable wraps [ErrArgument]. Neither what nor why is ever the argument itself, which may be a
// secret, or a secret given in the wrong place.
func unusable(what, why string) error {
	return fmt.Errorf("%w: the %s %s", ErrArgument, what, why)
}

// present refuses an empty string.
func present(what, s string) error {
	if s == "" {
		return unusable(what, "is empty")
	}
	return nil
}

// noNUL refuses what RFC 4616 and RFC 4422 have no room for: NUL, and what is not UTF-8.
func noNUL(what, s string) error {
	switch {
	case !utf8.ValidString(s):
		return unusable(what, "is not UTF-8")
	case strings.ContainsRune(s, 0):
		return unusable(what, "contains NUL")
	}
	return nil
}

// noControls refuses control characters, some of which (^A in the OAuth mechanisms) would begin a
// new field.
func noControls(what, s string) error {
	switch {
	case !utf8.ValidString(s):
		return unusable(what, "is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return unusable(what, "contains control characters")
	}
	return nil
}

// visible refuses all but printable ASCII without space, which is more than the b64token of RFC
// 6750 section 2.1.
func visible(what, s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return unusable(what, "contains a space, a control or a non-ASCII character")
	}
	return nil
}
