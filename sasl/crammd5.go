package sasl

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
)

// CramMD5 is CRAM-MD5 (RFC 2195): a digest of the server's challenge, keyed with the secret. The
// secret is not revealed, but can be guessed at offline by whoever listens or plays the server, and
// the server proves nothing: over TLS [Plain] is no worse, and [Scram] is better than both. Neither
// argument may be empty; the name has no control characters, the secret no NUL, and both are UTF-8.
//
// It is our own because go-sasl has none, and because it is one line.
func CramMD5(name, secret string) Client {
	return &cramClient{
		exchange: newExchange("CRAM-MD5", secret, cmp.Or(
			present("name", name), noControls("name", name),
			present("secret", secret), noNUL("secret", secret),
		)),
		name: name,
	}
}

type cramClient struct {
	exchange
	name string
}

func (c *cramClient) Start() (mech string, ir []byte, err error) {
	mech, err = c.begin(1)
	return mech, nil, err
}

func (c *cramClient) Next(challenge []byte) (response []byte, err error) {
	if err := c.take(challenge); err != nil {
		return nil, err
	}
	if len(challenge) == 0 {
		// The digest of nothing is the same every time, and good for a replay.
		return nil, errors.New("sasl: CRAM-MD5: the challenge is empty")
	}
	mac := hmac.New(md5.New, []byte(c.secret()))
	mac.Write(challenge)
	digest := hex.EncodeToString(mac.Sum(nil))
	c.secrets.Add(digest)
	return []byte(c.name + " " + digest), nil
}
