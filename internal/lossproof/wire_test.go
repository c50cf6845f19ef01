package lossproof

import (
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A wire is the connection between the client and the model, with one fault in it. What one side writes arrives
// at the other in segments, like packets.
type wire struct {
	mu       sync.Mutex
	changed  *sync.Cond
	down, up lane // octets on the way to the client, and to the server

	singleOctets  bool                         // each Read of the client returns one octet
	closed        bool                         // the client has closed it
	writeErr      error                        // error that the client's Write returns
	readLimit     time.Time                    // deadlines of the client's end
	writeLimit    time.Time                    //
	failCall      func(op string) *callFailure // called at every call on the client's end
	cancel        func()                       // ends the context of the running call
	runningCall   int                          // number of the running call, 0 if there is none
	cancelledCall int                          // number of the call whose context was ended
	hangUp        func()                       // closes the client from another goroutine
	faultTime     time.Time                    // when the fault happened; zero before
	onFault       func()                       // called when the fault happens

	log writeLog
}

// A writeLog has what invariant I4 needs.
type writeLog struct {
	octets       []byte // all octets that the client tried to write
	readError    bool   // the transport has returned an error to the client
	callError    bool   // a call of the client has returned an error that ended the session
	quitting     bool   // a call of Quit is running
	alertSize    int    // size of the close alert of TLS, which Close may send at any time
	addViolation func(invariant, what string)
}

// A lane is one direction of a wire.
type lane struct {
	segments   [][]byte // in transit
	passed     int      // octets that the sender has written
	fault      *fault   // nil if this lane has no fault, or if the fault has happened
	faultAt    int      // the octet before which the fault happens
	discards   bool     // octets that the sender writes are lost
	blocked    bool     // the sender has to wait
	endErr     error    // error that the reader receives after the segments; while it is nil, the reader waits
	readableAt time.Time
	delivered  []byte // all octets that were sent to the reader
}

func newWire() *wire {
	w := &wire{}
	w.changed = sync.NewCond(&w.mu)
	w.failCall = func(string) *callFailure { return nil }
	w.onFault = func() {}
	return w
}

// injectAtStart makes a fault happen that is due before any octet.
func (w *wire) injectAtStart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.transmit(&w.down, nil)
	w.transmit(&w.up, nil)
}

// addSegment sends a segment.
func (l *lane) addSegment(p []byte) {
	if len(p) > 0 {
		l.segments = append(l.segments, slices.Clone(p))
		l.delivered = append(l.delivered, p...)
	}
}

// transmit sends octets of the sender, unless the lane is blocked, and makes the fault happen at its place. If the
// client has closed the connection no fault happens, because the server then only sends a close alert.
func (w *wire) transmit(l *lane, p []byte) (n int) {
	switch {
	case l.discards:
		return len(p)
	case l.blocked:
		return 0
	}
	defer w.changed.Broadcast()
	if l.faultIsDue(len(p)) && !w.closed {
		return w.injectFault(l, p)
	}
	l.addSegment(p)
	l.passed += len(p)
	return len(p)
}

// injectFault does what transmit does, for the octets in which the fault happens.
func (w *wire) injectFault(l *lane, p []byte) (n int) {
	n = l.faultAt - l.passed
	fault := l.fault
	l.fault = nil
	w.faultTime = time.Now()
	w.onFault()
	segments := fault.inject(w, l, slices.Clone(p[n:]))
	if len(segments) == 0 {
		segments = [][]byte{nil}
	}
	segments[0] = slices.Concat(p[:n], segments[0])
	for _, segment := range segments {
		l.addSegment(segment)
	}
	l.passed = l.faultAt
	if !l.blocked {
		l.passed += len(p) - n
		n = len(p)
	}
	return n
}

// faultIsDue reports whether the fault happens within or directly after the next n octets. A fault that needs an octet
// waits until that octet is sent.
func (l *lane) faultIsDue(n int) bool {
	if l.fault == nil {
		return false
	}
	if l.fault.needsOctet {
		n--
	}
	return l.passed+n >= l.faultAt
}

// receive returns what the reader reads, at most one segment; ok is false if it must wait.
func (l *lane) receive(p []byte) (n int, err error, ok bool) {
	switch {
	case !l.readableAt.IsZero() && time.Now().Before(l.readableAt):
		return 0, nil, false
	case len(l.segments) > 0:
		n = copy(p, l.segments[0])
		if l.segments[0] = l.segments[0][n:]; len(l.segments[0]) == 0 {
			l.segments = l.segments[1:]
		}
		return n, nil, true
	}
	return 0, l.endErr, l.endErr != nil
}

// wait waits for a change, at most until one of the limits.
func (w *wire) wait(limits ...time.Time) {
	for _, limit := range limits {
		if time.Now().Before(limit) {
			defer time.AfterFunc(time.Until(limit), w.wake).Stop()
		}
	}
	w.changed.Wait()
}

// cancelCall ends the context of the running call.
func (w *wire) cancelCall() {
	w.cancelledCall = w.runningCall
	w.cancel()
}

