package pop3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-2d50cddb/pop3/sasl"
)

// Login logs in with name and password, in the strongest way that both sides have: SCRAM, with channel binding
// where TLS gives it, then PLAIN, LOGIN and USER with PASS. APOP and CRAM-MD5 are used only if Options.Mechanisms
// names them. Where the server has no capabilities to look at, it is USER with PASS.
//
// The secret is sent in at most one form, so that a wrong one counts once against the account: after a refusal
// Login returns the [*Error]. The one exception reveals nothing: where SCRAM with channel binding is refused, SCRAM
// without it is tried, since some servers (Cyrus among them) announce the former and can't do it, which can't be
// told from a wrong password. So the binding is as good as the server. To insist on it, name only -PLUS forms in
// Options.Mechanisms; so that a wrong password never counts twice, name only forms without -PLUS. If there is no
// way at all the error wraps [errors.ErrUnsupported], or [ErrInsecureAuth] if there would be one over a safe
// connection.
//
// The name may hold spaces, and name and password may be other than ASCII, where SASL or UTF8 USER (RFC 6856) can
// carry it.
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
		return c.loginBy(ctx, c.loginPolicy(name, password), name, password)
	})
}

// A way is one way to log in: the name of a SASL mechanism, userPass or apop.
type way string

const (
	userPass way = "USER"
	apop     way = "APOP"
)

// loginPolicy is all that the choice of a way depends on.
type loginPolicy struct {
	caps     Capabilities
	allowed  []string // closed list, nil for the default
	secure   bool     // a password may leave
	binds    bool     // TLS gives a channel binding that is fit for use
	word     bool     // the name can be an argument of USER
	ascii    bool     // name and password are ASCII
	hasStamp bool     // the greeting had a timestamp for APOP
}

// scramHashes are the hashes of SCRAM, strongest first.
var scramHashes = []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"}

// ways gives what can be tried, the strongest first.
func (p loginPolicy) ways() []way {
	var all []way
	for _, hash := range scramHashes {
		if p.binds {
			all = append(all, way(hash+"-PLUS"))
		}
		all = append(all, way(hash))
	}
	all = append(all, "PLAIN", "LOGIN", userPass)
	if p.allowed != nil {
		all = append(all, "CRAM-MD5", apop)
	}
	return slices.DeleteFunc(all, func(w way) bool { return !p.permits(w) || !p.possible(w) })
}

// permits reports whether the caller allows a way.
func (p loginPolicy) permits(w way) bool {
	return p.allowed == nil || slices.ContainsFunc(p.allowed, func(name string) bool {
		return strings.EqualFold(name, string(w))
	})
}

// possible reports whether the server has a way and the connection is fit for it.
func (p loginPolicy) possible(w way) bool {
	switch w {
	case userPass:
		return p.secure && p.word && p.takesUser()
	case apop:
		return p.secure && p.word && p.ascii && p.hasStamp
	}
	return (p.secure || keepsSecret(string(w))) && slices.Contains(p.caps.SASL(), string(w))
}

// takesUser reports whether USER is worth trying: it is announced, or the server announces nothing that is about
// logging in.
func (p loginPolicy) takesUser() bool {
	if !p.ascii && !p.caps.takesUTF8User() {
		return false
	}
	return p.caps.Has("USER") || !p.caps.Has("SASL")
}

// loginPolicy gathers what the choice depends on in this session.
func (c *Client) loginPolicy(name, password string) loginPolicy {
	state, encrypted := c.TLSConnectionState()
	return loginPolicy{
		caps:     c.caps,
		allowed:  c.opts.Mechanisms,
		secure:   c.maySend("PLAIN"),
		binds:    encrypted && state.Version >= tls.VersionTLS13,
		word:     !strings.Contains(name, " "),
		ascii:    isASCII(name) && isASCII(password),
		hasStamp: c.timestamp != "",
	}
}

