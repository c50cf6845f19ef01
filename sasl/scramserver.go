package sasl

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The bounds on the iterations that a server may ask for. The lower one is that of RFC 5802 section
// 5.1 and RFC 7677 section 4. At the upper one a login takes less than a second.
const (
	minIterations = 4096
	maxIterations = 1_000_000
)

// checkServerFirst checks a server-first-message (RFC 5802 section 7) before any hashing: "r=",
// "s=" and "i=" in this order, then extensions. nonce is the client's. The errors hold nothing of
// the message.
func checkServerFirst(msg, nonce string) error {
	if strings.HasPrefix(msg, "m=") {
		return errMandatory
	}
	fields := strings.Split(msg, ",")
	if len(fields) < 3 {
		return errors.New("has not the three fields r=, s= and i=")
	}
	if err := checkNonce(fields[0], nonce); err != nil {
		return err
	}
	if salt, ok := strings.CutPrefix(fields[1], "s="); !ok || !isBase64(salt) {
		return errors.New("has no salt in base64 as its second field")
	}
	if err := checkIterations(fields[2]); err != nil {
		return err
	}
	return checkExtensions(fields[3:])
}

// checkServerFinal checks a server-final-message that is not an error: "v=", then extensions.
func checkServerFinal(msg string) error {
	fields := strings.Split(msg, ",")
	if signature, ok := strings.CutPrefix(fields[0], "v="); !ok || !isBase64(signature) {
		return errors.New("has no signature in base64")
	}
	return checkExtensions(fields[1:])
}

// checkNonce wants the client's nonce with something after it: without that, the server would have
// chosen nothing, and could play back an exchange of the past.
func checkNonce(field, nonce string) error {
	r, ok := strings.CutPrefix(field, "r=")
	switch {
	case !ok:
		return errors.New("does not begin with a nonce")
	case !strings.HasPrefix(r, nonce):
		return errors.New("has a nonce that does not begin with the client's: it is no answer to this exchange")
	case len(r) == len(nonce):
		return errors.New("has a nonce that adds nothing to the client's")
	case strings.ContainsFunc(r, func(c rune) bool { return c <= ' ' || c > '~' }):
		return errors.New("has a nonce that is not printable ASCII")
	}
	return nil
}

// checkIterations takes digits only: strconv.Atoi, which the library uses, would take a sign as
// well.
func checkIterations(field string) error {
	digits, ok := strings.CutPrefix(field, "i=")
	if !ok || digits == "" || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
		return errors.New("has no number of iterations as its third field")
	}
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || n > maxIterations:
		return errors.New("asks for more than 1,000,000 iterations, which takes too long; use another mechanism")
	case n < minIterations:
		return errors.New("asks for less than 4,096 iterations, " +
			"which would make the password easy to guess for a listener; use another mechanism over TLS")
	}
	return nil
}

var errMandatory = errors.New("has a mandatory extension (m=), and none is known")

// checkExtensions wants unknown attributes, which mean nothing. One that RFC 5802 defines is out of
// place here.
func checkExtensions(fields []string) error {
	for _, f := range fields {
		switch {
		case strings.HasPrefix(f, "m="):
			return errMandatory
		case len(f) < 3 || f[1] != '=' || !isLetter(f[0]) || strings.ContainsRune(f, 0) || !utf8.ValidString(f):
			return errors.New("has an extension that is not of the form x=value")
		case strings.IndexByte("anrcsipve", f[0]) >= 0:
			return errors.New("has a field out of its place")
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isBase64 wants padded base64 that is not empty. Even a strict decoder skips CR and LF.
func isBase64(s string) bool {
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return false
	}
	_, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil
}
