package pop3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"
)

// A Message is one message as it arrives: the bytes that the server stores, with CRLF line ends and without the
// byte-stuffing of the protocol.
//
// Read returns io.EOF only after the end-of-message line has arrived. After any other error the bytes that were
// read are not the whole message. The error wraps [io.ErrUnexpectedEOF] if the connection was lost,
// [os.ErrDeadlineExceeded] if Options.Timeout has passed, ctx.Err() if the context has ended, and [net.ErrClosed]
// after [Client.Close].
//
// The caller must read a message of [Client.Retr], [Client.Top] and [Client.CmdMulti] to its end or close it.
// Until then every other call on the client fails with [ErrBusy], and the context of the call that returned the
// message applies. A message of [Client.Messages] is valid until the next step of the loop.
type Message struct {
	Num int // the message number in this session; 0 for CmdMulti

	client *Client
	ctx    context.Context
	cmd    command
	body   dotReader
	octets int64 // number of octets that the caller has received
	err    error // sticky; io.EOF if the message was read to its end
	closed bool
	inLoop bool      // opened by a loop over Messages; the call ends with the loop
	test   io.Reader // the content of a message of NewMessage, which has no client
}

// Close reads at most this much for at most this time. If more is left, it closes the connection.
const (
	maxDrain     = 256 << 10
	maxDrainTime = time.Second
)

// newMessage is called after the positive status line of k was read.
func (c *Client) newMessage(ctx context.Context, k command) *Message {
	c.conn.clock.startBody()
	c.conn.buf.reserve()
	body := newDotReader(&c.conn.buf, c.conn.ends == lineEndLF)
	return &Message{Num: k.num(), client: c, ctx: ctx, cmd: k, body: body}
}

// NewMessage returns a message that belongs to no client, for tests of code that takes a [Message]. Its content
// is what r returns: a message as it is stored, without byte-stuffing and end-of-message line. Read returns the
// errors of r, so a test can return [io.ErrUnexpectedEOF] from r in place of a lost connection. Close does not
// close r.
func NewMessage(num int, r io.Reader) *Message {
	return &Message{Num: num, cmd: numbered("RETR", num), test: r}
}

// openMessage carries out a command whose positive reply is a message.
func (c *Client) openMessage(ctx context.Context, k command, allowed ...State) (m *Message, err error) {
	k.opensMessage = true
	err = c.run(ctx, k, func([]byte) error {
		m = c.newMessage(ctx, k)
		return nil
	}, allowed...)
	return m, err
}

// Format implements [fmt.Formatter]. Every verb prints only the number, so that logging a Message never prints
// mail.
func (m *Message) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "pop3.Message(%d)", m.Num) }

// Read implements [io.Reader]. Any error but io.EOF means that the connection was closed. The time between two
// calls of Read does not count against Options.Timeout.
func (m *Message) Read(p []byte) (int, error) {
	if err := m.ended(); err != nil {
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

// WriteTo implements [io.WriterTo]. It writes straight from the read buffer, so [io.Copy] is the fastest way to read a
// message. After an error of w the message is still open, and the rest of it can be read.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	if err := m.ended(); err == io.EOF {
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

// ended returns the error that Read returns because the message has ended. It returns nil if there may be more to read.
func (m *Message) ended() error {
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
	case m.client.conn.closed() != nil: // Client.Close was called, so buffered octets must not be returned
		return m.finish(net.ErrClosed)
	}
	return nil
}

var errZeroMessage = errors.New("pop3: this Message is the zero value: use one that a Client returned, or NewMessage")

func (m *Message) readAfterClose() error {
	return fmt.Errorf("pop3: %s: read after Close: %w", m.cmd, fs.ErrClosed)
}

// Close ends the message, so that the client is ready for the next command. If at most 256 KiB are left and arrive
// within a second, they are read and discarded. Otherwise Close closes the connection, which also drops all deletion
// marks, and returns an error that names the message. The error wraps [net.ErrClosed], or the cause if the connection
// was lost. To read only the beginning of a message use [Client.Top]. In a loop over [Client.Messages] Close is not
// needed and always returns nil. The next step of the loop discards the rest of the message, without a limit.
func (m *Message) Close() error {
	if m.err != nil || m.closed {
		return nil
	}
	m.closed = true
	if m.client == nil || m.inLoop {
		return nil
	}
	defer m.client.conn.end()
	var err error
	m.client.conn.withDeadline(time.Now().Add(maxDrainTime), func() { _, err = m.discard(maxDrain) })
	return err
}

// discard reads the rest of the message, at most max octets, and ends it. The error is nil if the end of the message
// was reached.
func (m *Message) discard(max int64) (n int64, err error) {
	switch {
	case m.client == nil || m.err == io.EOF:
		return 0, nil
	case m.err != nil:
		return 0, m.err
	}
	n, err = m.body.discard(max)
	switch {
	case err == errTooMuch:
		err = unreadError(fmt.Sprintf("more than %d KiB of it were left unread", max>>10))
	case err == errNoDeadline, m.closed && !m.inLoop && errors.Is(err, os.ErrDeadlineExceeded):
		err = unreadError("the rest of it did not arrive within a second")
	}
	if err = m.end(err); err == io.EOF {
		m.err = m.readAfterClose()
		err = nil
	}
	return n, err
}

// An unreadError means that the connection was closed before the rest of a message was read.
type unreadError string

func (e unreadError) Error() string {
	return string(e) + ", so the connection was closed and all deletion marks are dropped " +
		"(use Top for the beginning of a message, Messages for many)"
}

// Is returns true for net.ErrClosed, because the connection was closed.
func (e unreadError) Is(target error) bool { return target == net.ErrClosed }

// finish calls end, and ends the call that opened the message.
func (m *Message) finish(err error) error {
	if !m.inLoop {
		defer m.client.conn.end() // deferred, so that the call ends even if a hook panics
	}
	return m.end(err)
}

// end ends the message with err, which is io.EOF if it is complete. It returns the error for the caller.
func (m *Message) end(err error) error {
	c := m.client
	var failed error // the error for the hook Done: nil if the message is complete
	switch m.err = err; err {
	case io.EOF:
	case errReplyInBody:
		failed = c.protocolError(m.cmd, err.Error(), nil)
		if m.inLoop {
			failed = explainPipelining(failed)
		}
		m.err = failed
	default:
		failed = c.closeWithError(m.cmd, m.body.explain(asConnectionLost(err)))
		m.err = failed
	}
	c.trace.done(m.ctx, m.cmd, m.octets, failed)
	return m.err
}

// asConnectionLost returns err unchanged if it is a timeout, the end of a context or the result of Close. Otherwise the
// connection was lost within a message, and asConnectionLost returns an error that wraps io.ErrUnexpectedEOF.
func asConnectionLost(err error) error {
	for _, other := range []error{
		os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled, net.ErrClosed, errNoDeadline,
	} {
		if errors.Is(err, other) {
			return err
		}
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return fmt.Errorf("the server closed the connection in the middle of the message: %w", err)
}
