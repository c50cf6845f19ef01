package interop

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

// writeCerts makes the server's authority and writes the files that servers read to srv/tls.
func (s *Server) writeCerts() error {
	s.ca = testcert.New()
	s.Roots = s.ca.Pool()
	ca, _ := testcert.PEM(s.ca.Certificate)
	cert, key := testcert.PEM(s.ca.Issue(&x509.Certificate{
		Subject:  pkix.Name{CommonName: "localhost"}, // fetchmail rejects a certificate without a common name
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}))
	for name, text := range map[string]string{
		"ca.crt": string(ca), "server.crt": string(cert), "server.key": string(key),
		"server.pem": string(cert) + string(key),
	} {
		mode := os644
		if name == "server.key" {
			mode = s.spec.keyMode
		}
		if err := s.write("srv/tls/"+name, text, mode); err != nil {
			return err
		}
	}
	return nil
}

// ClientCertificate returns a certificate that identifies its holder as name (SASL EXTERNAL).
func (s *Server) ClientCertificate(name string) tls.Certificate { return s.ca.Client(name) }
