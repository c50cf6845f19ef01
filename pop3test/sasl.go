package pop3test

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xdg-go/scram"
)

var (
	errCancelled   = errors.New("authentication cancelled")
	errBase64      = errors.New("not base64")
	errCredentials = errors.New("invalid credentials")
	errFormat      = errors.New("malformed response")
	errLost        = errors.New("connection lost")
)

// A mechanism carries out the server's side of an exchange and returns the user who has logged in.
type mechanism func(*exchange) (user string, err error)

var mechanisms = map[string]mechanism{
	"PLAIN":              plain,
	"LOGIN":              loginMechanism,
	"CRAM-MD5":           cramMD5,
	"XOAUTH2":            xoauth2,
	"OAUTHBEARER":        oauthBearer,
	"EXTERNAL":           external,
	"ANONYMOUS":          anonymous,
	"SCRAM-SHA-1":        scramMechanism("SCRAM-SHA-1", scram.SHA1, false),
	"SCRAM-SHA-256":      scramMechanism("SCRAM-SHA-256", scram.SHA256, false),
	"SCRAM-SHA-512":      scramMechanism("SCRAM-SHA-512", scram.SHA512, false),
	"SCRAM-SHA-1-PLUS":   scramMechanism("SCRAM-SHA-1", scram.SHA1, true),
	"SCRAM-SHA-256-PLUS": scramMechanism("SCRAM-SHA-256", scram.SHA256, true),
	"SCRAM-SHA-512-PLUS": scramMechanism("SCRAM-SHA-512", scram.SHA512, true),
}

// mechanisms returns the mechanisms in the SASL line of CAPA. Mechanisms with channel binding are announced only with
// TLS. Mechanisms with tokens are also announced only with TLS, because a token in clear could be stolen.
func (s *session) mechanisms() string {
	list := "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN"
	if state := s.tlsState(); state != nil {
		if state.Version >= tls.VersionTLS13 {
			list = "SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS " + list
		}
		if len(state.PeerCertificates) > 0 {
			list += " EXTERNAL"
		}
		list += " OAUTHBEARER XOAUTH2"
	}
	if _, ok := s.srv.password("anonymous"); ok {
		list += " ANONYMOUS"
	}
	return list
}

// auth answers AUTH (RFC 5034 section 4).
func (s *session) auth(args []string) {
	mech := mechanisms[strings.ToUpper(args[0])]
	if mech == nil {
		s.refuse("", "no such mechanism")
		return
	}
	x := &exchange{session: s}
	if len(args) == 2 {
		x.initial = &args[1]
	}
	user, err := mech(x)
	switch {
	case errors.Is(err, errLost):
		s.ended = true
	case errors.Is(err, errCredentials):
		s.login(user, false)
	case err != nil:
		s.refuse("", "%v", err)
	default:
		s.login(user, true)
	}
}

// An exchange is one AUTH command.
type exchange struct {
	*session
	initial *string // the initial response, in base64
}

// first returns the client's first message, for mechanisms in which the client sends the first message.
func (x *exchange) first() (string, error) {
	if x.initial == nil {
		return x.ask("")
	}
	if *x.initial == "=" {
		return "", nil
	}
	return decode(*x.initial)
}

// ask sends a challenge and returns the response to it.
func (x *exchange) ask(challenge string) (string, error) {
	x.line("+ %s", base64.StdEncoding.EncodeToString([]byte(challenge)))
	raw, err := x.readLine()
	if err != nil {
		return "", errLost
	}
	line, ok := strings.CutSuffix(raw, crlf)
	if !ok {
		return "", errLineEnd
	}
	if line == "*" {
		return "", errCancelled
	}
	return decode(line)
}

// decode decodes base64. It rejects line ends, which Go's decoder skips.
func decode(text string) (string, error) {
	octets, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, crlf) {
		return "", errBase64
	}
	return string(octets), nil
}

// verify returns user if the password is correct.
func (x *exchange) verify(user, password string) (string, error) {
	if !x.srv.check(user, password) {
		return "", errCredentials
	}
	return user, nil
}

