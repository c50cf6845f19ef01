package lossproof

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// edited gives what the client was told, if it is not what the model said, and where the first difference is.
// Within TLS nobody can change anything but the server itself.
func (r *run) edited() (at int, told []byte, ok bool) {
	switch {
	case r.plain != nil && r.plain.insert != "":
		return r.plain.at, r.session.delivered, true
	case r.at >= 0 && r.fault.corrupts && !r.up && r.security == inClear:
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		return r.at, r.w.down.delivered, true
	}
	return 0, nil, false
}

// commandsEdited reports whether octets of the client were changed.
func (r *run) commandsEdited() bool {
	return r.at >= 0 && r.fault.corrupts && r.up && r.security == inClear
}

// confused reports whether the fault may have made one valid command into another, which nobody can notice.
func (r *run) confused() bool { return r.commandsEdited() && r.fault.confuses }

// onDele is invariant I2: what the server is told to mark is stored. Where replies may be forged the program can be
// wrong about that; then it has to be noticed before QUIT.
func (r *run) onDele(m mail) {
	_, _, edited := r.edited()
	if !edited && !r.commandsEdited() && !r.server.unstuffed && !r.saved(m) {
		r.broke("I2", "DELE of %s, which is not stored", m.uid)
	}
}

// saved reports whether a message is in the store, octet for octet. If octets of the very reply that brought it
// were changed, then as it arrived. A reply too many that could not be seen in time is taken for the status line of
// the next reply, whose own status line is then the first line of the message; nothing is lost by that.
func (r *run) saved(m mail) bool {
	if r.store.copies(m.data) > 0 {
		return true
	}
	at, told, edited := r.edited()
	if edited || r.commandsEdited() {
		return r.store.copies(status(m)+m.data) > 0 || edited && slices.ContainsFunc(r.session.bodies[m.uid], func(s span) bool {
			return s.start <= at && at < s.end && r.store.copies(arrived(told[min(s.start, len(told)):])) > 0
		})
	}
	return false
}

// arrived is the reference: the message in what was delivered from the beginning of its reply on.
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

// judge looks at the world after the first session: invariants I1 and I3, and the time of I6.
func (r *run) judge(before []mail) {
	for i, m := range before {
		if !r.confused() {
			r.judgeMail(m, r.first.outcome(i+1))
		}
	}
	if limit := r.limit(); r.took > limit {
		r.broke("I6", "it took %v from the fault to the end, more than %v", r.took, limit)
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
	case gone && told == kept:
		r.broke("I3", "%s was reported kept and is gone", m.uid)
	case !gone && told == deleted && r.server.update != lies:
		r.broke("I3", "%s was reported deleted and is there", m.uid)
	case errors.Is(r.first.quitErr, pop3.ErrCommitUnknown) && !quit && r.security == inClear:
		r.broke("I3", "the commit was reported unknown, and no octet of QUIT was written")
	}
}

// faulty reports whether anything was done that may end the session early.
func (r *run) faulty() bool {
	return r.at >= 0 && !r.fault.harmless || r.torture != nil || r.plain != nil || r.hook != nil ||
		r.storeFull > 0 || r.server.unstuffed
}

// limit is how long the first session may take.
func (r *run) limit() time.Duration {
	const grace = 3 * time.Second // for the second status line behind QUIT, and for what is left unread
	switch {
	case !r.faulty():
		return pause + grace
	case r.at >= 0 && r.fault.prompt && !r.program.slow && !r.w.struckAt.IsZero():
		return 50 * time.Millisecond
	}
	return pop3.DefaultTimeout + grace
}

// judgeSecond looks at the world after the second session, which finishes the job: invariant I5.
func (r *run) judgeSecond(before []mail) {
	_, _, edited := r.edited()
	edited = edited || r.commandsEdited()
	forged := r.server.unstuffed && r.program.record // what was recorded may be what a sender made of it
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
