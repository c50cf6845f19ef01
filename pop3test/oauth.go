package pop3test

import "strings"

// xoauth2 is Google's mechanism. A refusal comes as a challenge in JSON, which the client is to answer with
// an empty line before it gets the -ERR.
func xoauth2(x *exchange) (string, error) {
	response, err := x.first()
	if err != nil {
		return "", err
	}
	user, token, ok := bearer(response, "user=", "")
	if !ok {
		return "", errFormat
	}
	return x.verifyToken(user, token, "", `{"status":"401","schemes":"bearer","scope":"https://mail.example.com/"}`)
}

// oauthBearer is RFC 7628. The answer to the refusal is one octet 0x01 there.
func oauthBearer(x *exchange) (string, error) {
	response, err := x.first()
	if err != nil {
		return "", err
	}
	user, token, ok := bearer(response, "n,a=", ",")
	if !ok {
		return "", errFormat
	}
	return x.verifyToken(user, token, "\x01", `{"status":"invalid_token","scope":"mail"}`)
}

// bearer takes a response apart: a prefix with the user in it and an end, and then fields between octets 0x01
// of which one is the token.
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

// verifyToken returns user if the token is the password of its mailbox.
func (x *exchange) verifyToken(user, token, answer, refusal string) (string, error) {
	if x.srv.check(user, token) {
		return user, nil
	}
	got, err := x.ask(refusal)
	if err == nil && got != answer {
		err = errFormat
	}
	if err != nil {
		return "", err
	}
	return "", errCredentials
}
