package sasl

import (
	"crypto/tls"
	"fmt"

	"github.com/xdg-go/scram"
)

// channelBinding ties SCRAM to a TLS connection. On TLS 1.3 that is tls-exporter (RFC 9266). On TLS
// 1.2 it is tls-unique, the default of RFC 5802 section 6.1 and all that Cyrus knows. crypto/tls
// gives tls-unique only where it is sound: not for a session that was resumed without extended
// master secret, which RFC 7677 section 4 rules out.
func channelBinding(state *tls.ConnectionState) (scram.ChannelBinding, error) {
	switch {
	case state == nil:
		return unboundTo("the connection is not known to be TLS")
	case !state.HandshakeComplete:
		return unboundTo("the TLS handshake has not been done")
	case state.Version >= tls.VersionTLS13:
		binding, err := scram.NewTLSExporterBinding(state)
		if err != nil {
			return unboundTo(err.Error())
		}
		return binding, nil
	case state.Version < tls.VersionTLS12:
		return unboundTo("TLS before 1.2 is not safe to bind to")
	case len(state.TLSUnique) == 0:
		return unboundTo("TLS gives no tls-unique for this resumed session")
	}
	return scram.NewTLSUniqueBinding(state.TLSUnique), nil
}

func unboundTo(why string) (scram.ChannelBinding, error) {
	return scram.ChannelBinding{}, fmt.Errorf("%w: %s; use the form without -PLUS", ErrChannelBinding, why)
}
