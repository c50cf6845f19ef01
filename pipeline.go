package pop3

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"net"
	"slices"
	"sync"
	"time"
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

// What is asked for ahead is bounded by the octets of the replies that are on their way behind the one being read, and
// grows with what was read: a loop that goes on keeps a long link full, and one that ends early has not asked for
// much. Sizes are those of the last LIST; where they are not known, the mean of what came so far, at first a guess,
// stands for them.
const (
	minWindow   = 2 << 20
	maxWindow   = 8 << 20 // more than TCP has on its way
	refillBelow = 0.75    // of the window
	guessedSize = 4 << 10

	maxMessagesAhead = 2000 // more than 2,200 commands at once kill some servers
)

// commands are what a batch sends: n of them, and what to expect of their replies.
type commands struct {
	n    int
	at   func(i int) command
	size func(i int) int64 // octets of the reply, -1 if not known
	most int               // commands in flight behind the one whose reply is read
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
	if err != nil {
		return nil, err
	}
	if ahead {
		b.w = startWriter(c.conn.put)
	}
	return b, nil
}

// status gets the status line of the next reply. The caller has to call answered once it has read the whole reply.
func (b *batch) status() (text []byte, err error) {
	k := b.at(b.done)
	// Replies may be there already. They are not wanted any more if the context has ended, or after Close.
	if err := cmp.Or(b.ctx.Err(), b.c.conn.closed()); err != nil {
		return nil, b.c.closeWithError(k, err)
	}
	if b.w == nil {
		return b.c.ask(b.ctx, k)
	}
	if b.queued == b.done {
		if err := b.c.checkUnsolicited(k); err != nil { // as in front of any command that is not ahead of a reply
			return nil, err
		}
	}
	b.refill()
	begun, err := b.w.begun(b.done)
	switch {
	case err != nil && !begun:
		return nil, b.c.closeWithError(k, err)
	case !begun && len(b.c.conn.buf.unread()) > 0:
		return nil, b.c.protocolError(k, "answered before it was sent", b.c.conn.buf.unread())
	}
	text, err = b.c.status(b.ctx, k)
	if b.done > 0 {
		err = explainPipelining(err)
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
	if b.queued == b.n || b.queued > b.done && b.load(0) > refillBelow {
		return
	}
	for b.queued < b.n && (b.queued == b.done || b.load(b.cost(b.queued)) <= 1) {
		k := b.at(b.queued)
		b.c.trace.wroteCommand(b.ctx, k)
		b.w.put(k)
		b.inFlight(b.queued, 1)
		b.queued++
	}
	b.w.flush()
}

// load is how full the window is, with more octets in it.
func (b *batch) load(more int64) float64 {
	window := min(max(b.octets, minWindow), maxWindow)
	return max(float64(b.ahead()+more)/float64(window), float64(b.queued-b.done)/float64(b.most))
}

// inFlight counts the reply to command i in or out.
func (b *batch) inFlight(i int, sign int64) {
	if size := b.size(i); size >= 0 {
		b.known += sign * size
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
		return size
	}
	return b.mean()
}

func (b *batch) mean() int64 {
	if b.came == 0 {
		return guessedSize
	}
	return max(b.octets/b.came, 1)
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
	if b.c.conn.closed() == nil {
		b.c.guard(func() { b.c.conn.hurry(func() { b.dropReplies(maxDrain) }) })
	}
}

// stopWriting waits for the end of the writing. A peer that answers without taking commands must not hold it up.
func (b *batch) stopWriting() {
	conn := b.c.conn
	conn.setDeadline(net.Conn.SetWriteDeadline, time.Now().Add(maxHurry))
	if err := b.w.wait(); err != nil {
		conn.closeWithError(fmt.Errorf("pop3: commands sent ahead: %w", err))
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

// A writer writes commands on a goroutine of its own, so that whoever reads the replies never waits for a peer
// that does not take commands because its replies are not taken.
type writer struct {
	write func([]byte) (int, error)
	wake  chan struct{} // something is waiting, or it is over
	over  chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	waiting []byte // not handed to write yet
	queued  int    // commands that were put, in all
	started int    // of them, handed to write
	halted  bool
	err     error // of write
}

func startWriter(write func([]byte) (int, error)) *writer {
	w := &writer{write: write, wake: make(chan struct{}, 1), over: make(chan struct{})}
	go w.loop()
	return w
}

func (w *writer) loop() {
	defer close(w.over)
	var spare []byte
	for range w.wake {
		out, ok := w.take(spare)
		if !ok {
			return
		}
		if len(out) > 0 { // an earlier write may have taken it along
			if _, err := w.write(out); err != nil {
				w.fail(err)
				return
			}
		}
		spare = out
	}
}

// take gives what is waiting, and lets more wait in the memory of spare.
func (w *writer) take(spare []byte) (out []byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out, w.waiting = w.waiting, spare[:0]
	w.started = w.queued
	return out, !w.halted
}

func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// put adds a command that shall be written after the next flush.
func (w *writer) put(k command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = k.append(w.waiting)
	w.queued++
}

// flush has the goroutine write what is waiting.
func (w *writer) flush() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// begun reports whether command n, counted from 0, was handed to write, and the error that ended the writing.
func (w *writer) begun(n int) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n < w.started, w.err
}

// halt drops what was not handed to write, and tells how many commands were.
func (w *writer) halt() (started int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queued = w.started
	w.waiting = nil
	w.halted = true
	w.flush()
	return w.started
}

// wait waits for the end of the goroutine, after halt, and gives the error that ended it.
func (w *writer) wait() error {
	<-w.over
	return w.err
}

// A sizeTable remembers the sizes of LIST, by message number, in units of sizeUnit octets. It is kept for the
// session, so it is small: what is beyond 16 MiB, twice the widest window, is as good as infinite here.
type sizeTable []uint16

const sizeUnit = 2 * maxWindow >> 16

// learn replaces the table. A server that numbers messages wildly is not worth the memory.
func (t *sizeTable) learn(infos []MessageInfo) {
	last := 0
	for _, info := range infos {
		last = max(last, info.Num)
	}
	if last > 2*len(infos)+1000 {
		*t = nil
		return
	}
	*t = make(sizeTable, last+1)
	for _, info := range infos {
		(*t)[info.Num] = uint16(min(info.Size/sizeUnit+1, math.MaxUint16))
	}
}

// size gives the octets of a message, as far as they count for the window, -1 if they are not known.
func (t sizeTable) size(num int) int64 {
	if num >= len(t) || t[num] == 0 {
		return -1
	}
	return int64(t[num]) * sizeUnit
}
