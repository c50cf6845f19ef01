package pop3test

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// A state is the state of a session (RFC 1939 section 3), or a set of states in the table of commands.
type state int

const (
	authorization state = 1 << iota
	transaction
)

const (
	// bufferSize is the size of the buffer in which the replies to pipelined commands are
	// collected.
	bufferSize = 32 << 10

	// maxLine is the longest line that is read. A response within AUTH may be longer than a
	// command.
	maxLine = 64 << 10

	// defaultAutologout is the shortest time that RFC 1939 section 3 allows.
	defaultAutologout = 10 * time.Minute
)

var errLineLimit = errors.New("pop3test: a line of more than 64 KiB")

// A session is one connection from its greeting to its end. Only the goroutine of the session uses it, except for
// wire.stop and done.
type session struct {
	srv      *Server
	number   int
	implicit bool // the connection uses TLS from the first octet
	wire     *wire
	in       *bufio.Reader
	out      *bufio.Writer
	done     chan struct{}

	state     state
	ended     bool
	fault     Fault  // the faults at the current command
	timestamp string // timestamp in the greeting; "" if there is no APOP
	user      string // argument of USER, for the next PASS
	loggedIn  string // name of the user in the TRANSACTION state
	utf8      bool
	box       *maildrop // the locked maildrop, in the TRANSACTION state
	messages  []*sessionMessage
}

// A sessionMessage is a message that was in the maildrop when the session locked it.
type sessionMessage struct {
	*message
	number             int
	deleted, retrieved bool
}

func newSession(srv *Server, number int, conn net.Conn) *session {
	s := &session{srv: srv, number: number, state: authorization, done: make(chan struct{})}
	s.wire = newWire(conn, s.unlock)
	s.in = bufio.NewReader(input{s})
	s.out = bufio.NewWriterSize(s.wire, bufferSize)
	return s
}

// input is the reader of a session. It flushes the replies only when the session waits for the client, so that
// a batch of commands is answered in few writes.
type input struct{ *session }

func (in input) Read(p []byte) (int, error) {
	if err := in.out.Flush(); err != nil {
		return 0, err
	}
	in.startAutologout()
	return in.wire.Read(p)
}

// startAutologout starts the autologout timer again.
func (s *session) startAutologout() {
	wait := cmp.Or(s.srv.Autologout, defaultAutologout)
	if wait > 0 {
		s.wire.raw.SetReadDeadline(time.Now().Add(wait))
	}
}

// run serves the whole session.
func (s *session) run() {
	defer s.srv.end(s)
	defer s.wire.drop(CloseNotify)
	s.setOctetLimits()
	if s.implicit && !s.handshake() {
		return
	}
	s.executeWithFaults(AtGreeting, s.greet)
	for !s.ended && !s.wire.dropped {
		raw, err := s.readLine()
		if err != nil {
			break
		}
		s.executeWithFaults(strings.TrimRight(raw, crlf), func() { s.execute(raw) })
	}
	s.out.Flush()
}

// setOctetLimits applies the faults that end the session after a number of octets.
func (s *session) setOctetLimits() {
	if f, ok := s.srv.octetFault(s, AfterSent); ok {
		s.wire.sendLimit.lower(f.Octets, f.By)
	}
	if f, ok := s.srv.octetFault(s, AfterReceived); ok {
		s.wire.receiveLimit.lower(f.Octets, f.By)
	}
}

func (s *session) greet() {
	text := s.srv.Greeting
	if text == "" {
		text = fmt.Sprintf("POP3 server ready <%d.%d@pop3test.example.com>", s.number, time.Now().UnixNano())
	}
	if from := strings.IndexByte(text, '<'); from >= 0 {
		if to := strings.IndexByte(text[from:], '>'); to > 0 {
			s.timestamp = text[from : from+to+1]
		}
	}
	s.ok("%s", text)
}

// readLine returns the next line with its line end, and adds it to the log.
func (s *session) readLine() (string, error) {
	var line []byte
	for {
		part, err := s.in.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
		if len(line) > maxLine {
			s.refuse("", "line too long")
			return "", errLineLimit
		}
	}
	raw := string(line)
	s.srv.record(s.number, strings.TrimSuffix(raw, crlf))
	return raw, nil
}

