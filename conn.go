package pop3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A conn is one connection: octets, time and cancellation. It knows no commands.
//
// One goroutine at a time is between begin and end. The end of its context and Close come from other goroutines,
// so what they change is under mu; nc itself changes only in upgrade, before anybody has the client to close it.
// The first fatal error stays, and everything after it fails because of it.
type conn struct {
	nc     net.Conn
	socket socket // of nc, below TLS
	buf    buffer
	clock  clock
	ends   lineEnd // of the peer
	out    [maxCommand]byte

	turn    turn
	unwatch func() // ends the watch on the context of the call

	mu          sync.Mutex
	cause       error         // why the connection is closed; nil if it is not
	done        chan struct{} // closed together with the connection
	interrupted error         // the context's error, once it ended during a call
}

// A lineEnd is how a peer ends lines. Its first line shows it.
type lineEnd int

const (
	lineEndUnknown lineEnd = iota
	lineEndCRLF
	lineEndLF
)

func newConn(nc net.Conn, timeout time.Duration) *conn {
	c := &conn{nc: nc, socket: newSocket(nc), clock: clock{timeout: timeout}, done: make(chan struct{})}
	c.buf.src = c
	return c
}

// upgrade goes on over TLS on the same connection. The buffer is new: what was read in clear can't be taken for
// something that came over TLS. Line ends in LF have to show once more: with a greeting that somebody has changed,
// a mail could end itself.
func (c *conn) upgrade(tc *tls.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = tc
	c.socket = newSocket(tc)
	c.buf = buffer{src: c}
	if c.ends == lineEndLF {
		c.ends = lineEndUnknown
	}
}

// line reads a line of at most limit octets, as [buffer.line] does. The first one shows how the peer ends lines.
func (c *conn) line(limit int) ([]byte, error) {
	line, err := c.buf.line(limit, c.ends != lineEndCRLF)
	if c.ends == lineEndUnknown && err == nil {
		c.ends = lineEndCRLF
		if c.buf.bareLF {
			c.ends = lineEndLF
		}
	}
	return line, err
}

// begin starts a call. It fails without touching anything if ctx has ended, if another call is not over, or if
// the connection is closed.
func (c *conn) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.turn.take(ctx); err != nil {
		return cmp.Or(c.closed(), err)
	}
	if err := c.closed(); err != nil {
		c.turn.give()
		return err
	}
	c.watch(ctx)
	return nil
}

// beginNoop is begin for a NOOP that nobody waits for. It gives way to everybody.
func (c *conn) beginNoop(ctx context.Context) bool {
	if _, ok := c.turn.try(make(chan struct{})); !ok {
		return false
	}
	c.watch(ctx)
	return true
}

// end is the end of what begin started.
func (c *conn) end() {
	c.unwatch()
	c.unwatch = nil // it holds the context
	c.buf.release()
	c.turn.give()
}

func noWatch() {}

// watch lets the end of ctx interrupt whatever waits for the network.
func (c *conn) watch(ctx context.Context) {
	c.unwatch = noWatch
	if ctx.Done() == nil {
		return
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		c.interrupt(ctx.Err())
	})
	c.unwatch = func() {
		if !stop() {
			<-over
			c.resume()
		}
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (c *conn) interrupt(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = err
	if c.nc.SetDeadline(past) != nil {
		hangUp(c.nc)
	}
}

func (c *conn) isInterrupted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.interrupted != nil
}

// resume undoes an interrupt that came when the call had done its work, so that no deadline stays.
func (c *conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = nil
	if c.cause == nil {
		c.nc.SetDeadline(time.Time{})
	}
}

// closeWithError closes the connection because of err, and returns why it is closed: because of what came first.
func (c *conn) closeWithError(err error) error {
	cause, first := c.setCause(err)
	if first {
		hangUp(c.nc)
	}
	return cause
}

// setCause notes err as the cause for which the connection is closed, if it is the first one. Whoever was first
// closes the transport, which may block, without mu.
func (c *conn) setCause(err error) (cause error, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return c.cause, false
	}
	c.cause = err
	if c.interrupted != nil && err != net.ErrClosed {
		c.cause = c.interrupted
	}
	close(c.done)
	return c.cause, true
}

