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

// A conn is one connection: its octets, time limits and cancellation. It knows no commands.
//
// Only one goroutine at a time is between begin and end. Other goroutines may call Close or handle the end of
// the context, so mu guards what they change. nc changes only in upgrade, when the caller does not have the
// client yet and so cannot close it. The first fatal error is kept, and every later call fails because of it.
type conn struct {
	nc     net.Conn
	gate   *tlsGate // the gate below the TLS of nc; nil without TLS, and if the caller made the TLS connection
	socket socket   // the socket below all wrappers of nc
	buf    buffer
	clock  clock
	ends   lineEnd // how the peer ends lines
	out    [maxCommand]byte

	writeLimit time.Time // the write deadline, zero if none is set
	ahead      bool      // commands are being sent ahead, on another goroutine

	turn turn

	mu          sync.Mutex
	watched     watch         // the watch on the context of the running call
	cause       error         // why the connection was closed; nil while it is open
	done        chan struct{} // closed together with the connection
	interrupted error         // the context's error if it ended during a call
}

// A lineEnd is how a peer ends lines. The first line of the peer shows it.
type lineEnd int

const (
	lineEndUnknown lineEnd = iota
	lineEndCRLF
	lineEndLF
)

func newConn(nc net.Conn, timeout time.Duration) *conn {
	c := &conn{clock: clock{timeout: timeout}, done: make(chan struct{})}
	c.setTransport(nc)
	return c
}

// upgrade continues with TLS on the same connection. The buffer is new, so that data received in clear is never
// taken for data received over TLS. The line end is detected again: an attacker could have set it to LF in the
// greeting, and then a mail could end its own transfer.
func (c *conn) upgrade(tc *tls.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setTransport(tc)
	if c.ends == lineEndLF {
		c.ends = lineEndUnknown
	}
}

func (c *conn) setTransport(nc net.Conn) {
	c.nc, c.socket, c.buf, c.writeLimit = nc, newSocket(nc), buffer{src: c}, time.Time{}
	if tc, ok := nc.(*tls.Conn); ok {
		c.gate, _ = tc.NetConn().(*tlsGate)
	}
}

// line reads a line of at most limit octets, as [buffer.line] does. The first line shows how the peer ends lines.
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

// begin starts a call. It fails and changes nothing if ctx has ended, if another call is running, or if the
// connection is closed.
func (c *conn) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.turn.acquire(ctx); err != nil {
		return cmp.Or(c.closed(), err)
	}
	if err := c.closed(); err != nil {
		c.turn.release()
		return err
	}
	c.watch(ctx)
	return nil
}

// beginNoop starts a NOOP of KeepAlive. It does so only if no other call is running.
func (c *conn) beginNoop(ctx context.Context) bool {
	if _, ok := c.turn.tryAcquire(make(chan struct{})); !ok {
		return false
	}
	c.watch(ctx)
	return true
}

// end ends the call that begin or beginNoop started.
func (c *conn) end() {
	if c.unwatch() {
		c.resume()
	}
	c.buf.release()
	c.turn.release()
}

// A watch interrupts the running call when a context ends. The zero watch stands for a context that never ends.
type watch struct {
	stop func() bool   // as context.AfterFunc returns it
	done chan struct{} // closed when interrupt has returned
}

