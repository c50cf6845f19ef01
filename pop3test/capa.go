package pop3test

import "slices"

// capa answers CAPA (RFC 2449 section 5).
func (s *session) capa([]string) { s.lines(s.capabilities()) }

// lang answers LANG (RFC 6856 section 3) with the one language that the server has.
func (s *session) lang(args []string) {
	switch {
	case len(args) == 0:
		s.lines([]string{"en English"})
	case args[0] == "*" || hasWords(args[0], "en") || hasWords(args[0], "i-default"):
		s.ok("en Language changed")
	default:
		s.refuse("", "no such language, only en")
	}
}

// capabilities returns the lines of the reply to CAPA in the session's present state.
func (s *session) capabilities() []string {
	if s.srv.Caps != nil {
		return s.srv.Caps
	}
	caps := []string{"TOP", "UIDL", "USER", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"}
	if s.state == authorization && s.canSTLS() {
		caps = append(caps, "STLS")
	}
	expire := "EXPIRE NEVER"
	if s.srv.ExpireRetrieved {
		expire = "EXPIRE 0"
	}
	return append(caps, "SASL "+s.mechanisms(), expire, "UTF8 USER", "LANG", "IMPLEMENTATION pop3test")
}

// announces reports whether a mechanism is in a SASL line of the reply to CAPA.
func (s *session) announces(mech string) bool {
	return slices.ContainsFunc(s.capabilities(), func(line string) bool {
		return hasWords(line, "SASL") && slices.Contains(words(line), mech)
	})
}
