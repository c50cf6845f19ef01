package pop3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// DialTLS connects with TLS from the first byte (RFC 8314) and reads the greeting. addr is "host:port", or "host"
// for port 995. The host is a name, which may be internationalized, or an IP address, with or without brackets; it
// must be in the server's certificate.
//
// If addr is not valid, the error wraps [ErrArgument]. If the certificate cannot be verified, the error wraps a
// [*tls.CertificateVerificationError]. If the greeting is -ERR, the error is an [*Error] whose Cmd is "greeting".
func DialTLS(ctx context.Context, addr string, opts *Options) (*Client, error) {
	return dial(ctx, addr, "995", opts, implicitTLS)
}

// DialStartTLS connects in clear, upgrades with STLS (RFC 2595) and verifies the certificate. If the server does
// not offer STLS or refuses it, the error wraps [ErrTLSRequired]: there is no fallback to clear text. For addr and
// the other errors see [DialTLS]. The default port is 110.
func DialStartTLS(ctx context.Context, addr string, opts *Options) (*Client, error) {
	return dial(ctx, addr, "110", opts, startTLS)
}

// DialInsecure connects in clear and never encrypts. Passwords are sent only if the server is on the same machine
// or Options.InsecureAuth is set; see [ErrInsecureAuth]. For addr and the errors see [DialTLS]. The default port
// is 110.
func DialInsecure(ctx context.Context, addr string, opts *Options) (*Client, error) {
	return dial(ctx, addr, "110", opts, inClear)
}

// NewClient starts a session on a connection that exists already, such as a [net.Pipe], a tunnel or a [*tls.Conn].
// On a *tls.Conn it first completes the handshake. It reads the greeting. On failure it closes conn.
//
// NewClient does not know the host name. So it allows passwords and tokens only on a *tls.Conn that verified the
// server's certificate. On a Unix socket it allows passwords. On any other connection set Options.InsecureAuth.
//
// conn should support SetDeadline. If it does not, set Options.Timeout to a negative value and bound each call
// with its context.
func NewClient(ctx context.Context, conn net.Conn, opts *Options) (*Client, error) {
	o := opts.read()
	_, verified := conn.(*net.UnixConn)
	if tc, ok := conn.(*tls.Conn); ok {
		if err := handshake(ctx, tc, o.Timeout); err != nil {
			hangUp(conn)
			return nil, fmt.Errorf("pop3: TLS handshake: %w", err)
		}
		verified = len(tc.ConnectionState().VerifiedChains) > 0
	}
	c := newClient(conn, o, peer{verified: verified})
	if err := c.readGreeting(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func newClient(nc net.Conn, o Options, p peer) *Client {
	return &Client{conn: newConn(nc, o.Timeout), opts: o, trace: o.Trace, peer: p}
}

// A security is a way to protect a connection. The client never falls back from one to another.
type security int

const (
	implicitTLS security = iota
	startTLS
	inClear
)

func dial(ctx context.Context, addr, port string, opts *Options, mode security) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("pop3: dial %s: %w", printable.Clean(addr), err)
	}
	o := opts.read()
	host, port, err := splitAddr(addr, port)
	if err != nil {
		return nil, err
	}
	addr = net.JoinHostPort(host, port)
	nc, err := o.connect(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("pop3: dial %s: %w", addr, err)
	}
	config := o.tlsConfig(host)
	p := peer{loopback: o.isLoopback(host, port, nc)}
	if mode == implicitTLS {
		tc := tls.Client(&tlsGate{Conn: nc}, config)
		if err := handshake(ctx, tc, o.Timeout); err != nil {
			nc.Close()
			return nil, fmt.Errorf("pop3: TLS with %s: %w", addr, explainClear(err))
		}
		p.setVerified(tc, config)
		nc = tc
	}
	c := newClient(nc, o, p)
	if mode != implicitTLS && port == "995" && (o.Timeout < 0 || o.Timeout > tlsPortPatience) {
		c.conn.clock.timeout = tlsPortPatience
	}
	if err := c.readGreeting(ctx); err != nil {
		return nil, explainPort(err, mode)
	}
	if c.conn.clock.timeout = o.Timeout; o.Timeout < 0 {
		c.conn.setDeadline(net.Conn.SetReadDeadline, time.Time{}) // remove the deadline of the greeting
	}
	if mode == startTLS {
		if err := c.stls(ctx, config); err != nil {
			c.conn.closeWithError(err)
			return nil, err
		}
	}
	return c, nil
}

