package pop3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed-2d50cddb/pop3/sasl"
)

// A SASLClient is one run of a SASL mechanism (RFC 4422). It has the methods of Client in
// github.com/emersion/go-sasl, so that mechanisms of other packages work too; package sasl has those that POP3
// servers offer.
//
// [Client.Auth] looks for these optional methods as well:
//
//	UseTLS(state *tls.ConnectionState) // before Start; nil in clear. For channel binding.
//	Mask(text string) string           // takes the secret out of words of the server.
//	ServerProved() bool                // where it is false in the end, +OK is not believed (SCRAM).
//	Failure() error                    // words for a failure that the server explained within the exchange (OAuth).
type SASLClient interface {
	// Start gives the name of the mechanism and the initial response: nil if the server speaks first, empty
	// but not nil if there is one without octets.
	Start() (mech string, ir []byte, err error)
	// Next gives the response to a challenge. An error cancels the exchange.
	Next(challenge []byte) (response []byte, err error)
}

// User names the maildrop (USER, RFC 1939 section 7). [Client.Pass] has to follow at once. Like all of a login in
// clear text it falls under the rule on secrets (see [ErrInsecureAuth]). A name that is not ASCII is sent only if
// the server announces "UTF8 USER" (RFC 6856 section 2.2).
func (c *Client) User(ctx context.Context, name string) error {
	if err := checkWord("name", name); err != nil {
		return err
	}
	return c.login(ctx, command{verb: "USER", arg: name}, nil, func() error { return c.user(ctx, name) })
}

// Pass gives the password, directly after [Client.User] succeeded (PASS, RFC 1939 section 7). Spaces in it are sent
// as they are. nil means that the session is in the TRANSACTION state.
func (c *Client) Pass(ctx context.Context, password string) error {
	k := command{verb: "PASS", secret: password}
	if err := checkText("password", password); err != nil {
		return err
	}
	return c.login(ctx, k, []string{password}, func() error {
		if !c.userAccepted {
			return fmt.Errorf("pop3: PASS: %w: USER has to come directly before it", ErrState)
		}
		return c.pass(ctx, password)
	})
}

// Apop logs in with a digest of the greeting's timestamp and a shared secret (APOP, RFC 1939 section 7). It is for
// old servers only: MD5 protects the secret badly, and [Client.Login] does not choose it. If the greeting had no
// proper timestamp, or was not protected as after STLS, the error wraps [errors.ErrUnsupported].
func (c *Client) Apop(ctx context.Context, name, secret string) error {
	if err := checkWord("name", name); err != nil {
		return err
	}
	if err := checkText("secret", secret); err != nil {
		return err
	}
	return c.login(ctx, c.apopCommand(name, secret), []string{secret}, func() error {
		return c.apop(ctx, name, secret)
	})
}

// Auth logs in with a SASL mechanism (AUTH, RFC 5034), which it tries whether or not the server announces it.
// Mechanisms that reveal the secret to the server fall under the rule on secrets (see [ErrInsecureAuth]); those that
// are not known to keep it count among them. An initial response goes with the command where the server announces
// SASL and the line has room for it, and on its own otherwise.
//
// If the mechanism fails, on this side or on that of the server, the exchange is cancelled and the session can be
// used for another attempt, unless the server hangs up.
func (c *Client) Auth(ctx context.Context, mech SASLClient) error {
	if mech == nil {
		return fmt.Errorf("pop3: AUTH: %w: no mechanism", ErrArgument)
	}
	return c.login(ctx, command{verb: "AUTH"}, nil, func() error { return c.authenticate(ctx, mech) })
}

