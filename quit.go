package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// quitCommand is QUIT (RFC 1939 sections 4 and 6).
var quitCommand = command{verb: "QUIT"}

// Quit ends the session with QUIT and closes the connection, whatever happens (RFC 1939 sections 4 and 6). After a
// login the server enters the UPDATE state and deletes the messages that are marked.
//
// A nil error means that the server confirmed everything. If messages are marked and the server did not confirm,
// the error wraps [ErrCommitUnknown] and the cause (an [*Error] if the server refused): each marked message may be
// deleted or not. Any other error means that no marked message is deleted. (With EXPIRE 0 a server may still
// delete what was retrieved; see [Capabilities.Expire].) If a message is open, another call is running or ctx is
// done, Quit closes the connection without QUIT, and the error wraps [ErrBusy] or ctx.Err().
//
// If messages are marked, Quit waits up to 250 ms after the reply for the server to close the connection or to
// send a second reply. A second reply would mean that the confirmation belongs to an earlier command.
//
// A confirmation is no proof: some servers confirm deletions that their store did not carry out. A program that must
// be certain compares unique-ids in its next session. Later calls of Quit return the same error and send nothing.
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
	c.conn.end()
	return err
}

type quitResult struct{ err error }

// quitWithheld closes the connection because QUIT cannot be sent. If another call of Quit is running, that call closes
// the connection and reports the outcome.
func (c *Client) quitWithheld(err error) error {
	if !c.quitting() {
		c.Close()
	}
	switch {
	case c.quitting() && errors.Is(err, ErrBusy):
		return fmt.Errorf("pop3: %w (QUIT was sent by another call): %w", ErrCommitUnknown, err)
	case c.quitting():
		return err
	}
	err = fmt.Errorf("%w (QUIT was not sent, nothing was deleted)", err)
	c.quit.CompareAndSwap(nil, &quitResult{err})
	return err
}

// quitting reports whether QUIT was sent, or is being sent.
func (c *Client) quitting() bool { return State(c.state.Load()) == StateUpdate }

// commit sends QUIT, once, and decides what its outcome means.
func (c *Client) commit(ctx context.Context) (err error) {
	defer func() { c.trace.done(ctx, quitCommand, 0, err) }()
	if err := c.checkUnsolicited(quitCommand); err != nil {
		return err
	}
	if c.State() == StateTransaction {
		c.state.Store(int32(StateUpdate))
	}
	sent, err := c.write(ctx, quitCommand)
	if !sent {
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

// The wait for a second reply to QUIT ends after this time, or after this many octets.
const (
	extraReplyTime   = 250 * time.Millisecond
	extraReplyOctets = 1 << 10
)

// awaitExtraReply returns an error if messages are marked and another status line follows the reply to QUIT, or
// if that could not be checked.
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
	switch extra := c.conn.buf.unread(); {
	case holdsStatus(extra, true):
		return c.protocolError(quitCommand,
			"a second reply after the reply to QUIT, so the first one may belong to an earlier command", extra)
	case ctx.Err() != nil:
		return c.closeWithError(quitCommand, ctx.Err())
	case errors.Is(err, net.ErrClosed):
		return c.closeWithError(quitCommand, err)
	}
	return nil // silence, the end of the connection, or text that is not a reply
}

// holdsStatus reports whether a line of b is a status line. If partial is true, it also accepts a line that is only the
// beginning of "+OK" or "-ERR".
func holdsStatus(b []byte, partial bool) bool {
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		_, _, valid := parseStatus(line)
		if valid || partial && (startsToken(line, "+OK") || startsToken(line, "-ERR")) {
			return true
		}
	}
	return false
}

// startsToken reports whether line is the beginning of token.
func startsToken(line []byte, token string) bool {
	return len(line) > 0 && bytes.EqualFold(line, []byte(token[:min(len(line), len(token))]))
}