// plain implements PLAIN (RFC 4616). It does not let a user act for another user.
func plain(x *exchange) (string, error) {
	response, err := x.first()
	if err != nil {
		return "", err
	}
	parts := strings.Split(response, "\x00")
	if len(parts) != 3 {
		return "", errFormat
	}
	if parts[0] != "" && parts[0] != parts[1] {
		return "", errCredentials
	}
	return x.verify(parts[1], parts[2])
}

func loginMechanism(x *exchange) (string, error) {
	var user string
	var err error
	if x.initial != nil {
		user, err = x.first()
	} else {
		user, err = x.ask("Username:")
	}
	if err != nil {
		return "", err
	}
	password, err := x.ask("Password:")
	if err != nil {
		return "", err
	}
	return x.verify(user, password)
}

// cramMD5 implements CRAM-MD5 (RFC 2195).
func cramMD5(x *exchange) (string, error) {
	if x.initial != nil {
		return "", errFormat
	}
	challenge := fmt.Sprintf("<%d.%d@pop3test.example.com>", x.number, time.Now().UnixNano())
	response, err := x.ask(challenge)
	if err != nil {
		return "", err
	}
	user, digest, ok := cutLast(response, " ")
	if !ok {
		return "", errFormat
	}
	password, known := x.srv.password(user)
	mac := hmac.New(md5.New, []byte(password))
	mac.Write([]byte(challenge))
	if !known || !equalSecrets(hex.EncodeToString(mac.Sum(nil)), digest) {
		return "", errCredentials
	}
	return user, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// external implements EXTERNAL (RFC 4422 appendix A). The name of the user is in the client's certificate.
func external(x *exchange) (string, error) {
	identity, err := x.first()
	if err != nil {
		return "", err
	}
	state := x.tlsState()
	if state == nil || len(state.PeerCertificates) == 0 {
		return "", errCredentials
	}
	name := state.PeerCertificates[0].Subject.CommonName
	_, known := x.srv.password(name)
	if !known || identity != "" && identity != name {
		return "", errCredentials
	}
	return name, nil
}

// anonymous implements ANONYMOUS (RFC 4505). It needs a mailbox of the user "anonymous".
func anonymous(x *exchange) (string, error) {
	if _, err := x.first(); err != nil {
		return "", err
	}
	if _, known := x.srv.password("anonymous"); !known {
		return "", errCredentials
	}
	return "anonymous", nil
}

var (
	// xoauth2 is a mechanism that Google introduced. The client must respond to a refusal with an empty line.
	xoauth2 = oauth("user=", "", `{"status":"401","schemes":"bearer","scope":"mail"}`, "")

	// oauthBearer is RFC 7628. The client must respond to a refusal with one octet 0x01.
	oauthBearer = oauth("n,a=", ",", `{"status":"invalid_token","scope":"mail"}`, "\x01")
)

// oauth returns a mechanism whose response contains the user between prefix and end. A refusal is sent as a challenge
// in JSON. The client must respond to it before the server sends -ERR.
func oauth(prefix, end, refusal, answer string) mechanism {
	return func(x *exchange) (string, error) {
		response, err := x.first()
		if err != nil {
			return "", err
		}
		user, token, ok := bearer(response, prefix, end)
		if !ok {
			return "", errFormat
		}
		if x.srv.check(user, token) {
			return user, nil
		}
		if got, err := x.ask(refusal); err != nil || got != answer {
			return "", cmp.Or(err, errFormat)
		}
		return "", errCredentials
	}
}

// bearer parses a response. The response contains the user between prefix and end. Fields separated by 0x01 follow, and
// one of them is the token.
func bearer(response, prefix, end string) (user, token string, ok bool) {
	fields := strings.Split(response, "\x01")
	user, hasPrefix := strings.CutPrefix(fields[0], prefix)
	user, hasEnd := strings.CutSuffix(user, end)
	if !hasPrefix || !hasEnd || !strings.HasSuffix(response, "\x01\x01") {
		return "", "", false
	}
	for _, f := range fields[1:] {
		if t, found := strings.CutPrefix(f, "auth=Bearer "); found {
			return user, t, true
		}
	}
	return "", "", false
}