// hangUp closes the transport without a word.
func hangUp(nc net.Conn) error {
	for {
		tc, ok := nc.(*tls.Conn)
		if !ok {
			return nc.Close()
		}
		nc = tc.NetConn()
	}
}

// closeGrace is how long the close alert of TLS may wait for a peer that does not read.
const closeGrace = 20 * time.Millisecond

// close says goodbye as the transport does: over TLS with a close alert. A call in progress fails with
// net.ErrClosed.
func (c *conn) close() error {
	if _, first := c.setCause(net.ErrClosed); !first {
		return nil
	}
	if _, ok := c.nc.(*tls.Conn); !ok {
		return c.nc.Close()
	}
	limit := time.AfterFunc(closeGrace, func() { hangUp(c.nc) })
	defer limit.Stop()
	c.nc.Close() // the alert may fail on a connection that the peer has closed already
	return nil
}

// closed returns the error for a call on a closed connection: net.ErrClosed, and the cause if there was one.
func (c *conn) closed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.cause {
	case nil:
		return nil
	case net.ErrClosed:
		return net.ErrClosed
	}
	return fmt.Errorf("%w; it was closed because of: %w", net.ErrClosed, c.cause)
}

// lost returns the reason why the connection is closed, nil if that was asked for.
func (c *conn) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == net.ErrClosed {
		return nil
	}
	return c.cause
}

// setDeadline sets a deadline through set, unless the context has ended: its deadline must stay.
func (c *conn) setDeadline(set func(net.Conn, time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupted != nil {
		return c.interrupted
	}
	return set(c.nc, t)
}

// Read reads from the network under the clock. It is the source of the buffer.
func (c *conn) Read(p []byte) (int, error) {
	if t, ok := c.clock.deadline(); ok {
		err := c.setDeadline(net.Conn.SetReadDeadline, t)
		switch {
		case err == nil, err == io.ErrClosedPipe: // of a net.Pipe whose other end has hung up: Read says so
		case c.clock.timeout < 0 && !c.isInterrupted():
			return 0, errNoDeadline // what can't be cut short is not begun
		default:
			return 0, err
		}
	}
	if c.clock.cutoff != past {
		c.socket.quickAck()
	}
	n, err := c.read(p)
	c.clock.count(n)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() &&
		!errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err) // user-space TCP stacks have their own
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = c.clock.expired(err)
	}
	return n, notTheEnd(err)
}

var errNoDeadline = errors.New("the connection has no read deadline")

// read reads from the network. TLS may have to write while it reads, to answer a key update, and a peer that does
// not read must not hold that up.
func (c *conn) read(p []byte) (int, error) {
	if _, ok := c.nc.(*tls.Conn); !ok || c.clock.timeout < 0 {
		return c.nc.Read(p)
	}
	c.setDeadline(net.Conn.SetWriteDeadline, time.Now().Add(c.clock.timeout))
	n, err := c.nc.Read(p)
	c.setDeadline(net.Conn.SetWriteDeadline, time.Time{})
	return n, err
}

// notTheEnd makes io.EOF the error that it is here: nothing in POP3 ends by the end of the connection.
func notTheEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write writes p under the time limit. sent is false if certainly nothing was sent.
func (c *conn) write(p []byte) (sent bool, err error) {
	if c.clock.timeout >= 0 {
		if err := c.setDeadline(net.Conn.SetWriteDeadline, time.Now().Add(c.clock.timeout)); err != nil {
			return false, err
		}
	}
	n, err := c.put(p)
	c.setDeadline(net.Conn.SetWriteDeadline, time.Time{})
	return n > 0 || !c.socket.tellsWritten(), err
}

// put writes all of p or fails, which not every net.Conn does by itself.
func (c *conn) put(p []byte) (int, error) {
	n, err := c.nc.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, notTheEnd(err)
}

