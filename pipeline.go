package pop3

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
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

// Messages retrieves messages in the order of nums. If the server supports pipelining (see [Pipelining]), commands
// are sent before the replies to earlier ones. So the loop does not wait for a round trip for each message.
// Without numbers there are no messages.
//
// A message is valid until the next step of the loop, which discards the rest of it. If the server refuses a message,
// the loop yields a *Message with only Num set, together with an [*Error], and continues. Any other error is yielded
// last, with a nil *Message. If the connection was lost, the error says how many messages were read completely. If it
// is a [*ProtocolError], the message yielded just before may contain a misplaced server reply: do not delete that
// message; fetch it again in the next session.
//
// Inside the loop every other call on the client fails with [ErrBusy], so collect the numbers to be deleted and
// call [Client.Dele] after the loop.
//
// The loop can be left at any time, and the client can be used afterwards: messages that were requested ahead are
// read and discarded. There is one exception. If more than 8 MiB of the current message are unread, the connection
// is closed, which also drops all deletion marks.
//
// At first at most 2 MiB of messages are requested ahead. Later at most as many bytes are requested ahead as were read
// so far, up to 8 MiB. At most 2,000 messages are requested ahead. Sizes are those of the last [Client.Listing] or
// [Client.ListAll]. If a size is not known, the mean size of the messages that were read is used, and 4 KiB before the
// first message.
func (c *Client) Messages(ctx context.Context, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.messageSeq(ctx, commands{
		n:        len(nums),
		at:       func(i int) command { return retrCommand(nums[i]) },
		size:     func(i int) int64 { return c.sizes.size(nums[i]) },
		maxAhead: maxMessagesAhead,
	}, checkNum(nums...))
}

// Tops is like [Client.Messages], for the header and the first lines of each body, as [Client.Top] returns
// them.
func (c *Client) Tops(ctx context.Context, lines int, nums ...int) iter.Seq2[*Message, error] {
	nums = slices.Clone(nums)
	return c.messageSeq(ctx, commands{
		n:        len(nums),
		at:       func(i int) command { return topCommand(nums[i], lines) },
		size:     func(int) int64 { return -1 },
		maxAhead: maxMessagesAhead,
	}, checkTop(lines, nums...))
}

