package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A diagnosis contains what a server offers before a login.
type diagnosis struct {
	Host      string      `json:"host"`
	Endpoints []*endpoint `json:"endpoints"`
}

// An endpoint is the result for one port of a server.
type endpoint struct {
	Addr    string `json:"addr"`
	TLS     string `json:"tls"`
	Error   string `json:"error,omitempty"`
	Refused bool   `json:"refused,omitempty"` // the greeting was -ERR, and Error contains its text
	// the server closes the connection at the first or second CAPA
	NoCapa   bool   `json:"no_capa,omitempty"`
	Greeting string `json:"greeting,omitempty"`
	// time from the beginning of the connection to the greeting
	GreetingDelay time.Duration `json:"greeted_ns,omitempty"`
	RoundTrip     time.Duration `json:"round_trip_ns,omitempty"` // time that a command takes
	Clear         *offer        `json:"clear,omitempty"`         // what the server offers before TLS
	Encrypted     *offer        `json:"encrypted,omitempty"`     // what the server offers after TLS
	Version       string        `json:"tls_version,omitempty"`
	Cipher        string        `json:"tls_cipher,omitempty"`
	Certificates  []certificate `json:"certificates,omitempty"`
	Distrust      string        `json:"distrust,omitempty"` // why the certificate is not trusted; "" if it is trusted
	TLSError      string        `json:"tls_error,omitempty"`

	distrustErr error
	tlsVersion  uint16
}

// An offer contains the capabilities that a server announces.
type offer struct {
	Capabilities pop3.Capabilities `json:"capabilities"` // nil if the server rejects CAPA
	Mechanisms   []string          `json:"mechanisms,omitempty"`
}

type certificate struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Names       []string  `json:"names,omitempty"`
	Expires     time.Time `json:"expires"`
	Fingerprint string    `json:"sha256"`
}

// portTimeout is the Timeout of the connections to each port.
const portTimeout = 15 * time.Second

// diagnoseHost carries out popfetch --diagnose.
func (p *program) diagnoseHost() int {
	d := &doctor{host: clean(p.diagnose), trace: pop3.LogTrace(p.log)}
	if p.caFile != "" {
		var err error
		if d.roots, err = readRoots(p.caFile); err != nil {
			fmt.Fprintf(p.stderr, "popfetch: --ca-file: %v\n", err)
			return exitConfig
		}
	}
	found := d.examine(p.stop)
	if p.json {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(found)
	} else {
		io.WriteString(p.stdout, found.text(time.Now()))
	}
	switch {
	case p.stop.Err() != nil:
		return exitStopped
	case found.best() != nil:
		return exitDone
	case slices.ContainsFunc(found.Endpoints, func(e *endpoint) bool { return e.Refused }):
		return exitFailed
	}
	return exitNoPOP3
}

// A doctor examines a server.
type doctor struct {
	host  string // host or host:port
	roots *x509.CertPool
	trace *pop3.Trace
}

// examine checks the usual ports. If d.host contains a port, it checks only that port.
func (d *doctor) examine(ctx context.Context) *diagnosis {
	host, port, err := net.SplitHostPort(d.host)
	if err != nil {
		return &diagnosis{d.host, []*endpoint{
			d.checkPort(ctx, d.host, net.JoinHostPort(d.host, "995"), tlsImplicit),
			d.checkPort(ctx, d.host, net.JoinHostPort(d.host, "110"), tlsStart),
		}}
	}
	// Implicit TLS is tried first. A server that expects TLS sends nothing in clear, so in the other order the first
	// attempt would wait for the timeout.
	first := d.checkPort(ctx, host, net.JoinHostPort(host, port), tlsImplicit)
	if first.Error != "" && !first.Refused {
		if second := d.checkPort(ctx, host, first.Addr, tlsStart); second.Error == "" || port != "995" {
			first = second
		}
	}
	return &diagnosis{host, []*endpoint{first}}
}

// checkPort checks one port.
func (d *doctor) checkPort(ctx context.Context, host, addr string, mode string) *endpoint {
	e := &endpoint{Addr: addr, TLS: mode}
	err := e.checkSession(ctx, d, host, mode == tlsImplicit)
	if err != nil && e.NoCapa {
		err = e.checkSession(ctx, d, host, mode == tlsImplicit)
	}
	if err != nil {
		e.Error, e.Refused = errorText(err), isRefusal(err)
		return e
	}
	if mode == tlsStart {
		e.TLS = tlsNone
		if e.Clear.Capabilities.Has("STLS") || e.Clear.Capabilities == nil {
			e.startTLS(ctx, d, host)
		}
	}
	return e
}