// withDeadline runs f, in which no wait for the peer lasts beyond t. The zero time is no limit.
func (c *conn) withDeadline(t time.Time, f func()) {
	c.clock.cutoff = t
	f()
	c.clock.cutoff = time.Time{}
	if c.clock.timeout < 0 && !t.IsZero() {
		c.setDeadline(net.Conn.SetReadDeadline, time.Time{})
	}
}

// unsolicitedWait is how long octets that are in the socket may take to become octets of POP3. Within TLS they may
// be none at all: a session ticket, a key update.
const unsolicitedWait = 2 * time.Millisecond

// maxLooks is how often the client looks into a socket that holds something.
const maxLooks = 16

// checkUnsolicited looks whether the peer has said anything that was not asked for: a reply that came before its
// command would be taken for the reply to it. It looks into the buffer, into what the layers above the socket have
// read already, and into the socket, and waits only where the socket holds something. early is what came, as far
// as it is known. An error that came together with the last octets is returned now.
func (c *conn) checkUnsolicited() (early []byte, err error) {
	if c.buf.idle() && c.socket.layered && (c.clock.timeout >= 0 || c.socket.raw != nil) {
		c.lookAbove()
	}
	for range maxLooks { // on a busy machine the wait can be over before the read has begun
		if !c.buf.idle() || !c.socket.readable() {
			break
		}
		c.withDeadline(time.Now().Add(unsolicitedWait), c.look)
	}
	if len(c.buf.unread()) == 0 {
		err = c.buf.err
	}
	return c.buf.unread(), err
}

// lookAbove looks at what the layers above the socket have read already.
func (c *conn) lookAbove() {
	if tc, ok := c.nc.(*tls.Conn); ok {
		if gate, ok := tc.NetConn().(*tlsGate); ok {
			gate.shut = true
			c.look()
			gate.shut = false
			return
		}
	}
	c.withDeadline(past, c.look)
}

// A tlsGate is between TLS and the connection below. While it is shut, reads return a timeout, so that the client
// sees what TLS has read already without a deadline on the connection below, which may not survive one.
type tlsGate struct {
	net.Conn
	shut bool
}

func (g *tlsGate) NetConn() net.Conn { return g.Conn }

func (g *tlsGate) Read(p []byte) (int, error) {
	if g.shut {
		return 0, os.ErrDeadlineExceeded
	}
	return g.Conn.Read(p)
}

// look reads once into the buffer. That nothing came in time is no error.
func (c *conn) look() {
	c.clock.startLine() // the deadline of the last reply may have passed since
	if err := c.buf.fill(); errors.Is(err, os.ErrDeadlineExceeded) || err == errNoDeadline {
		c.buf.err = nil
	}
}

// minRate is what a peer has to deliver in a multi-line reply, in octets a second, over any period as long as the
// time limit.
const minRate = 128

// A clock limits how long the peer may take. A reply of one line has to be whole within the time limit. In a
// multi-line reply the limit is on each period in which fewer than minRate octets a second arrive. Only the
// time in which something is waited for counts.
type clock struct {
	timeout time.Duration // below 0: no limit
	cutoff  time.Time     // a limit on all of it, if not zero

	bulk  bool          // a multi-line reply
	armed bool          // the deadline of a one-line reply is set
	began time.Time     // of the read in progress
	spent time.Duration // waiting, in this period
	got   int64         // octets, in this period
}

// startLine starts the time for a reply of one line.
func (k *clock) startLine() { k.bulk, k.armed = false, false }

// startBody starts the time for a multi-line reply.
func (k *clock) startBody() { k.bulk, k.spent, k.got = true, 0, 0 }

// deadline returns the deadline for the next read; ok is false if it need not be set.
func (k *clock) deadline() (t time.Time, ok bool) {
	if k.timeout < 0 && k.cutoff.IsZero() || k.armed && !k.bulk {
		return time.Time{}, false
	}
	k.began = time.Now()
	k.armed = true
	t = k.began.Add(k.timeout)
	if k.bulk {
		t = t.Add(-k.spent)
	}
	if k.timeout < 0 || !k.cutoff.IsZero() && k.cutoff.Before(t) {
		t = k.cutoff
	}
	return t, true
}

