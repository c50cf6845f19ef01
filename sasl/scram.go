package sasl

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/scram"
)

// Scram returns a client of SCRAM (RFC 5802, RFC 7677): both sides prove that they know the
// password, and neither reveals it. mech is "SCRAM-SHA-1", "SCRAM-SHA-256" or "SCRAM-SHA-512", or
// one of these with the suffix "-PLUS". A -PLUS mechanism binds the proof to the TLS connection, so
// that an attacker in the middle cannot use it.
//
// The error wraps [ErrArgument] if mech is another mechanism, or if name or password is empty. It
// also does so if one of them contains characters that SASLprep (RFC 4013) does not allow, such as
// control characters and emoji.
//
// For a -PLUS mechanism, UseTLS must be called before Start (see "Optional methods" above),
// otherwise Start fails with [ErrChannelBinding]. The other mechanisms tell the server that the
// client does not support channel binding (flag "n"); see [ScramNoPlus].
//
// A Client that is used again derives its keys again only if the server's salt has changed. For a
// program with many accounts see [ScramKeys].
func Scram(mech, name, password string) (Client, error) {
	return (*ScramKeys)(nil).Scram(mech, name, password)
}

// ScramNoPlus is like [Scram]. Use it when the server's list of mechanisms was read over TLS and does not contain the
// -PLUS form of mech. The client tells the server that it saw no such form (flag "y" of RFC 5802 section 6). If the
// server did offer such a form, an attacker has removed it from the list, and the server refuses the login. mech is a
// name without "-PLUS".
func ScramNoPlus(mech, name, password string) (Client, error) {
	return (*ScramKeys)(nil).ScramNoPlus(mech, name, password)
}

func newScram(keys *ScramKeys, mech, name, password string) (*scramClient, error) {
	mech = strings.ToUpper(mech)
	base, plus := strings.CutSuffix(mech, "-PLUS")
	if scramHashes[base] == nil {
		return nil, argumentError("mechanism", "is not SCRAM-SHA-1, -256 or -512, with or without -PLUS")
	}
	account := scramAccount{base, name, password}
	c := &scramClient{
		exchange: newExchange(mech, password, nil),
		account:  newSecret(account),
		keys:     keys,
		plus:     plus,
	}
	if err := c.prepare(keys.get(account)); err != nil {
		return nil, err
	}
	c.UseTLS(nil)
	return c, nil
}

// prepare sets the keys for an exchange. If key is zero, no keys have been derived yet.
func (c *scramClient) prepare(key scramKey) (err error) {
	c.shared = key.client != nil
	if !c.shared {
		key.client, err = c.account().newClient()
	}
	c.inner, c.salt, c.stale = newSecret(key.client), key.salt, false
	return err
}

var scramHashes = map[string]scram.HashGeneratorFcn{
	"SCRAM-SHA-1":   scram.SHA1,
	"SCRAM-SHA-256": scram.SHA256,
	"SCRAM-SHA-512": scram.SHA512,
}

// newClient applies SASLprep. It does not return the library's errors, because they contain the name and no advice.
func (a scramAccount) newClient() (*scram.Client, error) {
	const reason = "has characters that SASLprep does not allow, such as controls or emoji; " +
		"PLAIN over TLS accepts them"
	hash := scramHashes[a.hash]
	if _, err := hash.NewClient(a.name, "", ""); err != nil {
		return nil, argumentError("name", reason)
	}
	client, err := hash.NewClient(a.name, a.password, "")
	if err != nil {
		return nil, argumentError("password", reason)
	}
	// SASLprep removes some characters, such as the soft hyphen. The name may be empty after
	// that.
	first, err := client.NewConversation().Step("")
	if err != nil || strings.HasPrefix(first, "n,,n=,") {
		return nil, argumentError("name", "is empty")
	}
	return client, notEmpty("password", a.password)
}

