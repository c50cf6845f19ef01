// Package pop3 is a client for the Post Office Protocol, version 3 (RFC 1939).
//
// A [Client] is one session with one server. This program prints the subjects of the last ten messages and changes
// nothing on the server:
//
//	c, err := pop3.DialTLS(ctx, "pop.example.org", nil)
//	if err != nil {
//		return err
//	}
//	defer c.Close() // closes the connection and deletes nothing
//	if err := c.Login(ctx, name, password); err != nil {
//		return err
//	}
//	drop, err := c.Stat(ctx)
//	if err != nil {
//		return err
//	}
//	var nums []int
//	for num := max(1, drop.Count-9); num <= drop.Count; num++ {
//		nums = append(nums, num)
//	}
//	for m, err := range c.Tops(ctx, 0, nums...) {
//		if m == nil {
//			return err // the connection is lost
//		}
//		if err != nil {
//			log.Print(err) // the server refuses this message
//			continue
//		}
//		header, err := mail.ReadMessage(m)
//		if err != nil {
//			log.Print(err)
//			continue
//		}
//		fmt.Println(header.Header.Get("Subject"))
//	}
//	return c.Quit(ctx)
//
// # Connecting
//
//   - [DialTLS]: TLS from the first byte (port 995), the usual choice.
//   - [DialStartTLS]: TLS after STLS (port 110).
//   - [DialInsecure]: no TLS, for servers on this machine and for tests.
//   - [NewClient]: a connection that exists already.
//
// A session begins in the AUTHORIZATION state. [Client.Login], [Client.Auth] (OAuth 2.0 and other SASL
// mechanisms), [Client.Apop], and [Client.User] followed by [Client.Pass] lead to the TRANSACTION state. The
// maildrop is then locked: no other session can open it.
//
// # Storing messages
//
// A [Message] is a stream of the bytes that the server stores, with CRLF line ends. Its content is never buffered
// as a whole. Read returns io.EOF only after the end-of-message line has arrived; if the connection is lost before
// it, the error wraps [io.ErrUnexpectedEOF].
//
// Announced sizes are only approximate. But when some servers cannot read their own store, they send part of a message
// and end it normally. Do not delete a message that is shorter than its announced size; package
// [github.com/seed-2d50cddb/pop3/fetch] does not either.
//
// Message numbers are valid within one session. Unique-ids (UIDL) are valid across sessions. The server chooses
// their bytes, so do not use them as file names.
//
// # Deleting messages
//
// [Client.Dele] only marks messages. [Client.Quit] ends the session, and the server then deletes what is marked. No
// other method sends QUIT. [Client.Close] closes the connection without QUIT, and the server keeps every message. The
// server also keeps every message after a lost connection, a timeout or a canceled context. Write defer c.Close(), and
// call Quit where the work is done:
//
//	var stored []int
//	for m, err := range c.Messages(ctx, nums...) {
//		if m == nil {
//			return err // the connection is lost: nothing is deleted
//		}
//		if err != nil {
//			log.Print(err) // the server refuses this message: go on with the next one
//			continue
//		}
//		n, err := store(m) // m is an io.Reader
//		if err != nil {
//			log.Print(err)
//			continue
//		}
//		if n < size[m.Num] { // a size from ListAll or Listing
//			continue // the server may have sent only a part: keep the message
//		}
//		stored = append(stored, m.Num)
//	}
//	return errors.Join(c.Dele(ctx, stored...), c.Quit(ctx))
//
// The last line calls Quit even if Dele has failed, so that one refused deletion does not cancel the others. If the
// connection is lost, Quit deletes nothing.
//
// If the reply to QUIT is lost or negative, each marked message may be deleted or not. The error then wraps
// [ErrCommitUnknown]. Compare unique-ids in the next session. A positive reply is no proof: some servers confirm
// deletions that their store did not carry out.
//
// # Contexts and timeouts
//
// Methods that send a command take a context. With a context that is already done they send nothing, and the session
// can continue. There are two exceptions: Quit always closes the connection, and [NewClient] closes conn. A context
// that ends during a call closes the connection, and the error wraps ctx.Err(). The context of [Client.Retr],
// [Client.Top] and [Client.CmdMulti] applies until the message has been read or closed. The context of a constructor
// has no effect once the constructor has returned.
//
// [Options].Timeout limits every wait for the server, but not the time of a transfer that makes progress.
//
// # Errors
//
//   - The server replied -ERR: *[Error]. The session can continue.
//   - The call cannot be carried out: [ErrArgument], [ErrState], [ErrBusy], [ErrInsecureAuth], [errors.ErrUnsupported].
//     At most CAPA was sent ([Client.Listing] also sends LIST and UIDL). The session can continue, except after Quit.
//   - The reply is complete but makes no sense: *[ProtocolError] with Fatal false. The session can continue.
//   - The reply breaks the protocol: *[ProtocolError] with Fatal true. The connection was closed.
//   - Options.Timeout has passed: [os.ErrDeadlineExceeded], also a [net.Error] whose Timeout method returns true. The
//     connection was closed.
//   - The connection was lost: [io.ErrUnexpectedEOF], or another error of the network.
//   - The context has ended: [context.Canceled] or [context.DeadlineExceeded]. The connection was closed.
//
// Test for these errors with [errors.Is] and [errors.AsType]. After the connection was closed, every call fails with
// an error that wraps [net.ErrClosed] and the first cause.
//
// # Concurrency
//
// Methods of a Client must not be called concurrently: a call during another one fails with [ErrBusy]. The
// exceptions are [Client.Close], [Client.State] and [Client.KeepAlive]. No goroutine outlives the call, or the
// loop over [Client.Messages], that started it.
//
// # Secrets
//
// Passwords and tokens are sent only over TLS that verified the server's certificate. Passwords are also sent to a
// server on the same machine. Options.InsecureAuth removes both restrictions. No secret appears in an error or a
// trace.
package pop3

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/printable"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// DefaultTimeout is the time limit that [Options].Timeout = 0 stands for.
const DefaultTimeout = 2 * time.Minute

