package pop3

import (
	"bytes"
	"encoding/base64"
)

// secrets are the octets of a login that must not be shown, in the forms in which they go over the wire. A server
// that repeats one of them in its reply would carry it into an error and a trace otherwise.
type secrets [][]byte

// minSecret is the shortest one that is masked: fewer octets are in every text.
const minSecret = 3

// add notes a secret, plain and in base64.
func (s *secrets) add(secret string) {
	if len(secret) < minSecret {
		return
	}
	*s = append(*s, []byte(secret), base64.StdEncoding.AppendEncode(nil, []byte(secret)))
}

// show makes octets of the server fit to be shown: clean, with three stars for every secret.
func (s secrets) show(line []byte, limit int) string {
	for _, secret := range s {
		line = bytes.ReplaceAll(line, secret, []byte("***"))
	}
	return clean(line, limit)
}