// messageSeq returns the sequence of the messages that cmds retrieve. If argErr is not nil, an argument of the caller
// is invalid, and the sequence yields only this error.
func (c *Client) messageSeq(ctx context.Context, cmds commands, argErr error) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if cmds.n == 0 {
			return
		}
		err := argErr
		if err == nil {
			err = c.start(ctx, cmds.at(0), StateTransaction)
		}
		if err == nil {
			defer c.conn.end()
			err = c.yieldMessages(ctx, cmds, yield)
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// yieldMessages carries out the loop of Messages or Tops, within a call. It returns the error that ends the loop, which
// the caller must yield.
func (c *Client) yieldMessages(ctx context.Context, cmds commands, yield func(*Message, error) bool) error {
	b, err := c.newBatch(ctx, cmds)
	if err != nil {
		return err
	}
	defer b.close()
	for b.done < b.n {
		m, err := b.message()
		if m == nil {
			return b.explainLost(err)
		}
		if !yield(m, err) {
			return nil
		}
		if err := b.discardOpen(math.MaxInt64); err != nil {
			return b.explainLost(err)
		}
	}
	return nil
}

// These constants limit the replies that are requested ahead, in octets. The limit grows with the octets that were
// read. So a long loop uses the whole link, and a loop that ends early has not requested much. Sizes are those of
// the last LIST. If a size is not known, the mean size of the messages received is used, and guessedSize before the
// first message.
const (
	minWindow   = 2 << 20
	maxWindow   = 8 << 20 // more octets than TCP has in flight
	refillBelow = 0.75    // more commands are sent when the window is less full than this
	guessedSize = 4 << 10

	maxMessagesAhead = 2000 // more than 2,200 commands at once crash some servers
)

// commands describes the n commands of a batch, and the replies to expect.
type commands struct {
	n        int
	at       func(i int) command
	size     func(i int) int64 // octets of the reply, -1 if that is not known
	maxAhead int               // limit of commands in flight, without the one whose reply is being read
}

// A batch is a series of commands. They are sent ahead of their replies if the server pipelines, otherwise one
// by one. Replies arrive in the same order, so the n-th reply belongs to the n-th command.
type batch struct {
	commands
	c   *Client
	ctx context.Context

	w    *writer  // nil if commands are sent one by one
	end  int      // only commands [0,end) are sent; end is n until the batch is closed
	done int      // replies [0,done) were read
	open *Message // the message in the reply with index done; nil if none is open

	expected []int64 // expected octets of each reply in flight
	inFlight int64   // the sum of expected
	octets   int64   // octets of the messages received
	messages int64   // number of messages received
}

// newBatch makes a batch within a call. It reads the capabilities if they are not known.
func (c *Client) newBatch(ctx context.Context, cmds commands) (*batch, error) {
	b := &batch{commands: cmds, c: c, ctx: ctx, end: cmds.n}
	if cmds.n < 2 {
		return b, nil
	}
	ahead, err := c.pipelines(ctx)
	if err != nil {
		return nil, err
	}
	if ahead {
		c.conn.ahead = true
		c.conn.unlimitWrite()
		b.w = startWriter(c.conn.writeAll)
	}
	return b, nil
}

// next reads the next reply, as [Client.exchange] does. The caller must call answered when the whole reply was
// read.
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

// await makes sure that k, whose reply is the next one, was sent.
func (b *batch) await(k command) error {
	// The reply may be in the buffer already. It is not used if the context has ended, or after Close.
	if err := cmp.Or(b.ctx.Err(), b.c.conn.closed()); err != nil {
		return b.c.closeWithError(k, err)
	}
	if b.w == nil {
		return b.c.send(b.ctx, k)
	}
	if len(b.expected) == 0 {
		if err := b.c.checkUnsolicited(k); err != nil { // no reply is in flight, so nothing may have arrived
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

// answered counts a reply that was read completely.
func (b *batch) answered() {
	if len(b.expected) > 0 {
		b.inFlight -= b.expected[0]
		b.expected = b.expected[1:]
	}
	b.done++
}

// refill sends more commands ahead if the window has enough room.
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
		b.w.enqueue(k)
		b.expected = append(b.expected, size)
		b.inFlight += size
	}
	b.w.flush()
}

// load returns how full the window would be with that many more octets; 1 means full. The current reply does not count.
func (b *batch) load(more int64) float64 {
	window := min(max(b.octets, minWindow), maxWindow)
	octets := b.inFlight + more - b.expected[0]
	return max(float64(octets)/float64(window), float64(len(b.expected))/float64(b.maxAhead))
}

// expect returns the expected size of reply i in octets.
func (b *batch) expect(i int) int64 {
	switch size := b.size(i); {
	case size >= 0:
		return size
	case b.messages > 0:
		return max(b.octets/b.messages, 1)
	}
	return guessedSize
}

// close ends the batch. It stops writing, and then reads and discards the replies to the commands that were
// written. The window limits the size of these replies. close closes the connection only if more than maxWindow
// octets of the open message are unread.
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

// discardReplies reads and discards the remaining replies.
func (b *batch) discardReplies() {
	for limit := int64(maxWindow); b.open != nil || b.done < b.end; limit = math.MaxInt64 {
		if b.open == nil {
			limit = math.MaxInt64 // no limit: the window limits the replies that were requested ahead
			if _, err := b.message(); err != nil && !isRefusal(err) {
				return
			}
		}
		if err := b.discardOpen(limit); err != nil {
			return
		}
	}
}

// maxStopTime limits the wait for the writer if a peer sends replies but does not read commands.
const maxStopTime = time.Second

// stopWriting waits until the writer has ended.
func (b *batch) stopWriting() {
	conn := b.c.conn
	conn.limitWrite(maxStopTime)
	if err := b.w.wait(); err != nil {
		conn.closeWithError(fmt.Errorf("pop3: commands sent ahead: %w", err))
	}
	conn.unlimitWrite()
	conn.ahead = false
}

// message opens the next message. If the server refused it, the message has only Num, and the error is an *Error.
// After any other error the message is nil.
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

// discardOpen reads and discards the rest of the open message, at most max octets.
func (b *batch) discardOpen(max int64) error {
	m := b.open
	n, err := m.discard(max)
	if err != nil {
		return err
	}
	if m.client != nil {
		b.octets += m.octets + n
		b.messages++
	}
	b.open = nil
	b.answered()
	return nil
}

// explainLost adds to err, which ended the session, how many replies the batch had received.
func (b *batch) explainLost(err error) error {
	if b.n == 1 {
		return err
	}
	last := "got no reply"
	if b.open != nil {
		last = "was interrupted"
	}
	return fmt.Errorf("%w (%d of %d commands were answered completely, then %v %s, and later ones were not answered)",
		err, b.done, b.n, b.at(b.done), last)
}

// A writer writes commands on a goroutine of its own. If the goroutine that reads replies wrote them too, both sides
// could wait for ever. The client would wait until the peer reads commands, and the peer until the client reads
// replies.
type writer struct {
	write func([]byte) (int, error)
	wake  chan struct{} // receives a value if there are commands to write or the writer must end
	done  chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	waiting []byte // commands that were not passed to write yet
	queued  int    // number of all commands
	started int    // number of commands that were passed to write
	halted  bool
	err     error // error of write
}

func startWriter(write func([]byte) (int, error)) *writer {
	w := &writer{write: write, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.loop()
	return w
}

func (w *writer) loop() {
	defer close(w.done)
	var spare []byte
	for range w.wake {
		out, ok := w.take(spare)
		if !ok {
			return
		}
		if len(out) > 0 { // if there are none, an earlier write has taken them
			if _, err := w.write(out); err != nil {
				w.fail(err)
				return
			}
		}
		spare = out
	}
}

// take returns the waiting commands. It keeps the memory of spare for later commands.
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

// put adds a command, which is written after the next flush.
func (w *writer) enqueue(k command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = k.append(w.waiting)
	w.queued++
}

// flush makes the goroutine write the waiting commands.
func (w *writer) flush() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// begun reports whether command n, counted from 0, was passed to write. It also returns the error that ended the
// writing.
func (w *writer) begun(n int) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n < w.started, w.err
}

// halt drops the commands that were not passed to write, and returns how many were passed.
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
	<-w.done
	return w.err
}

// A sizeTable stores the sizes of LIST, by message number, in units of sizeUnit octets. The table exists as long as
// the session, so an entry has only two bytes. A size above 16 MiB is stored as 16 MiB. That is twice the largest
// window, and a greater size makes no difference.
type sizeTable []uint16

const sizeUnit = 2 * maxWindow >> 16

// learn replaces the table. It stores nothing if message numbers are so high that the table would be too big.
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

// size returns the octets of a message, at most 16 MiB, and -1 if the size is not known.
func (t sizeTable) size(num int) int64 {
	if num >= len(t) || t[num] == 0 {
		return -1
	}
	return int64(t[num]) * sizeUnit
}
