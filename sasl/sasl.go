// Package sasl implements the SASL mechanisms (RFC 4422) with which clients log in to POP3 servers.
// A [Client] makes and reads the messages of one mechanism. Pass it to the Auth method of a POP3
// client, which carries out the exchange of RFC 5034: base64, limits on the length and number of
// challenges, and cancellation.
//
// Client has the methods of the interface Client in github.com/emersion/go-sasl, so that mechanisms
// of both packages can be used in the same programs. PLAIN, EXTERNAL, ANONYMOUS and OAUTHBEARER are
// based on that package, SCRAM on github.com/xdg-go/scram.
//
// # Which mechanism
//
// Use the best one that both the client and the server support. From strong to weak:
//
//   - [Scram] with a name that ends in -PLUS: the password is never sent, the server must prove
//     that it knows it, and both sides prove that they are the two ends of the same TLS connection.
//   - [Scram] without -PLUS: the same, but not bound to the TLS connection.
//   - [OAuthBearer], [XOAuth2]: a token is sent in place of the password. It is short-lived and
//     limited to one purpose.
//   - [External]: the TLS client certificate proves who the client is.
//   - [Plain], [Login]: the password itself is sent. They are as safe as the TLS connection.
//   - [CramMD5]: a listener does not see the password, but can guess it offline. The server has to
//     store it in a form that is as good as the password, and proves nothing. This is better than a
//     password in clear, and worse than a password over TLS.
//   - [Anonymous]: neither side proves anything.
//
// PLAIN, LOGIN, XOAUTH2 and OAUTHBEARER reveal the secret to the server, and to anybody who can
// read the connection. Use them only over TLS with a verified certificate. The others do not reveal
// the secret.
//
// Providers and servers support:
//
//   - Gmail: XOAUTH2 or OAUTHBEARER, with a token of scope https://mail.google.com/; or PLAIN with
//     an app password. Gmail lists each message only once, even if it was not deleted. With
//     "recent:" before the user name ("recent:someone@gmail.com") it lists the messages of the last
//     30 days to every client.
//   - Microsoft 365 and Outlook.com: XOAUTH2 only, with a token of scope
//     https://outlook.office.com/POP.AccessAsUser.All. The token has to be sent on a line of its
//     own. The exchange does so with every token that is too long for the command line, and the
//     tokens of Microsoft are always too long for it.
//   - Dovecot: SCRAM-SHA-256 if the passwords are stored for it, otherwise PLAIN; also both OAuth
//     mechanisms. Dovecot 2.3 has no channel binding.
//   - Cyrus: SCRAM-SHA-256. Cyrus 3.6 announces the -PLUS forms and supports only the binding
//     tls-unique, so they work over TLS 1.2 and not over TLS 1.3.
//   - Courier: PLAIN, LOGIN, CRAM-MD5.
//
// # SCRAM
//
// The server chooses the cost of a SCRAM login, and PBKDF2 cannot be interrupted. This package accepts from 4,096 to
// 1,000,000 iterations. A million iterations take less than a second. With fewer iterations, somebody who records the
// exchange could guess the password cheaply. With more, a hostile server could keep a client busy for minutes.
// [ScramKeys] saves that cost from the second login on.
//
// User names and passwords are prepared with SASLprep (RFC 4013), which does not know the
// characters that were added after Unicode 3.2, such as emoji. [Scram] refuses them.
//
// # Optional methods
//
// Besides Start and Next, a mechanism of any package may have these methods. An exchange calls
// those that exist:
//
//   - UseTLS(state *tls.ConnectionState) is called before Start, with nil if the connection is in
//     clear. SCRAM takes the channel binding from it: tls-exporter (RFC 9266) on TLS 1.3,
//     tls-unique (RFC 5929) on TLS 1.2.
//   - ServerProved() bool reports whether the server has proved that it knows the secret. While it
//     is false, a positive reply is not accepted as success. Mechanisms in which the server proves
//     nothing do not have this method.
//   - ShowsSecret(text string) bool reports whether a text of the server contains the secret, or a
//     proof derived from it, in any of the forms in which servers quote what they received. Such a
//     text is left out of errors and traces. The mechanism's own errors are shown unchanged. If a
//     mechanism does not have this method, the exchange can only look for the responses that it
//     sent.
//   - Failure() error returns the reason for a failure that the server sent inside the mechanism,
//     an [*OAuthError] or a [*ScramError], or nil. If it is not nil, the exchange has failed, even
//     if the reply is positive.
//
// # Secrets
//
// A Client holds a secret and does not show it. If it is printed by fmt, logged by slog or
// marshalled to JSON, only the name of its mechanism appears. No error of this package contains a
// secret, even if the server's text does.
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

// A Client is the client's side of one mechanism. Its methods must not be called concurrently. It
// may be used for several exchanges, one after the other; each call of Start begins a new one.
type Client interface {
	// Start begins an exchange. It returns the name of the mechanism and the initial response.
	// The response is nil if the server sends the first message. It is empty but not nil if
	// the client sends the first message and it is empty. After an error, such as
	// [ErrArgument] or [ErrChannelBinding], nothing must be sent.
	Start() (mech string, ir []byte, err error)

	// Next returns the response to a challenge. Neither is in base64. If Next returns an error, the exchange must be
	// canceled. Next fails if it is called more often than the mechanism has challenges, or if the challenge is longer
	// than 64 KiB.
	Next(challenge []byte) (response []byte, err error)
}

