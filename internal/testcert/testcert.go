// Package testcert makes certificates for tests and for the servers that tests run. The certificates are valid from
// 1970 to 2999, because the clock of a testing/synctest bubble starts in the year 2000. The functions panic if they
// cannot make a certificate.
package testcert

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

// serial is the serial number of the last certificate.
var serial atomic.Int64

// An Authority is a certificate that is signed by itself and signs others.
type Authority struct{ tls.Certificate }

// New returns a new authority. If names are given, its certificate is also valid for servers with these names; see
// [Authority.Server].
func New(names ...string) *Authority {
	template := templateFor(names)
	template.Subject.CommonName = "test authority"
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	if len(names) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	return &Authority{issue(template, nil)}
}

// Server returns a certificate for a server with these names. A name may be an IP address.
func (a *Authority) Server(names ...string) tls.Certificate {
	template := templateFor(names)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.Issue(template)
}

// Client returns a certificate that identifies its holder as name.
func (a *Authority) Client(name string) tls.Certificate {
	return a.Issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Issue signs a certificate with the fields of template. If the serial number, the validity or the key usage is zero,
// it is filled in.
func (a *Authority) Issue(template *x509.Certificate) tls.Certificate { return issue(template, a) }

// Pool returns a pool that contains only the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Leaf)
	return pool
}

// PEM returns the certificate and its private key (PKCS #8) as PEM.
func PEM(c tls.Certificate) (cert, key []byte) {
	secret := must(x509.MarshalPKCS8PrivateKey(c.PrivateKey))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func templateFor(names []string) *x509.Certificate {
	template := new(x509.Certificate)
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

// issue signs a certificate with the key of a. If a is nil, the certificate is signed by itself.
func issue(template *x509.Certificate, a *Authority) tls.Certificate {
	filled := *template
	if filled.SerialNumber == nil {
		filled.SerialNumber = big.NewInt(serial.Add(1))
	}
	if filled.NotBefore.IsZero() {
		filled.NotBefore = time.Unix(0, 0)
	}
	if filled.NotAfter.IsZero() {
		filled.NotAfter = time.Date(2999, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	if filled.KeyUsage == 0 {
		filled.KeyUsage = x509.KeyUsageDigitalSignature
	}
	filled.BasicConstraintsValid = true
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	parent, signer := &filled, any(key)
	if a != nil {
		parent, signer = a.Leaf, a.PrivateKey
	}
	der := must(x509.CreateCertificate(rand.Reader, &filled, parent, key.Public(), signer))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: must(x509.ParseCertificate(der))}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("testcert: " + err.Error())
	}
	return v
}
