package pop3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"net"
	"os"
	"slices"
	"time"
)

// Pipelining tells whether commands on many messages are sent ahead of their replies (RFC 2449 section 6.6).
type Pipelining int

const (
	// PipeliningAuto sends ahead where the server announces PIPELINING, and one by one elsewhere.
	PipeliningAuto Pipelining = iota
	// PipeliningNever sends one by one.
	PipeliningNever
	// PipeliningAlways sends ahead wherever that is safe by the order of replies, announced or not. Every server
	// of note answers in order; with one that drops what it did not expect, the next reply does not come.
	PipeliningAlways
)

// What is asked for ahead is bounded by the octets of the replies that are on their way behind the one being read:
// enough to keep a long link full. Sizes are those of the last LIST; where they are not known, the mean of what
// came so far, at first a guess, stands for them.
const (
	window      = 2 << 20
	refillBelow = window * 3 / 4
	guessedSize = 4 << 10
	minSize     = 1 << 10 // bounds the number of commands in flight
)

// commands are what a batch sends: n of them, and what to expect of their replies.
type commands struct {
	n    int
	at   func(i int) command
	size func(i int) int64 // octets of the reply, -1 if not known
}

// A batch is commands that are sent in order, ahead of their replies if the server pipelines, one by one if not.
// The n-th reply belongs to the n-th command: replies are read in the same order by whoever holds the batch.
type batch struct {
	commands
	c   *Client
	ctx context.Context

	w      *writer  // nil if commands are sent one by one
	queued int      // commands [0,queued) were handed to w
	done   int      // replies [0,done) were read
	open   *Message // in reply done, nil if that is none or was not reached

	known   int64 // octets of the replies in flight whose size is known
	unknown int64 // number of the others
	octets  int64 // of messages that came
	came    int64 // number of those messages
}

// newBatch makes a batch within a call. It asks for the capabilities if it has to.
func (c *Client) newBatch(ctx context.Context, ks commands) (*batch, error) {
	b := &batch{commands: ks, c: c, ctx: ctx}
	if ks.n < 2 {
		return b, nil
	}
	ahead, err := c.pipelines(ctx)
	if err == nil && ahead {
		err = c.quiet(ks.at(0))
	}
	if err != nil {
		return nil, err
	}
	if ahead {
		b.w = startWriter(c.conn.nc.Write)
	}
	return b, nil
}

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

// status gets the status line of the next reply. After its whole reply was read the caller owes an answered.
func (b *batch) status() (text []byte, err error) {
	k := b.at(b.done)
	if err := b.ctx.Err(); err != nil { // replies may be there already; they are not wanted any more
		return nil, b.c.fatal(k, err)
	}
	if b.w == nil {
		return b.c.ask(b.ctx, k)
	}
	b.refill()
	begun, err := b.w.begun(b.done)
	switch {
	case err != nil && !begun:
		return nil, b.c.fatal(k, err)
	case !begun && len(b.c.conn.buf.unread()) > 0:
		return nil, b.c.broken(k, "answered before it was sent", b.c.conn.buf.unread())
	}
	text, err = b.c.status(b.ctx, k)
	if b.done > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w; it was sent ahead of the replies: if the server can't take that, set Options.Pipelining to PipeliningNever", err)
	}
	return text, err
}

// answered counts a reply that was read whole.
func (b *batch) answered() {
	if b.w != nil {
		b.inFlight(b.done, -1)
	}
	b.done++
}

// refill sends commands ahead if the window has room for more than a few.
func (b *batch) refill() {
	if b.queued > b.done && b.ahead() > refillBelow {
		return
	}
	for b.queued < b.n && (b.queued == b.done || b.ahead()+b.cost(b.queued) <= window) {
		k := b.at(b.queued)
		b.c.trace.wroteCommand(b.ctx, k)
		b.w.put(k)
		b.inFlight(b.queued, 1)
		b.queued++
	}
	b.w.flush()
}

// inFlight counts the reply to command i in or out.
func (b *batch) inFlight(i int, sign int64) {
	if size := b.size(i); size >= 0 {
		b.known += sign * max(size, 1)
	} else {
		b.unknown += sign
	}
}

// ahead is how many octets are on their way behind the reply that is read now.
func (b *batch) ahead() int64 {
	if b.queued == b.done {
		return 0
	}
	return b.known + b.unknown*b.mean() - b.cost(b.done)
}

func (b *batch) cost(i int) int64 {
	if size := b.size(i); size >= 0 {
		return max(size, 1)
	}
	return b.mean()
}