// executeWithFaults carries out a command, with the faults that happen at that command.
func (s *session) executeWithFaults(line string, run func()) {
	f := s.srv.faultAt(s, line)
	s.fault = f
	if f == (Fault{}) {
		run()
		return
	}
	s.out.Flush() // send replies to earlier commands without the fault
	if f.Deaf {
		s.in.Discard(s.in.Buffered())
	}
	if f.Drop == BeforeCommand {
		s.drop()
		return
	}
	if !s.wire.sleep(f.Delay) {
		s.ended = true // the server was closed, so no further command is carried out
		return
	}
	s.wire.setChunks(f)
	s.answer(line, run)
	s.wire.setChunks(Fault{})
}

// answer sends the reply to a command, with the faults that happen in the reply.
func (s *session) answer(line string, run func()) {
	f := s.fault
	switch f.Drop {
	case BeforeReply:
		s.wire.sendLimit.lower(0, f.By)
	case InReply:
		s.wire.sendLimit.lower(f.Octets, f.By)
	}
	if f.Reply == "" || hasWords(line, "QUIT") {
		run()
	} else {
		s.line("%s", f.Reply)
		s.ended = line == AtGreeting && strings.HasPrefix(f.Reply, "-ERR")
	}
	if f.Extra != "" {
		s.line("%s", f.Extra)
	}
	s.out.Flush()
	if f.Drop == InReply || f.Drop == AfterReply {
		s.drop()
	}
}

// drop ends the connection as the current fault says.
func (s *session) drop() {
	s.ended = true
	s.wire.drop(s.fault.By)
}

// execute carries out a command.
func (s *session) execute(raw string) {
	user := s.user
	s.user = "" // PASS must follow USER directly
	c, err := parseCommand(raw)
	if err != nil {
		s.refuse("", "%v", err)
		return
	}
	h, known := verbs[c.verb]
	switch {
	case !known:
		s.refuse("", "unknown command")
	case h.states&s.state == 0:
		s.refuse("", "%s is not allowed in this state", c.verb)
	case len(c.args) < h.minArgs || len(c.args) > h.maxArgs:
		s.refuse("", "wrong number of arguments to %s", c.verb)
	default:
		if c.verb == "PASS" {
			s.user = user
		}
		h.run(s, c.args)
	}
}

// A handler carries out one verb and answers it.
type handler struct {
	states           state
	minArgs, maxArgs int // number of arguments
	run              func(s *session, args []string)
}

const anyState = authorization | transaction

var verbs = map[string]handler{
	"CAPA": {anyState, 0, 0, (*session).capa},
	"LANG": {anyState, 0, 1, (*session).lang},
	"QUIT": {anyState, 0, 0, (*session).quit},

	"USER": {authorization, 1, 1, (*session).userCommand},
	"PASS": {authorization, 1, 1, (*session).pass},
	"APOP": {authorization, 2, 2, (*session).apop},
	"AUTH": {authorization, 1, 2, (*session).auth},
	"STLS": {authorization, 0, 0, (*session).stls},
	"UTF8": {authorization, 0, 0, (*session).utf8Command},

	"STAT": {transaction, 0, 0, (*session).stat},
	"LIST": {transaction, 0, 1, (*session).list},
	"UIDL": {transaction, 0, 1, (*session).uidl},
	"RETR": {transaction, 1, 1, (*session).retr},
	"TOP":  {transaction, 2, 2, (*session).top},
	"DELE": {transaction, 1, 1, (*session).dele},
	"NOOP": {transaction, 0, 0, (*session).noop},
	"RSET": {transaction, 0, 0, (*session).rset},
}

// capa answers CAPA (RFC 2449 section 5).
func (s *session) capa([]string) { s.lines(s.capabilities()) }

// lang answers LANG (RFC 6856 section 3). The server has one language.
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

// capabilities returns the lines of the reply to CAPA in the session's current state.
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