// Options configure a [Client]. They are read once, when the client is made. A nil *Options is the same as the
// zero value, which is the safe choice.
type Options struct {
	// TLSConfig configures TLS; nil means the defaults. It is cloned. ServerName defaults to the host that was dialed,
	// MinVersion to TLS 1.2. If TLSConfig is nil, TLS sessions are cached and resumed across all clients of the
	// process. If you set TLSConfig, set its ClientSessionCache to get resumption.
	//
	// With InsecureSkipVerify and neither VerifyConnection nor VerifyPeerCertificate the
	// connection counts as unverified. Then Login fails with ErrInsecureAuth unless the
	// server is on this machine or InsecureAuth is set. With VerifyPeerCertificate no
	// session is resumed, because crypto/tls does not call this function for a resumed
	// session.
	TLSConfig *tls.Config

	// DialContext makes the TCP connection, below TLS. If DialContext is nil, the environment variables ALL_PROXY and
	// NO_PROXY choose a proxy, as described in golang.org/x/net/proxy. A proxy of another kind than SOCKS 5 is an
	// error. If DialContext returns a wrapper around a net.Conn, give the wrapper a method NetConn() net.Conn that
	// returns the wrapped connection, as [tls.Conn] has. The client needs the wrapped connection to find replies that
	// nobody asked for. On Linux it also needs the wrapped connection to set TCP_QUICKACK, which makes some servers
	// many times faster.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Timeout limits each of: dialing; the TLS handshake; the greeting; a one-line reply; a
	// write. In a message or list it limits any period in which fewer than 128 bytes per
	// second arrive. A whole list may take ten times Timeout; a whole message has no limit.
	// 0 means DefaultTimeout, negative means no limit. The error wraps
	// [os.ErrDeadlineExceeded].
	Timeout time.Duration

	// Pipelining says whether commands about many messages are sent before the replies to
	// earlier ones.
	Pipelining Pipelining

	// InsecureAuth allows passwords and tokens to be sent over connections that are not
	// verified TLS.
	InsecureAuth bool

	// Mechanisms, if not nil, lists the methods that Login may use: names of SASL mechanisms,
	// "USER" for USER with PASS, "APOP". Login still tries the strongest one first. It uses APOP
	// and CRAM-MD5 only if they are listed. If only -PLUS forms are listed, Login insists on
	// channel binding.
	Mechanisms []string

	// ScramKeys, if not nil, caches the keys that SCRAM derives from a password. Share one
	// between all clients of a program that logs in repeatedly. The cache holds passwords in
	// memory.
	ScramKeys *sasl.ScramKeys

	// Compat has settings for servers that reject what the RFCs allow. Errors name the field
	// that would help.
	Compat Compat

	// Trace has hooks that see commands and replies, without secrets. It may be nil.
	Trace *Trace
}

