package pop3test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
)

// A maildrop is what the server stores for a user between sessions. Server.mu guards it, but not the fields of a
// message, which only the session with the lock uses.
type maildrop struct {
	password string
	messages []*message
	copies   map[string]int // how often each content was delivered, by its digest
	locked   bool
	unlocked chan struct{} // closed when the maildrop is unlocked; nil if no session waits for it
}

type message struct {
	stored  []byte
	uid     string
	stuffed []byte // the body as it is sent; nil until it is first needed
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

// uid returns a unique-id made from the content. Copies are counted as long as the server exists, so that a
// unique-id is not used again after its message was removed (RFC 1939 section 7).
func (d *maildrop) uid(stored []byte) string {
	sum := sha256.Sum256(stored)
	digest := hex.EncodeToString(sum[:16])
	d.copies[digest]++
	if n := d.copies[digest]; n > 1 {
		return digest + "." + strconv.Itoa(n)
	}
	return digest
}

// Left returns the messages in the maildrop of a user, without those that a completed QUIT has removed. It
// returns nil if there is no such user. Deletion marks of a session that has not ended have no effect. The
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

// Deliver appends messages to the maildrop of a user and reports whether there is such a user. As on any
// server, a session that has begun does not see them; the next one does.
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

// lock returns the maildrop of a user. If the maildrop is locked, it returns a channel that is closed when the maildrop
// is unlocked.
func (s *Server) lock(user string) (box *maildrop, unlocked chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.boxes[user]
	if d.locked {
		if d.unlocked == nil {
			d.unlocked = make(chan struct{})
		}
		return nil, d.unlocked
	}
	d.locked = true
	return d, nil
}

func (s *Server) unlock(d *maildrop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.locked = false
	if d.unlocked != nil {
		close(d.unlocked)
		d.unlocked = nil
	}
}

// update is the UPDATE state: it removes messages from the maildrop permanently.
func (s *Server) update(d *maildrop, removed map[*message]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.messages = slices.DeleteFunc(d.messages, func(m *message) bool { return removed[m] })
}

func (s *Server) messages(d *maildrop) []*message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.messages
}

// size returns the number of octets that RETR sends, without stuffed dots.
func (m *message) size() int64 {
	return int64(len(m.stored) + len(missingEOL(m.stored)))
}

// wire returns the whole message as RETR sends it, without the end-of-message line.
func (m *message) wire() []byte {
	if m.stuffed == nil {
		m.stuffed = stuff(m.stored, crlf)
	}
	return m.stuffed
}

const crlf = "\r\n"

// missingEOL returns the CRLF that must be added to a body before the end-of-message line, or "".
func missingEOL(body []byte) string {
	if len(body) == 0 || bytes.HasSuffix(body, []byte(crlf)) {
		return ""
	}
	return crlf
}

// stuff doubles the dot at the start of each line (RFC 1939 section 3). If there is none, which is the usual
// case, it returns body itself.
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

// top returns the header, the blank line and the given number of lines of the body (RFC 1939 section 7).
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
