package pop3

import (
	"bytes"
	"cmp"
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

	"github.com/seed-2d50cddb/pop3/internal/printable"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A SASLClient is one run of a SASL mechanism (RFC 4422). It has the methods of Client in
// github.com/emersion/go-sasl, so that mechanisms of other packages can be used too. Package
// [github.com/seed-2d50cddb/pop3/sasl] has those that POP3 servers offer.
//
// [Client.Auth] also calls these methods if the mechanism has them:
//
//	UseTLS(*tls.ConnectionState)   // called before Start, for channel binding; nil without TLS.
//	ShowsSecret(text string) bool  // reports whether a text of the server repeats the secret.
//	ServerProved() bool            // if false at the end, +OK is rejected (SCRAM).
//	Failure() error                // the reason that the server gave for the failure (OAuth).
type SASLClient interface {
	// Start returns the name of the mechanism and the initial response. The response is nil if
	// the server sends the first message. It is empty but not nil if the client sends the
	// first message and it is empty.
	Start() (mech string, ir []byte, err error)
	// Next returns the response to a challenge. If it returns an error, the exchange is canceled.
	Next(challenge []byte) (response []byte, err error)
}

// User sends the name of the maildrop (USER, RFC 1939 section 7). [Client.Pass] must be the next command. The
// name is sent only where the password could be sent; see [ErrInsecureAuth]. A name that is not ASCII is sent
// only if the server announces "UTF8 USER" (RFC 6856 section 2.2); otherwise User fails with [ErrArgument]. A
// refusal is an [*Error].
func (c *Client) User(ctx context.Context, name string) error {
	if err := checkWord("name", name); err != nil {
		return err
	}
	k := command{verb: "USER", arg: name}
	return c.login(ctx, k, nil, func() error { return c.user(ctx, k) })
}

// Pass sends the password (PASS, RFC 1939 section 7). It fails with [ErrState] unless the command before it was a
// successful [Client.User]. Spaces in the password are sent unchanged. A password that is not ASCII is sent only if the
// server announces "UTF8 USER" and [Client.Capa] was called before User; otherwise Pass fails with [ErrArgument]. After
// a nil error the session is in the TRANSACTION state. A refusal is an [*Error]; see [Error.RejectsCredentials] and
// [Error.Temporary].
func (c *Client) Pass(ctx context.Context, password string) error {
	if err := checkText("password", password); err != nil {
		return err
	}
	k := command{verb: "PASS", secret: password}
	return c.login(ctx, k, []string{password}, func() error {
		if !c.userAccepted {
			return fmt.Errorf("pop3: PASS: %w: the command before it must be USER", ErrState)
		}
		return c.pass(ctx, k)
	})
}

// Apop logs in with a digest of the greeting's timestamp and a shared secret (APOP, RFC 1939 section 7). MD5
// protects the secret badly, so use it with old servers only. [Client.Login] uses it only if Options.Mechanisms
// lists it. Apop fails with an error that wraps [errors.ErrUnsupported] if the greeting had no timestamp, or
// was received in clear before STLS and so cannot be trusted. A refusal is an [*Error].
func (c *Client) Apop(ctx context.Context, name, secret string) error {
	if err := checkWord("name", name); err != nil {
		return err
	}
	if err := checkText("secret", secret); err != nil {
		return err
	}
	k := c.apopCommand(name, secret)
	return c.login(ctx, k, []string{secret}, func() error { return c.apop(ctx, k, secret) })
}

// Auth logs in with a SASL mechanism (AUTH, RFC 5034), whether or not the server announces it. A mechanism that reveals
// the secret (PLAIN, LOGIN, XOAUTH2, OAUTHBEARER, and any that this package does not know) needs TLS that verified the
// server's certificate, or Options.InsecureAuth. Mechanisms with a password are also allowed to a server on the same
// machine. Otherwise Auth returns [ErrInsecureAuth] and sends nothing.
//
// An initial response is sent together with AUTH if the server announces SASL, the line is not too long and
// Options.Compat.NoInitialResponse is not set. Otherwise it is sent on a line of its own.
//
// A refusal is an [*Error]. With OAuth 2.0 the error also wraps a [*sasl.OAuthError] if the server sent a
// reason. If the mechanism fails on the client's side, the exchange is canceled. In both cases the session can
// be used for another attempt, unless the server closes the connection.
func (c *Client) Auth(ctx context.Context, mech SASLClient) error {
	if mech == nil {
		return fmt.Errorf("pop3: AUTH: %w: the mechanism is nil", ErrArgument)
	}
	return c.login(ctx, command{verb: "AUTH"}, nil, func() error { return c.authenticate(ctx, mech) })
}

// login runs the steps of a login as one call. It hides secrets in all later errors and traces.
func (c *Client) login(ctx context.Context, k command, secrets []string, steps func() error) error {
	return c.call(ctx, k, func() error {
		c.loggingIn = true
		defer func() { c.loggingIn = false }()
		for _, secret := range secrets {
			c.secrets.Add(secret)
		}
		var err error
		c.guard(func() { err = steps() })
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w (the login failed)", err)
		}
		return err
	}, StateAuthorization)
}

