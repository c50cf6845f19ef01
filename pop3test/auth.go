package pop3test

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding/hex"
	"time"
)

// lockGrace is how long a login waits for a session that holds the maildrop. A client may hang up and log in again
// before the goroutine of the old session notices. Without the wait, tests of a reconnect would sometimes fail.
const lockGrace = 200 * time.Millisecond

func (s *session) userCommand(args []string) {
	s.user = args[0]
	s.ok("send PASS")
}

func (s *session) pass(args []string) {
	user := s.user
	s.user = ""
	if user == "" {
		s.refuse("", "USER comes first")
		return
	}
	s.login(user, s.srv.check(user, args[0]))
}

// apop answers APOP (RFC 1939 section 7).
func (s *session) apop(args []string) {
	if s.timestamp == "" {
		s.refuse("", "no timestamp, no APOP")
		return
	}
	password, known := s.srv.password(args[0])
	sum := md5.Sum([]byte(s.timestamp + password))
	s.login(args[0], known && equalSecrets(hex.EncodeToString(sum[:]), args[1]))
}

// login replies to the command that ends an authentication. ok is true if the credentials are valid.
func (s *session) login(user string, ok bool) {
	if !ok {
		s.refuse("AUTH", "invalid user name or password")
		return
	}
	if !s.lock(user) {
		s.refuse("IN-USE", "maildrop already locked")
		return
	}
	s.state, s.loggedIn = transaction, user
	s.ok("%s", s.summary())
}

// lock locks the maildrop for this session.
func (s *session) lock(user string) bool {
	box, unlocked := s.srv.lock(user)
	if unlocked != nil {
		s.out.Flush() // send earlier replies before the wait for the lock
		t := time.NewTimer(lockGrace)
		defer t.Stop()
		select {
		case <-unlocked:
		case <-t.C:
		case <-s.wire.stopping:
		}
		box, _ = s.srv.lock(user)
	}
	if box == nil {
		return false
	}
	s.box = box
	for i, m := range s.srv.messages(box) {
		s.messages = append(s.messages, &sessionMessage{message: m, number: i + 1})
	}
	return true
}

// unlock unlocks the maildrop. The session must not use it afterwards.
func (s *session) unlock() {
	if s.box != nil {
		s.srv.unlock(s.box)
		s.box = nil
	}
}

// password returns the password or token of a user. It needs no lock, because a password never changes.
func (s *Server) password(user string) (password string, known bool) {
	if d := s.boxes[user]; d != nil {
		return d.password, true
	}
	return "", false
}

func (s *Server) check(user, password string) bool {
	want, known := s.password(user)
	return known && equalSecrets(want, password)
}

func equalSecrets(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// utf8Command answers UTF8 (RFC 6856 section 2.1). UTF8 has only one effect on the session: STLS is no longer allowed.
func (s *session) utf8Command([]string) {
	s.utf8 = true
	s.ok("UTF8 enabled")
}
