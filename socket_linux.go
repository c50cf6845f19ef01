package pop3

import (
	"net"
	"syscall"
)

// A socket is what a TCP connection can do on Linux beyond net.Conn. The zero socket can do nothing.
type socket struct {
	raw   syscall.RawConn
	clear bool // POP3 goes over it as it is, not within TLS or whatever a caller has put on it
	peek  *peek
}

// A peek looks whether something can be read. It is made once for a connection, so that looking allocates nothing.
type peek struct {
	look  func(fd uintptr)
	octet [1]byte
	ready bool
}

func newPeek() *peek {
	p := &peek{}
	p.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), p.octet[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		p.ready = err != syscall.EAGAIN && err != syscall.EINTR
	}
	return p
}

func newSocket(nc net.Conn) socket {
	_, clear := nc.(*net.TCPConn)
	tcp, ok := below(nc).(*net.TCPConn)
	if !ok {
		return socket{}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return socket{}
	}
	return socket{raw: raw, clear: clear, peek: newPeek()}
}

// below gives the connection that nc stands on, as a *tls.Conn does.
func below(nc net.Conn) net.Conn {
	for {
		upper, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = upper.NetConn()
	}
}

// quickAck has the kernel acknowledge at once what comes next. Many servers write a reply in pieces with Nagle's
// algorithm on; each piece but the first then waits for an acknowledgement that the kernel would delay by 40 ms,
// on any link. The kernel forgets the setting, so it is made anew before each read.
func (s socket) quickAck() {
	if s.raw != nil {
		s.raw.Control(setQuickAck)
	}
}

func setQuickAck(fd uintptr) {
	syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}

// readable reports whether a read would come back at once: with octets, the end, or an error. It is false where
// nobody can tell; within TLS what is there may be the protocol's own.
func (s socket) readable() bool {
	if s.raw == nil || !s.clear {
		return false
	}
	s.peek.ready = false
	s.raw.Control(s.peek.look)
	return s.peek.ready
}

// tellsWritten reports whether a Write that counts no octets has certainly sent none.
func (s socket) tellsWritten() bool { return s.raw != nil && s.clear }
