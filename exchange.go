package pop3

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-2d50cddb/pop3/sasl"
)

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
	if err := c.mayReveal(ctx, x.k, name, ""); err != nil {
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
	challenge, err := x.decode(encoded)
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

// decode decodes a challenge. What comes behind a token is no step of the login but the reason why it failed: it may
// lack its padding, as some servers send it, or be no base64 at all, so that the refusal behind it is reached.
func (x *saslExchange) decode(encoded []byte) ([]byte, error) {
	challenge, err := decodeStrict(encoded)
	if err == nil || !isOAuth(x.k.arg) || x.rounds == 0 && x.k.secret == "" {
		return challenge, err
	}
	padding := bytes.Repeat([]byte("="), -len(encoded)&3)
	if challenge, err = decodeStrict(slices.Concat(encoded, padding)); err != nil {
		return bytes.Clone(encoded), nil
	}
	return challenge, nil
}

// isOAuth reports whether the secret of a mechanism is a token.
func isOAuth(mech string) bool { return mech == "XOAUTH2" || mech == "OAUTHBEARER" }

// decodeStrict decodes base64. Package base64 skips line ends, even where it is strict.
func decodeStrict(encoded []byte) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, encoded)
	if err != nil || bytes.ContainsAny(encoded, "\r\n") {
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

// hide keeps a response out of what is shown, as a whole and in the parts that mechanisms put it together from. It
// does nothing for a mechanism that masks its secret itself.
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
