package main

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// hearts tell JetStream that messages are being worked on, however long it takes. When they stop, since the process
// is dead, the messages go to another worker.
type hearts struct {
	mu   sync.Mutex
	msgs map[jetstream.Msg]bool
}

func (h *hearts) add(msg jetstream.Msg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.msgs == nil {
		h.msgs = make(map[jetstream.Msg]bool)
	}
	h.msgs[msg] = true
}

func (h *hearts) remove(msg jetstream.Msg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.msgs, msg)
}

// beat goes on until stop is closed. One goroutine does it for all, since there may be thousands. A message that got
// its first beat too early gets the next one in time: AckWait is three of them.
func (h *hearts) beat(stop <-chan struct{}, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		for _, msg := range h.all() {
			msg.InProgress() // if it fails the message goes to another worker, which finds the lease taken
		}
	}
}

func (h *hearts) all() []jetstream.Msg {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]jetstream.Msg, 0, len(h.msgs))
	for msg := range h.msgs {
		all = append(all, msg)
	}
	return all
}
