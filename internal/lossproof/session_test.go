package lossproof

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	user     = "fred"
	password = "k7Wq2xZp9Lm4"
)

// A step is what a server does after a reply.
type step int

const (
	stayConnected step = iota
	startTLS
	hangUp
)

// A session is the server's side of one connection: it receives octets and returns replies. Its parser is simple and
// shares no code with pop3. A line may end in LF alone, because a server that accepts that may remove more messages.
type session struct {
	drop      *maildrop
	variant   server
	onDele    func(m mail) // called before a message is marked
	offersTLS bool         // TLS can be started

	input       []byte // the beginning of a line that is not complete
	name        string
	mails       []mail // messages by number, from the login on; nil before the login
	marked      []int
	retrieved   []int
	quits       int
	sent        int               // number of octets sent
	replyEnds   []int             // places where replies end in these octets
	retrReplies map[string][]span // places of replies to RETR in these octets, by unique-id
	delivered   []byte            // octets sent, including those that a fault of the host added
}

func newSession(drop *maildrop, variant server, onDele func(mail)) *session {
	return &session{drop: drop, variant: variant, onDele: onDele, retrReplies: map[string][]span{}}
}

// A span is a range of the octets that the server sent.
type span struct{ start, end int }

// greet returns the greeting.
func (s *session) greet() string {
	const greeting = "+OK\r\n"
	s.sent += len(greeting)
	s.replyEnds = append(s.replyEnds, s.sent)
	return greeting
}

// receive takes octets of the client and returns the replies to them.
func (s *session) receive(p []byte) (replies []string, next step) {
	s.input = append(s.input, p...)
	for next == stayConnected {
		line, rest, complete := bytes.Cut(s.input, []byte("\n"))
		if !complete {
			break
		}
		s.input = rest
		var reply string
		reply, next = s.execute(strings.TrimSuffix(string(line), "\r"))
		replies = append(replies, reply)
		s.sent += len(reply)
		s.replyEnds = append(s.replyEnds, s.sent)
	}
	return replies, next
}

// execute carries out one command.
func (s *session) execute(line string) (reply string, next step) {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch {
	case verb == "CAPA" && arg == "":
		return s.capa(), stayConnected
	case verb == "QUIT" && arg == "":
		return s.quit(), hangUp
	case s.mails == nil:
		return s.authorization(verb, arg)
	}
	return s.transaction(verb, arg), stayConnected
}

func (s *session) capa() string {
	if s.variant.caps == "-" {
		return "-ERR\r\n"
	}
	caps := "+OK\r\nUSER\r\nUIDL\r\n" + s.variant.caps
	if !s.variant.sequential {
		caps += "PIPELINING\r\n"
	}
	if s.offersTLS {
		caps += "STLS\r\n"
	}
	return caps + ".\r\n"
}

func (s *session) authorization(verb, arg string) (reply string, next step) {
	switch {
	case verb == "STLS" && s.offersTLS:
		s.offersTLS, s.input, s.name = false, nil, ""
		return "+OK\r\n", startTLS
	case verb == "USER":
		s.name = arg
		return "+OK\r\n", stayConnected
	case verb == "PASS" && s.name == user && arg == password:
		s.mails = slices.Clone(s.drop.mails)
		if s.mails == nil {
			s.mails = []mail{}
		}
		return "+OK\r\n", stayConnected
	}
	return "-ERR\r\n", stayConnected
}

func (s *session) transaction(verb, arg string) string {
	switch {
	case verb == "NOOP":
		return "+OK\r\n"
	case verb == "LIST" && arg == "":
		return s.listing(func(m mail) string { return strconv.Itoa(s.size(m)) })
	case verb == "UIDL" && arg == "":
		return s.listing(func(m mail) string { return m.uid })
	}
	num, err := strconv.Atoi(arg)
	if err != nil || num < 1 || num > len(s.mails) || slices.Contains(s.marked, num) {
		return "-ERR\r\n"
	}
	switch {
	case verb == "RETR" && num != s.variant.noRetr:
		return s.retr(num)
	case verb == "DELE" && num != s.variant.noDele && s.variant.noDele >= 0:
		s.onDele(s.mails[num-1])
		s.marked = append(s.marked, num)
		return "+OK\r\n"
	}
	return "-ERR\r\n"
}

func (s *session) size(m mail) int {
	if s.variant.lfSizes {
		return len(m.data) - strings.Count(m.data, "\r\n")
	}
	return len(m.data)
}

func (s *session) listing(value func(mail) string) string {
	var b strings.Builder
	b.WriteString("+OK\r\n")
	for i, m := range s.mails {
		if !slices.Contains(s.marked, i+1) {
			fmt.Fprintf(&b, "%d %s\r\n", i+1, value(m))
		}
	}
	return b.String() + ".\r\n"
}

func (s *session) retr(num int) string {
	s.retrieved = append(s.retrieved, num)
	m := s.mails[num-1]
	data := s.variant.body(m, num)
	if !s.variant.unstuffed {
		data = stuff(data)
	}
	reply := status(m) + data + ".\r\n"
	s.retrReplies[m.uid] = append(s.retrReplies[m.uid], span{s.sent, s.sent + len(reply)})
	return reply
}

func status(m mail) string { return fmt.Sprintf("+OK %d\r\n", len(m.data)) }

// stuff adds a dot before every line that begins with one.
func stuff(data string) string {
	stuffed := strings.ReplaceAll("\r\n"+data, "\r\n.", "\r\n..")
	return stuffed[len("\r\n"):]
}

// quit enters UPDATE if there was a login.
func (s *session) quit() string {
	s.quits++
	if s.mails == nil {
		return "+OK\r\n"
	}
	var removed []mail
	for i, m := range s.mails {
		if slices.Contains(s.marked, i+1) || s.variant.expires && slices.Contains(s.retrieved, i+1) {
			removed = append(removed, m)
		}
	}
	return s.variant.update.commit(s.drop, removed)
}