func (b *batch) mean() int64 {
	if b.came == 0 {
		return guessedSize
	}
	return max(b.octets/b.came, minSize)
}

// close ends the batch: nothing more is written, and the replies to what was written are read and dropped, up to
// the limits of Message.Close. Past them it hangs up.
func (b *batch) close() {
	if b.w == nil {
		b.n = b.done
	} else {
		b.n = b.w.halt()
		defer b.stopWriting()
	}
	b.c.conn.hurry(func() { b.dropReplies(maxDrain) })
}

// stopWriting waits for the end of the writing. A peer that answers without taking commands must not hold it up.
func (b *batch) stopWriting() {
	conn := b.c.conn
	conn.setDeadline(net.Conn.SetWriteDeadline, time.Now().Add(maxHurry))
	if err := b.w.wait(); err != nil {
		conn.fail(fmt.Errorf("pop3: commands sent ahead: %w", err))
	}
	conn.setDeadline(net.Conn.SetWriteDeadline, time.Time{})
}

// dropReplies reads over what is left of the replies, at most max octets of messages.
func (b *batch) dropReplies(max int64) error {
	for b.open != nil || b.done < b.n {
		if b.open == nil {
			if _, err := b.message(); err != nil && !isRefusal(err) {
				return err
			}
		}
		n, err := b.step(max)
		if err != nil {
			return err
		}
		max -= n
	}
	return nil
}

// isRefusal reports whether err is a -ERR reply, after which the session goes on.
func isRefusal(err error) bool {
	var refusal *Error
	return errors.As(err, &refusal)
}

// Messages retrieves messages in the order of nums, with commands sent ahead of replies where the server
// pipelines (see [Pipelining]), so that a long link is kept full.
//
// A message is valid until the next step of the loop, which reads on over what was left of it, whatever its size.
// A refused message is yielded as a *Message with only Num set, together with an [*Error], and the loop goes on.
// Any other error comes last, with a nil *Message; it tells how many messages were read whole. Inside the loop the
// client is busy: other calls fail with [ErrBusy], so collect what is to be deleted and call [Client.Dele] behind it.
// After a break the client is usable, unless what was asked for ahead is past the limits of [Message.Close]: then
// it hangs up. No nums means no messages.
func (c *Client) Messages(ctx context.Context, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.each(ctx, commands{
		n:    len(nums),
		at:   func(i int) command { return numbered("RETR", nums[i]) },
		size: func(i int) int64 { return c.sizes.size(nums[i]) },
	}, checkNum(nums...))
}

// Tops is [Client.Messages] for the header and the first lines of each body, as [Client.Top] gives them.
func (c *Client) Tops(ctx context.Context, lines int, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.each(ctx, commands{
		n:    len(nums),
		at:   func(i int) command { return topCommand(nums[i], lines) },
		size: func(int) int64 { return -1 },
	}, checkTop(lines, nums...))
}