// loginBy tries the first way that can carry the name and password. What SASLprep refuses, and a channel that gives no
// binding, are found out before anything is sent.
func (c *Client) loginBy(ctx context.Context, p loginPolicy, name, password string) error {
	err := p.noWay()
	for _, w := range p.ways() {
		err = c.loginWith(ctx, w, p, name, password)
		plain, bound := strings.CutSuffix(string(w), "-PLUS")
		switch {
		case err == nil || c.conn.closed() != nil:
			return err
		case errors.Is(err, ErrArgument) || errors.Is(err, sasl.ErrChannelBinding):
		case bound && blamesBinding(err) && p.permits(way(plain)) && p.possible(way(plain)):
			return c.loginUnbound(ctx, way(plain), p, name, password, err)
		default:
			return err
		}
	}
	return err
}

// blamesBinding reports whether the failure of a -PLUS form may be that of the binding alone: the server refused, and not
// for a reason of its own, such as a maildrop that is in use. A binding that it saw and found to be another one means
// that somebody is in between.
func blamesBinding(err error) bool {
	if reason, ok := errors.AsType[*sasl.ScramError](err); ok && reason.Value == "channel-bindings-dont-match" {
		return false
	}
	refusal, ok := errors.AsType[*Error](err)
	return ok && (refusal.Code == "" || refusal.Code.Is(CodeAuth))
}

// loginUnbound tries SCRAM without channel binding after it failed with it.
func (c *Client) loginUnbound(ctx context.Context, w way, p loginPolicy, name, password string, bound error) error {
	err := c.loginWith(ctx, w, p, name, password)
	if err == nil || sameRefusal(err, bound) {
		return err
	}
	return fmt.Errorf("%w (with channel binding it had failed before: %w)", err, bound)
}

// sameRefusal reports whether the server said the same twice.
func sameRefusal(a, b error) bool {
	first, ok := errors.AsType[*Error](a)
	second, too := errors.AsType[*Error](b)
	return ok && too && first.Code == second.Code && first.Text == second.Text
}

// noWay says why nothing can be tried.
func (p loginPolicy) noWay() error {
	p.secure = true // to see whether it is for the connection
	if len(p.ways()) > 0 {
		return fmt.Errorf("pop3: login: %w", ErrInsecureAuth)
	}
	offer := clean([]byte(strings.Join(p.caps.SASL(), " ")), maxLine)
	return fmt.Errorf("pop3: login: the server offers no way that can be used (SASL %s, USER %v): %w",
		offer, p.caps.Has("USER"), errors.ErrUnsupported)
}

// loginWith logs in one way.
func (c *Client) loginWith(ctx context.Context, w way, p loginPolicy, name, password string) error {
	switch w {
	case userPass:
		if err := (command{verb: "PASS", secret: password}).check(); err != nil { // before USER is sent
			return err
		}
		if err := c.user(ctx, name); err != nil {
			return err
		}
		return c.pass(ctx, password)
	case apop:
		return c.apop(ctx, name, password)
	}
	mech, err := p.mechanism(w, c.opts.ScramKeys, name, password)
	if err != nil {
		return fmt.Errorf("pop3: login: %w: %w", ErrArgument, err)
	}
	return c.authenticate(ctx, mech)
}

// mechanism makes the SASL mechanism of a way. SCRAM without binding tells a server that announces none that it
// could be had, which uncovers who took it out of the list (RFC 5802 section 6).
func (p loginPolicy) mechanism(w way, keys *sasl.ScramKeys, name, password string) (sasl.Client, error) {
	switch mech := string(w); {
	case mech == "PLAIN":
		return sasl.Plain("", name, password), nil
	case mech == "LOGIN":
		return sasl.Login(name, password), nil
	case mech == "CRAM-MD5":
		return sasl.CramMD5(name, password), nil
	case strings.HasSuffix(mech, "-PLUS"), !p.binds, slices.Contains(p.caps.SASL(), mech+"-PLUS"):
		return keys.Scram(mech, name, password)
	default:
		return keys.ScramNoPlus(mech, name, password)
	}
}