func (w *wire) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed.Broadcast()
}

// end ends the connection, so that no goroutine waits for it.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up.endErr, w.down.endErr = io.EOF, io.EOF
	w.up.blocked, w.up.discards = false, true
	w.up.readableAt, w.down.readableAt = time.Time{}, time.Time{}
	w.changed.Broadcast()
}

// A serverEnd is the server's end of a wire. It has no deadlines.
type serverEnd struct {
	endpoint
	w *wire
}

func (s serverEnd) Read(p []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for {
		if n, err, ok := s.w.up.receive(p); ok {
			return n, err
		}
		s.w.wait(s.w.up.readableAt)
	}
}

func (s serverEnd) Write(p []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.transmit(&s.w.down, p), nil
}

func (s serverEnd) Close() error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if !s.w.down.discards && s.w.down.endErr == nil {
		s.w.down.endErr = io.EOF
	}
	s.w.up.discards = true
	s.w.changed.Broadcast()
	return nil
}

// A clientEnd is the client's end of a wire.
type clientEnd struct {
	endpoint
	w *wire
}

func (c clientEnd) Read(p []byte) (n int, err error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	a := c.w.failCall("Read")
	if a == nil || a.half || a.all {
		n, err = c.w.read(p)
	}
	if a != nil {
		err = a.err
	}
	if a != nil && a.half {
		n /= 2
	}
	if err != nil {
		c.w.log.readError = true
	}
	return n, err
}

func (w *wire) read(p []byte) (int, error) {
	if w.singleOctets && len(p) > 1 {
		p = p[:1]
	}
	for {
		if err := w.usable(w.readLimit); err != nil {
			return 0, err
		}
		if n, err, ok := w.down.receive(p); ok {
			return n, err
		}
		w.wait(w.readLimit, w.down.readableAt)
	}
}

// usable returns an error if the client's end can't be used now.
func (w *wire) usable(limit time.Time) error {
	switch {
	case w.closed:
		return net.ErrClosed
	case !limit.IsZero() && !time.Now().Before(limit):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c clientEnd) Write(p []byte) (n int, err error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.log.checkWrite(p)
	a := c.w.failCall("Write")
	switch {
	case a != nil && a.half:
		n, err = c.w.write(p[:len(p)/2])
	case a != nil && a.all:
		_, err = c.w.write(p)
	case a == nil:
		n, err = c.w.write(p)
	}
	if a != nil {
		err = a.err
	}
	if err != nil {
		c.w.log.readError = true
	}
	return n, err
}

func (w *wire) write(p []byte) (n int, err error) {
	for {
		if err := w.usable(w.writeLimit); err != nil {
			return n, err
		}
		if w.writeErr != nil {
			return n, w.writeErr
		}
		n += w.transmit(&w.up, p[n:])
		if n == len(p) {
			return n, nil
		}
		if w.writeErr == nil {
			w.wait(w.writeLimit)
		}
	}
}

func (c clientEnd) Close() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	a := c.w.failCall("Close")
	c.w.closed = true
	if c.w.up.endErr == nil && !c.w.up.blocked {
		c.w.up.endErr = io.EOF
	}
	c.w.up.discards = true
	c.w.changed.Broadcast()
	if a != nil {
		return a.err
	}
	return nil
}

func (c clientEnd) SetDeadline(t time.Time) error {
	return c.setLimits("SetDeadline", t, &c.w.readLimit, &c.w.writeLimit)
}

func (c clientEnd) SetReadDeadline(t time.Time) error {
	return c.setLimits("SetReadDeadline", t, &c.w.readLimit)
}

func (c clientEnd) SetWriteDeadline(t time.Time) error {
	return c.setLimits("SetWriteDeadline", t, &c.w.writeLimit)
}

func (c clientEnd) setLimits(op string, t time.Time, limits ...*time.Time) error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if a := c.w.failCall(op); a != nil {
		return a.err
	}
	if c.w.closed {
		return net.ErrClosed
	}
	for _, limit := range limits {
		*limit = t
	}
	c.w.changed.Broadcast()
	return nil
}

// An endpoint has the methods of net.Conn that both ends must have but do not use.
type endpoint struct{}

func (endpoint) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (endpoint) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (endpoint) SetDeadline(time.Time) error      { return nil }
func (endpoint) SetReadDeadline(time.Time) error  { return nil }
func (endpoint) SetWriteDeadline(time.Time) error { return nil }

// A callFailure is how a call on the client's end fails.
type callFailure struct {
	err  error
	half bool // half of the octets are transferred, and the call returns their number
	all  bool // all octets are transferred; a Read returns their number, a Write returns 0
}

// reset carries out a RST: it ends both directions at once, and the octets in transit are lost.
func (w *wire) reset() {
	w.writeErr = syscall.ECONNRESET
	w.down.segments, w.down.endErr, w.down.discards = nil, syscall.ECONNRESET, true
	w.up.endErr, w.up.discards = io.EOF, true
}
