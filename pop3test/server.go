package pop3test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// A Mailbox is one user of a [Server] and what lies in the user's maildrop when the server is made.
// The server reads it once and never writes to it: ask [Server.Left] what is there later.
type Mailbox struct {
	// User and Password are what the client logs in with. The password is the APOP and CRAM-MD5 secret
	// as well, and the token that XOAUTH2 and OAUTHBEARER accept.
	User, Password string

	// Messages are the octets as stored, with CRLF line ends. The server sends a message that does not
	// end in CRLF with one added, since it could not end it otherwise, and counts those two octets in
	// its size. The octets must not be changed while the server runs.
	Messages [][]byte

	// UIDs are the unique-ids of Messages, sent as they are, well-formed or not. Where it has none for a
	// message, one is made from the content: the same content gives the same unique-id in every run, and
	// a second copy of a message has one of its own.
	UIDs []string
}

// A Server is a POP3 server in memory for tests. It is made by [NewServer], [NewTLSServer] or
// [NewUnstartedServer], and its exported fields must not be changed once it has begun to serve.
type Server struct {
	// Addr is the "host:port" where the server listens, once it was started.
	Addr string

	// Listener takes the connections. Start makes one on a free port of the loopback interface if it is
	// nil.
	Listener net.Listener

	// TLS makes the server offer STLS on a connection that is in clear. Without a certificate in it the
	// server uses its own, which [Server.ClientTLS] trusts, so that an empty configuration is enough.
	// NewServer and StartTLS set it if it is nil.
	TLS *tls.Config

	// Caps are the lines of the reply to CAPA, word for word. If it is nil, the reply tells truthfully
	// what the server can do in the state that the session is in. An empty slice makes an empty list.
	// Caps changes only what is announced: what a command does is changed with a [Fault].
	Caps []string

	// Greeting is the text after "+OK " of the greeting. If it holds a timestamp as in "<1896.69@host>",
	// APOP uses that; if not, the server has no APOP. The default has a timestamp.
	Greeting string

	// Autologout is how long the server waits for the client before it hangs up, without a word and
	// without entering the UPDATE state (RFC 1939 section 3). Zero is ten minutes, negative is for ever.
	Autologout time.Duration

	// ExpireRetrieved makes QUIT remove each message that RETR has sent, deleted or not, which is what a
	// server may do that announces EXPIRE 0 (RFC 2449 section 6.7), as this one then does. TOP does not
	// count.
	ExpireRetrieved bool

	implicit  bool          // TLS from the first octet on connections of Listener
	accepting chan struct{} // closed when the accept loop has ended
	tlsOnce   sync.Once
	tlsConf   *tls.Config

	mu       sync.Mutex
	closed   bool
	boxes    map[string]*maildrop
	scrams   map[string]stored
	sessions map[*session]bool // those under way
	began    int               // sessions begun so far
	log      []entry
	faults   []*armedFault
}

// NewServer starts a server that speaks POP3 in clear on a free port of the loopback interface, and offers
// STLS. The caller is to call [Server.Close] in the end.
func NewServer(boxes ...*Mailbox) *Server {
	s := NewUnstartedServer(boxes...)
	s.TLS = new(tls.Config)
	s.Start()
	return s
}

// NewTLSServer starts a server that speaks TLS from the first octet on a free port of the loopback
// interface. The caller is to call [Server.Close] in the end.
func NewTLSServer(boxes ...*Mailbox) *Server {
	s := NewUnstartedServer(boxes...)
	s.StartTLS()
	return s
}

// NewUnstartedServer makes a server that does not listen yet: its fields can be set, and then it is
// started with [Server.Start] or [Server.StartTLS], or used without a listener through [Server.ServeConn].
func NewUnstartedServer(boxes ...*Mailbox) *Server {
	s := &Server{
		boxes:    make(map[string]*maildrop),
		scrams:   make(map[string]stored),
		sessions: make(map[*session]bool),
	}
	for _, b := range boxes {
		s.boxes[b.User] = newMaildrop(b)
	}
	return s
}

// Start makes the server listen, in clear. With a TLS configuration it offers STLS. It panics if the
// server was started before, or if there is no port to listen on.
func (s *Server) Start() { s.start(false) }

// StartTLS makes the server listen, with TLS from the first octet of each connection. It panics if the
// server was started before, or if there is no port to listen on.
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

// listenLoopback panics where a machine has no loopback interface to listen on, as net/http/httptest does:
// the constructors have no error to return, and no test can go on.
func listenLoopback() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l, err = net.Listen("tcp6", "[::1]:0")
	}
	if err != nil {
		panic("pop3test: no port to listen on: " + err.Error())
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

// DialContext connects to the server, whatever host addr names, and makes it look like a server on another machine: the
// remote address of the connection is 192.0.2.1, an address for documentation (RFC 5737).
//
// Clients have less strict rules for a server on the same machine. Package pop3 sends passwords in clear to one, so
// that a program that needs Options.InsecureAuth and does not set it passes a test that dials [Server.Addr], and
// fails everywhere else. Set Options.DialContext to this method, and dial a name that the server's certificate is
// valid for, such as "pop.example.com". For a program that takes an address and no dialer, set [Server.Listener] to
// one on an address of this machine that is not a loopback address.
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

// A remoteConn has the address of another machine. It has no method NetConn, which would show the true one.
type remoteConn struct {
	net.Conn
	port int
}

func (c remoteConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: c.port}
}

// ServeConn serves one session on conn and returns when that has ended, with conn closed. It starts no
// goroutine. conn may be one end of a [net.Pipe], also in a bubble of testing/synctest; a connection that
// is to have TLS from the first octet is wrapped by the caller, as in tls.Server(conn, s.ServerTLS()). On
// one that is in clear STLS is offered if the TLS field is set.
func (s *Server) ServeConn(conn net.Conn) {
	if ses := s.begin(conn); ses != nil {
		ses.run()
	}
}

// begin registers a session, or closes conn and returns nil if the server is closed.
func (s *Server) begin(conn net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil
	}
	s.began++
	ses := newSession(s, s.began, conn)
	s.sessions[ses] = true
	return ses
}

// end forgets a session, as the last thing that it does.
func (s *Server) end(ses *session) {
	s.mu.Lock()
	delete(s.sessions, ses)
	s.mu.Unlock()
	close(ses.done)
}

// Close stops listening, hangs up on every session without entering its UPDATE state, and returns when all
// of their goroutines have ended. It may be called more than once.
func (s *Server) Close() {
	for _, ses := range s.shut() {
		<-ses.done
	}
	if s.accepting != nil {
		<-s.accepting
	}
}

// shut hangs up on all sessions and returns those that have not ended yet.
func (s *Server) shut() []*session {
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
