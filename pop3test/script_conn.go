package pop3test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// A scriptConn is the client's end of a scripted connection. It has no other end: each call of the client plays the
// next steps of the script.
type scriptConn struct {
	mu    sync.Mutex
	steps []step
	next  int    // the current step
	in    []byte // octets from the client that were not compared with a step yet
	out   []byte // octets for the client that it has not read yet

	pause  time.Time // the end of the current PAUSE
	chunks []int
	random *rand.Rand

	err           error // the error in the script itself
	mismatch      bool  // the octets of the client do not match the current step
	acceptsAny    bool
	deaf          bool
	hungUp        bool // the server has closed its end
	reset         bool
	closed        bool // the client has closed its end
	readDeadline  time.Time
	writeDeadline time.Time
	wake          chan struct{} // closed when something changes; nil if nobody waits
}

// advance plays as many steps as possible.
func (c *scriptConn) advance() {
	for c.next < len(c.steps) && !c.mismatch && c.play(&c.steps[c.next]) {
		c.next++
	}
	if c.next == len(c.steps) || c.mismatch {
		c.hungUp = true
	}
	if c.acceptsAny {
		c.in = nil
	}
}

// play plays a step and reports whether it is finished.
func (c *scriptConn) play(s *step) bool {
	switch s.kind {
	case "S:", "s:":
		c.out = append(c.out, s.text...)
	case "C:", "c:", "C~":
		return c.compare(s)
	case "PAUSE":
		return c.pauseEnded(s.pause)
	case "CHUNK", "CHUNK~":
		return c.drained() && c.chunk(s)
	case "RESET":
		c.reset = c.drained()
		return c.reset
	case "HOLD":
		return false
	case "ANY":
		c.acceptsAny = true
	case "DEAF":
		c.deaf = true
	case "EOF":
		c.hungUp = true
	}
	return true
}

func (c *scriptConn) drained() bool { return len(c.out) == 0 }

// compare compares the octets from the client with a C step. It sets mismatch at the first wrong octet.
func (c *scriptConn) compare(s *step) bool {
	n, complete := min(len(s.text), len(c.in)), len(c.in) >= len(s.text)
	if s.kind == "C~" {
		end := bytes.Index(c.in, []byte(crlf))
		n, complete = end+len(crlf), end >= 0
		c.mismatch = complete && !matches(s.text, string(c.in[:end]))
	} else {
		c.mismatch = s.text[:n] != string(c.in[:n])
	}
	if c.mismatch || !complete {
		return false
	}
	c.in = c.in[n:]
	return true
}

// matches reports whether line matches the pattern, in which * stands for any octets.
func matches(pattern, line string) bool {
	parts := strings.Split(pattern, "*")
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return line == pattern
	}
	if len(line) < len(first)+len(last) || !strings.HasPrefix(line, first) || !strings.HasSuffix(line, last) {
		return false
	}
	line = line[len(first) : len(line)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, found := strings.Cut(line, part)
		if !found {
			return false
		}
		line = rest
	}
	return true
}

// pauseEnded starts a pause of length d if none has started, and reports whether the pause has ended.
func (c *scriptConn) pauseEnded(d time.Duration) bool {
	if c.pause.IsZero() {
		c.pause = time.Now().Add(d)
	}
	if time.Until(c.pause) > 0 {
		return false
	}
	c.pause = time.Time{}
	return true
}

func (c *scriptConn) chunk(s *step) bool {
	c.chunks, c.random = s.chunks, nil
	if s.kind == "CHUNK~" {
		c.random = rand.New(rand.NewPCG(s.seed, 0))
	}
	return true
}

// readSize returns how many of n octets the next Read may return.
func (c *scriptConn) readSize(n int) int {
	if len(c.chunks) == 0 || c.chunks[0] == 0 {
		return n
	}
	size := c.chunks[0]
	if c.random != nil {
		return min(n, 1+c.random.IntN(size))
	}
	if len(c.chunks) > 1 {
		c.chunks = c.chunks[1:]
	}
	return min(n, size)
}

