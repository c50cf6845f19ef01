package sasl

import "cmp"

// Login is LOGIN, which no RFC describes and servers offer for the sake of old clients: name and
// password as they are, each after a prompt of the server. The prompts differ from server to server
// and are not looked at. name and password must not be empty, and contain no NUL and nothing but
// UTF-8. The password is revealed to the server.
//
// go-sasl's LOGIN is not used: it sends the name as an initial response, which many servers do not
// take, and then insists on the exact prompt "Password:".
func Login(name, password string) Client {
	return &loginClient{
		exchange: exchange{
			hidden: hidden{"LOGIN"},
			bad: cmp.Or(
				present("name", name), noNUL("name", name),
				present("password", password), noNUL("password", password),
			),
			secret: keep(password),
		},
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