// each yields the messages that commands give; bad is the error of their arguments.
func (c *Client) each(ctx context.Context, ks commands, bad error) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if ks.n == 0 {
			return
		}
		if bad == nil {
			bad = c.start(ctx, ks.at(0), StateTransaction)
		}
		if bad != nil {
			yield(nil, bad)
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

// message opens the next message: with an *Error if it was refused, nil after any other error.
func (b *batch) message() (*Message, error) {
	k := b.at(b.done)
	_, err := b.status()
	switch {
	case err == nil:
		b.open = b.c.newMessage(b.ctx, k)
		b.open.shared = true
		return b.open, nil
	case isRefusal(err):
		b.open = &Message{Num: k.nums[0], err: err}
	}
	b.c.trace.done(b.ctx, k, 0, err)
	return b.open, err
}

// step reads on over what is left of the open message, at most max octets.
func (b *batch) step(max int64) (n int64, err error) {
	m := b.open
	n, err = m.drop(max)
	if err != nil {
		return n, err
	}
	if m.client != nil {
		b.octets += m.octets + n
		b.came++
	}
	b.open = nil
	b.answered()
	return n, nil
}

// lost says how far the batch came before err ended the session.
func (b *batch) lost(err error) error {
	if b.n == 1 {
		return err
	}
	last := "was not answered"
	if b.open != nil {
		last = "was cut"
	}
	return fmt.Errorf("%w (of %d commands %d were answered whole, then %v %s, and nothing behind it was answered)",
		err, b.n, b.done, b.at(b.done), last)
}

// Dele marks messages as deleted (DELE, RFC 1939 section 5), with commands sent ahead of replies where the server
// pipelines. Nothing is deleted before [Client.Quit] has committed it; [Client.Rset] takes the marks back. No
// numbers mark nothing. A refusal touches its own message only: the others are marked all the same, and the error
// joins one [*Error] for each refusal. After any other error the session is over and nothing will be deleted.
func (c *Client) Dele(ctx context.Context, nums ...int) error {
	if len(nums) == 0 {
		return nil
	}
	if err := checkNum(nums...); err != nil {
		return err
	}
	nums = slices.Clone(nums)
	dele := func(i int) command { return numbered("DELE", nums[i]) }
	if err := c.start(ctx, dele(0), StateTransaction); err != nil {
		return err
	}
	defer c.conn.end()
	b, err := c.newBatch(ctx, commands{n: len(nums), at: dele, size: func(int) int64 { return deleReply }})
	if err != nil {
		return err
	}
	defer b.close()
	return b.dele()
}

// deleReply is about what a reply to DELE takes.
const deleReply = 64

func (b *batch) dele() error {
	var refusals []error
	for b.done < b.n {
		_, err := b.status()
		b.c.trace.done(b.ctx, b.at(b.done), 0, err)
		switch {
		case err == nil:
			b.c.marked++
		case isRefusal(err):
			refusals = append(refusals, err)
		default:
			return errors.Join(append(refusals, b.lost(err))...)
		}
		b.answered()
	}
	if len(refusals) == 1 {
		return refusals[0]
	}
	return errors.Join(refusals...)
}

// Listing is [Client.ListAll] and [Client.UidlAll] in one, in one round trip where the server pipelines, joined by
// number in the order of the scan listing. A message that only one of them has, since it just came, is without UID
// or is left out.
//
// Where the server does not have UIDL (it announces capabilities without it, or none and refuses) the UIDs are
// empty and the error is nil. A refusal of an announced UIDL is an error, since a program that tells new from old
// by UID would lose mail.
func (c *Client) Listing(ctx context.Context) ([]MessageInfo, error) {
	list := command{verb: "LIST"}
	if err := c.start(ctx, list, StateTransaction); err != nil {
		return nil, err
	}
	defer c.conn.end()
	if _, err := c.pipelines(ctx); err != nil { // it may bring the capabilities
		return nil, err
	}
	ks := []command{list, {verb: "UIDL"}}
	if c.caps != nil && !c.caps.Has("UIDL") {
		ks = ks[:1]
	}
	infos, uids, err := c.readListings(ctx, ks)
	if err != nil {
		return nil, err
	}
	c.sizes.learn(infos)
	joinUIDs(infos, uids)
	return infos, nil
}

// readListings carries out LIST and perhaps UIDL. Both replies are read, whatever the first one says.
func (c *Client) readListings(ctx context.Context, ks []command) (infos, uids []MessageInfo, err error) {
	b, err := c.newBatch(ctx, commands{
		n:    len(ks),
		at:   func(i int) command { return ks[i] },
		size: func(int) int64 { return 0 },
	})
	if err != nil {
		return nil, nil, err
	}
	defer b.close()
	infos, err = b.listing(addScan)
	if c.conn.closed() != nil || len(ks) == 1 {
		return infos, nil, err
	}
	uids, failed := b.listing(addUnique)
	if err == nil && isRefusal(failed) {
		failed = c.lacksUIDL(ctx, failed)
	}
	return infos, uids, cmp.Or(err, failed)
}

// listing reads the next reply, which is that to LIST or UIDL.
func (b *batch) listing(add func(*listing, []byte) error) (infos []MessageInfo, err error) {
	k := b.at(b.done)
	if _, err = b.status(); err == nil {
		infos, err = b.c.readListing(k, add)
	}
	b.c.trace.done(b.ctx, k, 0, err)
	b.answered()
	return infos, err
}

// lacksUIDL returns nil if the refusal of UIDL only says that the server does not have the command.
func (c *Client) lacksUIDL(ctx context.Context, refusal error) error {
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	if c.caps.Has("UIDL") {
		return refusal
	}
	return nil
}

// joinUIDs gives infos the unique-ids of uids, by number. The two lists are nearly always in the same order.
func joinUIDs(infos, uids []MessageInfo) {
	var byNum map[int]string
	for i := range infos {
		if i < len(uids) && uids[i].Num == infos[i].Num {
			infos[i].UID = uids[i].UID
			continue
		}
		if byNum == nil {
			byNum = make(map[int]string, len(uids))
			for _, info := range uids {
				byNum[info.Num] = info.UID
			}
		}
		infos[i].UID = byNum[infos[i].Num]
	}
}
