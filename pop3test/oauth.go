package pop3test

import (
	"cmp"
	"strings"
)

var (
	// xoauth2 is Google's mechanism. The client is to answer its refusal with an empty line.
	xoauth2 = oauth("user=", "", `{"status":"401","schemes":"bearer","scope":"mail"}`, "")

	// oauthBearer is RFC 7628. The answer is one octet 0x01 there.
	oauthBearer = oauth("n,a=", ",", `{"status":"invalid_token","scope":"mail"}`, "\x01")
)

// oauth makes a mechanism whose response has the user between a prefix and an end. A refusal comes as a
// challenge in JSON, and the client has to answer that before it gets the -ERR.
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

// bearer takes a response apart: a prefix with the user in it and an end, and then fields between octets
// 0x01 of which one is the token.
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
