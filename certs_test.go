package pop3_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"time"
)

// An authority signs certificates for the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// The clock of a bubble begins in the year 2000.
var (
	longAgo  = time.Date(1970, time.January, 1, 0, 0, 0, 0, time.UTC)
	farAhead = time.Date(2084, time.January, 1, 0, 0, 0, 0, time.UTC)
)

var (
	goodAuthority  = sync.OnceValue(newAuthority)
	otherAuthority = sync.OnceValue(newAuthority)
)

func newAuthority() *authority {
	a := &authority{key: newKey()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: longAgo, NotAfter: farAhead,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	a.cert = sign(a.cert, a.cert, &a.key.PublicKey, a.key)
	return a
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// issue makes a certificate for a server; change makes it worse.
func (a *authority) issue(names []string, change func(*x509.Certificate)) *tls.Config {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: longAgo, NotAfter: farAhead,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	key := newKey()
	leaf := sign(template, a.cert, &key.PublicKey, a.key)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key,
		Leaf: leaf}}}
}

// trusts is a configuration that trusts the authority and nobody else.
func (a *authority) trusts() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool}
}

// serverTLS is that of a good server for pop.example.com, which clientTLS trusts.
var serverTLS = sync.OnceValue(func() *tls.Config {
	return goodAuthority().issue([]string{"pop.example.com"}, nil)
})

func clientTLS() *tls.Config { return goodAuthority().trusts() }
