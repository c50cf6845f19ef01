package pop3

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
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
	defer func() { c.loggingIn = false }()
	var err error
	c.guard(func() { err = steps() })
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: the login failed, the server hung up instead of answering", err)
	}
	return err
}

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
// server can take word if that is not ASCII. mech is "" for commands without SASL, word is "" for those with it.
func (c *Client) mayReveal(ctx context.Context, k command, mech, word string) error {
	if !c.maySend(mech) {
		return fmt.Errorf("pop3: %s: %w", k, ErrInsecureAuth)
	}
	if isASCII(word) {
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
	case c.opts.InsecureAuth || c.peer.verified || keepsSecret(mech):
		return true
	case isOAuth(mech):
		return false
	}
	return c.peer.loopback
}

// keepsSecret reports whether a mechanism is known not to reveal the secret.
func keepsSecret(mech string) bool {
	switch mech {
	case "DIGEST-MD5", "EXTERNAL", "ANONYMOUS", "GSSAPI":
		return true
	}
	return strings.HasPrefix(mech, "SCRAM-") || strings.HasPrefix(mech, "CRAM-") || strings.HasPrefix(mech, "GS2-")
}
