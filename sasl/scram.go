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

// Scram is SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password, and neither
// reveals it. mech is "SCRAM-SHA-1", "SCRAM-SHA-256" or "SCRAM-SHA-512", or one of these with
// "-PLUS" after it, which binds the proof to the TLS connection, so that nobody in the middle can
// pass it on.
//
// The error, which is [ErrArgument], is about another mech, an empty name or password, or
// characters that SASLprep (RFC 4013) does not allow, such as controls and emoji.
//
// A -PLUS mechanism must be told of the TLS connection before Start (see "Optional methods" above),
// else Start fails with [ErrChannelBinding]. The other forms tell the server that the client cannot
// bind (flag "n"); see [ScramNoPlus].
//
// Used for a second exchange, the Client does not derive its keys again unless the server's salt has
// changed. See [ScramKeys] for a program with many accounts.
func Scram(mech, name, password string) (Client, error) {
	return (*ScramKeys)(nil).Scram(mech, name, password)
}

// ScramNoPlus is [Scram] for when the server's list of mechanisms, read over TLS, has no -PLUS form
// of mech. It tells the server so (flag "y" of RFC 5802 section 6): a server that did offer one
// then knows that somebody cut it from the list, and refuses. mech is a name without "-PLUS".
func ScramNoPlus(mech, name, password string) (Client, error) {
	return (*ScramKeys)(nil).ScramNoPlus(mech, name, password)
}

func newScram(keys *ScramKeys, mech, name, password string) (*scramClient, error) {
	mech = strings.ToUpper(mech)
	base, plus := strings.CutSuffix(mech, "-PLUS")
	if scramHashes[base] == nil {
		return nil, unusable("mechanism", "is not SCRAM-SHA-1, -256 or -512, with or without -PLUS")
	}
	account := scramAccount{base, name, password}
	c := &scramClient{
		exchange: newExchange(mech, password, nil),
		account:  keep(account),
		keys:     keys,
		plus:     plus,
	}
	if err := c.prepare(keys.get(account)); err != nil {
		return nil, err
	}
	c.UseTLS(nil)
	return c, nil
}

// prepare makes ready for an exchange: with the keys that key holds, or, if it is zero, with none derived yet.
func (c *scramClient) prepare(key scramKey) (err error) {
	c.shared = key.client != nil
	if !c.shared {
		key.client, err = c.account().newClient()
	}
	c.inner, c.salt, c.stale = keep(key.client), key.salt, false
	return err
}

var scramHashes = map[string]scram.HashGeneratorFcn{
	"SCRAM-SHA-1":   scram.SHA1,
	"SCRAM-SHA-256": scram.SHA256,
	"SCRAM-SHA-512": scram.SHA512,
}

// newClient applies SASLprep. The library's errors are not passed on: they hold the name, and name no
// remedy.
func (a scramAccount) newClient() (*scram.Client, error) {
	const refused = "has characters that SASLprep does not allow, such as controls or emoji; " +
		"PLAIN over TLS takes them"
	hash := scramHashes[a.hash]
	if _, err := hash.NewClient(a.name, "", ""); err != nil {
		return nil, unusable("name", refused)
	}
	client, err := hash.NewClient(a.name, a.password, "")
	if err != nil {
		return nil, unusable("password", refused)
	}
	// SASLprep drops some characters, a soft hyphen for one, and can leave nothing of a name.
	first, err := client.NewConversation().Step("")
	if err != nil || strings.HasPrefix(first, "n,,n=,") {
		return nil, unusable("name", "is empty")
	}
	return client, present("password", a.password)
}

// A scramClient is the conversation of package scram between two checks of its own, of the server's
// messages before the library sees them: it puts no upper bound on the iterations, and its parsing
// is too trusting.
type scramClient struct {
	exchange
	account secret[scramAccount]
	keys    *ScramKeys
	inner   secret[*scram.Client]
	salt    string // for which inner has derived keys, with the iterations; "" if it has none
	stale   bool   // it has derived keys for an older salt too, and is done with
	shared  bool   // inner is or was among keys, so that others may have it
	plus    bool
	noPlus  bool
	binding secret[scram.ChannelBinding]
	unbound error // why there is no binding
	conv    secret[*scram.ClientConversation]
	nonce   string // the client's part
	proved  bool
	failure error
}

// UseTLS takes the channel binding from the TLS connection; nil is a connection in clear.
func (c *scramClient) UseTLS(state *tls.ConnectionState) {
	binding, err := channelBinding(state)
	c.binding, c.unbound = keep(binding), err
}

// ServerProved says whether the server's signature was checked and found right.
func (c *scramClient) ServerProved() bool { return c.proved }

// Failure is the *ScramError that the server sent, or nil.
func (c *scramClient) Failure() error { return c.failure }

