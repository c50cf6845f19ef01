package pop3test

import (
	"bytes"
	"fmt"
	"strconv"
)

// count returns the number and size of the messages that are not marked as deleted in the session.
func (s *session) count() (messages int, size int64) {
	for _, m := range s.messages {
		if !m.deleted {
			messages++
			size += m.size() + s.fault.Lie
		}
	}
	return messages, size
}

// find returns the message with the number in arg. If there is none it sends -ERR and returns nil.
func (s *session) find(arg string) *sessionMessage {
	n, err := number(arg)
	switch {
	case err != nil || n == 0:
		s.refuse("", "not a message number")
	case n > len(s.messages):
		s.refuse("", "no such message, only %d messages in maildrop", len(s.messages))
	case s.messages[n-1].deleted:
		s.refuse("", "message %d already deleted", n)
	default:
		return s.messages[n-1]
	}
	return nil
}

// number parses decimal digits. strconv.Atoi would accept a sign as well.
func number(arg string) (int, error) {
	n, err := strconv.ParseUint(arg, 10, 31)
	return int(n), err
}

func (s *session) stat([]string) {
	n, size := s.count()
	s.ok("%d %d", n, size)
}

func (s *session) list(args []string) {
	s.listing(args, func(m *sessionMessage) string { return strconv.FormatInt(m.size()+s.fault.Lie, 10) })
}

func (s *session) uidl(args []string) {
	s.listing(args, func(m *sessionMessage) string { return m.uid })
}

// listing answers LIST and UIDL, for one message or for all.
func (s *session) listing(args []string, column func(*sessionMessage) string) {
	if len(args) == 1 {
		if m := s.find(args[0]); m != nil {
			s.ok("%d %s", m.number, column(m))
		}
		return
	}
	n, size := s.count()
	s.ok("%d messages (%d octets)", n, size)
	s.body()
	for _, m := range s.messages {
		if !m.deleted {
			s.line("%d %s", m.number, column(m))
		}
	}
	s.end()
}

func (s *session) retr(args []string) {
	m := s.find(args[0])
	if m == nil {
		return
	}
	m.retrieved = true
	s.ok("%d octets", m.size()+s.fault.Lie)
	if s.fault.Short || s.fault.LF {
		s.message(m.stored)
		return
	}
	s.body()
	s.out.Write(m.wire())
	s.out.WriteString(missingEOL(m.stored))
	s.end()
}

func (s *session) top(args []string) {
	lines, err := number(args[1])
	if err != nil {
		s.refuse("", "not a number of lines")
		return
	}
	if m := s.find(args[0]); m != nil {
		s.ok("top of message follows")
		s.message(top(m.stored, lines))
	}
}

// message sends a message, or a part of it, as the body of a reply.
func (s *session) message(content []byte) {
	if s.fault.Short {
		content = content[:max(0, min(s.fault.Octets, int64(len(content))))]
	}
	missing := missingEOL(content)
	if s.fault.LF {
		content = bytes.ReplaceAll(content, []byte(crlf), []byte("\n"))
		missing = missing[:len(missing)/2]
	}
	s.body()
	s.out.Write(stuff(content, s.eol()))
	if missing != "" {
		s.out.WriteString(s.eol())
	}
	s.end()
}

func (s *session) dele(args []string) {
	if m := s.find(args[0]); m != nil {
		m.deleted = true
		s.ok("message %d deleted", m.number)
	}
}

func (s *session) noop([]string) { s.ok("") }

func (s *session) rset([]string) {
	for _, m := range s.messages {
		m.deleted = false
	}
	s.ok("%s", s.summary())
}

func (s *session) summary() string {
	n, size := s.count()
	return fmt.Sprintf("maildrop has %d messages (%d octets)", n, size)
}

// quit is the only command that enters the UPDATE state. The maildrop is unlocked before the reply is sent, so
// that a client that has received the reply can log in again.
func (s *session) quit([]string) {
	s.ended = true
	if s.state == transaction {
		s.srv.update(s.box, s.removed())
		s.unlock()
	}
	if s.fault.Reply != "" {
		s.line("%s", s.fault.Reply)
		return
	}
	s.ok("pop3test server signing off")
}

// removed returns the messages that QUIT must remove.
func (s *session) removed() map[*message]bool {
	commit := s.fault.Commit
	if commit == CommitDefault && s.fault.Reply == "" {
		commit = CommitAll
	}
	removed := make(map[*message]bool)
	marked := 0
	for _, m := range s.messages {
		if !m.deleted && !(m.retrieved && s.srv.ExpireRetrieved) {
			continue
		}
		if commit == CommitAll || commit == CommitHalf && marked%2 == 0 {
			removed[m.message] = true
		}
		marked++
	}
	return removed
}