// tlsPortPatience limits the wait for a greeting in clear on port 995. A server that sends nothing on that port is
// waiting for TLS.
const tlsPortPatience = 10 * time.Second

// splitAddr returns the host without brackets, as it is in certificates, and the port. If addr has no port, it
// returns defaultPort.
func splitAddr(addr, defaultPort string) (host, port string, err error) {
	host, port = addr, defaultPort
	if h, p, err := net.SplitHostPort(addr); err == nil {
		host, port = h, p
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if net.ParseIP(host) == nil && !isASCII(host) {
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", "", fmt.Errorf("pop3: dial %q: %w: %w", printable.Clean(addr), ErrArgument, printable.Error(err))
		}
	}
	if problem := addrProblem(host, port); problem != "" {
		return "", "", fmt.Errorf("pop3: dial %q: %w: %s", printable.Clean(addr), ErrArgument, problem)
	}
	return host, port, nil
}

// addrProblem returns a text that says why an address is invalid, or "".
func addrProblem(host, port string) string {
	switch {
	case strings.Contains(host, "/") || strings.Contains(port, "/"):
		return "it has to be host:port, not a URL"
	case host == "":
		return "it needs a host"
	case port == "":
		return "it needs a port after the colon"
	case strings.ContainsFunc(host, unicode.IsControl) || strings.ContainsFunc(port, unicode.IsControl):
		return "it has control characters"
	case !isASCII(port):
		return "the port is not ASCII"
	}
	return ""
}

// connect opens the connection below TLS.
func (o *Options) connect(ctx context.Context, addr string) (net.Conn, error) {
	dial := o.DialContext
	var tcp net.Conn
	if dial == nil {
		dialer, err := environmentDialer(&tcp)
		if err != nil {
			return nil, err
		}
		dial = dialer.DialContext
	}
	limited, cancel := limitTime(ctx, o.Timeout)
	defer cancel()
	nc, err := dial(limited, "tcp", addr)
	if nc == nil && err == nil {
		err = errors.New("DialContext returned no connection and no error")
	}
	if err == nil && tcp != nil && nc != tcp {
		nc = proxied{nc, tcp}
	}
	return nc, explainTimeout(ctx, limited, printable.Error(err))
}

// A proxied connection has a method NetConn, which the connection of package proxy does not have.
type proxied struct {
	net.Conn
	tcp net.Conn
}

func (p proxied) NetConn() net.Conn { return p.tcp }

// environmentDialer returns the dialer for the settings in ALL_PROXY and NO_PROXY. A proxy of an unknown kind
// is an error, because the user does not want a direct connection. No error contains the setting, which may
// include a password.
func environmentDialer(dialed *net.Conn) (proxy.ContextDialer, error) {
	setting := cmp.Or(os.Getenv("ALL_PROXY"), os.Getenv("all_proxy"))
	if setting == "" {
		return directDialer{dialed}, nil
	}
	const want = "want socks5://host:port, or DialContext for any other proxy"
	u, err := url.Parse(setting)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the environment variable ALL_PROXY is not the URL of a proxy: " + want)
	}
	if n, err := strconv.ParseUint(cmp.Or(u.Port(), "1080"), 10, 16); err != nil || n == 0 {
		return nil, errors.New("the environment variable ALL_PROXY has an invalid port: " + want)
	}
	proxyDialer, err := proxy.FromURL(u, directDialer{dialed})
	if err != nil {
		return nil, fmt.Errorf("the environment variable ALL_PROXY has the scheme %q, which is not supported: %s",
			printable.Clean(u.Scheme), want)
	}
	dialer := proxy.NewPerHost(proxyDialer, directDialer{dialed})
	dialer.AddFromString(cmp.Or(os.Getenv("NO_PROXY"), os.Getenv("no_proxy")))
	return dialer, nil
}

// A directDialer dials without a proxy. It tries the addresses of a host in parallel, so that an address that does not
// answer does not use up the time for the others (RFC 8305).
type directDialer struct{ dialed *net.Conn }

