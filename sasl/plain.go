package sasl

import (
	"cmp"
	"unicode/utf8"

	gosasl "github.com/emersion/go-sasl"
)

// Plain is PLAIN (RFC 4616): name and password as they are, in one message. identity is the user to
// act as, which administrators can choose; it is empty for everybody else. name and password must
// not be empty; none of the three may contain NUL or anything but UTF-8. The password is revealed
// to the server.
func Plain(identity, name, password string) Client {
	return &oneMessage{
		exchange: newExchange(gosasl.Plain, password, cmp.Or(
			noNUL("identity", identity),
			present("name", name), noNUL("name", name),
			present("password", password), noNUL("password", password),
		)),
		inner: keep(gosasl.NewPlainClient(identity, name, password)),
	}
}

// External is EXTERNAL (RFC 4422 appendix A): the server knows the user from elsewhere, which is
// the TLS client certificate. identity is the user to act as, without NUL; empty, as it should be
// with most servers, leaves the choice to the server.
func External(identity string) Client {
	return &oneMessage{
		exchange: newExchange(gosasl.External, "", noNUL("identity", identity)),
		inner:    keep(gosasl.NewExternalClient(identity)),
	}
}

// Anonymous is ANONYMOUS (RFC 4505), for servers that let in everybody. trace tells the server's
// operator who came, a mail address or any token; it may be empty, and has no control characters
// and at most 255 characters.
func Anonymous(trace string) Client {
	bad := noControls("trace", trace)
	if utf8.RuneCountInString(trace) > 255 {
		bad = unusable("trace", "has more than 255 characters")
	}
	return &oneMessage{
		exchange: newExchange(gosasl.Anonymous, "", bad),
		inner:    keep(gosasl.NewAnonymousClient(trace)),
	}
}

// A oneMessage is a mechanism in which the client says all in the initial response, and the server
// nothing.
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
	return nil, c.take(challenge)
}

// Login is LOGIN, which no RFC describes and servers offer for the sake of old clients: name and
// password as they are, each after a prompt of the server. The prompts differ from server to server
// and are not looked at. name and password must not be empty, and contain no NUL and nothing but
// UTF-8. The password is revealed to the server.
//
// go-sasl's LOGIN is not used: it sends the name as an initial response, which many servers do not
// take, and then insists on the exact prompt "Password:".
func Login(name, password string) Client {
	return &loginClient{
		exchange: newExchange("LOGIN", password, cmp.Or(
			present("name", name), noNUL("name", name),
			present("password", password), noNUL("password", password),
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
	if err := c.take(challenge); err != nil {
		return nil, err
	}
	if c.left == 1 {
		return []byte(c.name), nil
	}
	return []byte(c.secret()), nil
}
