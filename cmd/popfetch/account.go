package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// An account contains the settings of one maildrop, and the values that popfetch makes from them.
type account struct {
	settings
	seen   fetch.Seen
	sink   fetch.Sink
	tls    *tls.Config // TLS configuration; nil for the defaults
	dial   dialer
	latest cachedSecret  // the latest password or token
	state  string        // folder with the record of stored messages
	env    []string      // environment of commands
	wake   chan struct{} // a value on this channel makes a daemon fetch at once
	failed bool          // whether the last run failed
}

// These are default values.
const (
	defaultParallel       = 4
	defaultInterval       = 10 * time.Minute
	defaultCommandTimeout = 5 * time.Minute
	defaultRunTimeout     = time.Hour
)

// build returns the accounts of a configuration. The error joins the mistakes of all accounts.
func (c *config) build() (accounts []*account, err error) {
	dir, err := stateDir(string(c.State))
	if err != nil {
		return nil, err
	}
	for _, s := range c.accounts {
		a := &account{settings: s, dial: dialers[s.TLS], state: dir, env: c.environment(s)}
		a.seen, a.wake = fetch.FileSeen{Dir: dir}, make(chan struct{}, 1)
		a.sink = a.newSink()
		var tlsErr error
		if a.tls, tlsErr = s.tlsConfig(); tlsErr != nil {
			err = errors.Join(err, fmt.Errorf("account %q: %w", s.Name, tlsErr))
		}
		accounts = append(accounts, a)
	}
	return accounts, err
}

// environment returns the environment of the commands of an account. It contains the variables of popfetch, except for
// those with passwords. It also contains the name, the user and the server of the account.
func (c *config) environment(s settings) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(c.accounts, func(s settings) bool { return s.PasswordEnv == name })
	})
	return append(env, "POPFETCH_ACCOUNT="+s.Name, "POPFETCH_USER="+s.User, "POPFETCH_SERVER="+s.Server)
}

// stateDir returns the folder for the records of stored messages. The default is the folder that the XDG base directory
// specification names.
func stateDir(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "popfetch"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "popfetch"), err
}

// key returns the name of the maildrop in the record of stored messages. The usual ports are not part of that name, so
// it stays the same when TLS is switched on.
func (s *settings) key() string {
	host, port, err := net.SplitHostPort(s.Server)
	if err != nil {
		host = s.Server
	}
	switch {
	case s.ID != "":
		return s.ID
	case port == "" || port == "110" || port == "995":
		return s.User + "@" + strings.ToLower(host)
	}
	return s.User + "@" + strings.ToLower(s.Server)
}

// These are the values of the key tls.
const (
	tlsImplicit = "implicit" // TLS from the first byte
	tlsStart    = "starttls"
	tlsNone     = "none"
)

// A dialer connects to a server.
type dialer func(ctx context.Context, addr string, opts *pop3.Options) (*pop3.Client, error)

var dialers = map[string]dialer{
	"":          pop3.DialTLS,
	tlsImplicit: pop3.DialTLS,
	tlsStart:    pop3.DialStartTLS,
	tlsNone:     pop3.DialInsecure,
}

// connect connects to the server and logs in. If the server refuses a token, connect gets a new token and tries again.
func (a *account) connect(ctx context.Context, log *slog.Logger) (*pop3.Client, error) {
	secret, err := a.secret(ctx, false)
	if err != nil {
		return nil, err
	}
	c, err := a.logIn(ctx, log, secret)
	if a.usesToken() && isRefusedLogin(err) {
		fresh, freshErr := a.secret(ctx, true)
		switch {
		case freshErr != nil:
			err = fmt.Errorf("%w; asking for another token failed: %w", err, freshErr)
		case fresh != secret:
			c, err = a.logIn(ctx, log, fresh)
		}
	}
	return c, err
}

// isRefusedLogin reports whether the server has refused a password or a token.
func isRefusedLogin(err error) bool {
	refusal, ok := errors.AsType[*pop3.Error](err)
	if !ok {
		return false
	}
	rejects, _ := refusal.RejectsCredentials()
	return rejects
}