// A scramClient wraps the conversation of package scram. It checks the server's messages before the
// library parses them, because the library has no upper limit on the iterations, and its parser is
// too lenient.
type scramClient struct {
	exchange
	account    secret[scramAccount]
	keys       *ScramKeys
	inner      secret[*scram.Client]
	salt       string // salt and iterations of the keys that inner has derived, or ""
	stale      bool   // inner has also derived keys for an older salt, so it must not be used again
	shared     bool   // inner is or was in c.keys, so other clients may use it too
	plus       bool
	noPlus     bool
	binding    secret[scram.ChannelBinding]
	bindingErr error // why there is no binding
	conv       secret[*scram.ClientConversation]
	nonce      string // the client's part of the nonce
	proved     bool
	failure    error
}

// ShowsSecret reports whether a text contains the password, a proof, or the server's final message. Some servers send
// that message in the text of the positive reply, where it is not accepted.
func (c *scramClient) ShowsSecret(text string) bool {
	return c.exchange.ShowsSecret(text) || slices.ContainsFunc(strings.Fields(text), isServerFinal)
}

func isServerFinal(word string) bool {
	decoded, err := base64.StdEncoding.DecodeString(word)
	return err == nil && checkServerFinal(string(decoded)) == nil || checkServerFinal(word) == nil
}

// UseTLS takes the channel binding from the TLS connection. state is nil if the connection is in
// clear.
func (c *scramClient) UseTLS(state *tls.ConnectionState) {
	binding, err := channelBinding(state)
	c.binding, c.bindingErr = newSecret(binding), err
}

// ServerProved reports whether the server's signature was checked and is correct.
func (c *scramClient) ServerProved() bool { return c.proved }

// Failure returns the *ScramError that the server sent, or nil.
func (c *scramClient) Failure() error { return c.failure }

func (c *scramClient) Start() (mech string, ir []byte, err error) {
	c.proved, c.failure, c.challengesLeft = false, nil, 0
	if c.plus && c.bindingErr != nil {
		return c.mech, nil, c.bindingErr
	}
	if c.stale {
		if err := c.prepare(scramKey{}); err != nil {
			return c.mech, nil, err
		}
	}
	c.conv = newSecret(c.conversation())
	first, err := c.conv().Step("")
	if err != nil {
		return c.mech, nil, fmt.Errorf("sasl: %s: %w", c.mech, err)
	}
	c.nonce = first[strings.LastIndex(first, ",r=")+len(",r="):]
	mech, err = c.begin(2)
	return mech, []byte(first), err
}

func (c *scramClient) conversation() *scram.ClientConversation {
	switch {
	case c.plus:
		return c.inner().NewConversationWithChannelBinding(c.binding())
	case c.noPlus:
		return c.inner().NewConversationAdvertisingChannelBinding()
	}
	return c.inner().NewConversation()
}

// Next responds to the server's first message with the client's proof. It responds to the final
// message, which is the server's proof, with an empty message. After an error, no later challenge
// gets a response, and no proof is accepted.
func (c *scramClient) Next(challenge []byte) (response []byte, err error) {
	c.proved = false
	if err := c.countChallenge(challenge); err != nil {
		return nil, err
	}
	answer := c.proof
	if c.challengesLeft == 0 {
		answer = c.verify
	}
	if response, err = answer(string(challenge)); err != nil {
		c.challengesLeft = 0
		return nil, err
	}
	return response, nil
}

// proof returns the response to the server's first message.
func (c *scramClient) proof(msg string) ([]byte, error) {
	if c.isRefusal(msg) {
		return nil, c.failure
	}
	if err := checkServerFirst(msg, c.nonce); err != nil {
		return nil, fmt.Errorf("sasl: %s: the server's first message %w", c.mech, err)
	}
	if salt := saltOf(msg); salt != c.salt {
		c.keys.forget(c.account(), c.inner())
		c.stale = c.salt != ""
		c.salt = salt
	}
	final, err := c.conv().Step(msg)
	if err != nil {
		return nil, fmt.Errorf("sasl: %s: the proof could not be made: %w", c.mech, c.secrets.HideError(err))
	}
	c.secrets.Add(final[strings.LastIndex(final, ",p="):])
	return []byte(final), nil
}