// Compat has settings for servers that reject some of what the RFCs allow. Other clients work with such servers only
// because they do not send it.
type Compat struct {
	// NoCapa means that CAPA is never sent. Use it for servers that close the connection when
	// they receive CAPA. The server's capabilities are then unknown: Login uses USER and PASS
	// unless Mechanisms says otherwise, and commands are not pipelined.
	NoCapa bool

	// NoInitialResponse means that a SASL response is never sent on the same line as AUTH. It is sent on a line of its
	// own. Use it for servers that reject an AUTH command with two arguments.
	NoInitialResponse bool
}

// maxTimeout is the longest Timeout whose multiples, such as the limit for a whole list, do not overflow.
const maxTimeout = math.MaxInt64 / listTimeouts

// read returns the options with the defaults filled in; opts may be nil.
func (opts *Options) read() Options {
	var o Options
	if opts != nil {
		o = *opts
		o.Mechanisms = slices.Clone(o.Mechanisms)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	o.Timeout = min(o.Timeout, maxTimeout)
	return o
}

// State is the state of a session (RFC 1939 section 3).
type State int

const (
	StateAuthorization State = iota // not logged in yet
	StateTransaction                // logged in; the maildrop is locked
	StateUpdate                     // QUIT was sent; the server deletes what is marked
	StateClosed                     // the connection is closed
)

// String returns the name of the state as in RFC 1939, or "CLOSED".
func (s State) String() string {
	switch s {
	case StateAuthorization:
		return "AUTHORIZATION"
	case StateTransaction:
		return "TRANSACTION"
	case StateUpdate:
		return "UPDATE"
	}
	return "CLOSED"
}

// A Client is a session with a POP3 server. Its methods must not be called concurrently: a call during another one
// fails with [ErrBusy]. The exceptions are [Client.Close], [Client.State] and [Client.KeepAlive].
type Client struct {
	conn  *conn
	opts  Options
	trace *Trace
	state atomic.Int32

	// What the server announced. All of it is discarded when STLS starts TLS.
	greeting   string
	timestamp  string // timestamp for APOP; "" if there was none
	caps       Capabilities
	capsKnown  bool // caps is valid in the current state
	pipelining bool // PIPELINING was announced

	capaRefusal *Error // the -ERR reply to CAPA, nil after the next reply; see closeWithError

	peer         peer
	userAccepted bool              // the last command was a successful USER
	loggingIn    bool              // a command of a login is running
	secrets      printable.Secrets // the secrets of all logins, which errors and traces must not show

	marked int       // number of DELE commands that the server accepted
	sizes  sizeTable // sizes from the last LIST

	quit atomic.Pointer[quitResult] // the result of Quit; nil until Quit has ended
}

// State returns the state of the session. It may be called at any time from any goroutine.
func (c *Client) State() State {
	if c.conn.closed() != nil {
		return StateClosed
	}
	return State(c.state.Load())
}

// Greeting returns the text of the server's greeting, without the status and without control characters. It
// returns "" after STLS, because the greeting was received in clear.
func (c *Client) Greeting() string { return c.greeting }

// TLSConnectionState returns the state of TLS; ok is false if the connection is not encrypted.
func (c *Client) TLSConnectionState() (state tls.ConnectionState, ok bool) {
	tc, ok := c.conn.nc.(*tls.Conn)
	if ok {
		state = tc.ConnectionState()
	}
	return state, ok
}

// Format implements [fmt.Formatter]. Every verb prints only the state, so that logging a Client never prints data
// of the session.
func (c *Client) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "pop3.Client(%s)", c.State()) }

