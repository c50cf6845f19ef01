package pop3test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
)

// A maildrop is what the server keeps of a user between sessions. Server.mu guards it, except that a
// message belongs to the session that holds the lock.
type maildrop struct {
	password string
	messages []*message
	copies   map[string]int // how often content came so far, by its digest
	locked   bool
	free     chan struct{} // closed when the lock is given back, nil if nobody waits for it
}

type message struct {
	stored  []byte
	uid     string
	stuffed []byte // the body as sent, made when first needed
}

func newMaildrop(b *Mailbox) *maildrop {
	d := &maildrop{password: b.Password, copies: make(map[string]int)}
	for i, m := range b.Messages {
		d.deliver(m)
		if i < len(b.UIDs) {
			d.messages[i].uid = b.UIDs[i]
		}
	}
	return d
}

func (d *maildrop) deliver(stored []byte) {
	d.messages = append(d.messages, &message{stored: stored, uid: d.uid(stored)})
}

// uid makes a unique-id from the content. Copies are counted for as long as the server lives, so that no
// unique-id is used again after its message was removed (RFC 1939 section 7).
func (d *maildrop) uid(stored []byte) string {
	sum := sha256.Sum256(stored)
	digest := hex.EncodeToString(sum[:16])
	d.copies[digest]++
	if n := d.copies[digest]; n > 1 {
		return digest + "." + strconv.Itoa(n)
	}
	return digest
}

// Left returns what is in the maildrop of a user now, after the sessions that reached the UPDATE state; nil
// if there is no such user. A session under way counts for nothing, whatever it has marked as deleted. The
// octets must not be changed.
func (s *Server) Left(user string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	box := s.boxes[user]
	if box == nil {
		return nil
	}
	left := make([][]byte, len(box.messages))
	for i, m := range box.messages {
		left[i] = m.stored
	}
	return left
}

// Deliver puts messages into the maildrop of a user, after those that are there. As on any server, a
// session under way does not see them: the next one does. It reports whether there is such a user.
func (s *Server) Deliver(user string, messages ...[]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	box := s.boxes[user]
	if box == nil {
		return false
	}
	for _, m := range messages {
		box.deliver(m)
	}
	return true
}

// lock returns the maildrop of a user, or a channel that is closed when it becomes free.
func (s *Server) lock(user string) (box *maildrop, free chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.boxes[user]
	if d.locked {
		if d.free == nil {
			d.free = make(chan struct{})
		}
		return nil, d.free
	}
	d.locked = true
	return d, nil
}

func (s *Server) unlock(d *maildrop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.locked = false
	if d.free != nil {
		close(d.free)
		d.free = nil
	}
}

// update is the UPDATE state: it takes messages out of the maildrop for good.
func (s *Server) update(d *maildrop, gone map[*message]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.messages = slices.DeleteFunc(d.messages, func(m *message) bool { return gone[m] })
}

func (s *Server) messages(d *maildrop) []*message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.messages
}

// size is the number of octets that RETR sends, dots not counted that are stuffed.
func (m *message) size() int64 {
	return int64(len(m.stored) + len(missingEOL(m.stored)))
}

// wire returns the whole message as RETR sends it, without the terminator.
func (m *message) wire() []byte {
	if m.stuffed == nil {
		m.stuffed = stuff(m.stored, crlf)
	}
	return m.stuffed
}

const crlf = "\r\n"

// missingEOL returns the CRLF that a body needs before the terminator can follow.
func missingEOL(body []byte) string {
	if len(body) == 0 || bytes.HasSuffix(body, []byte(crlf)) {
		return ""
	}
	return crlf
}

// stuff doubles the dot at the start of each line (RFC 1939 section 3). Where there is none, which is the
// usual case, it returns body itself.
func stuff(body []byte, eol string) []byte {
	if bytes.HasPrefix(body, []byte(".")) {
		body = append([]byte("."), body...)
	}
	dot := []byte(eol + ".")
	if !bytes.Contains(body, dot) {
		return body
	}
	return bytes.ReplaceAll(body, dot, []byte(eol+".."))
}

// top returns the header, the blank line and the first lines of the body (RFC 1939 section 7).
func top(stored []byte, lines int) []byte {
	rest := stored
	for header := true; len(rest) > 0 && (header || lines > 0); {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			return stored
		}
		if !header {
			lines--
		}
		if len(bytes.TrimRight(rest[:n], crlf)) == 0 {
			header = false
		}
		rest = rest[n:]
	}
	return stored[:len(stored)-len(rest)]
}