var (
	// ErrArgument means that a name, password, token or mechanism cannot be used: it is empty, not UTF-8, or contains
	// characters that the mechanism does not allow. [Scram] and [ScramNoPlus] return an error that wraps it. For the
	// other mechanisms, the error of Start wraps it. Nothing was sent.
	ErrArgument = errors.New("sasl: unusable argument")

	// ErrChannelBinding is wrapped by the error of Start if a -PLUS mechanism cannot be bound to the connection: the
	// connection is not TLS, or TLS provides no binding. Nothing was sent. The mechanism without -PLUS can be used
	// instead.
	ErrChannelBinding = errors.New("sasl: no channel binding")
)

// maxChallenge is the longest challenge that is parsed, in bytes. Client.Auth of package pop3 has
// the same limit; this one is for other programs that carry out the exchange.
const maxChallenge = 64 << 10

// An exchange is the part that all mechanisms share: the name, the secret, and the number of challenges that may still
// follow.
type exchange struct {
	hidden
	argErr         error             // why the arguments cannot be used, or nil; Start returns it
	challengesLeft int               // challenges that may still be answered
	secret         secret[string]    // the secret; nil if there is none
	secrets        printable.Secrets // the secret, and the proofs derived from it in the exchange
}

func newExchange(mech, secret string, argErr error) exchange {
	e := exchange{hidden: hidden{mech}, argErr: argErr, secret: newSecret(secret)}
	e.secrets.Add(secret)
	return e
}

// ShowsSecret reports whether a text contains the secret, or a proof derived from it.
func (e *exchange) ShowsSecret(text string) bool { return e.secrets.ShownIn(text) }

// begin starts an exchange of n challenges.
func (e *exchange) begin(n int) (mech string, err error) {
	if e.argErr != nil {
		n = 0
	}
	e.challengesLeft = n
	return e.mech, e.argErr
}

// countChallenge counts a challenge. It returns an error if the challenge is too long or there are too many.
func (e *exchange) countChallenge(challenge []byte) error {
	if e.challengesLeft == 0 {
		return fmt.Errorf("sasl: %s has no answer to this challenge: the server sent one too many, "+
			"or the exchange has failed or was not started", e.mech)
	}
	e.challengesLeft--
	if len(challenge) > maxChallenge {
		e.challengesLeft = 0
		return fmt.Errorf("sasl: %s: the challenge has more than %d octets", e.mech, maxChallenge)
	}
	return nil
}

// A secret is a value that cannot be printed. The methods of hidden are not enough: fmt does not call them on a
// mechanism in an unexported field of a struct. It prints the fields of the mechanism if the verb does not fit.
// Programs that print the difference between two values do the same. None of them can read the variables of a func.
type secret[T any] func() T

func newSecret[T any](v T) secret[T] {
	return func() T { return v }
}

// hidden is embedded in every mechanism. Its methods are called when the mechanism is printed,
// logged or marshalled.
type hidden struct {
	mech string // name of the mechanism as sent to the server, such as "SCRAM-SHA-256"
}

// String returns the name of the mechanism, as in "sasl.Client(PLAIN)".
func (h hidden) String() string { return "sasl.Client(" + h.mech + ")" }

// GoString returns the same as String, because %#v would print the fields.
func (h hidden) GoString() string { return h.String() }

// Format writes the same as String for every verb, because %d and %x would print the fields.
func (h hidden) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, h.String()) }

// LogValue returns the same as String, for log/slog.
func (h hidden) LogValue() slog.Value { return slog.StringValue(h.String()) }

// MarshalJSON returns the same as String, as a JSON string.
func (h hidden) MarshalJSON() ([]byte, error) { return json.Marshal(h.String()) }

// argumentError returns an error that wraps [ErrArgument]. argument is the name of the argument, not its value, which
// may be a secret. reason must not contain the value either.
func argumentError(argument, reason string) error {
	return fmt.Errorf("%w: the %s %s", ErrArgument, argument, reason)
}

// notEmpty returns an error if s is empty.
func notEmpty(argument, s string) error {
	if s == "" {
		return argumentError(argument, "is empty")
	}
	return nil
}

// noNUL returns an error if s contains NUL or is not UTF-8, which RFC 4616 and RFC 4422 forbid.
func noNUL(argument, s string) error {
	switch {
	case !utf8.ValidString(s):
		return argumentError(argument, "is not UTF-8")
	case strings.ContainsRune(s, 0):
		return argumentError(argument, "contains NUL")
	}
	return nil
}

// noControls returns an error if s contains control characters or is not UTF-8. Some control
// characters (^A in the OAuth mechanisms) would begin a new field.
func noControls(argument, s string) error {
	switch {
	case !utf8.ValidString(s):
		return argumentError(argument, "is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return argumentError(argument, "contains control characters")
	}
	return nil
}

// printableASCII returns an error unless s is printable ASCII without spaces. RFC 6750 section 2.1
// allows fewer characters in a token (b64token).
func printableASCII(argument, s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return argumentError(argument, "contains a space, a control or a non-ASCII character")
	}
	return nil
}
