package pop3test

import (
	"crypto/tls"
	"crypto/x509"
	"sync"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

// canSTLS reports whether STLS is available now.
func (s *session) canSTLS() bool {
	return s.srv.TLS != nil && s.tlsState() == nil && !s.utf8
}

// tlsState returns the TLS state of this connection. It returns nil if the connection is in clear.
func (s *session) tlsState() *tls.ConnectionState {
	t, ok := s.wire.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	return &state
}

// stls answers STLS (RFC 2595 section 4). If data in clear follows the command, the server hangs up, so that the data
// is never treated as data that was received over TLS.
func (s *session) stls([]string) {
	if !s.canSTLS() {
		s.refuse("", "STLS is not available")
		return
	}
	if s.in.Buffered() > 0 {
		s.refuse("", "nothing may follow STLS before its reply")
		s.ended = true
		return
	}
	s.ok("begin TLS")
	if s.out.Flush() != nil || !s.handshake() {
		s.ended = true
		return
	}
	s.in.Reset(input{s})
	s.timestamp = "" // the timestamp was sent in clear, where an attacker could change it
}

// handshake starts TLS on the connection of the session.
func (s *session) handshake() bool {
	t := tls.Server(s.wire.raw, s.srv.ServerTLS())
	s.startAutologout()
	if err := t.Handshake(); err != nil {
		return false
	}
	s.wire.conn = t
	return true
}

// ServerTLS returns the TLS configuration that the server uses. It is a copy of the field TLS. If the field contains no
// certificate, the server's own certificate is added. Pass it to [tls.Server] to make a connection with TLS from the
// first octet for [Server.ServeConn].
//
// It always returns the same configuration, so that clients can resume TLS sessions. It must not be changed.
// Set the field TLS before the first call; later changes have no effect.
func (s *Server) ServerTLS() *tls.Config {
	s.tlsOnce.Do(func() {
		s.tlsConf = new(tls.Config)
		if s.TLS != nil {
			s.tlsConf = s.TLS.Clone()
		}
		c := s.tlsConf
		if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
			c.Certificates = []tls.Certificate{ownCertificate()}
		}
	})
	return s.tlsConf
}

// ClientTLS returns a new client configuration that trusts the server's certificate and nothing else. Its ServerName is
// empty, so that the client checks the name that it dials. The server's own certificate is valid for 127.0.0.1, ::1,
// localhost, example.com and every name directly below example.com. If nothing is dialed, as with [tls.Client] on a
// net.Pipe, set ServerName to one of these names.
func (s *Server) ClientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(ownCertificate().Leaf)
	if s.TLS != nil {
		for _, chain := range s.TLS.Certificates {
			trust(pool, chain)
		}
	}
	return &tls.Config{RootCAs: pool}
}

func trust(pool *x509.CertPool, chain tls.Certificate) {
	for _, der := range chain.Certificate {
		if cert, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(cert)
		}
	}
}

// ownCertificate returns a certificate that all servers of a process use.
var ownCertificate = sync.OnceValue(func() tls.Certificate {
	return testcert.New("localhost", "example.com", "*.example.com", "127.0.0.1", "::1").Certificate
})
