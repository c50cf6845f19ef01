package lossproof

import (
	"crypto/tls"
	"sync"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

const hostName = "pop.example.org"

var authority = sync.OnceValue(func() *testcert.Authority { return testcert.New(hostName) })

// serverTLS is the server's configuration. Session tickets are on, because they are data that no command asks for.
var serverTLS = sync.OnceValue(func() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{authority().Certificate},
		CurvePreferences: []tls.CurveID{tls.X25519}}
})

// clientTLS trusts the certificate of serverTLS.
var clientTLS = sync.OnceValue(func() *tls.Config {
	return &tls.Config{RootCAs: authority().Pool(), CurvePreferences: []tls.CurveID{tls.X25519}}
})