// user carries out USER.
func (c *Client) user(ctx context.Context, k command) error {
	if err := c.checkSecretAllowed(ctx, k, "", k.arg); err != nil {
		return err
	}
	err := c.exchange(ctx, k, nil)
	c.userAccepted = err == nil
	return err
}

// pass carries out PASS.
func (c *Client) pass(ctx context.Context, k command) error {
	if !isASCII(k.secret) && !c.capsKnown { // CAPA must not be sent between USER and PASS
		return fmt.Errorf("pop3: PASS: %w: it is not ASCII: call Capa before User", ErrArgument)
	}
	if err := c.checkSecretAllowed(ctx, k, "", k.secret); err != nil {
		return err
	}
	return c.enterTransaction(c.exchange(ctx, k, nil))
}

// apop carries out APOP with the digest of secret in k.
func (c *Client) apop(ctx context.Context, k command, secret string) error {
	if c.timestamp == "" {
		return fmt.Errorf("pop3: APOP: no timestamp in the greeting: %w", errors.ErrUnsupported)
	}
	if !isASCII(secret) {
		return fmt.Errorf("pop3: APOP: secret: %w: it is not ASCII", ErrArgument)
	}
	if err := c.checkSecretAllowed(ctx, k, "", k.arg); err != nil {
		return err
	}
	c.secrets.Add(k.secret)
	return c.enterTransaction(c.exchange(ctx, k, nil))
}

// apopCommand returns APOP with the digest of RFC 1939 section 7.
func (c *Client) apopCommand(name, secret string) command {
	digest := md5.Sum([]byte(c.timestamp + secret))
	return command{verb: "APOP", arg: name, secret: hex.EncodeToString(digest[:])}
}

// enterTransaction enters the TRANSACTION state if err is nil. The capabilities must be read again.
func (c *Client) enterTransaction(err error) error {
	if err == nil {
		c.state.Store(int32(StateTransaction))
		c.forgetCaps()
	}
	return err
}

