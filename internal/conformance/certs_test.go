package conformance_test

import (
	"crypto/tls"
	"sync"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

var goodAuthority = sync.OnceValue(func() *testcert.Authority { return testcert.New() })

// serverTLS is that of a good server for pop.example.com, which clientTLS trusts.
var serverTLS = sync.OnceValue(func() *tls.Config { return present(goodAuthority().Server("pop.example.com")) })

func clientTLS() *tls.Config { return &tls.Config{RootCAs: goodAuthority().Pool()} }

// present is the configuration of a server with that certificate.
func present(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}
