package link

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// A chunk contains the data of one read, and the time when it arrives at the other end.
type chunk struct {
	due  time.Time
	data []byte // nil at the end of the stream
}

// A pipe carries data in one direction and delays it. It can hold any amount of data, so the sender never waits. On a
// real link that needs large TCP windows.
type pipe struct {
	delay    time.Duration
	earliest time.Time // no data arrives before this time

	mu     sync.Mutex
	added  *sync.Cond
	chunks []chunk
}

func newPipe(delay time.Duration, earliest time.Time) *pipe {
	p := &pipe{delay: delay, earliest: earliest}
	p.added = sync.NewCond(&p.mu)
	return p
}

// readSize is the maximum size of a chunk.
const readSize = 64 << 10

// readFrom reads from r into the pipe until the stream ends or an error occurs.
func (p *pipe) readFrom(r io.Reader) {
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
	p.added.Signal()
}

// next waits for a chunk and removes it from the pipe.
func (p *pipe) next() chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.chunks) == 0 {
		p.added.Wait()
	}
	c := p.chunks[0]
	p.chunks[0] = chunk{}
	p.chunks = p.chunks[1:]
	return c
}

// writeTo writes each chunk to w when it is due, until the end of the stream. After an error of w it discards the
// remaining chunks. It does not return earlier, because the connection must stay open for the other direction.
func (p *pipe) writeTo(w io.Writer) {
	var writeErr error
	for {
		c := p.next()
		time.Sleep(time.Until(c.due))
		if c.data == nil {
			return
		}
		if writeErr == nil {
			_, writeErr = w.Write(c.data)
		}
	}
}
