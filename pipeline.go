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

// Messages retrieves messages in the order of nums. Commands are sent before the replies to earlier ones if the
// server pipelines (see [Pipelining]), so that a long link is kept full. Without numbers there are no messages.
//
// A message is valid until the next step of the loop, which skips what was not read of it. If the server refuses a
// message, the loop yields a *Message with only Num set, together with an [*Error], and goes on. Any other error
// comes last, with a nil *Message, and says how many messages were read whole. If it is a [*ProtocolError], the
// message yielded just before may contain a misplaced server reply: do not delete that message; fetch it again in
// the next session.
//
// Inside the loop every other call on the client fails with [ErrBusy], so collect the numbers to be deleted and
// call [Client.Dele] after the loop.
//
// The loop can be left at any time, and the client can be used afterwards: messages that were requested ahead are
// read and discarded. Only if a single message is left with more than 8 MiB unread, the connection is closed,
// which also drops all deletion marks.
//
// At first at most 2 MiB of messages are requested ahead, later as much as was read so far, up to 8 MiB, and never
// more than 2,000 messages. Sizes are those of the last [Client.Listing] or [Client.ListAll]. A message that was
// not listed counts as the mean of those read, and before the first as 4 KiB.
func (c *Client) Messages(ctx context.Context, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.each(ctx, commands{
		n:    len(nums),
		at:   func(i int) command { return retrCommand(nums[i]) },
		size: func(i int) int64 { return c.sizes.size(nums[i]) },
		most: maxMessagesAhead,
	}, checkNum(nums...))
}

// Tops is [Client.Messages] for the header and the first lines of each body, as [Client.Top] returns them.
func (c *Client) Tops(ctx context.Context, lines int, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.each(ctx, commands{
		n:    len(nums),
		at:   func(i int) command { return topCommand(nums[i], lines) },
		size: func(int) int64 { return -1 },
		most: maxMessagesAhead,
	}, checkTop(lines, nums...))
}

// each yields the messages that commands return; wrong is the error of their arguments.
func (c *Client) each(ctx context.Context, ks commands, wrong error) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if ks.n == 0 {
			return
		}
		err := wrong
		if err == nil {
			err = c.start(ctx, ks.at(0), StateTransaction)
		}
		if err == nil {
			defer c.conn.end()
			err = c.yieldMessages(ctx, ks, yield)
		}
		if err != nil {
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
		if err := b.step(math.MaxInt64); err != nil {
			return b.lost(err)
		}
	}
	return nil
}

// The replies that are asked for ahead are limited in octets. The limit grows with what was read: a loop that goes
// on keeps a long link full, and one that ends early has not asked for much. Sizes are those of the last LIST; a
// message whose size is not known counts as the mean of those that came, and before the first as guessedSize.
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
	most int               // commands in flight after the one whose reply is read
}

// A batch is commands that are sent in order, ahead of their replies if the server pipelines, one by one if not.
// The n-th reply belongs to the n-th command: replies are read in the same order by whoever holds the batch.
type batch struct {
	commands
	c   *Client
	ctx context.Context

	w    *writer  // nil if commands are sent one by one
	end  int      // only commands [0,end) are sent: all, until the batch is closed
	done int      // replies [0,done) were read
	open *Message // in reply done, nil if that is none or was not reached

	expected []int64 // octets of each reply in flight, as far as they are known
	inFlight int64   // their sum
	octets   int64   // of messages that came
	came     int64   // number of those messages
}