// checkSecretAllowed is called before a secret is written. It checks that the secret may be sent over this connection.
// For a command without SASL, mech is "", and word is an argument; if it is not ASCII, the server must support that.
// For a command with SASL, word is "".
func (c *Client) checkSecretAllowed(ctx context.Context, k command, mech, word string) error {
	if !c.secretAllowed(mech) {
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

// secretAllowed reports whether a secret may be sent. Passwords may be sent in clear to a server on this machine, but
// tokens may not.
func (c *Client) secretAllowed(mech string) bool {
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

// Login logs in with name and password, by the strongest method that both sides have. The strongest is SCRAM, with
// channel binding if TLS supports it. PLAIN, LOGIN, and USER with PASS follow. Login uses APOP and CRAM-MD5 only if
// Options.Mechanisms lists them. On verified TLS it tries them after the other methods. On other connections it tries
// them before PLAIN, because others could read a password there. If the server announces nothing, Login uses USER with
// PASS.
//
// Login sends the secret by one method only, so that the server counts a wrong password only once. After a refusal
// Login returns the [*Error]. There is one exception, which does not reveal the secret: if SCRAM with channel binding
// is refused, Login tries SCRAM without it. Some servers (Cyrus among them) announce channel binding without supporting
// it, and their refusal looks like that of a wrong password. To insist on channel binding, list only -PLUS forms in
// Options.Mechanisms. To make sure that the server never counts a wrong password twice, list only forms without -PLUS.
//
// If no method can be used, the error says why: because of the Options, the name or password, the connection, or the
// server. It wraps [ErrInsecureAuth] if a safe connection would help, and otherwise [errors.ErrUnsupported].
//
// The name may contain spaces, and name and password may contain characters other than ASCII, if the server has
// SASL or UTF8 USER (RFC 6856).
func (c *Client) Login(ctx context.Context, name, password string) error {
	if err := checkText("name", name); err != nil {
		return err
	}
	if err := checkText("password", password); err != nil {
		return err
	}
	return c.login(ctx, command{verb: "login"}, []string{password}, func() error {
		if err := c.needCaps(ctx); err != nil {
			return err
		}
		return c.loginBy(ctx, c.newLoginPolicy(name, password), name, password)
	})
}

// A loginMethod is the name of a SASL mechanism, userPass or apop.
type loginMethod string

const (
	userPass loginMethod = "USER"
	apop     loginMethod = "APOP"
)

// A loginPolicy contains the facts that decide which login methods can be used.
type loginPolicy struct {
	caps          Capabilities
	allowed       []string // Options.Mechanisms, nil for the default
	passwordOK    bool     // a password may be sent
	encrypted     bool
	verified      bool // TLS verified the peer, so nobody else can read a password
	canBind       bool // TLS supports channel binding
	nameIsWord    bool // the name can be an argument of USER
	asciiName     bool
	asciiPassword bool
	hasTimestamp  bool // the greeting had a timestamp for APOP
}

// newLoginPolicy returns the policy for this session and account.
func (c *Client) newLoginPolicy(name, password string) loginPolicy {
	state, encrypted := c.TLSConnectionState()
	return loginPolicy{
		caps:          c.caps,
		allowed:       c.opts.Mechanisms,
		passwordOK:    c.secretAllowed("PLAIN"),
		encrypted:     encrypted,
		verified:      c.peer.verified,
		canBind:       encrypted && state.Version >= tls.VersionTLS13,
		nameIsWord:    !strings.Contains(name, " "),
		asciiName:     isASCII(name),
		asciiPassword: isASCII(password),
		hasTimestamp:  c.timestamp != "",
	}
}

// methods returns the methods that can be tried, the strongest first.
func (p loginPolicy) methods() []loginMethod {
	var all []loginMethod
	for _, hash := range []loginMethod{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"} {
		if p.canBind {
			all = append(all, hash+"-PLUS")
		}
		all = append(all, hash)
	}
	passwords, digests := []loginMethod{"PLAIN", "LOGIN", userPass}, []loginMethod{"CRAM-MD5", apop}
	switch {
	case p.allowed == nil:
		all = append(all, passwords...)
	case p.verified:
		all = slices.Concat(all, passwords, digests)
	default:
		all = slices.Concat(all, digests, passwords)
	}
	return slices.DeleteFunc(all, func(m loginMethod) bool { return !p.callerAllows(m) || !p.possible(m) })
}

// callerAllows reports whether Options.Mechanisms allows a method.
func (p loginPolicy) callerAllows(m loginMethod) bool {
	return p.allowed == nil || slices.ContainsFunc(p.allowed, func(name string) bool {
		return strings.EqualFold(name, string(m))
	})
}

// possible reports whether the server has a method and the connection is suitable for it.
func (p loginPolicy) possible(m loginMethod) bool {
	switch m {
	case userPass:
		return p.passwordOK && p.nameIsWord && p.takesUser()
	case apop:
		return p.passwordOK && p.nameIsWord && p.asciiName && p.asciiPassword && p.hasTimestamp
	}
	return (p.passwordOK || keepsSecret(string(m))) &&
		(p.triesUnannounced() || slices.Contains(p.caps.SASL(), string(m)))
}

// triesUnannounced reports whether Login tries the mechanisms that the caller lists even if the server has not
// announced them. It does if the server's capabilities are not known.
func (p loginPolicy) triesUnannounced() bool {
	return p.caps == nil && p.allowed != nil && !p.callerAllows(userPass)
}

// takesUser reports whether USER is worth trying: the server announces it, or announces nothing about logging
// in.
func (p loginPolicy) takesUser() bool {
	switch {
	case !(p.asciiName && p.asciiPassword) && !p.caps.takesUTF8User():
		return false
	case p.wantsTLS():
		return p.allowed != nil // callerAllows has checked that the caller lists USER
	}
	return p.caps.Has("USER") || !p.caps.Has("SASL")
}

// wantsTLS reports whether the server announces that STLS must come before the login.
func (p loginPolicy) wantsTLS() bool {
	return !p.encrypted && p.caps.Has("STLS") && !p.caps.Has("USER") && !p.caps.Has("SASL")
}

// loginBy tries the first method that supports the name and password. If SASLprep rejects a character, or if the
// connection does not support channel binding, nothing was sent yet. Then loginBy tries the next method.
func (c *Client) loginBy(ctx context.Context, p loginPolicy, name, password string) error {
	methods := p.methods()
	if len(methods) == 0 {
		return c.explainNoMethod(p)
	}
	var err error
	for i, m := range methods {
		err = c.loginWith(ctx, m, p, name, password)
		if errors.Is(err, ErrArgument) || errors.Is(err, sasl.ErrChannelBinding) {
			continue
		}
		unbound := loginMethod(strings.TrimSuffix(string(m), "-PLUS"))
		if unbound != m && slices.Contains(methods[i:], unbound) && c.conn.closed() == nil && blamesBinding(err) {
			err = c.loginUnbound(ctx, unbound, p, name, password, err)
		}
		return explainScram(err, m, methods)
	}
	return err
}

// blamesBinding reports whether a -PLUS mechanism may have failed only because of the binding. It returns true if the
// server refused and gave no other reason, such as a maildrop that is in use. If the server says that the bindings
// differ, blamesBinding returns false, because then an attacker is between the client and the server.
func blamesBinding(err error) bool {
	if reason, ok := errors.AsType[*sasl.ScramError](err); ok && reason.Value == "channel-bindings-dont-match" {
		return false
	}
	refusal, ok := errors.AsType[*Error](err)
	return ok && (refusal.Code == "" || refusal.Code.Is(CodeAuth))
}

// loginUnbound tries SCRAM without channel binding after SCRAM with channel binding has failed with the error bound.
func (c *Client) loginUnbound(
	ctx context.Context, m loginMethod, p loginPolicy, name, password string, bound error,
) error {
	err := c.loginWith(ctx, m, p, name, password)
	first, _ := errors.AsType[*Error](bound)
	if second, ok := errors.AsType[*Error](err); ok && first.Code == second.Code && first.Text == second.Text {
		return err
	}
	if err != nil {
		err = fmt.Errorf("%w (with channel binding it had failed before: %w)", err, bound)
	}
	return err
}

// explainScram adds advice to a refusal of SCRAM that may not be about the password. Some servers announce SCRAM, but
// have keys for it only for some accounts.
func explainScram(err error, m loginMethod, methods []loginMethod) error {
	isScram := func(m loginMethod) bool { return strings.HasPrefix(string(m), "SCRAM-") }
	weaker := slices.IndexFunc(methods, func(m loginMethod) bool { return !isScram(m) })
	refusal, ok := errors.AsType[*Error](err)
	if !ok || weaker < 0 || !isScram(m) {
		return err
	}
	if rejected, _ := refusal.RejectsCredentials(); !rejected {
		return err
	}
	refusal.otherMethods = true
	return fmt.Errorf("%w (if the password is right, the account may have no keys for SCRAM: "+
		"to log in with %s, name it alone in Options.Mechanisms)", err, methods[weaker])
}

// explainNoMethod returns why no method can be tried, and what to do.
func (c *Client) explainNoMethod(p loginPolicy) error {
	possibleWith := func(change func(p *loginPolicy)) bool {
		changed := p
		change(&changed)
		return len(changed.methods()) > 0
	}
	offer := "SASL " + cmp.Or(strings.Join(p.caps.SASL(), " "), "without mechanisms")
	if !p.caps.Has("SASL") {
		offer = "no SASL"
	}
	if p.caps.Has("USER") {
		offer += ", USER"
	}
	offer = c.secrets.Hide(offer)
	reason := "the server offers nothing that Login knows (" + offer + "): call Auth with a mechanism of package sasl"
	switch {
	case possibleWith(func(p *loginPolicy) { p.passwordOK = true }):
		return fmt.Errorf("pop3: login: %w", ErrInsecureAuth)
	case p.wantsTLS():
		reason = "the server lets nobody log in before TLS: connect with DialStartTLS"
	case p.allowed != nil && possibleWith(func(p *loginPolicy) { p.passwordOK, p.allowed = true, allMethods }):
		reason = "Options.Mechanisms (" + printable.Clean(strings.Join(p.allowed, " ")) + ") allows nothing that " +
			"the server offers (" + offer + ") and Login knows (" + strings.Join(allMethods, " ") + ")"
	case possibleWith(func(p *loginPolicy) { p.passwordOK, p.nameIsWord = true, true }):
		reason = "the name contains a space, so USER cannot send it, and the server offers nothing else: " + offer
	case possibleWith(func(p *loginPolicy) { p.passwordOK, p.asciiName, p.asciiPassword = true, true, true }):
		field := "the password"
		if p.asciiPassword {
			field = "the name"
		}
		reason = field + " is not ASCII, and the server announces neither UTF8 USER nor a mechanism that can send it " +
			"(" + offer + "): use only ASCII characters in it"
	}
	return fmt.Errorf("pop3: login: %s: %w", reason, errors.ErrUnsupported)
}

// allMethods are the valid names in Options.Mechanisms.
var allMethods = []string{
	"SCRAM-SHA-512-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1",
	"PLAIN", "LOGIN", "USER", "CRAM-MD5", "APOP",
}

// loginWith logs in by one method.
func (c *Client) loginWith(ctx context.Context, m loginMethod, p loginPolicy, name, password string) error {
	switch m {
	case userPass:
		pass := command{verb: "PASS", secret: password}
		if err := pass.check(); err != nil { // before USER is sent
			return err
		}
		if err := c.user(ctx, command{verb: "USER", arg: name}); err != nil {
			return err
		}
		return c.pass(ctx, pass)
	case apop:
		return c.apop(ctx, c.apopCommand(name, password), password)
	}
	mech, err := p.mechanism(m, c.opts.ScramKeys, name, password)
	if err != nil {
		return fmt.Errorf("pop3: login: %w: %w", ErrArgument, err)
	}
	return c.authenticate(ctx, mech)
}

// mechanism returns the SASL mechanism of a method. In SCRAM without binding, the client tells the server that no -PLUS
// form was announced. If an attacker has removed that form from the server's list, the server notices that (RFC 5802
// section 6).
func (p loginPolicy) mechanism(m loginMethod, keys *sasl.ScramKeys, name, password string) (sasl.Client, error) {
	switch mech := string(m); {
	case mech == "PLAIN":
		return sasl.Plain("", name, password), nil
	case mech == "LOGIN":
		return sasl.Login(name, password), nil
	case mech == "CRAM-MD5":
		return sasl.CramMD5(name, password), nil
	case strings.HasSuffix(mech, "-PLUS"), !p.canBind, slices.Contains(p.caps.SASL(), mech+"-PLUS"):
		return keys.Scram(mech, name, password)
	default:
		return keys.ScramNoPlus(mech, name, password)
	}
}

// These are limits on an exchange. A challenge, in base64 and with its line end, must fit into the buffer.
const (
	maxRounds    = 16
	maxChallenge = bulkMemory
)

// A saslExchange is the exchange that AUTH starts (RFC 5034 section 4).
type saslExchange struct {
	c            *Client
	ctx          context.Context
	mech         SASLClient
	hidesSecrets bool // mech has ShowsSecret, and its errors contain no secret
	k            command
	pending      []byte // the initial response, while it may still have to be sent
	responded    bool   // the mechanism has sent a response, perhaps in the AUTH command
	rounds       int    // challenges that were answered
}

// authenticate carries out AUTH. It runs within a call of Auth or Login.
func (c *Client) authenticate(ctx context.Context, mech SASLClient) error {
	if m, ok := mech.(interface{ UseTLS(*tls.ConnectionState) }); ok {
		m.UseTLS(c.tlsState())
	}
	hider, hidesSecrets := mech.(interface{ ShowsSecret(text string) bool })
	if hidesSecrets {
		c.secrets.AddFunc(hider.ShowsSecret)
	}
	name, ir, err := mech.Start()
	if !hidesSecrets {
		err = c.secrets.HideError(err)
	}
	if errors.Is(err, sasl.ErrArgument) {
		return fmt.Errorf("pop3: AUTH: %w: %w", ErrArgument, err)
	} else if err != nil {
		return fmt.Errorf("pop3: AUTH: %w", err)
	}
	if !isMechanism(name) {
		return fmt.Errorf("pop3: AUTH: %w: not the name of a SASL mechanism: %q", ErrArgument, printable.Clean(name))
	}
	x := &saslExchange{c: c, ctx: ctx, mech: mech, hidesSecrets: hidesSecrets,
		k: command{verb: "AUTH", arg: name}, pending: ir}
	if err := c.checkSecretAllowed(ctx, x.k, name, ""); err != nil {
		return err
	}
	if err = x.open(); err == nil {
		err = x.explainInitial(x.run())
	}
	c.trace.done(ctx, x.k, 0, err)
	return c.enterTransaction(err)
}

// isMechanism checks the form of a name: 1 to 20 characters from A-Z, 0-9, hyphen and underscore (RFC 4422 section
// 3.1).
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

// open sends AUTH. It includes the initial response if there is one, the server announces SASL, and the line is
// not too long (RFC 5034 section 4).
func (x *saslExchange) open() error {
	if x.pending != nil {
		x.hide(x.pending)
		if err := x.c.needCaps(x.ctx); err != nil {
			return err
		}
		k := x.k
		k.secret = encodeInitial(x.pending)
		if x.c.caps.Has("SASL") && !k.tooLong() && !x.c.opts.Compat.NoInitialResponse {
			x.k, x.responded = k, true
		}
	}
	return x.c.send(x.ctx, x.k)
}

// explainInitial adds advice if a server has rejected AUTH with an initial response.
func (x *saslExchange) explainInitial(err error) error {
	refusal, refused := errors.AsType[*Error](err)
	lost := errors.Is(err, io.ErrUnexpectedEOF)
	if x.k.secret == "" || x.rounds > 0 || !lost && !(refused && refusal.Code == "" && blamesSyntax(refusal.Text)) {
		return err
	}
	return fmt.Errorf("%w (if the server rejects a response on the same line as AUTH %s, "+
		"set Options.Compat.NoInitialResponse)", err, x.k.arg)
}

// blamesSyntax reports whether the text of a refusal is about the syntax of a command.
func blamesSyntax(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{
		"parameter", "argument", "syntax", "command", "usage", "recogni", "unexpected", "malformed", "too long",
		"protocol error",
	}, func(word string) bool { return strings.Contains(text, word) })
}

func encodeInitial(ir []byte) string {
	if len(ir) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(ir)
}

// run carries out the exchange until the server has decided.
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

// challenge decodes a line that is not a status line. It must be a plus sign, then nothing or a space and
// base64.
func (x *saslExchange) challenge(line []byte) ([]byte, error) {
	encoded, ok := bytes.CutPrefix(line, []byte("+"))
	if !ok || len(encoded) > 0 && encoded[0] != ' ' {
		return nil, x.c.protocolError(x.k, "neither +OK nor -ERR nor a challenge", line)
	}
	return bytes.TrimPrefix(encoded, []byte(" ")), nil
}

// answer sends the response to a challenge, or cancels the exchange.
func (x *saslExchange) answer(encoded []byte) error {
	challenge, err := x.decode(encoded)
	if err == nil && x.rounds == maxRounds {
		err = malformed(fmt.Sprintf("more than %d challenges", maxRounds))
	}
	if err != nil {
		return x.cancel(x.c.malformedReply(x.k, []byte("+ challenge"), err))
	}
	// The challenge is a SCRAM signature. In a trace, it could be used to guess passwords offline.
	if bytes.HasPrefix(challenge, []byte("v=")) {
		x.hide(challenge)
	}
	response := x.pending
	if x.rounds++; response == nil || x.responded && len(challenge) > 0 {
		if response, err = x.mech.Next(challenge); err != nil {
			return x.cancel(fmt.Errorf("pop3: %v: %w", x.k, x.shown(err)))
		}
		x.hide(response)
	}
	x.pending, x.responded = nil, true
	return x.write(base64.StdEncoding.AppendEncode(nil, response))
}

// decode decodes a challenge. A challenge after a token contains the reason why the login failed. Some servers send
// that challenge without padding, or not in base64. decode accepts both, so that the refusal after the challenge can be
// read.
func (x *saslExchange) decode(encoded []byte) ([]byte, error) {
	challenge, err := decodeStrict(encoded)
	if err == nil || !isOAuth(x.k.arg) || !x.responded {
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

// decodeStrict decodes base64. It rejects CR and LF, which package base64 skips even in strict mode.
func decodeStrict(encoded []byte) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, encoded)
	if err != nil || bytes.ContainsAny(encoded, "\r\n") {
		return nil, malformed("the challenge is not base64")
	}
	return b, nil
}

// write sends a line of the exchange. The limit on the length of commands does not apply to such a line.
func (x *saslExchange) write(line []byte) error {
	if err := x.c.checkUnsolicited(x.k); err != nil {
		return err
	}
	x.c.trace.wroteCommand(x.ctx, command{verb: x.k.verb, arg: x.k.arg, secret: "response"})
	if _, err := x.c.conn.write(append(line, '\r', '\n')); err != nil {
		return x.c.closeWithError(x.k, err)
	}
	return nil
}

// hide adds the last field of a message to the secrets of the session. In most mechanisms that field contains the
// secret. hide does nothing for a mechanism that has ShowsSecret.
func (x *saslExchange) hide(message []byte) {
	fields := bytes.FieldsFunc(message, func(r rune) bool { return r < ' ' })
	if x.hidesSecrets || len(fields) == 0 {
		return
	}
	last := fields[len(fields)-1]
	x.c.secrets.Add(strings.TrimPrefix(string(last), "auth=Bearer "))
}

// shown returns an error of the mechanism, with any secrets removed.
func (x *saslExchange) shown(err error) error {
	if x.hidesSecrets {
		return err
	}
	return x.c.secrets.HideError(err)
}

// cancel ends the exchange because of err (RFC 4422 section 3.5). The server must reply with -ERR.
func (x *saslExchange) cancel(err error) error {
	if err := x.write([]byte("*")); err != nil {
		return err
	}
	line, readErr := x.readLine()
	if readErr != nil {
		return fmt.Errorf("%w, and then: %w", err, readErr)
	}
	ok, text, valid := parseStatus(line)
	switch {
	case !valid || ok:
		return fmt.Errorf("%w: %w",
			x.c.protocolError(x.k, "the exchange was cancelled, but the server did not reply -ERR", line), err)
	case x.failure() != nil:
		return x.refused(x.c.refusal(x.k, text))
	}
	return err
}

// decided handles the server's final reply.
func (x *saslExchange) decided(ok bool, text []byte) error {
	if !ok {
		return x.refused(x.c.refusal(x.k, text))
	}
	proof, needed := x.mech.(interface{ ServerProved() bool })
	switch {
	case needed && !proof.ServerProved():
		return x.c.protocolError(x.k, "+OK from a server that has not proved itself", text)
	case x.failure() != nil:
		return x.c.protocolError(x.k, "+OK after the server had said that the login failed", text)
	case !x.responded:
		return x.c.protocolError(x.k, "+OK before the mechanism has sent anything", text)
	}
	return nil
}

// refused adds to the refusal the reason that the server sent in a challenge.
func (x *saslExchange) refused(refusal *Error) error {
	if failure := x.failure(); failure != nil {
		return fmt.Errorf("%w: %w", refusal, x.shown(failure))
	}
	return refusal
}

// failure returns the reason that the server sent in a challenge, or nil.
func (x *saslExchange) failure() error {
	if m, ok := x.mech.(interface{ Failure() error }); ok {
		return m.Failure()
	}
	return nil
}