// verify checks the server's final message.
func (c *scramClient) verify(msg string) ([]byte, error) {
	if c.isRefusal(msg) {
		return nil, c.failure
	}
	signature, _, _ := strings.Cut(strings.TrimPrefix(msg, "v="), ",")
	c.secrets.Add(signature)
	if err := checkServerFinal(msg); err != nil {
		return nil, fmt.Errorf("sasl: %s: the server's final message %w", c.mech, err)
	}
	if _, err := c.conv().Step(msg); err != nil || !c.conv().Valid() {
		return nil, fmt.Errorf("sasl: %s: %w", c.mech, errSignature)
	}
	c.proved = true
	if !c.stale && !c.shared {
		c.keys.put(c.account(), scramKey{c.inner(), c.salt})
		c.shared = true
	}
	return []byte{}, nil
}

var errSignature = errors.New("the server does not know the password (its signature is wrong): " +
	"it is not the right server, and it has not received the password")

// isRefusal reports whether msg is an error message of the server. If it is, isRefusal stores the error in c.failure.
// RFC 5802 allows such a message in place of the final message; some servers send it in place of the first one.
func (c *scramClient) isRefusal(msg string) bool {
	value, ok := strings.CutPrefix(msg, "e=")
	if !ok {
		return false
	}
	value, _, _ = strings.Cut(value, ",")
	if !slices.Contains(serverErrors, value) { // a known value is never hidden, even if the password is equal to it
		value = c.secrets.Hide(value)
	}
	c.failure = &ScramError{Mech: c.mech, Value: value}
	return true
}

// serverErrors are the values of server-error (RFC 5802 section 7).
var serverErrors = []string{
	"invalid-encoding", "extensions-not-supported", "invalid-proof", "channel-bindings-dont-match",
	"server-does-support-channel-binding", "channel-binding-not-supported", "unsupported-channel-binding-type",
	"unknown-user", "invalid-username-encoding", "no-resources", "other-error",
}

// A ScramError is the reason why a server ended SCRAM (RFC 5802 section 7, server-error).
type ScramError struct {
	Mech string // the mechanism

	// Value is "invalid-proof", "unknown-user" or another reason, without invisible characters,
	// at most 512 bytes.
	Value string
}

// Error returns the server's reason, and its meaning if that is known.
func (e *ScramError) Error() string {
	text := fmt.Sprintf("sasl: %s: the server refused: %q", e.Mech, e.Value)
	switch e.Value {
	case "invalid-proof":
		return text + ": the password is wrong"
	case "channel-bindings-dont-match":
		return text + ": the server has another TLS connection than the client, so somebody is in between"
	case "server-does-support-channel-binding":
		return text + ": it supports channel binding, so somebody removed -PLUS from its list, or it accepts " +
			"nothing else"
	}
	return text
}

// These are the limits on the iterations that a server may request. RFC 5802 section 5.1 and RFC 7677 section 4 require
// the lower limit. With the upper limit a login takes less than a second.
const (
	minIterations = 4096
	maxIterations = 1_000_000
)

// checkServerFirst checks a server-first-message (RFC 5802 section 7) before anything is hashed.
// The message must have "r=", "s=" and "i=" in this order. Extensions may follow. nonce is the
// client's nonce. The errors do not contain any part of the message.
func checkServerFirst(msg, nonce string) error {
	if strings.HasPrefix(msg, "m=") {
		return errMandatory
	}
	fields := strings.Split(msg, ",")
	if len(fields) < 3 {
		return errors.New("does not have the three fields r=, s= and i=")
	}
	if err := checkNonce(fields[0], nonce); err != nil {
		return err
	}
	if salt, ok := strings.CutPrefix(fields[1], "s="); !ok || !isBase64(salt) {
		return errors.New("has no salt in base64 as its second field")
	}
	if err := checkIterations(fields[2]); err != nil {
		return err
	}
	return checkExtensions(fields[3:])
}

