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
		r.at >= 0 && r.fault.corrupts && !r.up && r.security == inClear
}

// told returns the octets that the client receives if the replies are edited, and the place of the edit.
func (r *run) told() (told []byte, at int) {
	if r.plain != nil {
		return r.session.delivered, r.plain.at
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.w.down.delivered, r.at
}

// commandsEdited reports whether octets of the client were changed.
func (r *run) commandsEdited() bool {
	return r.at >= 0 && r.fault.corrupts && r.up && r.security == inClear
}

// confused reports whether the fault may have made one valid command into another, which nobody can notice.
func (r *run) confused() bool { return r.commandsEdited() && r.fault.confuses }

// onDele checks invariant I2: a message is stored when the server is told to mark it. If replies may be forged, the
// program can be wrong about that; then it must notice its mistake before QUIT.
func (r *run) onDele(m mail) {
	if !r.repliesEdited() && !r.commandsEdited() && !r.server.unstuffed && !r.saved(m) {
		r.broke("I2", "DELE of %s, which is not stored", m.uid)
	}
}

// got checks a message that the client returned as whole. It must be what the server sent.
func (r *run) got(s *session, num int, data string) {
	if s == r.session && (r.repliesEdited() || r.commandsEdited() || s.how.unstuffed) {
		return
	}
	if want := s.how.body(s.mails[num-1], num); data != want {
		r.broke("I1", "message %d was returned as whole: %q, not %q", num, data, want)
	}
}

// saved reports whether a message is in the store, octet for octet. If the reply that contained it was changed, the
// message as it arrived counts. If an extra reply could not be seen in time, it is taken for the status line of the
// next reply. The real status line is then the first line of the message, and nothing is lost.
func (r *run) saved(m mail) bool {
	switch {
	case r.store.copies(m.data) > 0:
		return true
	case r.commandsEdited():
		return r.store.copies(status(m)+m.data) > 0
	case r.repliesEdited():
		return r.store.copies(status(m)+m.data) > 0 || r.savedAsItArrived(m)
	}
	return false
}

func (r *run) savedAsItArrived(m mail) bool {
	told, at := r.told()
	return slices.ContainsFunc(r.session.bodies[m.uid], func(s span) bool {
		return s.start <= at && at < s.end && r.store.copies(arrived(told[min(s.start, len(told)):])) > 0
	})
}

// arrived decodes the message from the delivered octets, beginning at its reply. The client must return the same.
func arrived(delivered []byte) (data string) {
	_, rest, _ := strings.Cut(string(delivered), "\r\n")
	for {
		line, behind, ok := strings.Cut(rest, "\r\n")
		if !ok || line == "." {
			return data
		}
		if strings.HasPrefix(line, "..") {
			line = line[1:]
		}
		data += line + "\r\n"
		rest = behind
	}
}

// judge checks the result of the first session: invariants I1 and I3, and the time of I6.
func (r *run) judge(before []mail) {
	for i, m := range before {
		if !r.confused() {
			r.judgeMail(m, r.first.outcome(i+1))
		}
	}
	if limit := r.limit(); r.took > limit {
		r.broke("I6", "it took %v from the fault to the end, more than %v", r.took, limit)
	}
	if r.first.failed > 0 && r.cancels() && r.first.failed != r.w.cancelled && !r.server.update.fails() {
		r.broke("I0", "the context of call %d ended, and call %d failed: %v", r.w.cancelled, r.first.failed, r.err)
	}
	if !r.faulty() && (r.err != nil) != r.server.update.fails() {
		r.broke("I0", "without a fault that matters: %v", r.err)
	}
}

func (r *run) judgeMail(m mail, told outcome) {
	gone := !r.drop.has(m)
	quit := r.session.quits > 0 || bytes.Contains(r.w.log.octets, []byte("QUIT"))
	switch {
	case gone && !r.saved(m):
		r.broke("I1", "%s is neither on the server nor stored", m.uid)
	case gone && told == kept && !r.misled():
		r.broke("I3", "%s was reported kept and is gone", m.uid)
	case !gone && told == deleted && r.server.update != lies:
		r.broke("I3", "%s was reported deleted and is there", m.uid)
	case errors.Is(r.first.quitErr, pop3.ErrCommitUnknown) && !quit && r.security == inClear:
		r.broke("I3", "the commit was reported unknown, and no octet of QUIT was written")
	}
}

// misled reports whether a server that removes retrieved messages seems to promise the opposite, because a changed bit
// made EXPIRE 0 into EXPIRE 1.
func (r *run) misled() bool { return r.repliesEdited() && r.server.expires && r.first.spared }

// faulty reports whether a fault may end the session early.
func (r *run) faulty() bool {
	return r.at >= 0 && !r.fault.harmless || r.torture != nil || r.plain != nil || r.hook != nil ||
		r.storeFull > 0 || r.server.unstuffed
}

// cancels reports whether the fault only ends the context of one call.
func (r *run) cancels() bool {
	return r.program.perCall && !r.server.unstuffed && (r.hook != nil && !r.hook.close || r.at >= 0 && r.fault.cancels)
}

// limit returns how long the first session may take.
func (r *run) limit() time.Duration {
	const grace = 3 * time.Second // time to wait for a second reply to QUIT, and for unread data
	switch {
	case !r.faulty():
		return pause + grace
	case r.at >= 0 && r.fault.prompt && !r.program.slow && !r.w.struckAt.IsZero():
		return 50 * time.Millisecond
	}
	return pop3.DefaultTimeout + grace
}

// judgeSecond checks invariant I5: the second session finishes the job.
func (r *run) judgeSecond(before []mail) {
	edited := r.repliesEdited() || r.commandsEdited()
	// the sender of a mail may have forged replies, so the record may be wrong
	forged := r.server.unstuffed && r.program.record
	most := 2
	if r.program.record && !r.first.tookBack {
		most = 1
	}
	for _, m := range before {
		n := r.store.copies(m.data)
		switch {
		case r.drop.has(m):
			r.broke("I5", "%s is still there", m.uid)
		case r.confused() || forged:
		case !r.saved(m):
			r.broke("I1", "%s is not stored, after the second session", m.uid)
		case n > most && !edited:
			r.broke("I5", "%s is stored %d times", m.uid, n)
		}
	}
}
