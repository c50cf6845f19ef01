package pop3test

// An entry is one line that a client sent.
type entry struct {
	session int
	line    string
}

func (s *Server) record(session int, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, entry{session, line})
}

// Commands returns every line that clients have sent so far, in the order in which they came, without line
// ends and otherwise octet for octet: passwords and the responses within AUTH are in it as they were sent.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := make([]string, len(s.log))
	for i, e := range s.log {
		lines[i] = e.line
	}
	return lines
}

// Sessions returns the same lines as [Server.Commands], those of each session by themselves, in the order
// in which the sessions began. A session counts from the moment its connection was made, so that the length
// is the number of connections.
func (s *Server) Sessions() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := make([][]string, s.began)
	for _, e := range s.log {
		lines[e.session-1] = append(lines[e.session-1], e.line)
	}
	return lines
}
