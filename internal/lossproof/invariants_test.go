package lossproof

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// repliesEdited reports whether the client receives something that the model has not sent. Within TLS this can only be
// a fault of the server itself.
func (r *run) repliesEdited() bool {
	return r.plain != nil && r.plain.insert != "" ||
		r.faultAt >= 0 && r.fault.corrupts && !r.fromClient && r.security == inClear
}

// receivedOctets returns the octets that the client receives if the replies are edited, and the place of the edit.
func (r *run) receivedOctets() (received []byte, at int) {
	if r.plain != nil {
		return r.session.delivered, r.plain.at
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.w.down.delivered, r.faultAt
}

// commandsEdited reports whether octets of the client were changed.
func (r *run) commandsEdited() bool {
	return r.faultAt >= 0 && r.fault.corrupts && r.fromClient && r.security == inClear
}

// commandConfused reports whether the fault may have made one valid command into another, which nobody can notice.
func (r *run) commandConfused() bool { return r.commandsEdited() && r.fault.confuses }

// onDele checks invariant I2: a message is stored before the server receives its DELE. If replies may be forged, the
// program may wrongly believe that a message is stored. Then it must notice its mistake before QUIT.
func (r *run) onDele(m mail) {
	if !r.repliesEdited() && !r.commandsEdited() && !r.server.unstuffed && !r.isStored(m) {
		r.addViolation("I2", "DELE of %s, which is not stored", m.uid)
	}
}

// checkMessage checks a message that the client returned as complete. It must be what the server sent.
func (r *run) checkMessage(s *session, num int, data string) {
	if s == r.session && (r.repliesEdited() || r.commandsEdited() || s.variant.unstuffed) {
		return
	}
	if want := s.variant.body(s.mails[num-1], num); data != want {
		r.addViolation("I1", "message %d was returned as complete: %q, but the server sent %q", num, data, want)
	}
}

// isStored reports whether a message is in the store, octet for octet. If the reply that contained it was changed, the
// message as it arrived counts. If an extra reply could not be seen in time, it is taken for the status line of the
// next reply. The real status line is then the first line of the message, and nothing is lost.
func (r *run) isStored(m mail) bool {
	switch {
	case r.store.copies(m.data) > 0:
		return true
	case r.commandsEdited():
		return r.store.copies(status(m)+m.data) > 0
	case r.repliesEdited():
		return r.store.copies(status(m)+m.data) > 0 || r.isStoredAsReceived(m)
	}
	return false
}

func (r *run) isStoredAsReceived(m mail) bool {
	received, at := r.receivedOctets()
	return slices.ContainsFunc(r.session.retrReplies[m.uid], func(s span) bool {
		return s.start <= at && at < s.end && r.store.copies(decodeMessage(received[min(s.start, len(received)):])) > 0
	})
}

// decodeMessage returns the message in a reply to RETR. The reply begins with the first of the delivered octets. The
// client must return the same message.
func decodeMessage(delivered []byte) (data string) {
	_, rest, _ := strings.Cut(string(delivered), "\r\n")
	for {
		line, next, ok := strings.Cut(rest, "\r\n")
		if !ok || line == "." {
			return data
		}
		if strings.HasPrefix(line, "..") {
			line = line[1:]
		}
		data += line + "\r\n"
		rest = next
	}
}

// checkFirst checks the result of the first session: invariants I1 and I3, and the time of I6.
func (r *run) checkFirst(before []mail) {
	for i, m := range before {
		if !r.commandConfused() {
			r.checkMail(m, r.firstSession.outcome(i+1))
		}
	}
	if limit := r.timeLimit(); r.duration > limit {
		r.addViolation("I6", "it took %v from the fault to the end, more than %v", r.duration, limit)
	}
	failed, cancelled := r.firstSession.failedCall, r.w.cancelledCall
	if failed > 0 && r.onlyCancels() && failed != cancelled && !r.server.update.fails() {
		r.addViolation("I0", "the context of call %d ended, and call %d failed: %v", cancelled, failed, r.err)
	}
	if !r.mayEndEarly() && (r.err != nil) != r.server.update.fails() {
		r.addViolation("I0", "no fault may end the session, and the error is %v", r.err)
	}
}

func (r *run) checkMail(m mail, reported outcome) {
	gone := !r.drop.has(m)
	quit := r.session.quits > 0 || bytes.Contains(r.w.log.octets, []byte("QUIT"))
	switch {
	case gone && !r.isStored(m):
		r.addViolation("I1", "%s is neither on the server nor stored", m.uid)
	case gone && reported == outcomeKept && !r.expireEdited():
		r.addViolation("I3", "%s was reported kept and is gone", m.uid)
	case !gone && reported == outcomeDeleted && r.server.update != confirmNone:
		r.addViolation("I3", "%s was reported deleted and is there", m.uid)
	case errors.Is(r.firstSession.quitErr, pop3.ErrCommitUnknown) && !quit && r.security == inClear:
		r.addViolation("I3", "the commit was reported unknown, and no octet of QUIT was written")
	}
}

// expireEdited reports whether a server that removes retrieved messages seems to promise the opposite, because a
// changed bit made EXPIRE 0 into EXPIRE 1.
func (r *run) expireEdited() bool {
	return r.repliesEdited() && r.server.expires && r.firstSession.serverKeeps
}

// mayEndEarly reports whether a fault may end the session early.
func (r *run) mayEndEarly() bool {
	return r.faultAt >= 0 && !r.fault.harmless || r.failingCall != nil || r.plain != nil || r.hook != nil ||
		r.storeFull > 0 || r.server.unstuffed
}

// onlyCancels reports whether the fault only ends the context of one call.
func (r *run) onlyCancels() bool {
	return r.program.contextPerCall && !r.server.unstuffed &&
		(r.hook != nil && !r.hook.close || r.faultAt >= 0 && r.fault.cancels)
}

// timeLimit returns how long the first session may take.
func (r *run) timeLimit() time.Duration {
	const grace = 3 * time.Second // time to wait for a second reply to QUIT, and for unread data
	switch {
	case !r.mayEndEarly():
		return pause + grace
	case r.faultAt >= 0 && r.fault.noticedAtOnce && !r.program.slow && !r.w.faultTime.IsZero():
		return 50 * time.Millisecond
	}
	return pop3.DefaultTimeout + grace
}

// checkSecond checks invariant I5: the second session stores and deletes all messages.
func (r *run) checkSecond(before []mail) {
	edited := r.repliesEdited() || r.commandsEdited()
	// the sender of a mail may have forged replies, so the record may be wrong
	forged := r.server.unstuffed && r.program.record
	maxCopies := 2
	if r.program.record && !r.firstSession.recordRemoved {
		maxCopies = 1
	}
	for _, m := range before {
		n := r.store.copies(m.data)
		switch {
		case r.drop.has(m):
			r.addViolation("I5", "%s is still there", m.uid)
		case r.commandConfused() || forged:
		case !r.isStored(m):
			r.addViolation("I1", "%s is not stored, after the second session", m.uid)
		case n > maxCopies && !edited:
			r.addViolation("I5", "%s is stored %d times", m.uid, n)
		}
	}
}