func (c *scramClient) Start() (mech string, ir []byte, err error) {
	c.proved, c.failure, c.left = false, nil, 0
	if c.plus && c.unbound != nil {
		return c.mech, nil, c.unbound
	}
	if c.stale {
		if err := c.prepare(scramKey{}); err != nil {
			return c.mech, nil, err
		}
	}
	c.conv = keep(c.conversation())
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

// Next answers the server's first message with the client's proof, and its final one, which is the
// server's proof, with an empty message. After an error no more is answered, and a proof no longer
// counts.
func (c *scramClient) Next(challenge []byte) (response []byte, err error) {
	c.proved = false
	if err := c.take(challenge); err != nil {
		return nil, err
	}
	answer := c.proof
	if c.left == 0 {
		answer = c.verify
	}
	if response, err = answer(string(challenge)); err != nil {
		c.left = 0
		return nil, err
	}
	return response, nil
}

// proof answers the server's first message.
func (c *scramClient) proof(msg string) ([]byte, error) {
	if c.refused(msg) {
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

// verify reads the server's final message.
func (c *scramClient) verify(msg string) ([]byte, error) {
	if c.refused(msg) {
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
	"it is not the right server, and was not told the password")

// refused keeps the error of a server that sends one, which by the grammar is in place of its final
// message, and with some servers in place of the first one.
func (c *scramClient) refused(msg string) bool {
	value, ok := strings.CutPrefix(msg, "e=")
	if !ok {
		return false
	}
	value, _, _ = strings.Cut(value, ",")
	if !slices.Contains(serverErrors, value) { // a password may be one of the words of RFC 5802
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

// A ScramError is the reason for which a server broke off SCRAM (RFC 5802 section 7, server-error).
type ScramError struct {
	Mech  string // the mechanism
	Value string // "invalid-proof", "unknown-user" ...; without invisible characters, at most 512 octets
}

// Error gives the server's reason, and what it means where that is known.
func (e *ScramError) Error() string {
	text := fmt.Sprintf("sasl: %s: the server refused: %q", e.Mech, e.Value)
	switch e.Value {
	case "invalid-proof":
		return text + ": the password is wrong"
	case "channel-bindings-dont-match":
		return text + ": its TLS connection is not this one, somebody is in between"
	case "server-does-support-channel-binding":
		return text + ": it offers a -PLUS form, which somebody removed from its list, or wants no other"
	}
	return text
}

// The bounds on the iterations that a server may ask for. The lower one is that of RFC 5802 section
// 5.1 and RFC 7677 section 4. At the upper one a login takes less than a second.
const (
	minIterations = 4096
	maxIterations = 1_000_000
)

// checkServerFirst checks a server-first-message (RFC 5802 section 7) before any hashing: "r=",
// "s=" and "i=" in this order, then extensions. nonce is the client's. The errors hold nothing of
// the message.
func checkServerFirst(msg, nonce string) error {
	if strings.HasPrefix(msg, "m=") {
		return errMandatory
	}
	fields := strings.Split(msg, ",")
	if len(fields) < 3 {
		return errors.New("has not the three fields r=, s= and i=")
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

// checkServerFinal checks a server-final-message that is not an error: "v=", then extensions.
func checkServerFinal(msg string) error {
	fields := strings.Split(msg, ",")
	if signature, ok := strings.CutPrefix(fields[0], "v="); !ok || !isBase64(signature) {
		return errors.New("has no signature in base64")
	}
	return checkExtensions(fields[1:])
}

// checkNonce wants the client's nonce with something after it: without that, the server would have
// chosen nothing, and could play back an exchange of the past.
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

// checkIterations takes digits only: strconv.Atoi, which the library uses, would take a sign as
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

var errMandatory = errors.New("has a mandatory extension (m=), and none is known")

// checkExtensions wants unknown attributes, which mean nothing. One that RFC 5802 defines is out of
// place here.
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

// isBase64 wants padded base64 that is not empty. Even a strict decoder skips CR and LF.
func isBase64(s string) bool {
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return false
	}
	_, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil
}

// channelBinding ties SCRAM to a TLS connection. On TLS 1.3 that is tls-exporter (RFC 9266). On TLS
// 1.2 it is tls-unique, the default of RFC 5802 section 6.1 and all that Cyrus knows. crypto/tls
// gives tls-unique only where it is sound: not for a session that was resumed without extended
// master secret, which RFC 7677 section 4 rules out.
func channelBinding(state *tls.ConnectionState) (scram.ChannelBinding, error) {
	switch {
	case state == nil:
		return unboundTo("the connection is not known to be TLS")
	case !state.HandshakeComplete:
		return unboundTo("the TLS handshake has not been done")
	case state.Version >= tls.VersionTLS13:
		binding, err := scram.NewTLSExporterBinding(state)
		if err != nil {
			return unboundTo(err.Error())
		}
		return binding, nil
	case state.Version < tls.VersionTLS12:
		return unboundTo("TLS before 1.2 is not safe to bind to")
	case len(state.TLSUnique) == 0:
		return unboundTo("TLS gives no tls-unique for this resumed session")
	}
	return scram.NewTLSUniqueBinding(state.TLSUnique), nil
}

func unboundTo(why string) (scram.ChannelBinding, error) {
	return scram.ChannelBinding{}, fmt.Errorf("%w: %s; use the form without -PLUS", ErrChannelBinding, why)
}
