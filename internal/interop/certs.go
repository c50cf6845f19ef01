package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync/atomic"
	"time"
)

// An authority is a certificate authority for one server: it signs the server's certificate and those of its
// users.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64 // of the last certificate
}

// newAuthority makes an authority of one day's validity.
func newAuthority() (*authority, error) {
	ca := &authority{}
	template := ca.template("Interop CA")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	var err error
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	ca.cert, err = x509.ParseCertificate(der)
	return ca, err
}

func (ca *authority) template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial.Add(1)),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// server makes the certificate of a server on loopback.
func (ca *authority) server() (tls.Certificate, error) {
	template := ca.template("localhost")
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return ca.issue(template)
}

// client makes a certificate that proves its holder to be name.
func (ca *authority) client(name string) (tls.Certificate, error) {
	template := ca.template(name)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return ca.issue(template)
}

func (ca *authority) issue(template *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func pemCert(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func pemKey(cert tls.Certificate) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// writeCerts makes the server's authority and puts what servers want to read below srv/tls.
func (s *Server) writeCerts() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	cert, err := ca.server()
	if err != nil {
		return err
	}
	key, err := pemKey(cert)
	if err != nil {
		return err
	}
	s.ca = ca
	s.Roots = x509.NewCertPool()
	s.Roots.AddCert(ca.cert)
	public := pemCert(cert.Certificate[0])
	for name, text := range map[string]string{
		"ca.crt": pemCert(ca.cert.Raw), "server.crt": public, "server.key": key, "server.pem": public + key,
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

// ClientCertificate is a certificate by which the server takes its holder to be name (SASL EXTERNAL).
func (s *Server) ClientCertificate(name string) (tls.Certificate, error) { return s.ca.client(name) }
