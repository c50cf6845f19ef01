package pop3

import (
	"context"
	"fmt"
	"time"
)

// KeepAlive sends NOOP whenever the session has been idle for the given time, so that the server does not end it
// while the program is busy elsewhere. Servers may do that after ten minutes (RFC 1939 section 3), and some do after
// one. It blocks, so it runs on a goroutine of the caller's:
//
//	go c.KeepAlive(ctx, 30*time.Second)
//
// Other calls go on as if it were not there: one that comes while a NOOP is under way waits for its reply. Nothing is
// sent while a message is open or a loop over [Client.Messages] runs, since the server is then in the middle of a
// reply. What a server answers to NOOP does not matter.
//
// KeepAlive returns nil after [Client.Quit] or [Client.Close], the error of ctx when that ends, which does not disturb
// the session, and the reason if the connection is lost. Before the login it fails with [ErrState], at once.
func (c *Client) KeepAlive(ctx context.Context, every time.Duration) error {
	if every <= 0 {
		return fmt.Errorf("pop3: KeepAlive: %w: the time has to be above 0", ErrArgument)
	}
	if c.State() == StateAuthorization {
		return fmt.Errorf("pop3: KeepAlive: %w, which is %v", ErrState, StateAuthorization)
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("pop3: KeepAlive: %w", ctx.Err())
		case <-c.conn.gone:
			return c.conn.lost()
		case <-timer.C:
			err := c.touch(context.WithoutCancel(ctx), every)
			switch {
			case err != nil && c.conn.closed() != nil:
				return c.conn.lost()
			case err != nil:
				return err
			}
			timer.Reset(every - c.conn.use.idle())
		}
	}
}

// touch sends NOOP if nothing was going on for long enough.
func (c *Client) touch(ctx context.Context, every time.Duration) error {
	if c.conn.use.idle() < every || !c.conn.beginNoop(ctx) {
		return nil
	}
	defer c.conn.end()
	if c.conn.closed() != nil {
		return nil // KeepAlive finds out at once
	}
	if err := c.exchange(ctx, command{verb: "NOOP"}, nil); err != nil && !isRefusal(err) {
		return err
	}
	return nil
}