// watch makes the end of ctx interrupt a wait for the network.
func (c *conn) watch(ctx context.Context) {
	if ctx.Done() == nil {
		return
	}
	w := watch{done: make(chan struct{})}
	w.stop = context.AfterFunc(ctx, func() {
		defer close(w.done)
		c.interrupt(contextEnded(ctx))
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = w
}

// unwatch ends the watch and forgets it, so that the context can be garbage collected. If the context has ended, it
// waits for interrupt to return, and interrupted is true.
func (c *conn) unwatch() (interrupted bool) {
	c.mu.Lock()
	w := c.watched
	c.watched = watch{}
	c.mu.Unlock()
	if w.stop == nil || w.stop() {
		return false
	}
	<-w.done
	return true
}

func contextEnded(ctx context.Context) error {
	return fmt.Errorf("the caller's context has ended: %w", ctx.Err())
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

// resume is called if the context ended after the call had finished its work. It removes the deadline that interrupt
// has set.
func (c *conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = nil
	c.writeLimit = time.Time{}
	if c.cause == nil {
		c.nc.SetDeadline(time.Time{})
	}
}

// closeWithError closes the connection because of err, and returns the first error that closed it.
func (c *conn) closeWithError(err error) error {
	cause, first := c.setCause(err)
	if first {
		hangUp(c.nc)
	}
	return cause
}

// setCause sets the reason why the connection is closed, unless a reason is set already. The caller that has set it
// then closes the transport without holding mu, because closing may block.
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

// hangUp closes the transport without a TLS alert.
func hangUp(nc net.Conn) error {
	for {
		tc, ok := nc.(*tls.Conn)
		if !ok {
			return nc.Close()
		}
		nc = tc.NetConn()
	}
}

// closeGrace limits how long the TLS close alert waits for a peer that does not read.
const closeGrace = 20 * time.Millisecond

// close closes the connection, with a TLS close alert if there is TLS. A running call fails with net.ErrClosed. The
// caller may have left a message open. So close ends the watch, which would keep c in memory as long as the context
// exists.
func (c *conn) close() error {
	if _, first := c.setCause(net.ErrClosed); !first {
		return nil
	}
	c.unwatch()
	if _, ok := c.nc.(*tls.Conn); !ok {
		return c.nc.Close()
	}
	limit := time.AfterFunc(closeGrace, func() { hangUp(c.nc) })
	defer limit.Stop()
	c.nc.Close() // sending the alert may fail if the peer has closed the connection
	return nil
}

// closed returns the error for a call on a closed connection. It wraps net.ErrClosed and, if there was one, the cause.
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

// closeReason returns why the connection was closed. It returns nil if Close or Quit closed it.
func (c *conn) closeReason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == net.ErrClosed {
		return nil
	}
	return c.cause
}

// setDeadline sets the deadline t by calling the function set. If the context has ended, it sets nothing, because
// the deadline that interrupt has set must stay.
func (c *conn) setDeadline(set func(net.Conn, time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupted != nil {
		return c.interrupted
	}
	return set(c.nc, t)
}

// Read reads from the network within the limits of the clock. The buffer reads from it.
func (c *conn) Read(p []byte) (int, error) {
	if c.gate != nil && c.gate.shut {
		n, err := c.read(p)
		return n, asUnexpectedEOF(err)
	}
	if t, ok := c.clock.deadline(); ok {
		err := c.setDeadline(net.Conn.SetReadDeadline, t)
		switch {
		case err == nil, err == io.ErrClosedPipe: // the other end of a net.Pipe is closed, so the read below fails
		case c.clock.timeout < 0 && !c.isInterrupted():
			return 0, errNoDeadline // a read that cannot be interrupted must not begin
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
		err = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err) // user-space TCP stacks return other errors
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = c.clock.expired(err)
	}
	return n, asUnexpectedEOF(err)
}

var errNoDeadline = errors.New("the connection has no read deadline")

// read reads from the network. TLS may have to write during a read, to answer a key update. That write has a
// deadline too, in case the peer does not read. A new deadline is set only if the last one is closer than half of
// the time limit. If commands are sent ahead, read removes the deadline at the end, because writing them may have
// to wait until the caller reads again.
func (c *conn) read(p []byte) (int, error) {
	if _, ok := c.nc.(*tls.Conn); ok && c.clock.timeout >= 0 && time.Until(c.writeLimit) < c.clock.timeout/2 {
		c.limitWrite(c.clock.timeout)
	}
	n, err := c.nc.Read(p)
	if c.ahead {
		c.unlimitWrite()
	}
	return n, err
}

// limitWrite sets the deadline of writes. The deadline stays until another one is set.
func (c *conn) limitWrite(timeout time.Duration) error {
	c.writeLimit = time.Now().Add(timeout)
	return c.setDeadline(net.Conn.SetWriteDeadline, c.writeLimit)
}

// unlimitWrite removes the deadline of writes.
func (c *conn) unlimitWrite() {
	if !c.writeLimit.IsZero() {
		c.writeLimit = time.Time{}
		c.setDeadline(net.Conn.SetWriteDeadline, time.Time{})
	}
}

// asUnexpectedEOF replaces io.EOF by io.ErrUnexpectedEOF, because in POP3 the end of the connection never means the end
// of a reply.
func asUnexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write writes p within the time limit. sent is false only if it is certain that nothing was sent.
func (c *conn) write(p []byte) (sent bool, err error) {
	if c.clock.timeout >= 0 {
		if err := c.limitWrite(c.clock.timeout); err != nil {
			return false, err
		}
	}
	n, err := c.writeAll(p)
	return n > 0 || !c.socket.countsWritten(), err
}

// writeAll writes all of p or returns an error. Some net.Conns write less and return no error.
func (c *conn) writeAll(p []byte) (int, error) {
	n, err := c.nc.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, asUnexpectedEOF(err)
}

// withDeadline runs f with t as the deadline for each wait for the peer. The zero time means no limit.
func (c *conn) withDeadline(t time.Time, f func()) {
	c.clock.cutoff = t
	f()
	c.clock.cutoff = time.Time{}
	if c.clock.timeout < 0 && !t.IsZero() {
		c.setDeadline(net.Conn.SetReadDeadline, time.Time{})
	}
}

// unsolicitedWait is how long the client waits for octets of POP3 when the socket holds data. Within TLS that data may
// contain no such octets: it may be a session ticket or a key update.
const unsolicitedWait = 2 * time.Millisecond

// maxTryFills is the highest number of reads by checkUnsolicited while the socket holds data.
const maxTryFills = 16

// checkUnsolicited checks that the peer has sent nothing that was not asked for. Otherwise the client would take early
// data for the reply to the next command. It checks the buffer, the data that TLS or a wrapper has already read, and
// the socket. It waits only if the socket holds data. The result early contains the data that was read. If there are no
// unread octets and an earlier read has failed, that error is returned.
func (c *conn) checkUnsolicited() (early []byte, err error) {
	if c.buf.idle() && c.socket.layered && (c.clock.timeout >= 0 || c.socket.raw != nil) {
		c.tryFillLayered()
	}
	for range maxTryFills { // one read may fail: on a busy machine the deadline may pass before it has begun
		if !c.buf.idle() || !c.socket.readable() {
			break
		}
		c.withDeadline(time.Now().Add(unsolicitedWait), c.tryFill)
	}
	if len(c.buf.unread()) == 0 {
		err = c.buf.err
	}
	return c.buf.unread(), err
}

// tryFillLayered fills the buffer with the data that TLS or a wrapper has already read from the socket.
func (c *conn) tryFillLayered() {
	if c.gate == nil {
		c.withDeadline(past, c.tryFill)
		return
	}
	c.gate.shut = true
	c.tryFill()
	c.gate.shut = false
}

// A tlsGate is between TLS and the connection below. While it is shut, its Read fails with a timeout. So the client
// can get the data that TLS has already read, without a deadline on the connection below. Some connections cannot be
// used any more after a deadline has passed.
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

// tryFill reads once into the buffer. A timeout is not an error.
func (c *conn) tryFill() {
	c.clock.startLine() // the deadline of the last reply may have passed
	if err := c.buf.fill(); errors.Is(err, os.ErrDeadlineExceeded) || err == errNoDeadline {
		c.buf.err = nil
	}
}

// minRate is the lowest rate of a multi-line reply, in octets per second, over any period as long as the time
// limit.
const minRate = 128

// A clock limits how long the peer may take. A one-line reply must be complete within the time limit. In a
// multi-line reply, a period with fewer than minRate octets per second must not last longer than the time
// limit. Only the time spent waiting for the peer is counted.
type clock struct {
	timeout time.Duration // below 0 means no limit
	cutoff  time.Time     // the deadline of the whole reply, if not zero

	bulk     bool          // a multi-line reply
	armed    bool          // the deadline of a one-line reply is set
	began    time.Time     // when the read in progress began
	spent    time.Duration // time spent waiting in this period
	received int64         // octets received in this period
}

// startLine starts the clock for a one-line reply.
func (k *clock) startLine() { k.bulk, k.armed = false, false }

// startBody starts the clock for a multi-line reply.
func (k *clock) startBody() { k.bulk, k.spent, k.received = true, 0, 0 }

// deadline returns the deadline for the next read. ok is false if none has to be set.
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

// count counts a read of n octets. When a period has enough octets, the next period starts.
func (k *clock) count(n int) {
	if !k.bulk || k.timeout < 0 {
		return
	}
	k.spent += time.Since(k.began)
	k.received += int64(n)
	if float64(k.received) >= minRate*k.timeout.Seconds() {
		k.spent, k.received = 0, 0
	}
}

// expired returns err, the error of a read, with a text that names the time limit that has passed.
func (k *clock) expired(err error) error {
	switch {
	case k.cutoff == past:
		return err
	case !k.cutoff.IsZero() && !time.Now().Before(k.cutoff):
		return fmt.Errorf("the whole reply took too long: %w", err)
	case k.bulk:
		return fmt.Errorf("fewer than %d octets per second for %v: %w", minRate, k.timeout, err)
	}
	return fmt.Errorf("no complete reply within %v: %w", k.timeout, err)
}

// A turn records who uses the connection: a call, the NOOP of KeepAlive, or nobody.
type turn struct {
	mu    sync.Mutex
	taken bool
	noop  chan struct{} // set during a NOOP, and closed at its end
	since time.Time     // when the last call ended
}

// acquire reserves the connection for a call. It waits for a NOOP to end, and fails with ErrBusy if another call
// is running.
func (t *turn) acquire(ctx context.Context) error {
	for {
		noop, ok := t.tryAcquire(nil)
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

// tryAcquire reserves the connection if nobody uses it. For a call, noop must be nil. For a NOOP, noop is a channel
// that release closes when the NOOP has ended. If another NOOP uses the connection, other is the channel of that
// NOOP.
func (t *turn) tryAcquire(noop chan struct{}) (other chan struct{}, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken {
		return t.noop, false
	}
	t.taken, t.noop = true, noop
	return nil, true
}

// release ends the turn.
func (t *turn) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.noop != nil {
		close(t.noop)
	}
	t.taken, t.noop, t.since = false, nil, time.Now()
}

// idle returns how long nobody has used the connection. It returns 0 if somebody uses it now.
func (t *turn) idle() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken {
		return 0
	}
	return time.Since(t.since)
}

// A socket is the TCP or Unix connection below all wrappers. It has operations that net.Conn does not have. On the zero
// socket they do nothing.
type socket struct {
	raw     syscall.RawConn
	layered bool // TLS, or a wrapper of the caller's, is above it
	peek    *peek
}

// A peek checks whether a read would return at once. It is made once for each connection, so that a check allocates
// nothing.
type peek struct {
	check func(fd uintptr)
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
	p.check = func(fd uintptr) { p.ready = hasInput(fd) }
	return socket{raw: raw, layered: stacked, peek: p}
}

// below returns the connection at the bottom of nc. It calls the method NetConn, which *tls.Conn has, as long as there
// is one. It returns nil if NetConn returns nil.
func below(nc net.Conn) net.Conn {
	for {
		upper, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = upper.NetConn()
	}
}

// quickAck makes the kernel acknowledge the next data at once. Many servers write a reply in pieces, with
// Nagle's algorithm on. Then each piece except the first waits for an acknowledgement, which the kernel
// would delay by 40 ms on any link. The kernel forgets the setting, so it is set before each read.
func (s socket) quickAck() {
	if s.raw != nil {
		s.raw.Control(setQuickAck)
	}
}

// readable reports whether a read would return at once, with octets, with the end of the connection, or with an error.
// It returns false if that is not known.
func (s socket) readable() bool {
	if s.raw == nil {
		return false
	}
	s.peek.ready = false
	s.raw.Control(s.peek.check)
	return s.peek.ready
}

// countsWritten reports whether the count that Write returns is exact, so that 0 means that nothing was sent.
func (s socket) countsWritten() bool { return s.raw != nil && !s.layered }