// logIn connects and logs in with a password or token.
func (a *account) logIn(ctx context.Context, log *slog.Logger, secret string) (*pop3.Client, error) {
	c, err := a.dial(ctx, a.Server, a.options(log))
	if err != nil {
		return nil, err
	}
	switch {
	case a.externalOnly():
		err = c.Auth(ctx, sasl.External(a.User))
	case !a.usesToken():
		err = c.Login(ctx, a.User, secret)
	case a.Mechanisms[0] == "XOAUTH2":
		err = c.Auth(ctx, sasl.XOAuth2(a.User, secret))
	default:
		err = c.Auth(ctx, sasl.OAuthBearer(a.User, secret))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// usesToken reports whether the password is an OAuth token.
func (s *settings) usesToken() bool {
	return slices.Equal(s.Mechanisms, list{"XOAUTH2"}) || slices.Equal(s.Mechanisms, list{"OAUTHBEARER"})
}

// externalOnly reports whether the client certificate takes the place of a password.
func (s *settings) externalOnly() bool { return slices.Equal(s.Mechanisms, list{"EXTERNAL"}) }

// options returns the options of a connection.
func (a *account) options(log *slog.Logger) *pop3.Options {
	o := &pop3.Options{Timeout: a.Timeout.Duration, InsecureAuth: a.InsecureAuth, TLSConfig: a.tls}
	o.Pipelining = map[string]pop3.Pipelining{
		"never": pop3.PipeliningNever, "always": pop3.PipeliningAlways,
	}[a.Pipelining]
	o.Compat = pop3.Compat{NoCapa: a.NoCapa, NoInitialResponse: a.NoInitialResponse}
	if a.Proxy.URL != nil {
		o.DialContext = a.Proxy.dial
	}
	if !a.usesToken() && !a.externalOnly() {
		o.Mechanisms = a.Mechanisms
	}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		o.Trace = pop3.LogTrace(log)
	}
	return o
}

var tlsVersions = map[string]uint16{
	"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

// tlsConfig returns the TLS configuration. It returns nil if the account sets no key about TLS.
func (s *settings) tlsConfig() (c *tls.Config, err error) {
	if s.CAFile == "" && s.Fingerprint == nil && s.CertificateName == "" && s.ClientKey == "" && s.TLSMin == "" {
		return nil, nil
	}
	c = &tls.Config{ServerName: s.CertificateName, MinVersion: tlsVersions[s.TLSMin]}
	c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if s.CAFile != "" {
		if c.RootCAs, err = readRoots(string(s.CAFile)); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
	}
	if s.Fingerprint != nil {
		c.InsecureSkipVerify, c.VerifyConnection = true, s.Fingerprint.verify
	}
	if s.ClientKey != "" {
		pair, err := tls.LoadX509KeyPair(string(s.ClientCertificate), string(s.ClientKey))
		if err != nil {
			return nil, fmt.Errorf("client_certificate and client_key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// verify returns an error if the certificate of the server has another fingerprint.
func (f fingerprint) verify(state tls.ConnectionState) error {
	sum := sha256.Sum256(state.PeerCertificates[0].Raw)
	if !bytes.Equal(sum[:], f) {
		return fmt.Errorf("the certificate of the server has another fingerprint: %v; "+
			"ask the administrator whether it was changed", fingerprint(sum[:]))
	}
	return nil
}

// readRoots reads certificates from a PEM file.
func readRoots(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("there is no certificate in %s; it must be a PEM file", name)
	}
	return pool, nil
}

// A proxyURL is a proxy to connect through: socks5://HOST:PORT or http://HOST:PORT.
type proxyURL struct{ *url.URL }

func (p *proxyURL) read(v any) error {
	text, _ := v.(string)
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "socks5" && u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" {
		return errors.New(`a URL with a port, as in "socks5://localhost:1080" or "http://proxy.example.org:8080"`)
	}
	p.URL = u
	return nil
}

func (p proxyURL) hasPassword() bool { return p.URL != nil && p.User != nil }

// dial connects to a server through the proxy.
func (p proxyURL) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	if p.Scheme == "socks5" {
		var socks proxy.Dialer
		if socks, err = proxy.FromURL(p.URL, new(net.Dialer)); err == nil {
			conn, err = socks.(proxy.ContextDialer).DialContext(ctx, network, addr)
		}
	} else {
		conn, err = p.dialHTTP(ctx, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %w", p.Host, err)
	}
	return conn, nil
}

// dialHTTP connects with CONNECT (RFC 9110 section 9.3.6).
func (p proxyURL) dialHTTP(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Host)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if password, ok := p.User.Password(); ok {
		basic := base64.StdEncoding.EncodeToString([]byte(p.User.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+basic)
	}
	r := bufio.NewReader(conn)
	err = request.Write(conn)
	var response *http.Response
	if err == nil {
		response, err = http.ReadResponse(r, request)
	}
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the proxy answered %s", response.Status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return bufferedConn{conn, r}, nil
}

// A bufferedConn reads from a buffer and then from the connection. When the reply of the proxy is read, the first data
// of the server may be read too. That data is in the buffer.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
func (c bufferedConn) NetConn() net.Conn          { return c.Conn }
