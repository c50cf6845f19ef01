package link

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// A chunk is the data of one read, and the time when it is due at the other end.
type chunk struct {
	due  time.Time
	data []byte // nil at the end of the stream
}

// A pipe carries octets in one direction. It can hold any amount, so that it only delays: the sender never
// waits, as with a long cable and large TCP windows.
type pipe struct {
	delay    time.Duration
	earliest time.Time // nothing arrives before

	mu     sync.Mutex
	more   *sync.Cond
	chunks []chunk
}

func newPipe(delay time.Duration, earliest time.Time) *pipe {
	p := &pipe{delay: delay, earliest: earliest}
	p.more = sync.NewCond(&p.mu)
	return p
}

// readSize is the size of a read, and so the most that arrives at once.
const readSize = 64 << 10

// take reads from r into the pipe until the stream ends. An error ends the stream too: a real link also loses the data
// in the kernel when the connection is reset.
func (p *pipe) take(r io.Reader) {
	scratch := make([]byte, readSize)
	for {
		n, err := r.Read(scratch)
		if n > 0 {
			p.put(bytes.Clone(scratch[:n]))
		}
		if err != nil {
			p.put(nil)
			return
		}
	}
}

func (p *pipe) put(data []byte) {
	due := time.Now().Add(p.delay)
	if due.Before(p.earliest) {
		due = p.earliest
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chunks = append(p.chunks, chunk{due, data})
	p.more.Signal()
}

// next waits for a chunk.
func (p *pipe) next() chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.chunks) == 0 {
		p.more.Wait()
	}
	c := p.chunks[0]
	p.chunks[0] = chunk{}
	p.chunks = p.chunks[1:]
	return c
}

// give writes each chunk to w when it is due, until the end of the stream. After an error of w the chunks are
// discarded, because the other direction may still have data to deliver.
func (p *pipe) give(w io.Writer) {
	var gone error
	for {
		c := p.next()
		time.Sleep(time.Until(c.due))
		if c.data == nil {
			return
		}
		if gone == nil {
			_, gone = w.Write(c.data)
		}
	}
}