// login runs steps of a login as one call. hidden are secrets that no reply may show.
func (c *Client) login(ctx context.Context, k command, hidden []string, steps func() error) error {
	if err := c.start(ctx, k, StateAuthorization); err != nil {
		return err
	}
	defer c.conn.end()
	c.loggingIn = true
	for _, secret := range hidden {
		c.secrets.add(secret)
	}
	err := errPanicked
	defer func() {
		c.loggingIn = false
		if err == errPanicked {
			c.conn.fail(err) // nobody knows where in the exchange
		}
	}()
	err = steps()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: the login failed, the server hung up instead of answering", err)
	}
	return err
}

var errPanicked = errors.New("a mechanism or a hook panicked during the login")

func (c *Client) user(ctx context.Context, name string) error {
	k := command{verb: "USER", arg: name}
	if err := c.mayReveal(ctx, k, "", name); err != nil {
		return err
	}
	err := c.exchange(ctx, k, nil)
	c.userAccepted = err == nil
	return err
}

func (c *Client) pass(ctx context.Context, password string) error {
	k := command{verb: "PASS", secret: password}
	if !isASCII(password) && !c.capsKnown { // nothing may come between USER and PASS
		return fmt.Errorf("pop3: PASS: %w: it is not ASCII: call Capa before User, to see UTF8 USER", ErrArgument)
	}
	if err := c.mayReveal(ctx, k, "", password); err != nil {
		return err
	}
	return c.enter(c.exchange(ctx, k, nil))
}

func (c *Client) apop(ctx context.Context, name, secret string) error {
	k := c.apopCommand(name, secret)
	if c.timestamp == "" {
		return fmt.Errorf("pop3: APOP: no timestamp in the greeting: %w", errors.ErrUnsupported)
	}
	if !isASCII(secret) {
		return fmt.Errorf("pop3: APOP: secret: %w: it is not ASCII", ErrArgument)
	}
	if err := c.mayReveal(ctx, k, "", name); err != nil {
		return err
	}
	return c.enter(c.exchange(ctx, k, nil))
}

// apopCommand holds the digest of RFC 1939 section 7.
func (c *Client) apopCommand(name, secret string) command {
	digest := md5.Sum([]byte(c.timestamp + secret))
	return command{verb: "APOP", arg: name, secret: hex.EncodeToString(digest[:])}
}

// enter takes the session to the TRANSACTION state if err is nil. What the server can do has to be asked anew.
func (c *Client) enter(err error) error {
	if err == nil {
		c.state.Store(int32(StateTransaction))
		c.forgetCaps()
	}
	return err
}

// mayReveal checks, where a secret is about to be written, that it may go over this connection, and that the
// server can take what is not ASCII. mech is "" for commands without SASL.
func (c *Client) mayReveal(ctx context.Context, k command, mech string, args ...string) error {
	if !c.maySend(mech) {
		return fmt.Errorf("pop3: %s: %w", k, ErrInsecureAuth)
	}
	if mech != "" || !slices.ContainsFunc(args, func(s string) bool { return !isASCII(s) }) {
		return k.check()
	}
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	if !c.caps.takesUTF8User() {
		return fmt.Errorf("pop3: %s: %w: it is not ASCII, and the server does not announce UTF8 USER", k, ErrArgument)
	}
	return k.check()
}

// maySend is the rule on secrets. Passwords may go to this machine in clear, tokens may not.
func (c *Client) maySend(mech string) bool {
	switch {
	case c.opts.InsecureAuth || c.peer.verified || mech != "" && keepsSecret(mech):
		return true
	case mech == "XOAUTH2" || mech == "OAUTHBEARER":
		return false
	}
	return c.peer.loopback
}

// keepsSecret reports whether a mechanism is known not to reveal the secret.
func keepsSecret(mech string) bool {
	switch mech {
	case "CRAM-MD5", "DIGEST-MD5", "EXTERNAL", "ANONYMOUS", "GSSAPI":
		return true
	}
	return strings.HasPrefix(mech, "SCRAM-") || strings.HasPrefix(mech, "CRAM-") || strings.HasPrefix(mech, "GS2-")
}

// Bounds on an exchange. A challenge, in base64 and with its line end, must fit into the buffer.
const (
	maxRounds    = 16
	maxChallenge = bulkMemory
)