// checkServerFinal checks a server-final-message that is not an error. It must have "v=". Extensions may follow.
func checkServerFinal(msg string) error {
	fields := strings.Split(msg, ",")
	if signature, ok := strings.CutPrefix(fields[0], "v="); !ok || !isBase64(signature) {
		return errors.New("has no signature in base64")
	}
	return checkExtensions(fields[1:])
}

// checkNonce returns an error unless the field is the client's nonce followed by more characters. If the server adds
// nothing, it could replay an earlier exchange.
func checkNonce(field, nonce string) error {
	r, ok := strings.CutPrefix(field, "r=")
	switch {
	case !ok:
		return errors.New("does not begin with a nonce")
	case !strings.HasPrefix(r, nonce):
		return errors.New("has a nonce that does not begin with the client's: it is no answer to this exchange")
	case len(r) == len(nonce):
		return errors.New("has a nonce that adds nothing to the client's")
	case strings.ContainsFunc(r, func(c rune) bool { return c <= ' ' || c > '~' }):
		return errors.New("has a nonce that is not printable ASCII")
	}
	return nil
}

// checkIterations accepts digits only. strconv.Atoi, which the library uses, would accept a sign as
// well.
func checkIterations(field string) error {
	digits, ok := strings.CutPrefix(field, "i=")
	if !ok || digits == "" || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
		return errors.New("has no number of iterations as its third field")
	}
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || n > maxIterations:
		return errors.New("asks for more than 1,000,000 iterations, which takes too long; use another mechanism")
	case n < minIterations:
		return errors.New("asks for less than 4,096 iterations, " +
			"which would make the password easy to guess for a listener; use another mechanism over TLS")
	}
	return nil
}

var errMandatory = errors.New("has a mandatory extension (m=), which this client does not support")

// checkExtensions accepts unknown attributes, which are ignored. It rejects an attribute that RFC 5802 defines, because
// it must not be in this place.
func checkExtensions(fields []string) error {
	for _, f := range fields {
		switch {
		case strings.HasPrefix(f, "m="):
			return errMandatory
		case len(f) < 3 || f[1] != '=' || !isLetter(f[0]) || strings.ContainsRune(f, 0) || !utf8.ValidString(f):
			return errors.New("has an extension that is not of the form x=value")
		case strings.IndexByte("anrcsipve", f[0]) >= 0:
			return errors.New("has a field out of its place")
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isBase64 reports whether s is padded base64 that is not empty. It rejects CR and LF, which even a strict decoder
// skips.
func isBase64(s string) bool {
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return false
	}
	_, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil
}

// channelBinding returns the binding to a TLS connection. On TLS 1.3 that is tls-exporter (RFC
// 9266). On TLS 1.2 it is tls-unique, the default of RFC 5802 section 6.1 and the only binding
// that Cyrus supports. If a session was resumed without extended master secret, crypto/tls returns
// no tls-unique, because RFC 7677 section 4 forbids its use there.
func channelBinding(state *tls.ConnectionState) (scram.ChannelBinding, error) {
	switch {
	case state == nil:
		return noBinding("the connection is not known to be TLS")
	case !state.HandshakeComplete:
		return noBinding("the TLS handshake has not been done")
	case state.Version >= tls.VersionTLS13:
		binding, err := scram.NewTLSExporterBinding(state)
		if err != nil {
			return noBinding(err.Error())
		}
		return binding, nil
	case state.Version < tls.VersionTLS12:
		return noBinding("TLS before 1.2 is not safe to bind to")
	case len(state.TLSUnique) == 0:
		return noBinding("TLS gives no tls-unique for this resumed session")
	}
	return scram.NewTLSUniqueBinding(state.TLSUnique), nil
}

func noBinding(reason string) (scram.ChannelBinding, error) {
	return scram.ChannelBinding{}, fmt.Errorf("%w: %s; use the form without -PLUS", ErrChannelBinding, reason)
}
