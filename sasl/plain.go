package sasl

import (
	"cmp"
	"unicode/utf8"

	gosasl "github.com/emersion/go-sasl"
)

// Plain returns a client of PLAIN (RFC 4616). It sends name and password unencrypted in one
// message. identity is the user to act as, for administrators; leave it empty otherwise. name and
// password must not be empty. All three must be UTF-8 without NUL. The password is revealed to the
// server.
func Plain(identity, name, password string) Client {
	return &oneMessage{
		exchange: newExchange(gosasl.Plain, password, cmp.Or(
			noNUL("identity", identity),
			notEmpty("name", name), noNUL("name", name),
			notEmpty("password", password), noNUL("password", password),
		)),
		inner: newSecret(gosasl.NewPlainClient(identity, name, password)),
	}
}

// External returns a client of EXTERNAL (RFC 4422 appendix A): the server identifies the user by
// the TLS client certificate. identity is the user to act as, without NUL. With most servers it
// should be empty, so that the server chooses the user.
func External(identity string) Client {
	return &oneMessage{
		exchange: newExchange(gosasl.External, "", noNUL("identity", identity)),
		inner:    newSecret(gosasl.NewExternalClient(identity)),
	}
}

// Anonymous returns a client of ANONYMOUS (RFC 4505), for servers that let everybody in. The
// argument trace is a mail address or another text by which the server's operator can recognise the
// client. It may be empty. It must not contain control characters, and has at most 255 characters.
func Anonymous(trace string) Client {
	argErr := noControls("trace", trace)
	if utf8.RuneCountInString(trace) > 255 {
		argErr = argumentError("trace", "has more than 255 characters")
	}
	return &oneMessage{
		exchange: newExchange(gosasl.Anonymous, "", argErr),
		inner:    newSecret(gosasl.NewAnonymousClient(trace)),
	}
}

// A oneMessage is a mechanism in which the client sends only the initial response, and the server
// sends nothing.
type oneMessage struct {
	exchange
	inner secret[gosasl.Client]
}

func (c *oneMessage) Start() (mech string, ir []byte, err error) {
	if mech, err = c.begin(0); err != nil {
		return mech, nil, err
	}
	return c.inner().Start()
}

func (c *oneMessage) Next(challenge []byte) (response []byte, err error) {
	return nil, c.countChallenge(challenge)
}

// Login returns a client of LOGIN. No RFC describes LOGIN; servers offer it for old clients. It sends name and password
// unencrypted, each after a prompt of the server. It ignores the text of the prompts, which differs from server to
// server. name and password must not be empty, and must be UTF-8 without NUL. The password is revealed to the server.
//
// The LOGIN of go-sasl is not used. It sends the name as an initial response, which many servers
// reject. The only prompt that it accepts is "Password:".
func Login(name, password string) Client {
	return &loginClient{
		exchange: newExchange("LOGIN", password, cmp.Or(
			notEmpty("name", name), noNUL("name", name),
			notEmpty("password", password), noNUL("password", password),
		)),
		name: name,
	}
}

type loginClient struct {
	exchange
	name string
}

func (c *loginClient) Start() (mech string, ir []byte, err error) {
	mech, err = c.begin(2)
	return mech, nil, err
}

func (c *loginClient) Next(challenge []byte) (response []byte, err error) {
	if err := c.countChallenge(challenge); err != nil {
		return nil, err
	}
	if c.challengesLeft == 1 {
		return []byte(c.name), nil
	}
	return []byte(c.secret()), nil
}