// newBatch makes a batch within a call. It asks for the capabilities if it has to.
func (c *Client) newBatch(ctx context.Context, ks commands) (*batch, error) {
	b := &batch{commands: ks, c: c, ctx: ctx, end: ks.n}
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

// next reads the next reply, as [Client.exchange] does. The caller has to call answered once it is read whole.
func (b *batch) next(read func(text []byte) error) error {
	k := b.at(b.done)
	k.ahead = b.w != nil && b.done > 0
	err := b.await(k)
	if err == nil {
		err = b.c.reply(b.ctx, k, read)
	}
	b.c.traceDone(b.ctx, k, err)
	return err
}

// await makes sure that k, whose reply comes next, was sent.
func (b *batch) await(k command) error {
	// Replies may be there already. They are not wanted any more if the context has ended, or after Close.
	if err := cmp.Or(b.ctx.Err(), b.c.conn.closed()); err != nil {
		return b.c.closeWithError(k, err)
	}
	if b.w == nil {
		return b.c.send(b.ctx, k)
	}
	if len(b.expected) == 0 {
		if err := b.c.checkUnsolicited(k); err != nil { // as before any command that is not sent ahead of a reply
			return err
		}
	}
	b.refill()
	begun, err := b.w.begun(b.done)
	switch unread := b.c.conn.buf.unread(); {
	case err != nil && !begun:
		return b.c.closeWithError(k, err)
	case !begun && len(unread) > 0:
		return b.c.protocolError(k, "answered before it was sent", unread)
	}
	return nil
}

// answered counts a reply that was read whole.
func (b *batch) answered() {
	if len(b.expected) > 0 {
		b.inFlight -= b.expected[0]
		b.expected = b.expected[1:]
	}
	b.done++
}

// refill sends commands ahead if the window has room for more than a few.
func (b *batch) refill() {
	if len(b.expected) > 0 && b.load(0) > refillBelow {
		return
	}
	for i := b.done + len(b.expected); i < b.end; i++ {
		size := b.expect(i)
		if len(b.expected) > 0 && b.load(size) > 1 {
			break
		}
		k := b.at(i)
		b.c.trace.wroteCommand(b.ctx, k)
		b.w.put(k)
		b.expected = append(b.expected, size)
		b.inFlight += size
	}
	b.w.flush()
}

// load returns how full the window is, with more octets in it. The reply that is read now does not count.
func (b *batch) load(more int64) float64 {
	window := min(max(b.octets, minWindow), maxWindow)
	octets := b.inFlight + more - b.expected[0]
	return max(float64(octets)/float64(window), float64(len(b.expected))/float64(b.most))
}

// expect returns the octets of a reply, as far as they are known.
func (b *batch) expect(i int) int64 {
	switch size := b.size(i); {
	case size >= 0:
		return size
	case b.came > 0:
		return max(b.octets/b.came, 1)
	}
	return guessedSize
}

// close ends the batch: nothing more is written. What was written is answered, and the answers are read and
// discarded, as long as they come; the window bounds them. Only a message that was left in its midst with more
// than a window to come costs the connection.
func (b *batch) close() {
	b.end = b.done
	if b.w != nil {
		b.end = b.w.halt()
		defer b.stopWriting()
	}
	if b.c.conn.closed() == nil {
		b.c.guard(b.discardReplies)
	}
}

// discardReplies reads and discards what is left of the replies.
func (b *batch) discardReplies() {
	for most := int64(maxWindow); b.open != nil || b.done < b.end; most = math.MaxInt64 {
		if b.open == nil {
			most = math.MaxInt64 // asked for ahead, and not left in its midst
			if _, err := b.message(); err != nil && !isRefusal(err) {
				return
			}
		}
		if err := b.step(most); err != nil {
			return
		}
	}
}

// maxStopTime is how long a peer that answers without taking commands may hold up the end of the writing.
const maxStopTime = time.Second

// stopWriting waits for the end of the writing.
func (b *batch) stopWriting() {
	conn := b.c.conn
	conn.setDeadline(net.Conn.SetWriteDeadline, time.Now().Add(maxStopTime))
	if err := b.w.wait(); err != nil {
		conn.closeWithError(fmt.Errorf("pop3: commands sent ahead: %w", err))
	}
	conn.setDeadline(net.Conn.SetWriteDeadline, time.Time{})
}

// message opens the next message: with an *Error if it was refused, nil after any other error.
func (b *batch) message() (*Message, error) {
	err := b.next(func([]byte) error {
		b.open = b.c.newMessage(b.ctx, b.at(b.done))
		b.open.inLoop = true
		return nil
	})
	if isRefusal(err) {
		b.open = &Message{Num: b.at(b.done).num(), err: err}
	}
	return b.open, err
}

// step reads on over what is left of the open message, at most max octets.
func (b *batch) step(max int64) error {
	m := b.open
	n, err := m.discard(max)
	if err != nil {
		return err
	}
	if m.client != nil {
		b.octets += m.octets + n
		b.came++
	}
	b.open = nil
	b.answered()
	return nil
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
	return fmt.Errorf("%w (of %d commands %d were answered whole, then %v %s, and nothing after it was answered)",
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

// take returns what is waiting, and lets more wait in the memory of spare.
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

// halt drops what was not handed to write, and returns how many commands were.
func (w *writer) halt() (started int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queued = w.started
	w.waiting = nil
	w.halted = true
	w.flush()
	return w.started
}

// wait waits for the end of the goroutine, after halt, and returns the error that ended it.
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
		if info.Size < 0 {
			continue
		}
		(*t)[info.Num] = uint16(min(info.Size/sizeUnit+1, math.MaxUint16))
	}
}

// size returns the octets of a message, as far as they count for the window, -1 if they are not known.
func (t sizeTable) size(num int) int64 {
	if num >= len(t) || t[num] == 0 {
		return -1
	}
	return int64(t[num]) * sizeUnit
}
