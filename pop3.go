// Package pop3 is a client for the Post Office Protocol, version 3 (RFC 1939).
//
// # Sessions
//
// A [Client] is one session with one server. It is made by [DialTLS] (TLS from the first byte, the usual way),
// [DialStartTLS] (STLS, which must succeed) or [DialInsecure] (never encrypted), or by [NewClient] on a connection
// that exists already. The session begins in the AUTHORIZATION state; [Client.Login], or one of [Client.User] with
// [Client.Pass], [Client.Apop] and [Client.Auth], leads to the TRANSACTION state, in which the maildrop is locked,
// looked at, retrieved from and marked.
//
//	c, err := pop3.DialTLS(ctx, "pop.example.org", nil)
//	if err != nil {
//		return err
//	}
//	defer c.Close() // hangs up; deletes nothing
//	if err := c.Login(ctx, name, password); err != nil {
//		return err
//	}
//	infos, err := c.Listing(ctx)
//	... // nums become the numbers of those that are wanted
//	for m, err := range c.Messages(ctx, nums...) {
//		if err != nil {
//			return err
//		}
//		if err := store(m); err != nil { // m is an io.Reader
//			return err
//		}
//	}
//	if err := c.Dele(ctx, nums...); err != nil {
//		return err
//	}
//	return c.Quit(ctx) // carries out the deletions
//
// # Deletion
//
// [Client.Dele] only marks. [Client.Quit] enters the UPDATE state, in which the server removes what is marked; it
// is the one dangerous command, and no method sends it but Quit itself. [Client.Close] hangs up without it, so that
// the server keeps every message: defer Close, and call Quit where the work is done. Neither an autologout nor a
// lost connection nor a cancelled context enters UPDATE. If the answer to QUIT is lost or negative, nobody can know
// what was removed, and the error is [ErrCommitUnknown]: compare unique-ids in the next session. Even a positive
// answer is only the server's word; some give it over a store that they could not write to.
//
// Message numbers are valid within one session. Unique-ids (UIDL) are valid across sessions; they are the
// server's choice of octets and not to be trusted as file names.
//
// # Octets
//
// A [Message] is a stream of the octets that the server stores, with CRLF line ends and whatever else is in them.
// It is never held in memory, and io.EOF comes only behind its terminator: one that a lost connection cut ends in an
// error that wraps [io.ErrUnexpectedEOF]. Sizes that servers announce are hints; but some servers end a message
// properly where they can't read on, so one that is shorter than its size may not be whole, and is better left on the
// server, as package fetch does.
//
// # Contexts and time
//
// Every method that does I/O takes a context. If it has ended before the call, nothing is sent, though
// [Client.Quit] hangs up and [NewClient] closes its connection all the same. If it ends during the call, the
// connection is closed, since the place in the stream is lost, and the error wraps ctx.Err(). The context of
// [Client.Retr], [Client.Top] and [Client.CmdMulti] holds until the message is read or closed. Apart from that,
// Options.Timeout bounds every wait for the server, but not the time of a transfer that makes progress.
//
// # Errors
//
// A reply of -ERR is an [*Error], and the session goes on, as it does after [ErrArgument], [ErrState], [ErrBusy]
// and [ErrInsecureAuth], with which nothing was sent but, if it was needed, CAPA. A reply that breaks the protocol
// is a [*ProtocolError]. After an error of the connection, of framing, of time or of the context the connection is
// closed, and every later call fails with an error that wraps both [net.ErrClosed] and the first cause.
//
// # Concurrency
//
// A Client is for one goroutine at a time, [Client.Close] and [Client.State] excepted; what would mix two calls
// fails with [ErrBusy]. No goroutine outlives the call, or the loop over [Client.Messages], that started it.
//
// # Secrets
//
// Passwords and tokens leave only over TLS that was verified, or to a server on the same machine (passwords, not
// tokens), unless Options.InsecureAuth is set. They appear in no error and no trace.
package pop3

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/printable"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// DefaultTimeout is the time limit where Options.Timeout is 0.
const DefaultTimeout = 2 * time.Minute

// Options are read once, when a client is made. The zero value, and a nil pointer, are the safe choice.
type Options struct {
	// TLSConfig is cloned. ServerName defaults to the host that was dialled, MinVersion to TLS 1.2. With a
	// nil TLSConfig, sessions are resumed through a cache that all clients share; in one of your own, set
	// ClientSessionCache for that. InsecureSkipVerify without VerifyConnection or VerifyPeerCertificate does
	// not count as verified, so that secrets pass to a server on the same machine only.
	TLSConfig *tls.Config

	// DialContext makes the connection, below TLS. If it is nil, ALL_PROXY and NO_PROXY are honoured as in
	// golang.org/x/net/proxy, with a direct connection in their absence. A type of your own, to count or
	// to limit, should have a method NetConn() net.Conn as [tls.Conn] has, which gives what it stands on:
	// on Linux that makes some servers answer many times as fast (TCP_QUICKACK).
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Timeout is the longest wait for progress of the server: for each of dialling, the TLS handshake, the
	// greeting, a whole reply of one line and each write, and in a multi-line reply for each stretch in
	// which fewer than 128 octets a second arrive. 0 is DefaultTimeout, below 0 is no limit.
	Timeout time.Duration

	// Pipelining tells whether commands on many messages are sent ahead of their replies.
	Pipelining Pipelining

	// InsecureAuth allows secrets on connections that are not verified TLS.
	InsecureAuth bool

	// Mechanisms, if not nil, is the closed list of what Login may use: names of SASL mechanisms, "USER" for
	// USER with PASS, "APOP". Login still picks the strongest of them first; APOP and CRAM-MD5 are used only
	// if they are named here. With only -PLUS forms named, Login insists on channel binding.
	Mechanisms []string

	// ScramKeys, if not nil, has Login derive the keys of SCRAM once for an account and not at each login. It is
	// to be shared by the sessions of a program that logs in again and again, and holds passwords.
	ScramKeys *sasl.ScramKeys

	// Compat is for servers that cannot take what the RFCs allow. Errors name the field that would cure them.
	Compat Compat

	// Trace has hooks that see commands and replies, without secrets. It may be nil.
	Trace *Trace
}

