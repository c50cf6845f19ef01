package pop3test

import (
	"fmt"
	"strings"
)

func (s *session) eol() string {
	if s.fault.LF {
		return "\n"
	}
	return crlf
}

func (s *session) line(format string, args ...any) {
	fmt.Fprintf(s.out, format, args...)
	s.out.WriteString(s.eol())
}

func (s *session) ok(format string, args ...any) {
	s.line(strings.TrimRight("+OK "+format, " "), args...)
}

// refuse sends -ERR, with a response code (RFC 2449 section 8) if code is not empty.
func (s *session) refuse(code, format string, args ...any) {
	if code != "" {
		format = "[" + code + "] " + format
	}
	s.line("-ERR "+format, args...)
}

// body begins the body of a multi-line reply: everything after the first line.
func (s *session) body() {
	if s.fault.Drop == InBody {
		s.out.Flush()
		s.wire.sendLimit.lower(s.fault.Octets, s.fault.By)
	}
}

// end ends a multi-line reply.
func (s *session) end() {
	s.line(".")
	if s.fault.Drop == InBody {
		s.out.Flush()
		s.drop()
	}
}

// lines sends a multi-line reply whose status line has no text.
func (s *session) lines(lines []string) {
	s.ok("")
	s.body()
	for _, l := range lines {
		if strings.HasPrefix(l, ".") {
			l = "." + l
		}
		s.line("%s", l)
	}
	s.end()
}