// A saslExchange is the dialogue that AUTH starts (RFC 5034 section 4).
type saslExchange struct {
	c       *Client
	ctx     context.Context
	mech    SASLClient
	k       command
	pending []byte // the initial response, while it may still have to be sent
	rounds  int    // challenges that were answered
}

// authenticate is Auth within a call.
func (c *Client) authenticate(ctx context.Context, mech SASLClient) error {
	if m, ok := mech.(interface{ UseTLS(*tls.ConnectionState) }); ok {
		m.UseTLS(c.tlsState())
	}
	if m, ok := mech.(interface{ Mask(string) string }); ok {
		c.secrets.mask(m.Mask)
	}
	name, ir, err := mech.Start()
	if errors.Is(err, sasl.ErrArgument) {
		return fmt.Errorf("pop3: AUTH: %w: %w", ErrArgument, err)
	} else if err != nil {
		return fmt.Errorf("pop3: AUTH: %w", err)
	}
	if !isMechanism(name) {
		return fmt.Errorf("pop3: AUTH: %w: no name of a SASL mechanism: %q", ErrArgument, clean([]byte(name), maxLine))
	}
	x := &saslExchange{c: c, ctx: ctx, mech: mech, k: command{verb: "AUTH", arg: name}, pending: ir}
	if err := c.mayReveal(ctx, x.k, name); err != nil {
		return err
	}
	if err = x.open(); err == nil {
		err = x.run()
	}
	c.trace.done(ctx, x.k, 0, err)
	return c.enter(err)
}

// isMechanism checks the form of a name: 1 to 20 of A-Z, 0-9, hyphen and underscore (RFC 4422 section 3.1).
func isMechanism(name string) bool {
	if len(name) < 1 || len(name) > 20 {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !(r < 0x80 && (isDigit(byte(r)) || 'A' <= r && r <= 'Z') || r == '-' || r == '_')
	})
}

func (c *Client) tlsState() *tls.ConnectionState {
	if state, ok := c.TLSConnectionState(); ok {
		return &state
	}
	return nil
}

// open sends AUTH, with the initial response if there is one, the server announces SASL, and it fits (RFC 5034
// section 4).
func (x *saslExchange) open() error {
	if x.pending != nil {
		x.hide(x.pending)
		if err := x.c.needCaps(x.ctx); err != nil {
			return err
		}
		with := x.k
		with.secret = encodeInitial(x.pending)
		if x.c.caps.Has("SASL") && !with.tooLong() {
			x.k = with
			return x.c.send(x.ctx, x.k)
		}
	}
	return x.c.send(x.ctx, x.k)
}

func encodeInitial(ir []byte) string {
	if len(ir) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(ir)
}

// run goes on until the server has decided.
func (x *saslExchange) run() error {
	for {
		line, err := x.readLine()
		if err != nil {
			return err
		}
		if ok, text, valid := parseStatus(line); valid {
			return x.decided(ok, text)
		}
		challenge, err := x.challenge(line)
		if err != nil {
			return err
		}
		if err := x.answer(challenge); err != nil {
			return err
		}
	}
}

// readLine reads a status line or a challenge.
func (x *saslExchange) readLine() ([]byte, error) {
	return x.c.replyLine(x.ctx, x.k, maxChallenge)
}

// challenge takes a line that is not a status line: a plus sign, then a space and base64, or nothing.
func (x *saslExchange) challenge(line []byte) ([]byte, error) {
	encoded, ok := bytes.CutPrefix(line, []byte("+"))
	if !ok || len(encoded) > 0 && encoded[0] != ' ' {
		return nil, x.c.broken(x.k, "neither +OK nor -ERR nor a challenge", line)
	}
	return bytes.TrimPrefix(encoded, []byte(" ")), nil
}

