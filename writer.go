package pop3

import "sync"

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