// checkSession makes a session without STLS. If encrypted is true, the session uses TLS from the first byte.
func (e *endpoint) checkSession(ctx context.Context, d *doctor, host string, encrypted bool) error {
	dial, target := pop3.DialInsecure, &e.Clear
	if encrypted {
		dial, target = pop3.DialTLS, &e.Encrypted
	}
	start := time.Now()
	c, err := dial(ctx, e.Addr, d.options(e, host))
	if err != nil {
		return err
	}
	defer c.Close()
	e.Greeting, e.GreetingDelay = clean(c.Greeting()), time.Since(start)
	e.setTLSVersion(c)
	start = time.Now()
	*target, err = requestOffer(ctx, c)
	e.RoundTrip = time.Since(start)
	if err != nil {
		e.NoCapa = errors.Is(err, io.ErrUnexpectedEOF)
		return err
	}
	if !e.NoCapa {
		second, err := roundTrip(ctx, c)
		e.RoundTrip, e.NoCapa = min(e.RoundTrip, second), errors.Is(err, io.ErrUnexpectedEOF)
	}
	c.Quit(ctx) // some servers close the connection after one command, so an error does not matter
	return nil
}

// startTLS makes a session with STLS.
func (e *endpoint) startTLS(ctx context.Context, d *doctor, host string) {
	c, err := pop3.DialStartTLS(ctx, e.Addr, d.options(e, host))
	if err == nil {
		defer c.Close()
		e.TLS = tlsStart
		e.setTLSVersion(c)
		e.Encrypted, err = requestOffer(ctx, c)
	}
	e.TLSError = errorText(err)
}

// options returns options that accept any certificate, because no secret is sent. They store the certificates in e.
func (d *doctor) options(e *endpoint, host string) *pop3.Options {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		e.setCertificates(state, host, d.roots)
		return nil
	}
	compat := pop3.Compat{NoCapa: e.NoCapa}
	return &pop3.Options{Timeout: portTimeout, Trace: d.trace, Compat: compat, TLSConfig: config}
}

// setCertificates stores the certificates of the server in e. If they are not trusted, it also stores the reason.
func (e *endpoint) setCertificates(state tls.ConnectionState, host string, roots *x509.CertPool) {
	e.Certificates = nil
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates {
		e.Certificates = append(e.Certificates, newCertificate(c))
		intermediates.AddCert(c)
	}
	name := state.ServerName // the server name is empty if the host is an IP address
	if name == "" {
		name = host
	}
	opts := x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates}
	_, e.distrustErr = state.PeerCertificates[0].Verify(opts)
	e.Distrust = errorText(e.distrustErr)
}

func newCertificate(c *x509.Certificate) certificate {
	sum := sha256.Sum256(c.Raw)
	d := certificate{
		Subject: clean(c.Subject.String()), Issuer: clean(c.Issuer.String()), Expires: c.NotAfter,
		Fingerprint: fingerprint(sum[:]).String(),
	}
	for _, name := range c.DNSNames {
		d.Names = append(d.Names, clean(name))
	}
	for _, ip := range c.IPAddresses {
		d.Names = append(d.Names, ip.String())
	}
	return d
}

// setTLSVersion stores the TLS version and the cipher suite in e.
func (e *endpoint) setTLSVersion(c *pop3.Client) {
	if state, ok := c.TLSConnectionState(); ok {
		e.tlsVersion, e.Version = state.Version, tls.VersionName(state.Version)
		e.Cipher = tls.CipherSuiteName(state.CipherSuite)
	}
}

// requestOffer sends CAPA and returns what the server offers.
func requestOffer(ctx context.Context, c *pop3.Client) (*offer, error) {
	caps, err := c.Capa(ctx)
	return &offer{Capabilities: caps, Mechanisms: caps.SASL()}, err
}

// roundTrip returns how long a second CAPA takes. A refusal of CAPA is not an error.
func roundTrip(ctx context.Context, c *pop3.Client) (time.Duration, error) {
	start := time.Now()
	m, err := c.CmdMulti(ctx, "CAPA")
	if err == nil {
		_, err = m.WriteTo(io.Discard)
	}
	if isRefusal(err) {
		err = nil
	}
	return time.Since(start), err
}

// isRefusal reports whether an error is a negative reply of the server.
func isRefusal(err error) bool {
	_, ok := errors.AsType[*pop3.Error](err)
	return ok
}

// best returns the endpoint to use. It prefers trusted TLS, then any TLS, then no TLS. It returns nil if no endpoint
// can be used.
func (d *diagnosis) best() *endpoint {
	var best *endpoint
	for _, e := range d.Endpoints {
		if e.Error == "" && (best == nil || e.rank() > best.rank()) {
			best = e
		}
	}
	return best
}

func (e *endpoint) rank() int {
	rank := 0
	if e.TLS == tlsImplicit {
		rank++
	}
	if e.Encrypted != nil {
		rank += 2
		if e.Distrust == "" {
			rank += 2
		}
	}
	return rank
}