func (d directDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, addr)
}

func (d directDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := d.dial(ctx, network, addr)
	if err == nil {
		*d.dialed = nc
	}
	return nc, err
}

func (directDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := new(net.Dialer)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return dialer.DialContext(ctx, network, addr)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var addrs []string
	for _, ip := range alternateFamilies(ips) {
		addrs = append(addrs, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return dialFirst(ctx, addrs, func(ctx context.Context, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	})
}

// alternateFamilies sorts addresses as in RFC 8305 section 4: the first address stays first, and then the two families
// alternate.
func alternateFamilies(ips []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr // families[0] has the family of the first address
	for _, ip := range ips {
		other := 0
		if ip.Unmap().Is4() != ips[0].Unmap().Is4() {
			other = 1
		}
		families[other] = append(families[other], ip)
	}
	var all []netip.Addr
	for i := range ips {
		for _, family := range families {
			if i < len(family) {
				all = append(all, family[i])
			}
		}
	}
	return all
}

// attemptDelay is how long the client waits for one attempt before it starts the next (RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// dialFirst connects to addrs and returns the first connection. It tries the next address when an attempt has failed,
// or when attemptDelay has passed. If all attempts fail, it returns the error of the attempt that failed first.
func dialFirst(
	ctx context.Context, addrs []string, dial func(ctx context.Context, addr string) (net.Conn, error),
) (winner net.Conn, firstErr error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		nc  net.Conn
		err error
	}
	results := make(chan result)
	running := 0
	for len(addrs) > 0 || running > 0 {
		var next <-chan time.Time // starts the next attempt
		if len(addrs) > 0 {
			addr := addrs[0]
			addrs = addrs[1:]
			running++
			go func() {
				nc, err := dial(ctx, addr)
				results <- result{nc, err}
			}()
			next = time.After(attemptDelay)
		}
		select {
		case <-next:
			continue
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				firstErr = cmp.Or(firstErr, r.err)
			case winner != nil:
				r.nc.Close()
			default:
				winner, addrs = r.nc, nil
				cancel() // end the other attempts at once
			}
		}
	}
	if winner != nil {
		return winner, nil
	}
	return nil, firstErr
}

// limitTime returns a context that ends with ctx, or after timeout.
func limitTime(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// explainTimeout adds to err that ctx, the caller's context, has ended, or that Options.Timeout has passed. limited is
// the context that limitTime returned for the call.
func explainTimeout(ctx, limited context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", contextEnded(ctx), err)
	case ctx.Err() != nil:
		return contextEnded(ctx)
	case limited.Err() != nil && errors.Is(err, limited.Err()):
		// err is not wrapped, because it would say that the caller's context has ended.
		return fmt.Errorf("no answer within Options.Timeout: %w", os.ErrDeadlineExceeded)
	case limited.Err() != nil:
		return fmt.Errorf("no answer within Options.Timeout: %w: %w", os.ErrDeadlineExceeded, err)
	}
	return err
}

// handshake completes the TLS handshake.
func handshake(ctx context.Context, tc *tls.Conn, timeout time.Duration) error {
	limited, cancel := limitTime(ctx, timeout)
	defer cancel()
	if err := tc.HandshakeContext(limited); err != nil {
		return explainTimeout(ctx, limited, explainTrust(printable.Error(asUnexpectedEOF(err))))
	}
	return nil
}

// sessions caches the TLS sessions that can be resumed, for all clients without a TLSConfig.
var sessions = tls.NewLRUClientSessionCache(256)

// tlsConfig returns the caller's configuration with defaults.
func (o *Options) tlsConfig(host string) *tls.Config {
	config := o.TLSConfig.Clone()
	if config == nil {
		config = &tls.Config{ClientSessionCache: sessions}
	}
	if config.ServerName == "" {
		name, _, _ := strings.Cut(host, "%") // an IPv6 zone is not part of the name
		config.ServerName = strings.TrimSuffix(name, ".")
	}
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12
	}
	if config.VerifyPeerCertificate != nil {
		config.ClientSessionCache = nil // crypto/tls does not call it for a resumed session
	}
	return config
}

