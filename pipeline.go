package pop3

import (
	"context"
	"iter"
	"math"
	"slices"
)

// Pipelining tells whether commands on many messages are sent ahead of their replies (RFC 2449 section 6.6).
type Pipelining int

const (
	// PipeliningAuto sends ahead where the server announces PIPELINING, and one by one elsewhere.
	PipeliningAuto Pipelining = iota
	// PipeliningNever sends one by one.
	PipeliningNever
	// PipeliningAlways sends ahead wherever that is safe by the order of replies, announced or not. Every server
	// of note answers in order; one that drops what it did not expect keeps the client waiting for a reply.
	PipeliningAlways
)

// pipelines reports whether commands may be sent ahead.
func (c *Client) pipelines(ctx context.Context) (bool, error) {
	switch c.opts.Pipelining {
	case PipeliningNever:
		return false, nil
	case PipeliningAlways:
		return true, nil
	}
	if c.pipelining {
		return true, nil
	}
	err := c.needCaps(ctx)
	return c.pipelining, err
}

// Messages retrieves messages in the order of nums, which are numbers as [Client.Listing] tells them. Commands are sent
// ahead of replies where the server pipelines (see [Pipelining]), so that a long link is kept full.
//
// A message is valid until the next step of the loop, which reads on over what was left of it, whatever its size.
// A refused message is yielded as a *Message with only Num set, together with an [*Error], and the loop goes on.
// Any other error comes last, with a nil *Message; it tells how many messages were read whole. If it is a
// [ProtocolError], the message before it is in doubt: some servers that are sent commands ahead put a reply into it.
// Inside the loop the client is busy: other calls fail with [ErrBusy], so collect what is to be deleted and call
// [Client.Dele] behind it.
//
// What is asked for ahead is bounded: by 2 MiB of messages at first, then by as much as was read so far, up to 8 MiB,
// and by 2,000 messages. Sizes are those of the last [Client.Listing] or [Client.ListAll]; a message that was not in
// it counts as the mean of those read, and as 4 KiB before the first. After a break the client is usable, unless what
// was asked for is past the limits of [Message.Close]: then it hangs up. No nums means no messages.
func (c *Client) Messages(ctx context.Context, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.each(ctx, commands{
		n:    len(nums),
		at:   func(i int) command { return numbered("RETR", nums[i]) },
		size: func(i int) int64 { return c.sizes.size(nums[i]) },
		most: maxMessagesAhead,
	}, checkNum(nums...))
}

// Tops is [Client.Messages] for the header and the first lines of each body, as [Client.Top] gives them.
func (c *Client) Tops(ctx context.Context, lines int, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.each(ctx, commands{
		n:    len(nums),
		at:   func(i int) command { return topCommand(nums[i], lines) },
		size: func(int) int64 { return -1 },
		most: maxMessagesAhead,
	}, checkTop(lines, nums...))
}

// each yields the messages that commands give; bad is the error of their arguments.
func (c *Client) each(ctx context.Context, ks commands, bad error) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if ks.n == 0 {
			return
		}
		err := bad
		if err == nil {
			err = c.start(ctx, ks.at(0), StateTransaction)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer c.conn.end()
		if err := c.yieldMessages(ctx, ks, yield); err != nil {
			yield(nil, err)
		}
	}
}

// yieldMessages is the loop, within a call. It returns the error that ends it and that is still to be yielded.
func (c *Client) yieldMessages(ctx context.Context, ks commands, yield func(*Message, error) bool) error {
	b, err := c.newBatch(ctx, ks)
	if err != nil {
		return err
	}
	defer b.close()
	for b.done < b.n {
		m, err := b.message()
		if m == nil {
			return b.lost(err)
		}
		if !yield(m, err) {
			return nil
		}
		if _, err := b.step(math.MaxInt64); err != nil {
			return b.lost(err)
		}
	}
	return nil
}
