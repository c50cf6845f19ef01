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
	"time"
)

// A conn is one connection: octets, time and cancellation. It knows no commands.
//
// One goroutine at a time is between begin and end. The end of its context and Close come from other goroutines, so
// what they change is under mu; nc itself changes only in upgrade, before anybody has the client to close it. The
// first fatal error stays, and everything after it fails because of it.
type conn struct {
	nc     net.Conn
	socket socket // of nc, below TLS
	buf    buffer
	clock  clock
	lf     bool // the peer ends lines in LF
	ends   bool // it is known how the peer ends lines
	out    [maxCommand]byte

	use     use
	unwatch func() // ends the watch on the context of the call

	mu          sync.Mutex
	cause       error         // why the connection is closed; nil if it is not
	done        chan struct{} // closed together with the connection
	interrupted error         // the context's error, once it ended during a call
}

func newConn(nc net.Conn, timeout time.Duration) *conn {
	c := &conn{nc: nc, socket: newSocket(nc), clock: clock{timeout: timeout}, done: make(chan struct{})}
	c.buf.src = c
	return c
}

// upgrade goes on over TLS on the same connection. The buffer is new: what was read in clear can't be taken for
// something that came over TLS. Line ends in LF have to show once more: with a greeting that somebody has changed, a
// mail could end itself.
func (c *conn) upgrade(tc *tls.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = tc
	c.socket = newSocket(tc)
	c.buf = buffer{src: c}
	c.lf, c.ends = false, !c.lf
}

// line reads a line of at most limit octets, as [buffer.line] does. The first one shows how the peer ends lines.
func (c *conn) line(limit int) ([]byte, error) {
	line, err := c.buf.line(limit, c.lf || !c.ends)
	if !c.ends && err == nil {
		c.lf, c.ends = c.buf.bareLF, true
	}
	return line, err
}

// begin starts a call. It fails without touching anything if ctx has ended, if another call is not over, or if
// the connection is closed.
func (c *conn) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.use.take(ctx); err != nil {
		return cmp.Or(c.closed(), err)
	}
	if err := c.closed(); err != nil {
		c.use.give()
		return err
	}
	c.watch(ctx)
	return nil
}

// beginNoop is begin for a NOOP that nobody waits for. It gives way to everybody.
func (c *conn) beginNoop(ctx context.Context) bool {
	if _, ok := c.use.try(make(chan struct{})); !ok {
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
	c.use.give()
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

// past is a deadline that has always passed.
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

// setCause notes err as the cause for which the connection is closed, if it is the first one. Whoever was first closes
// the transport, which may block, without mu.
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

// closed gives the error for a call on a closed connection: net.ErrClosed, and the cause if there was one.
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

// lost gives the reason why the connection is closed, nil if that was asked for.
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
	if t, ok := c.clock.start(); ok {
		err := c.setDeadline(net.Conn.SetReadDeadline, t)
		switch {
		case err == nil, err == io.ErrClosedPipe: // of a net.Pipe whose other end has hung up: Read tells
		case c.clock.timeout < 0 && !c.isInterrupted():
			return 0, errAbandoned // a connection without deadlines: what can't be cut short is not begun
		default:
			return 0, err
		}
	}
	c.socket.quickAck()
	n, err := c.nc.Read(p)
	c.clock.stop(n)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = c.clock.expired(err)
	}
	return n, notTheEnd(err)
}

// notTheEnd makes io.EOF the error that it is here: nothing in POP3 ends by the end of the connection.
func notTheEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// notTried is what write counts if the transport was not asked, so that certainly nothing was sent.
const notTried = -1

// write writes p under the time limit.
func (c *conn) write(p []byte) (int, error) {
	if t, ok := c.clock.forWrite(); ok {
		if err := c.setDeadline(net.Conn.SetWriteDeadline, t); err != nil {
			return notTried, err
		}
	}
	n, err := c.put(p)
	c.setDeadline(net.Conn.SetWriteDeadline, time.Time{}) // TLS may write while it reads, much later
	return n, err
}

// put writes all of p or fails, which not every net.Conn does by itself.
func (c *conn) put(p []byte) (int, error) {
	n, err := c.nc.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, notTheEnd(err)
}

// maxHurry is how long what is left of replies is read before it is cheaper to hang up.
const maxHurry = time.Second

// hurry runs f, in which no wait for the peer lasts beyond maxHurry from now: it ends with errAbandoned then.
func (c *conn) hurry(f func()) { c.waitAtMost(maxHurry, f) }