// Compat has switches for servers that other clients get on with only by sending less than the RFCs allow.
type Compat struct {
	// NoCapa never sends CAPA, for servers that hang up when they get it. Nothing is known of the server then:
	// Login uses USER and PASS unless Options.Mechanisms says otherwise, and nothing is pipelined.
	NoCapa bool

	// NoInitialResponse never sends a SASL response together with AUTH but in a line of its own, for servers that
	// take an AUTH command with two arguments for a wrong one.
	NoInitialResponse bool
}

// read gives the options with the defaults filled in; opts may be nil.
func (opts *Options) read() Options {
	var o Options
	if opts != nil {
		o = *opts
		o.Mechanisms = slices.Clone(o.Mechanisms)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	return o
}

// State is the state of a session (RFC 1939 section 3).
type State int

const (
	StateAuthorization State = iota // the server has to be told who asks
	StateTransaction                // logged in; the maildrop is locked
	StateUpdate                     // QUIT was sent after a login; the server removes what is marked
	StateClosed                     // there is no connection any more
)

// String gives the name of the state as in RFC 1939, and "CLOSED".
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

// A Client is a session with a POP3 server. It is for one goroutine at a time, except for [Client.Close] and
// [Client.State]; a call that comes while another one is not over fails with [ErrBusy].
type Client struct {
	conn  *conn
	opts  Options
	trace *Trace
	state atomic.Int32

	// What the server said of itself. All of it is dropped when TLS is started with STLS.
	greeting   string
	timestamp  string // of APOP, "" if there was none
	caps       Capabilities
	capsKnown  bool // caps is the answer in the present state
	pipelining bool // was announced

	capaRefusal *Error // of CAPA, until a later reply shows that the session goes on

	peer         peer
	userAccepted bool              // the last command was USER, with success
	loggingIn    bool              // a command of a login is running
	secrets      printable.Secrets // of the logins

	marked int       // messages marked as deleted, as far as it was confirmed
	sizes  sizeTable // of the last LIST

	quit atomic.Pointer[quitResult] // nil before the end of Quit
}

// State gives the state of the session. It is safe at any time from any goroutine.
func (c *Client) State() State {
	if c.conn.closed() != nil {
		return StateClosed
	}
	return State(c.state.Load())
}

// Greeting gives the text of the server's greeting, without the status and without control characters. It is
// empty after STLS, since it was not protected.
func (c *Client) Greeting() string { return c.greeting }

// TLSConnectionState gives the state of TLS; ok is false if the connection is not encrypted.
func (c *Client) TLSConnectionState() (state tls.ConnectionState, ok bool) {
	tc, ok := c.conn.nc.(*tls.Conn)
	if ok {
		state = tc.ConnectionState()
	}
	return state, ok
}

// Format prints the state, for every verb: the fields hold what went over the wire.
func (c *Client) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "pop3.Client(%s)", c.State()) }

// Close hangs up without QUIT: whatever was marked, the server keeps every message. It is safe at any time, from
// any goroutine, and more than once; a call that is running, a message that is open and a loop over
// [Client.Messages] fail with [net.ErrClosed].
func (c *Client) Close() error { return c.conn.close() }

// Pipelining tells whether commands on many messages are sent ahead of their replies (RFC 2449 section 6.6).
type Pipelining int

const (
	// PipeliningAuto sends ahead where the server announces PIPELINING, and one by one elsewhere.
	PipeliningAuto Pipelining = iota
	// PipeliningNever sends one by one.
	PipeliningNever
	// PipeliningAlways sends ahead wherever that is safe by the order of replies, announced or not. Every server
	// of note answers in order; one that drops what it did not expect keeps the client waiting for a reply.
	PipeliningAlways
)

// A Trace is a set of hooks that see what goes over the wire; any of them may be nil. None ever sees a secret. A
// password, a token, a digest, and each challenge and response of SASL is three stars. Where a secret shows in words of
// the server they are replaced by "(the server's words repeat the secret)".
//
// The hooks run on the goroutine of the call, which for a NOOP may be that of [Client.KeepAlive]: WroteCommand when
// the command is handed to the connection (in a batch, when it is queued), or a SASL response; GotReply when the
// status line of its reply is read, or a SASL challenge; and Done when the whole reply is. Done counts the octets
// of a message as they were handed out; it is 0 for other commands. err is what the call returns for the command.
// Of the commands that a batch has queued, those whose reply was not reached before the batch ended have no Done.
//
// A panic in a hook goes on to the caller. It closes the connection where it leaves a reply half read or an answer
// uncounted.
type Trace struct {
	WroteCommand func(ctx context.Context, cmd string)
	GotReply     func(ctx context.Context, cmd, reply string)
	Done         func(ctx context.Context, cmd string, octets int64, err error)
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

// LogTrace returns hooks that log to l, or to [slog.Default] if l is nil: commands and replies at debug level, a failed
// command at debug level too, since the caller has the error.
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
