package testcert_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

func TestCertificates(t *testing.T) {
	a, other := testcert.New(), testcert.New("localhost", "::1")
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		host string
		use  []x509.ExtKeyUsage
		by   *testcert.Authority
		err  any // a pointer to the type of the expected error; nil if no error is expected
	}{
		{"a name", a.Server("pop.example.com"), "pop.example.com", server, a, nil},
		{"an address", a.Server("127.0.0.1"), "127.0.0.1", server, a, nil},
		{"an authority's own names", other.Certificate, "::1", server, other, nil},
		{"another name", a.Server("pop.example.com"), "example.org", server, a, new(x509.HostnameError)},
		{"another authority", a.Server("localhost"), "localhost", server, other, new(x509.UnknownAuthorityError)},
		{"a client", a.Client("mrose"), "", client, a, nil},
		{"a client as a server", a.Client("mrose"), "", server, a, new(x509.CertificateInvalidError)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := x509.VerifyOptions{Roots: tt.by.Pool(), DNSName: tt.host, KeyUsages: tt.use}
			_, err := tt.cert.Leaf.Verify(opts)
			if tt.err == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorAs(t, err, tt.err)
			}
		})
	}
}

func TestPEM(t *testing.T) {
	cert := testcert.New().Server("localhost")
	parsed, err := tls.X509KeyPair(testcert.PEM(cert))
	require.NoError(t, err)
	assert.Equal(t, cert.Certificate, parsed.Certificate)
	assert.Equal(t, cert.PrivateKey, parsed.PrivateKey)
}