// answer sends what the mechanism has to say to a challenge, or cancels.
func (x *saslExchange) answer(encoded []byte) error {
	challenge, err := decodeStrict(encoded)
	if err == nil && x.rounds == maxRounds {
		err = malformed(fmt.Sprintf("more than %d challenges", maxRounds))
	}
	if err != nil {
		return x.cancel(x.c.nonsense(x.k, encoded, err))
	}
	response := x.pending
	if x.rounds++; response == nil || len(challenge) > 0 && x.k.secret != "" {
		if response, err = x.mech.Next(challenge); err != nil {
			return x.cancel(fmt.Errorf("pop3: %v: %w", x.k, x.c.secrets.foreign(err)))
		}
		x.hide(response)
	}
	x.pending = nil
	return x.write(base64.StdEncoding.AppendEncode(nil, response))
}

// decodeStrict decodes base64. Package base64 skips line ends, even where it is strict.
func decodeStrict(encoded []byte) ([]byte, error) {
	if bytes.ContainsAny(encoded, "\r\n") {
		return nil, malformed("the challenge is not base64")
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, encoded)
	if err != nil {
		return nil, malformed("the challenge is not base64")
	}
	return b, nil
}

// write sends a line of the exchange; the limit on commands does not hold for it.
func (x *saslExchange) write(line []byte) error {
	if err := x.c.quiet(x.k); err != nil {
		return err
	}
	x.c.trace.wroteCommand(x.ctx, command{verb: x.k.verb, arg: x.k.arg, secret: "response"})
	if _, err := x.c.conn.write(append(line, '\r', '\n')); err != nil {
		return x.c.fatal(x.k, err)
	}
	return nil
}

// hide keeps a response out of what is shown, in whole and in the parts that mechanisms put together, if the
// mechanism does not know better what is secret.
func (x *saslExchange) hide(response []byte) {
	if _, knows := x.mech.(interface{ Mask(string) string }); knows {
		return
	}
	x.c.secrets.add(string(response))
	parts := bytes.FieldsFunc(response, func(r rune) bool { return r <= ' ' })
	if len(parts) > 1 {
		for _, part := range parts[1:] {
			x.c.secrets.add(string(part))
		}
	}
}

// cancel ends the exchange because of err (RFC 4422 section 3.5). The one reply to it must be negative.
func (x *saslExchange) cancel(err error) error {
	if err := x.write([]byte("*")); err != nil {
		return err
	}
	line, lost := x.readLine()
	if lost != nil {
		return fmt.Errorf("%w, and then: %w", err, lost)
	}
	ok, text, valid := parseStatus(line)
	switch {
	case !valid || ok:
		return x.c.broken(x.k, "the exchange was cancelled, and the server does not refuse", line)
	case x.failure() != nil:
		return x.refused(x.c.refusal(x.k, text))
	}
	return err
}

// decided takes the server's verdict.
func (x *saslExchange) decided(ok bool, text []byte) error {
	if !ok {
		return x.refused(x.c.refusal(x.k, text))
	}
	proof, needed := x.mech.(interface{ ServerProved() bool })
	switch {
	case needed && !proof.ServerProved():
		return x.c.broken(x.k, "+OK from a server that has not proved itself", text)
	case x.failure() != nil:
		return x.c.broken(x.k, "+OK after the server had said that the login failed", text)
	case x.rounds == 0 && x.k.secret == "":
		return x.c.broken(x.k, "+OK before the mechanism has said anything", text)
	}
	return nil
}

// refused adds the mechanism's words to the server's refusal.
func (x *saslExchange) refused(refusal *Error) error {
	if failure := x.failure(); failure != nil {
		return fmt.Errorf("%w: %w", refusal, x.c.secrets.foreign(failure))
	}
	return refusal
}

// failure is what the server said within the mechanism about a failure, nil if it did not.
func (x *saslExchange) failure() error {
	if m, ok := x.mech.(interface{ Failure() error }); ok {
		return m.Failure()
	}
	return nil
}