// Read implements net.Conn.
func (c *scriptConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.advance()
		switch {
		case c.closed:
			return 0, opError("read", net.ErrClosed)
		case expired(c.readDeadline):
			return 0, opError("read", os.ErrDeadlineExceeded)
		case len(c.out) > 0:
			n := copy(p, c.out[:c.readSize(min(len(p), len(c.out)))])
			c.out = c.out[n:]
			return n, nil
		case c.reset:
			return 0, opError("read", errReset)
		case c.hungUp:
			return 0, io.EOF
		}
		c.wait(c.readDeadline)
	}
}

// Write implements net.Conn.
func (c *scriptConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.advance()
		switch {
		case c.closed:
			return 0, opError("write", net.ErrClosed)
		case expired(c.writeDeadline):
			return 0, opError("write", os.ErrDeadlineExceeded)
		case c.reset:
			return 0, opError("write", errReset)
		case !c.deaf:
			c.in = append(c.in, p...)
			c.advance()
			c.signal()
			return len(p), nil
		}
		c.wait(c.writeDeadline)
	}
}

// wait returns when something has changed, at a deadline, or at the end of a pause.
func (c *scriptConn) wait(deadline time.Time) {
	if c.wake == nil {
		// The waiting goroutine makes the channel, so that it belongs to the synctest bubble of that goroutine.
		c.wake = make(chan struct{})
	}
	wake, until := c.wake, c.earliest(deadline)
	c.mu.Unlock()
	defer c.mu.Lock()
	var timeout <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-wake:
	case <-timeout:
	}
}

func (c *scriptConn) earliest(deadline time.Time) time.Time {
	if deadline.IsZero() || !c.pause.IsZero() && c.pause.Before(deadline) {
		return c.pause
	}
	return deadline
}

// signal wakes all goroutines that wait.
func (c *scriptConn) signal() {
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

func expired(deadline time.Time) bool {
	return !deadline.IsZero() && time.Until(deadline) <= 0
}

// Close implements net.Conn.
func (c *scriptConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("close", net.ErrClosed)
	}
	c.closed = true
	c.signal()
	return nil
}

// SetDeadline implements net.Conn.
func (c *scriptConn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *scriptConn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *scriptConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *scriptConn) setDeadlines(read, write *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("set", net.ErrClosed)
	}
	if read != nil {
		c.readDeadline = *read
	}
	if write != nil {
		c.writeDeadline = *write
	}
	c.signal()
	return nil
}

// LocalAddr implements net.Conn.
func (c *scriptConn) LocalAddr() net.Addr { return scriptAddr{} }

// RemoteAddr implements net.Conn.
func (c *scriptConn) RemoteAddr() net.Addr { return scriptAddr{} }

type scriptAddr struct{}

func (scriptAddr) Network() string { return "script" }
func (scriptAddr) String() string  { return "script" }

func opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "script", Addr: scriptAddr{}, Err: err}
}

// finish ends the script. It is the function done that Script returns.
func (c *scriptConn) finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	c.hungUp, c.deaf = true, false
	c.signal()
	if c.err != nil {
		return c.err
	}
	for _, s := range c.steps[c.next:] {
		if s.isClient() {
			return c.notSent(s)
		}
	}
	if len(c.in) > 0 {
		return fmt.Errorf("pop3test: the client sent %s after the end of the script", quoteLine(c.in))
	}
	return nil
}

// notSent returns the error for a C step that was not played.
func (c *scriptConn) notSent(s step) error {
	want := fmt.Sprintf("%q", s.text)
	if s.kind == "C~" {
		want = "a line like " + want
	}
	got := "nothing"
	if len(c.in) > 0 {
		got = quoteLine(c.in)
	}
	return fmt.Errorf("pop3test: line %d of the script: the client sent %s, not %s", s.line, got, want)
}

// quoteLine quotes the first line, or the beginning of it.
func quoteLine(b []byte) string {
	const maxShown = 256
	if n := bytes.IndexByte(b, '\n'); n >= 0 {
		b = b[:n+1]
	}
	if len(b) > maxShown {
		return fmt.Sprintf("%q...", b[:maxShown])
	}
	return fmt.Sprintf("%q", b)
}