// Close closes the connection without QUIT, so the server keeps every message, marked or not. It may be called at
// any time, from any goroutine, and more than once. A call that is running, a message that is open and a loop over
// [Client.Messages] fail with an error that wraps [net.ErrClosed]. After [Client.Quit] Close does nothing.
func (c *Client) Close() error { return c.conn.close() }

// Pipelining says whether commands about many messages are sent before the replies to earlier ones (RFC 2449
// section 6.6).
type Pipelining int

const (
	// PipeliningAuto sends commands ahead if the server announces PIPELINING, and one by one
	// otherwise.
	PipeliningAuto Pipelining = iota
	// PipeliningNever sends commands one by one.
	PipeliningNever
	// PipeliningAlways sends commands ahead even if the server does not announce PIPELINING. Nearly all servers reply
	// to such commands in order. If a server discards them, the client waits until Options.Timeout has passed.
	PipeliningAlways
)

// A Trace is a set of hooks that see commands and replies; any of them may be nil. They never see a secret. A
// password, a token, a digest, and each challenge and response of SASL is shown as ***. If a server's text
// repeats a secret, the hooks see "(the server's words repeat the secret)" in its place.
//
// Hooks run on the goroutine that made the call; for NOOPs sent by [Client.KeepAlive], on the goroutine of KeepAlive. A
// hook may call [Client.Close] and [Client.State], but no other method of its client. A call of another method fails
// with [ErrBusy], or waits for ever if the hook runs within a NOOP of KeepAlive. A panic in a hook propagates to the
// caller. If it interrupts a reply, the connection is closed, because the client can no longer tell where the next
// reply begins.
type Trace struct {
	// WroteCommand is called when a command or a SASL response is written; in a batch, when it
	// is queued.
	WroteCommand func(ctx context.Context, cmd string)

	// GotReply is called for each status line and each SASL challenge.
	GotReply func(ctx context.Context, cmd, reply string)

	// Done is called when the whole reply has been read. octets is the size of the message as
	// delivered to the caller, and 0 for other commands. err is the error that the method
	// returns for this command. If a batch ends early, Done is not called for the commands
	// whose replies were not read.
	Done func(ctx context.Context, cmd string, octets int64, err error)
}

func (t *Trace) wroteCommand(ctx context.Context, k command) {
	if t != nil && t.WroteCommand != nil {
		t.WroteCommand(ctx, k.String())
	}
}

func (t *Trace) gotReply(ctx context.Context, k command, line []byte, shown func(line []byte) string) {
	if t != nil && t.GotReply != nil {
		t.GotReply(ctx, k.String(), shown(line))
	}
}

func (t *Trace) done(ctx context.Context, k command, octets int64, err error) {
	if t != nil && t.Done != nil {
		t.Done(ctx, k.String(), octets, err)
	}
}

// LogTrace returns hooks that log commands, replies and errors to l at debug level. A nil l means [slog.Default].
func LogTrace(l *slog.Logger) *Trace {
	if l == nil {
		l = slog.Default()
	}
	return &Trace{
		WroteCommand: func(ctx context.Context, cmd string) {
			l.DebugContext(ctx, "pop3: command", "cmd", cmd)
		},
		GotReply: func(ctx context.Context, cmd, reply string) {
			l.DebugContext(ctx, "pop3: reply", "cmd", cmd, "reply", reply)
		},
		Done: func(ctx context.Context, cmd string, octets int64, err error) {
			if err != nil {
				l.DebugContext(ctx, "pop3: failed", "cmd", cmd, "octets", octets, "err", err)
				return
			}
			l.DebugContext(ctx, "pop3: done", "cmd", cmd, "octets", octets)
		},
	}
}
