package pop3test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// A Mailbox is one user of a [Server] and the messages in the user's maildrop when the server is made. The server reads
// it once and never writes to it. Use [Server.Left] to get the messages that are there later.
type Mailbox struct {
	// User and Password are the credentials of the client. The password is also the secret of
	// APOP and CRAM-MD5, and the token that XOAUTH2 and OAUTHBEARER accept.
	User, Password string

	// Messages are the messages as they are stored, with CRLF line ends. If a message does not
	// end in CRLF, the server adds one when it sends the message, and counts it in the size.
	// The octets must not be changed while the server is in use.
	Messages [][]byte

	// UIDs are the unique-ids of Messages. They are sent unchanged, valid or not. A message for which UIDs has no entry
	// gets a unique-id that is made from its content. That unique-id is the same in every run, and differs between
	// copies of a message.
	UIDs []string
}

// A Server is a POP3 server for tests that keeps its messages in memory. Use [NewServer], [NewTLSServer] or
// [NewUnstartedServer] to make one. Its exported fields must not be changed after it was started.
type Server struct {
	// Addr is the "host:port" on which the server listens. It is set when the server is
	// started.
	Addr string

	// Listener accepts the connections. If it is nil, Start listens on a free port of the
	// loopback interface.
	Listener net.Listener

	// TLS makes the server offer STLS on a connection in clear. If it contains no certificate,
	// the server uses its own, which [Server.ClientTLS] trusts. So an empty configuration is
	// enough. NewServer and StartTLS set it if it is nil.
	TLS *tls.Config

	// Caps are the lines of the reply to CAPA, word for word. If it is nil, the reply lists
	// what the server really supports in the state of the session. If it is empty but not nil,
	// the list is empty. Caps changes only the announcement. To change what a command does,
	// use a [Fault].
	Caps []string

	// Greeting is the text of the greeting after "+OK ". If it contains a timestamp such as
	// "<1896.69@host>", it is the timestamp of APOP; otherwise APOP is refused. The default
	// has a timestamp.
	Greeting string

	// Autologout is how long the server waits for the client before it closes the connection,
	// without a reply and without entering the UPDATE state (RFC 1939 section 3). Zero means
	// ten minutes, negative means no limit.
	Autologout time.Duration

	// ExpireRetrieved makes QUIT remove each message that RETR has sent, marked as deleted or
	// not. The server then announces EXPIRE 0 (RFC 2449 section 6.7). Messages read with TOP
	// are not removed.
	ExpireRetrieved bool

	implicit  bool          // connections of Listener use TLS from the first octet
	accepting chan struct{} // closed when the accept loop has ended
	tlsOnce   sync.Once
	tlsConf   *tls.Config

	mu           sync.Mutex
	closed       bool
	boxes        map[string]*maildrop
	scrams       map[string]credentials
	sessions     map[*session]bool // sessions that have not ended
	sessionCount int               // number of sessions that have begun
	log          []entry
	faults       []*armedFault
}

// NewServer starts a server without TLS on a free port of the loopback interface. It offers STLS. The caller
// must call [Server.Close] to stop it.
func NewServer(boxes ...*Mailbox) *Server {
	s := NewUnstartedServer(boxes...)
	s.TLS = new(tls.Config)
	s.Start()
	return s
}

// NewTLSServer starts a server with TLS from the first octet on a free port of the loopback interface. The
// caller must call [Server.Close] to stop it.
func NewTLSServer(boxes ...*Mailbox) *Server {
	s := NewUnstartedServer(boxes...)
	s.StartTLS()
	return s
}

// NewUnstartedServer returns a server that does not listen yet, so that its fields can be set. Start it with
// [Server.Start] or [Server.StartTLS], or use it without a listener through [Server.ServeConn].
func NewUnstartedServer(boxes ...*Mailbox) *Server {
	s := &Server{
		boxes:    make(map[string]*maildrop),
		scrams:   make(map[string]credentials),
		sessions: make(map[*session]bool),
	}
	for _, b := range boxes {
		s.boxes[b.User] = newMaildrop(b)
	}
	return s
}

// Start starts the server without TLS on its listener. If the field TLS is set, it offers STLS. Start panics if
// the server was started before, or if it cannot listen.
func (s *Server) Start() { s.start(false) }

