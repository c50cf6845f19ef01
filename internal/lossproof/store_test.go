package lossproof

import (
	"bytes"
	"errors"
	"sync"
)

// A store contains the mail that the program has stored, and the record of the unique-ids.
type store struct {
	mu     sync.Mutex // the model reads it when it receives a DELE
	mails  []mail
	record map[string]bool // unique-ids of the messages that are stored completely
	fullAt int             // number of the message at which the disk is full, 0 for never
}

var errFull = errors.New("no space left on device")

// A storeWriter writes a message to the store.
type storeWriter struct {
	bytes.Buffer
	diskFull bool
}

// Write fails in the middle if the disk is full.
func (l *storeWriter) Write(p []byte) (int, error) {
	if l.diskFull {
		n, _ := l.Buffer.Write(p[:len(p)/2])
		return n, errFull
	}
	return l.Buffer.Write(p)
}

func (s *store) open(num int) *storeWriter { return &storeWriter{diskFull: num == s.fullAt} }

// commit stores a message in one step, as a rename does.
func (s *store) commit(uid string, l *storeWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, mail{uid, l.String()})
}

// copies counts the messages with these octets. It ignores the unique-id, because the message may be stored under a
// unique-id that was changed in transit.
func (s *store) copies(data string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mails {
		if m.data == data {
			n++
		}
	}
	return n
}
