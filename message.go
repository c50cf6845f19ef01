package pop3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
)

// A Message is one message as it arrives: the octets as they are stored on the server, CRLF and all, without the
// byte-stuffing of the wire. Nothing is kept in memory but a buffer, whatever the size of the message.
//
// Read gives io.EOF only after the terminator was read. Any other error means that what came until then is not the
// whole message; it wraps [io.ErrUnexpectedEOF] if the connection was lost, and not if the time or the context ran out
// or the client was closed. [Client.Retr], [Client.Top] and [Client.CmdMulti] give messages that are the caller's to
// Close; until a message has been read to its end or closed, every other call on the client fails with [ErrBusy]. A
// message of [Client.Messages] is valid until the next step of the loop. The context of the call that gave the message
// holds until its end.
type Message struct {
	Num int // the message number in this session; 0 for CmdMulti

	client *Client
	ctx    context.Context
	cmd    command
	body   dotReader
	octets int64 // handed out
	err    error // sticky; io.EOF if the message was read to its end
	closed bool
	test   io.Reader // the content of a message of NewMessage, which has no client
	shared bool      // the call belongs to a batch and goes on after this message
}

// maxDrain is how many octets of messages are read and dropped before it is cheaper to hang up.
const maxDrain = 256 << 10

// newMessage expects the positive status line of k to have been read.
func (c *Client) newMessage(ctx context.Context, k command) *Message {
	c.conn.clock.body()
	c.conn.buf.reserve()
	m := &Message{client: c, ctx: ctx, cmd: k, body: newDotReader(&c.conn.buf, c.conn.lf)}
	if k.count > 0 {
		m.Num = k.nums[0]
	}
	return m
}

// NewMessage returns a message that belongs to no client, for tests of code that takes a [Message]. Its content is what r
// returns: a message as it is stored, without byte-stuffing and terminator. An error of r is the error of Read, so that
// one that wraps [io.ErrUnexpectedEOF] stands for a lost connection. Close does not close r.
func NewMessage(num int, r io.Reader) *Message {
	return &Message{Num: num, cmd: numbered("RETR", num), test: r}
}

// openMessage carries out a command whose positive reply is a message.
func (c *Client) openMessage(ctx context.Context, k command, in ...State) (*Message, error) {
	if err := c.start(ctx, k, in...); err != nil {
		return nil, err
	}
	opened := false
	defer func() { // also when a hook panics
		if !opened {
			c.conn.end()
		}
	}()
	if _, err := c.ask(ctx, k); err != nil {
		c.trace.done(ctx, k, 0, err)
		return nil, err
	}
	opened = true
	return c.newMessage(ctx, k), nil
}

// Format prints the number, for every verb: the fields hold what went over the wire.
func (m *Message) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "pop3.Message(%d)", m.Num) }

// Read implements [io.Reader]. Its errors are the session's end, except for io.EOF.
func (m *Message) Read(p []byte) (int, error) {
	if err := m.over(); err != nil {
		return 0, err
	}
	if m.test != nil {
		n, err := m.test.Read(p)
		m.err = err
		return n, err
	}
	n, err := m.body.Read(p)
	m.octets += int64(n)
	if err != nil {
		err = m.finish(err)
	}
	return n, err
}

// WriteTo implements [io.WriterTo]: it writes straight from the read buffer, which makes [io.Copy] the fastest
// way to take a message. An error of w leaves the message open.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	if err := m.over(); err == io.EOF {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if m.test != nil {
		return io.Copy(w, struct{ io.Reader }{m})
	}
	n, err := m.body.WriteTo(w)
	m.octets += n
	if ended := m.body.ended(); ended != nil {
		if ended = m.finish(ended); ended != io.EOF {
			err = ended
		}
	}
	return n, err
}

// over gives the error of a Read that has nothing more to give, nil if there may be something.
func (m *Message) over() error {
	switch {
	case m.err != nil:
		return m.err
	case m.client == nil && m.test == nil:
		return errZeroMessage
	case m.closed:
		return m.readAfterClose()
	case m.client == nil:
		return nil
	case m.ctx.Err() != nil:
		return m.finish(m.ctx.Err())
	case m.client.conn.closed() != nil: // by Close: what came before it is not wanted any more
		return m.finish(net.ErrClosed)
	}
	return nil
}

var errZeroMessage = errors.New("pop3: this Message is the zero value: use one that a Client returned, or NewMessage")

func (m *Message) readAfterClose() error {
	return fmt.Errorf("pop3: %s: read after Close: %w", m.cmd, fs.ErrClosed)
}

// Close ends the message, so that the client is ready for the next command. What is left of a small rest is read
// and dropped; past 256 KiB or one second it is cheaper to hang up: the connection is closed instead, as net/http
// does, and the next call on the client fails with an error that wraps [net.ErrClosed]. Within a loop over
// [Client.Messages] there is no need to close, and no limit: the next step reads on.
func (m *Message) Close() (err error) {
	if m.err != nil || m.closed {
		return nil
	}
	m.closed = true
	if m.client == nil || m.shared {
		return nil
	}
	m.shared = true // the hurry belongs to the call, which ends behind it and not with the message
	defer m.client.conn.end()
	m.client.conn.hurry(func() { _, err = m.drop(maxDrain) })
	if errors.Is(err, errAbandoned) {
		return nil
	}
	return err
}

// drop reads on over what is left of the message, at most max octets, and ends it. The error is nil if it got to
// the end, or if the message was refused.
func (m *Message) drop(max int64) (n int64, err error) {
	switch {
	case m.client == nil || m.err == io.EOF:
		return 0, nil
	case m.err != nil:
		return 0, m.err
	}
	n, err = m.body.discard(max)
	if err = m.finish(err); err == io.EOF {
		m.err = m.readAfterClose()
		err = nil
	}
	return n, err
}

// finish ends the message with err, io.EOF for the whole of it, and returns what the caller gets.
func (m *Message) finish(err error) error {
	c := m.client
	if !m.shared {
		defer c.conn.end() // also when a hook panics
	}
	var failed error // for the hook: the end is no failure
	if m.err = err; err != io.EOF {
		failed = c.closeWithError(m.cmd, cut(err))
		m.err = failed
	}
	c.trace.done(m.ctx, m.cmd, m.octets, failed)
	return m.err
}

// cut makes the loss of the connection within a message io.ErrUnexpectedEOF, also where the transport has a name of
// its own for it, such as a reset.
func cut(err error) error {
	for _, other := range []error{
		io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled, net.ErrClosed,
		errAbandoned,
	} {
		if errors.Is(err, other) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}