// waitAtMost is hurry with another time.
func (c *conn) waitAtMost(d time.Duration, f func()) {
	c.clock.cutoff = time.Now().Add(d)
	f()
	c.clock.cutoff = time.Time{}
	if c.clock.timeout < 0 {
		c.setDeadline(net.Conn.SetReadDeadline, time.Time{})
	}
}

// checkUnsolicited looks whether the peer has said anything that was not asked for: a reply that came before its command would
// be taken for the reply to it. It looks into the socket as well, where that can be done without waiting. early is
// what came, as far as it is known. An error that came together with the last octets is returned now.
func (c *conn) checkUnsolicited() (early []byte, err error) {
	if len(c.buf.unread()) == 0 && (c.buf.err != nil || c.socket.readable()) {
		c.clock.line() // the deadline of the last reply may have passed since
		err = c.buf.fill()
	}
	return c.buf.unread(), err
}

// minRate is what a peer has to deliver in a multi-line reply, in octets a second, over any stretch as long as
// the time limit.
const minRate = 128

// A clock tells how long the peer may take. A reply of one line has to be whole within the time limit. In a
// multi-line reply the limit is on each stretch in which fewer than minRate octets a second arrive. Only the
// time in which something is waited for counts.
type clock struct {
	timeout time.Duration // below 0: no limit
	cutoff  time.Time     // a limit on all of it, if not zero

	bulk  bool          // a multi-line reply
	armed bool          // the deadline of a one-line reply is set
	began time.Time     // of the read in progress
	spent time.Duration // waiting, in this stretch
	got   int64         // octets, in this stretch
}

// line starts the time for a reply of one line.
func (k *clock) line() { k.bulk, k.armed = false, false }

// body starts the time for a multi-line reply.
func (k *clock) body() { k.bulk, k.spent, k.got = true, 0, 0 }

// start tells the deadline for the next read; ok is false if it need not be set.
func (k *clock) start() (deadline time.Time, ok bool) {
	if k.timeout < 0 && k.cutoff.IsZero() || k.armed && !k.bulk {
		return time.Time{}, false
	}
	k.began = time.Now()
	k.armed = true
	deadline = k.began.Add(k.timeout)
	if k.bulk {
		deadline = deadline.Add(-k.spent)
	}
	if k.timeout < 0 || !k.cutoff.IsZero() && k.cutoff.Before(deadline) {
		deadline = k.cutoff
	}
	return deadline, true
}

// stop counts a read of n octets. A stretch that was fast enough is over, and the next one starts.
func (k *clock) stop(n int) {
	if !k.bulk || k.timeout < 0 {
		return
	}
	k.spent += time.Since(k.began)
	k.got += int64(n)
	if float64(k.got) >= minRate*k.timeout.Seconds() {
		k.spent, k.got = 0, 0
	}
}

// forWrite tells the deadline for a write; ok is false if there is no limit.
func (k *clock) forWrite() (deadline time.Time, ok bool) {
	if k.timeout < 0 {
		return time.Time{}, false
	}
	return time.Now().Add(k.timeout), true
}

// expired says which limit was passed when a read failed with err.
func (k *clock) expired(err error) error {
	switch {
	case !k.cutoff.IsZero() && !time.Now().Before(k.cutoff):
		return errAbandoned
	case k.bulk:
		return fmt.Errorf("fewer than %d octets a second for %v: %w", minRate, k.timeout, err)
	}
	return fmt.Errorf("no complete reply within %v: %w", k.timeout, err)
}

// A use tells who has the connection: a call, the NOOP of KeepAlive, or nobody.
type use struct {
	mu    sync.Mutex
	taken bool
	noop  chan struct{} // taken for a NOOP; closed when that is over
	since time.Time     // when it was last given back
}

// take takes the connection for a call. It waits for a NOOP, and fails with ErrBusy if another call has it.
func (u *use) take(ctx context.Context) error {
	for {
		noop, ok := u.try(nil)
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

// try takes the connection if nobody has it: for a call if noop is nil, else for a NOOP, at whose end noop is closed.
// If a NOOP has it already, other is the channel of that one.
func (u *use) try(noop chan struct{}) (other chan struct{}, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken {
		return u.noop, false
	}
	u.taken, u.noop = true, noop
	return nil, true
}

// give gives the connection back.
func (u *use) give() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.noop != nil {
		close(u.noop)
	}
	u.taken, u.noop, u.since = false, nil, time.Now()
}

// idle tells for how long nobody has had the connection, 0 if somebody has.
func (u *use) idle() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken {
		return 0
	}
	return time.Since(u.since)
}