// A peer describes the other end of a connection. Its fields decide whether secrets may be sent.
type peer struct {
	verified bool // TLS verified the peer, or the connection is a Unix socket
	loopback bool // the peer is on this machine
}

// setVerified records whether TLS verified the peer in this handshake, by a chain or by the caller's own check.
func (p *peer) setVerified(tc *tls.Conn, config *tls.Config) {
	state := tc.ConnectionState()
	// A resumed session still has the chains of its first handshake. So the chains alone prove nothing.
	p.verified = len(state.VerifiedChains) > 0 && !config.InsecureSkipVerify ||
		config.VerifyConnection != nil || config.VerifyPeerCertificate != nil && !state.DidResume
}

// isLoopback reports whether a loopback host was dialed and the connection leads to that host and port. A connection
// through a proxy does not count: it leads to the proxy, and "localhost" then means the proxy's machine.
func (o *Options) isLoopback(host, port string, nc net.Conn) bool {
	if _, direct := nc.(*net.TCPConn); !direct && o.DialContext == nil {
		return false
	}
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	wantPort, err := net.LookupPort("tcp", port)
	if !ok || err != nil || remote.Port != wantPort || !remote.IP.IsLoopback() {
		return false
	}
	ip := net.ParseIP(host)
	return ip.Equal(remote.IP) || ip == nil && strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// stls upgrades the connection (RFC 2595 section 4). If the server does not offer STLS, only CAPA was sent.
func (c *Client) stls(ctx context.Context, config *tls.Config) error {
	k := command{verb: "STLS"}
	if err := c.start(ctx, k, StateAuthorization); err != nil {
		return err
	}
	defer c.conn.end()
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	if c.caps != nil && !c.caps.Has("STLS") {
		return fmt.Errorf("pop3: %w: STLS is not among the capabilities (try DialTLS, port 995)", ErrTLSRequired)
	}
	err := c.exchange(ctx, k, nil)
	if isRefusal(err) {
		return fmt.Errorf("pop3: %w: %w", ErrTLSRequired, err)
	} else if err != nil {
		return err
	}
	if early, err := c.conn.checkUnsolicited(); err != nil {
		return c.closeWithError(k, err)
	} else if len(early) > 0 {
		return c.protocolError(k, "data was injected between the reply and the TLS handshake", early)
	}
	return c.upgradeToTLS(ctx, k, config)
}

// upgradeToTLS does the handshake and discards everything that was received in clear.
func (c *Client) upgradeToTLS(ctx context.Context, k command, config *tls.Config) error {
	c.conn.setDeadline(net.Conn.SetDeadline, time.Time{}) // remove the deadlines of STLS; the handshake has its own
	tc := tls.Client(&tlsGate{Conn: c.conn.nc}, config)
	if err := handshake(ctx, tc, c.opts.Timeout); err != nil {
		return c.closeWithError(k, explainNoTLS(err))
	}
	c.conn.upgrade(tc)
	c.forgetCaps()
	c.greeting, c.timestamp, c.pipelining = "", "", false
	c.peer.setVerified(tc, config)
	return nil
}

// greetingCommand is the name of the greeting in errors.
var greetingCommand = command{verb: "greeting"}

// readGreeting reads the greeting (RFC 1939 section 4). If that fails, it closes the connection.
func (c *Client) readGreeting(ctx context.Context) error {
	if err := c.conn.begin(ctx); err != nil {
		return c.closeWithError(greetingCommand, err)
	}
	defer c.conn.end()
	c.conn.clock.startLine()
	line, err := c.conn.line(maxReplyLine)
	switch {
	case err != nil && err != errLineTooLong && isTLS(c.conn.buf.unread()):
		return c.closeWithError(greetingCommand, fmt.Errorf("%s: %w", speaksTLS, err))
	case err != nil:
		return c.noLine(greetingCommand, maxReplyLine, nil, err)
	}
	ok, text, valid := parseStatus(line)
	switch {
	case !valid || bytes.IndexByte(line, 0) >= 0:
		return c.protocolError(greetingCommand, "no POP3 greeting"+guessService(line), line)
	case !ok:
		refusal := c.refusal(greetingCommand, text)
		c.conn.closeWithError(refusal)
		return refusal
	}
	c.greeting, c.timestamp = printable.Clean(string(text)), findTimestamp(text)
	return nil
}

// findTimestamp returns the timestamp for APOP (RFC 1939 section 7), or "". It is the first word of the
// greeting that has the form of a message id, <local@domain> of printable ASCII. Any other text is rejected,
// because a server could use it to attack the digest (CVE-2007-1558).
func findTimestamp(text []byte) string {
	for {
		open := bytes.IndexByte(text, '<')
		if open < 0 {
			return ""
		}
		text = text[open:]
		end := bytes.IndexAny(text[1:], "<>") + 1
		if end > 0 && text[end] == '>' && isMessageID(text[1:end]) {
			return string(text[:end+1])
		}
		if end == 0 {
			return ""
		}
		text = text[end:]
	}
}

func isMessageID(b []byte) bool {
	local, domain, ok := bytes.Cut(b, []byte("@"))
	return ok && len(local) > 0 && len(domain) > 0 && isGraphic(string(b)) && bytes.IndexByte(domain, '@') < 0
}

// guessService returns a text to append to an error, or "". The text names the kind of server that sends such a line.
func guessService(line []byte) string {
	for _, service := range []struct{ start, name string }{
		{"220", ": this is an SMTP or FTP server"},
		{"* OK", ": this is an IMAP server"},
		{"* PREAUTH", ": this is an IMAP server"},
		{"* BYE", ": this is an IMAP server"},
		{"HTTP/", ": this is an HTTP server"},
		{"SSH-", ": this is an SSH server"},
	} {
		if bytes.HasPrefix(line, []byte(service.start)) {
			return service.name
		}
	}
	if isTLS(line) {
		return ": " + speaksTLS
	}
	return ""
}

const speaksTLS = "the server speaks TLS from the first byte here, use DialTLS"

// isTLS reports whether b begins with a TLS alert or handshake.
func isTLS(b []byte) bool {
	return len(b) > 1 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3
}

// explainClear explains a failed handshake if the peer does not speak TLS.
func explainClear(err error) error {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok {
		return err
	}
	first := header.RecordHeader[:]
	if bytes.HasPrefix(first, []byte("+OK")) || bytes.HasPrefix(first, []byte("-ERR")) {
		return fmt.Errorf("the server speaks POP3 without TLS here, try DialStartTLS (port 110): %w", err)
	}
	return fmt.Errorf("the server does not speak TLS here%s (it sent %q): %w",
		guessService(first), printable.Clean(string(first)), err)
}

// explainNoTLS explains a failed handshake after STLS if the peer replied in clear.
func explainNoTLS(err error) error {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok {
		return err
	}
	return fmt.Errorf("the server accepted STLS and then did not start TLS (it sent %q): %w",
		printable.Clean(string(header.RecordHeader[:])), err)
}

// explainTrust adds advice for a certificate of an unknown authority.
func explainTrust(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		return err
	}
	return fmt.Errorf("%w (to trust it, add it or its authority to Options.TLSConfig.RootCAs)", err)
}

// explainPort adds advice if the server sent no greeting in time. It may be waiting for TLS.
func explainPort(err error, mode security) error {
	timedOut := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	if mode != implicitTLS && timedOut {
		return fmt.Errorf("%w (a server that waits for TLS from the first byte is silent too: use DialTLS, port 995)",
			err)
	}
	return err
}

// explainPipelining adds advice if a reply is missing or malformed and the previous reply was received. Some servers
// announce PIPELINING but then lose commands, or send the next +OK before the end of a message.
func explainPipelining(err error) error {
	_, isProtocol := errors.AsType[*ProtocolError](err)
	if !isProtocol && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w; the command was sent before earlier replies had arrived: "+
		"if the server does not support that, set Options.Pipelining to PipeliningNever", err)
}

// explainParts adds advice if the connection was lost when very many commands were sent ahead.
func explainParts(err error) error {
	_, isProtocol := errors.AsType[*ProtocolError](err)
	if isProtocol || !errors.Is(asConnectionLost(err), io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w; some servers crash when they receive so many commands at once: "+
		"if it happens again, call Dele with a thousand numbers at a time", err)
}
