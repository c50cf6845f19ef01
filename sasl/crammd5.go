package sasl

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
)

// CramMD5 returns a client of CRAM-MD5 (RFC 2195). It sends a digest of the server's challenge, keyed with the secret.
// The secret is not revealed, but anybody who sees the exchange or pretends to be the server can guess it offline. The
// server proves nothing. Over TLS [Plain] is no worse, and [Scram] is better than both. Neither argument may be empty.
// The name must not contain control characters, the secret must not contain NUL, and both must be UTF-8.
//
// This package implements CRAM-MD5 itself, because go-sasl does not have it.
func CramMD5(name, secret string) Client {
	return &cramClient{
		exchange: newExchange("CRAM-MD5", secret, cmp.Or(
			notEmpty("name", name), noControls("name", name),
			notEmpty("secret", secret), noNUL("secret", secret),
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
	if err := c.countChallenge(challenge); err != nil {
		return nil, err
	}
	if len(challenge) == 0 {
		// The digest of an empty challenge is always the same, so a recorded digest could be replayed.
		return nil, errors.New("sasl: CRAM-MD5: the challenge is empty")
	}
	mac := hmac.New(md5.New, []byte(c.secret()))
	mac.Write(challenge)
	digest := hex.EncodeToString(mac.Sum(nil))
	c.secrets.Add(digest)
	return []byte(c.name + " " + digest), nil
}
