package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// quitCommand is QUIT (RFC 1939 sections 4 and 6).
var quitCommand = command{verb: "QUIT"}

// Quit ends the session with QUIT and closes the connection, whatever happens. In the TRANSACTION state the server
// then enters UPDATE and removes the messages that are marked.
//
// A nil error says that the server confirmed it all. If messages were marked and it did not, the error is
// [ErrCommitUnknown], with the cause in its chain ([*Error] if the server refused): each of them may be gone or
// not. Any other error says that nothing that was marked is deleted; with EXPIRE 0 a server may all the same remove what
// was retrieved ([Capabilities.Expire]). With a message still open, another call running, or a
// context that has ended, Quit hangs up without QUIT and says so.
//
// With messages marked it waits up to 250 ms after the reply for the server to hang up or to send a second reply,
// which would mean that replies were shifted and the confirmation belongs to an earlier command.
//
// A confirmation is the server's word and no more: some confirm over a store that they could not write to. A
// program that must know compares unique-ids in its next session. After Quit, further calls of it give the same
// error again and send nothing.
func (c *Client) Quit(ctx context.Context) error {
	if ended := c.quit.Load(); ended != nil {
		return ended.err
	}
	err := c.start(ctx, quitCommand, StateAuthorization, StateTransaction)
	if err != nil {
		return c.quitWithheld(err)
	}
	c.guard(func() { err = c.commit(ctx) })
	c.Close()
	c.quit.Store(&quitResult{err})
	c.conn.end() // whoever waits for its turn finds it all over
	return err
}

type quitResult struct{ err error }

// quitWithheld hangs up because QUIT can't be sent, unless another Quit is under way: that one has to tell how it
// ends.
func (c *Client) quitWithheld(err error) error {
	if !c.quitting() {
		c.Close()
	}
	if c.quitting() {
		return err
	}
	err = fmt.Errorf("%w (QUIT was not sent, nothing was deleted)", err)
	c.quit.CompareAndSwap(nil, &quitResult{err})
	return err
}

// quitting reports whether QUIT was sent, or is about to be.
func (c *Client) quitting() bool { return State(c.state.Load()) == StateUpdate }

// commit sends QUIT, once, and judges the outcome.
func (c *Client) commit(ctx context.Context) (err error) {
	defer func() { c.trace.done(ctx, quitCommand, 0, err) }()
	if err := c.checkUnsolicited(quitCommand); err != nil {
		return err
	}
	if c.State() == StateTransaction {
		c.state.Store(int32(StateUpdate))
	}
	sent, err := c.write(ctx, quitCommand)
	if err != nil && !sent {
		return err
	}
	if err == nil {
		err = c.reply(ctx, quitCommand, func([]byte) error { return c.awaitExtraReply(ctx) })
	}
	if err != nil && c.marked > 0 {
		err = fmt.Errorf("pop3: %w (%d marked): %w", ErrCommitUnknown, c.marked, err)
	}
	return err
}

// Waiting for a second reply to QUIT ends after this time, or this many octets.
const (
	extraReplyTime   = 250 * time.Millisecond
	extraReplyOctets = 1 << 10
)

// awaitExtraReply fails if messages are marked and another status line follows the reply to QUIT, or if it could not
// look.
func (c *Client) awaitExtraReply(ctx context.Context) error {
	if c.marked == 0 {
		return nil
	}
	var err error
	c.conn.clock.startLine()
	c.conn.withDeadline(time.Now().Add(extraReplyTime), func() {
		for err == nil && len(c.conn.buf.unread()) < extraReplyOctets && !holdsStatus(c.conn.buf.unread(), false) {
			err = c.conn.buf.fill()
		}
	})
	switch rest := c.conn.buf.unread(); {
	case holdsStatus(rest, true):
		return c.protocolError(quitCommand, "a second reply behind the reply to QUIT: replies are shifted", rest)
	case ctx.Err() != nil:
		return c.closeWithError(quitCommand, ctx.Err())
	case errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe):
		return c.closeWithError(quitCommand, err)
	}
	return nil // silence, the end of the connection, or words without meaning
}

// holdsStatus reports whether a line of b is a status line or, with cut, the beginning of one.
func holdsStatus(b []byte, cut bool) bool {
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		line = bytes.TrimRight(line, "\r")
		_, _, valid := parseStatus(line)
		if valid || cut && (startsToken(line, "+OK") || startsToken(line, "-ERR")) {
			return true
		}
	}
	return false
}

// startsToken reports whether line is the beginning of token.
func startsToken(line []byte, token string) bool {
	return len(line) > 0 && len(line) < len(token) && bytes.EqualFold(line, []byte(token[:len(line)]))
}