// StartTLS starts the server with TLS from the first octet of each connection. It panics if the server was
// started before, or if it cannot listen.
func (s *Server) StartTLS() {
	if s.TLS == nil {
		s.TLS = new(tls.Config)
	}
	s.start(true)
}

func (s *Server) start(implicit bool) {
	if s.Addr != "" {
		panic("pop3test: the server was started before")
	}
	if s.Listener == nil {
		s.Listener = listenLoopback()
	}
	s.Addr = s.Listener.Addr().String()
	s.implicit = implicit
	s.accepting = make(chan struct{})
	go s.accept()
}

// listenLoopback panics if it cannot listen on the loopback interface, as net/http/httptest does. The constructors
// return no error, and without the listener no test could continue.
func listenLoopback() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l, err = net.Listen("tcp6", "[::1]:0")
	}
	if err != nil {
		panic("pop3test: cannot listen on the loopback interface: " + err.Error())
	}
	return l
}

func (s *Server) accept() {
	defer close(s.accepting)
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			return
		}
		if ses := s.begin(conn); ses != nil {
			ses.implicit = s.implicit
			go ses.run()
		}
	}
}

// DialContext connects to the server whatever host addr names, and makes it look like a server on another
// machine. The remote address of the connection is 192.0.2.1, an address for documentation (RFC 5737).
//
// Clients have less strict rules for a server on the same machine, and package pop3 sends passwords in clear to
// it. So a program that needs Options.InsecureAuth and does not set it passes a test that dials [Server.Addr],
// but fails in production. To find that in a test, set Options.DialContext to this method, and dial a name for
// which the server's certificate is valid, such as "pop.example.com". If the program takes an address and no
// dialer, set [Server.Listener] to a listener on an address of this machine that is not a loopback address.
func (s *Server) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	_, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	return remoteConn{conn, port}, nil
}

// A remoteConn has the address of another machine. It has no method NetConn, because that would reveal the real
// address.
type remoteConn struct {
	net.Conn
	port int
}

func (c remoteConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: c.port}
}

// ServeConn serves one session on conn. It closes conn and returns when the session has ended. It starts no
// goroutine. conn may be one end of a [net.Pipe], also in a bubble of testing/synctest. For TLS from the first
// octet, pass tls.Server(conn, s.ServerTLS()). On a connection in clear, STLS is offered if the field TLS is
// set.
func (s *Server) ServeConn(conn net.Conn) {
	if ses := s.begin(conn); ses != nil {
		ses.run()
	}
}

// begin registers a session. If the server is closed, it closes conn and returns nil.
func (s *Server) begin(conn net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil
	}
	s.sessionCount++
	ses := newSession(s, s.sessionCount, conn)
	s.sessions[ses] = true
	return ses
}

// end removes a session from the server. It is the last step of a session.
func (s *Server) end(ses *session) {
	s.mu.Lock()
	delete(s.sessions, ses)
	s.mu.Unlock()
	close(ses.done)
}

// Close stops listening, closes every connection without entering the UPDATE state, and waits until all
// goroutines of the server have ended. It may be called more than once.
func (s *Server) Close() {
	for _, ses := range s.closeSessions() {
		<-ses.done
	}
	if s.accepting != nil {
		<-s.accepting
	}
}

// closeSessions closes the connections of all sessions and returns the sessions that have not ended yet.
func (s *Server) closeSessions() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Listener != nil {
		s.Listener.Close()
	}
	var running []*session
	for ses := range s.sessions {
		running = append(running, ses)
		if !s.closed {
			ses.wire.stop()
		}
	}
	s.closed = true
	return running
}

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

// Commands returns every line that clients have sent so far, in the order in which they were received, without
// line ends. The lines are otherwise unchanged, with passwords and the responses of AUTH.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := make([]string, len(s.log))
	for i, e := range s.log {
		lines[i] = e.line
	}
	return lines
}

// Sessions returns the same lines as [Server.Commands], grouped by session. The sessions are in the order in which they
// began. A session begins when its connection is accepted, so the length of the result is the number of connections.
func (s *Server) Sessions() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := make([][]string, s.sessionCount)
	for _, e := range s.log {
		lines[e.session-1] = append(lines[e.session-1], e.line)
	}
	return lines
}