// count counts a read of n octets. A period that was fast enough is over, and the next one starts.
func (k *clock) count(n int) {
	if !k.bulk || k.timeout < 0 {
		return
	}
	k.spent += time.Since(k.began)
	k.got += int64(n)
	if float64(k.got) >= minRate*k.timeout.Seconds() {
		k.spent, k.got = 0, 0
	}
}

// expired says which limit was passed when a read failed with err.
func (k *clock) expired(err error) error {
	switch {
	case k.cutoff == past:
		return err
	case !k.cutoff.IsZero() && !time.Now().Before(k.cutoff):
		return fmt.Errorf("it took too long as a whole: %w", err)
	case k.bulk:
		return fmt.Errorf("fewer than %d octets a second for %v: %w", minRate, k.timeout, err)
	}
	return fmt.Errorf("no complete reply within %v: %w", k.timeout, err)
}

// A turn says who has the connection: a call, the NOOP of KeepAlive, or nobody.
type turn struct {
	mu    sync.Mutex
	taken bool
	noop  chan struct{} // taken for a NOOP; closed when that is over
	since time.Time     // when it was last given back
}

// take takes the connection for a call. It waits for a NOOP, and fails with ErrBusy if another call has it.
func (t *turn) take(ctx context.Context) error {
	for {
		noop, ok := t.try(nil)
		switch {
		case ok:
			return nil
		case noop == nil:
			return ErrBusy
		}
		select {
		case <-noop:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try takes the connection if nobody has it: for a call if noop is nil, else for a NOOP, at whose end noop is
// closed. If a NOOP has it already, other is the channel of that one.
func (t *turn) try(noop chan struct{}) (other chan struct{}, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken {
		return t.noop, false
	}
	t.taken, t.noop = true, noop
	return nil, true
}

// give ends the turn.
func (t *turn) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.noop != nil {
		close(t.noop)
	}
	t.taken, t.noop, t.since = false, nil, time.Now()
}

// idle returns for how long nobody has had the connection, 0 if somebody has.
func (t *turn) idle() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken {
		return 0
	}
	return time.Since(t.since)
}

// A socket is what the TCP or Unix connection at the bottom can do beyond net.Conn. The zero socket can do
// nothing.
type socket struct {
	raw     syscall.RawConn
	layered bool // there is TLS, or a wrapper of the caller's, above it
	peek    *peek
}

// A peek looks whether something can be read. It is made once for a connection, so that looking allocates nothing.
type peek struct {
	look  func(fd uintptr)
	ready bool
}

func newSocket(nc net.Conn) socket {
	_, stacked := nc.(interface{ NetConn() net.Conn })
	bottom := below(nc)
	switch bottom.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return socket{layered: stacked}
	}
	raw, err := bottom.(syscall.Conn).SyscallConn()
	if err != nil {
		return socket{layered: stacked}
	}
	p := &peek{}
	p.look = func(fd uintptr) { p.ready = hasInput(fd) }
	return socket{raw: raw, layered: stacked, peek: p}
}

// below returns the connection that nc stands on, as a *tls.Conn does.
func below(nc net.Conn) net.Conn {
	for {
		upper, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = upper.NetConn()
	}
}

// quickAck has the kernel acknowledge at once what comes next. Many servers write a reply in pieces with Nagle's
// algorithm on; each piece but the first then waits for an acknowledgement that the kernel would delay by 40 ms,
// on any link. The kernel forgets the setting, so it is made anew before each read.
func (s socket) quickAck() {
	if s.raw != nil {
		s.raw.Control(setQuickAck)
	}
}

// readable reports whether a read would come back at once: with octets, the end, or an error. It is false where
// nobody can tell.
func (s socket) readable() bool {
	if s.raw == nil {
		return false
	}
	s.peek.ready = false
	s.raw.Control(s.peek.look)
	return s.peek.ready
}

// tellsWritten reports whether a Write that counts no octets has certainly sent none.
func (s socket) tellsWritten() bool { return s.raw != nil && !s.layered }
