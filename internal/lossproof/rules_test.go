package lossproof

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// These functions check the rules after each run of a sequence and at its end.

// onDele checks invariant I2: a message that is to be deleted is stored. It also checks that no message is deleted too
// early.
func (q *sequence) onDele(m *message) {
	switch {
	case !q.isStored(m) && !(m.cut && m.badListLine):
		q.addViolation("I2", "DELE of message %d, which is not stored", m.serial)
	case time.Since(m.delivered) < q.fetcher.KeepFor:
		q.addViolation("I2", "message %d is deleted %v after it was stored", m.serial, time.Since(m.delivered))
	}
}

// isStored reports whether a complete version of a message is stored.
func (q *sequence) isStored(m *message) bool {
	return slices.ContainsFunc(q.deliveries, func(text string) bool { return m.sent[text] })
}

// onResult checks a part of invariant I3: a message that was reported deleted is gone.
func (q *sequence) onResult(res fetch.Result) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	m := q.messageOf(res)
	if m == nil {
		return
	}
	q.current.outcomes[m] = append(q.current.outcomes[m], res.Outcome)
	if res.Outcome == fetch.Deleted {
		q.current.confirmed = append(q.current.confirmed, m)
	}
	if res.Outcome == fetch.Deleted && q.box.quit != quitFalseOK && slices.Contains(q.box.messages, m) {
		q.addViolation("I3", "message %d was reported deleted and is there", m.serial)
	}
}

// messageOf returns the message of a result. It finds the message by its unique-id, or else by its number in the latest
// session.
func (q *sequence) messageOf(res fetch.Result) *message {
	var serial int
	if _, err := fmt.Sscanf(res.UID, "uid%d", &serial); err == nil {
		return q.messages[serial-1]
	}
	if res.Num < 1 || res.Num > len(q.box.listed) {
		return nil
	}
	return q.box.listed[res.Num-1]
}

// isFair reports whether nothing prevents the next run from handling all messages.
func (q *sequence) isFair() bool {
	return !q.isDuring(q.storage.sinkFull, q.storage.sinkFullUntil) &&
		!q.isDuring(q.storage.noRecord, q.storage.noRecordUntil) &&
		q.box.loginRefusal() == "" && q.run > q.box.unopened && !q.box.endlessCapa
}

// checkRun checks the result of a run.
func (q *sequence) checkRun(took time.Duration) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	if q.killed {
		return // the program was killed, so it reports nothing
	}
	fair, ambiguous := q.current.fair && q.signalTime.IsZero(), q.recipe.isAmbiguous()
	for _, m := range q.current.present {
		q.checkLoss(m)
		if ambiguous {
			continue
		}
		if !q.healed && fair {
			q.checkArrival(m)
			q.checkDeparture(m)
		}
		q.checkReported(m)
		q.checkCost(m)
	}
	err := q.current.report.Err
	// Because of Select, a message may be retrieved and not stored.
	withheld := q.fetcher.Select != nil && errors.Is(err, fetch.ErrQuitWithheld)
	if err != nil && !withheld && fair && (q.recipe.isMild() || len(q.current.present) == 0) {
		q.addViolation("I0", "no reason for the error %v", err)
	}
	for _, m := range q.current.confirmed {
		m.confirmed = true
	}
	if !ambiguous {
		q.checkCopies()
	}
	q.checkTime(took)
}

// isAmbiguous reports whether messages cannot be told apart and there is another fault as well. Messages cannot be told
// apart if unique-ids mean nothing. The same is true if there are no unique-ids, and either sizes differ each time or
// the server confirms deletions that it has not made. Then only I0 to I5 and L4 are checked: no mail is lost, and each
// run ends.
func (r recipe) isAmbiguous() bool {
	if r.has("no UIDL") || r.has("all unique-ids equal") || r.has("unique-ids equal in pairs") {
		return r.has("size differs each time") || r.has("QUIT falsely confirms") && len(r.faults) > 3
	}
	meaningless := func(f chosenFault) bool { return f.name == uidsArePositions || f.name == uidsChange }
	wrong := func(f chosenFault) bool {
		return !f.mild && !meaningless(f) || f.name == windowed || f.group == "removed"
	}
	return slices.ContainsFunc(r.faults, meaningless) && slices.ContainsFunc(r.faults, wrong)
}

// checkLoss checks invariant I1, and the rest of I3.
func (q *sequence) checkLoss(m *message) {
	removed := slices.Contains(q.box.removed[q.current.removedBefore:], m)
	switch reported := q.current.outcomes[m]; {
	case !removed || m.removed:
	case !q.isStored(m) && !(m.cut && m.badListLine):
		q.addViolation("I1", "message %d is neither on the server nor stored", m.serial)
	case !q.box.expires && !slices.Contains(reported, fetch.Deleted) && !slices.Contains(reported, fetch.Unconfirmed) &&
		q.box.quit != quitHalf && q.box.quit != quitRefused:
		q.addViolation("I3", "message %d is gone, and that was not reported", m.serial)
	}
}

// checkArrival checks rule L1: a message is stored within 2 runs, or within twice the number of sessions that limits of
// the server or the caller require.
func (q *sequence) checkArrival(m *message) {
	if !m.isRetrievable() || !m.isWanted() || m.badUidlLine || m.noUID || m.badListLine || q.run <= m.refusedUntil ||
		q.hasUnrecognizableProblem() || q.isHidden(m) || q.canBeMistaken(m) ||
		(q.fetcher.Delete || !q.hasUniqueIDs()) && q.quotaPreventsQuit() {
		return
	}
	if m.maxRuns == 0 {
		m.maxRuns = q.maxRunsToStore()
	}
	// The sessions of one run together show all messages.
	showsAll := q.box.window > 0 && q.recipe.isMild() && q.fetcher.Select == nil
	if m.lastListed < q.run && !showsAll {
		return
	}
	if m.fairRuns++; !q.isStored(m) && m.fairRuns == m.maxRuns {
		q.addViolation("L1", "message %d is not stored after %d runs", m.serial, m.fairRuns)
	}
}

// canBeMistaken reports whether the message can be mistaken for an old one, unless it is retrieved. The old one was
// stored, and then another program or the server itself deleted or hid it. Or the old one is never to be stored.
func (q *sequence) canBeMistaken(m *message) bool {
	if q.hasUniqueIDs() || q.box.uids == uidRenewed {
		return false
	}
	return slices.ContainsFunc(q.all, func(old *message) bool {
		gone := old.removed || old.expired || q.habits.window > 0 && old.retrievedBefore ||
			q.box.uids == uidPosition && !old.isWanted()
		alike := len(old.text) == len(m.text) || m.badListLine || q.box.uids == uidPosition && old.neverStored
		return gone && alike && old != m
	})
}

// hasUniqueIDs reports whether each message has a unique-id of its own.
func (q *sequence) hasUniqueIDs() bool {
	return q.habits.uids == uidUnique || q.habits.uids == uidMigrated
}

// hasUnrecognizableProblem reports whether some problem messages cannot be recognized in the next session. Such a
// message ends the session, or it is cut, so that QUIT is withheld.
func (q *sequence) hasUnrecognizableProblem() bool {
	return q.box.uids == uidRenewed && slices.ContainsFunc(q.current.present, func(m *message) bool {
		return m.endsSession() || m.cut
	})
}

// isHidden reports whether no session of the run could show the message.
func (q *sequence) isHidden(m *message) bool { return q.box.window > 0 && m.retrievedBefore }

// hasOneSession reports whether a run can have only one session.
func (q *sequence) hasOneSession() bool {
	return q.box.loginDelay > 0 || q.box.lockTime > 0 || q.box.delayArg != ""
}

// quotaPreventsQuit reports whether the only session of each run can end before QUIT, because the server hangs up.
func (q *sequence) quotaPreventsQuit() bool {
	h := q.habits
	return h.quota > 0 && (h.loginDelay > 0 || h.lockTime > 0 || h.delayArg != "")
}

// maxRunsToStore returns the number of runs within which a message must be stored.
func (q *sequence) maxRunsToStore() int {
	sessions := 1
	limits := []int{q.fetcher.MaxMessages, int(q.fetcher.MaxOctets / 200)}
	if q.hasOneSession() || !q.hasUniqueIDs() || q.box.quota > 0 {
		limits = append(limits, q.box.window, q.box.quota, q.fetcher.CommitEvery)
	}
	// Each of these messages can end the session, and so can the deletions.
	if q.hasOneSession() || !q.hasUniqueIDs() {
		for _, m := range q.current.present {
			if !m.isRetrievable() || !m.isWanted() || m.extraRefusal || q.run <= m.refusedUntil ||
				q.storage.sinkDelay > q.box.idle && q.box.idle > 0 {
				sessions++
			}
		}
		if q.fetcher.Delete {
			sessions++
		}
	}
	for _, limit := range limits {
		if q.fetcher.NewestFirst {
			limit = max(limit-1, min(limit, 1)) // leave room for new messages
		}
		if limit > 0 {
			sessions += (len(q.current.present) - 1) / limit
		}
	}
	return 2 * sessions
}

// isDeletable reports whether a stored message is to be deleted, and the server would delete it.
func (q *sequence) isDeletable(m *message) bool {
	return q.isDue(m) && q.box.quit.removesAll() && !m.undeletable && !m.cut && q.box.window == 0 &&
		!m.badListLine && !m.badUidlLine && !m.noUID && m.isRetrievable() &&
		!q.hasUnrecognizableProblem() && !q.isQuitBlocked(m) &&
		!q.quotaPreventsQuit() && (q.box.listedSize == nil || q.hasSizeRule())
}

// isQuitBlocked reports whether no session can end with QUIT after the message was retrieved. That is so if a run has
// only one session and there is another message of the same size that is not stored: QUIT might remove that one.
func (q *sequence) isQuitBlocked(m *message) bool {
	if !q.hasOneSession() || q.hasUniqueIDs() || strings.Contains(q.box.expire, "NEVER") {
		return false
	}
	return slices.ContainsFunc(q.current.present, func(other *message) bool {
		unstored := !other.isRetrievable() || !other.isWanted() || q.run <= other.refusedUntil
		return unstored && other != m && len(other.text) == len(m.text)
	})
}

// hasSizeRule reports whether the program can learn how the server counts sizes. The program cannot learn it if all
// sizes are equal, or if a message is cut or has another size each time.
func (q *sequence) hasSizeRule() bool {
	return !q.equalSizes &&
		!slices.ContainsFunc(q.current.present, func(m *message) bool { return m.cut || m.sizeVaries })
}

// isDue reports whether the settings of the caller require the message to be deleted.
func (q *sequence) isDue(m *message) bool {
	if !q.clockOff.IsZero() && q.recipe.lacksRecord() {
		return false // the correction of the clock could not be saved
	}
	since := m.lastDelivered
	if q.clockOff.After(since) {
		since = q.clockOff // after a run corrects impossible dates, KeepFor begins with that run
	}
	return q.fetcher.Delete && !m.delivered.IsZero() && q.current.began.Sub(since) >= q.fetcher.KeepFor
}

// checkDeparture checks rule L2: a stored message that is due is deleted within 3 runs.
func (q *sequence) checkDeparture(m *message) {
	if !q.isDeletable(m) || !slices.Contains(q.box.messages, m) {
		return
	}
	maxRuns := max(3, m.maxRuns+1)
	if q.box.listedSize != nil {
		maxRuns += 3 // the program needs some messages to learn how the server counts sizes
	}
	if m.dueRuns++; m.dueRuns == maxRuns {
		q.addViolation("L2", "message %d is stored and not deleted after %d runs", m.serial, m.dueRuns)
	}
}

// checkReported checks rule L5: the report contains what was not done.
func (q *sequence) checkReported(m *message) {
	report := &q.current.report
	if !slices.Contains(q.box.messages, m) || !slices.Contains(q.current.listed, m) {
		return
	}
	reported := slices.ContainsFunc(q.current.outcomes[m], func(o fetch.Outcome) bool {
		return o == fetch.Skipped || o == fetch.Failed || o == fetch.Kept || o == fetch.Unconfirmed
	})
	switch {
	// If a session lists a part of the messages, without unique-ids, the report cannot say which message is meant.
	case report.Aborted != nil || reported || m.skippedBySelect || q.box.window > 0 && !q.hasUniqueIDs():
	case !q.isStored(m) && m.stored == 0 && !q.canBeMistaken(m):
		q.addViolation("L5", "message %d is not stored, and the report does not name it", m.serial)
	case report.Err == nil && q.isDue(m) && (q.box.quit != quitFalseOK || m.confirmed):
		q.addViolation("L5", "message %d was to be deleted, is there, and the error is nil", m.serial)
	}
}

// checkCost checks rule L6 for messages with a unique-id of their own: a message is sent once, some more times if it
// fails, and then once a day.
func (q *sequence) checkCost(m *message) {
	if !q.hasUniqueIDs() || q.quotaPreventsQuit() {
		return
	}
	attempts, days := 6, int(time.Since(m.arrived)/(24*time.Hour))+1
	if q.habits.uids == uidMigrated {
		attempts++
	}
	if q.habits.quota > 0 || m.sizeVaried || m.sizeVaries {
		attempts += 2 * days // the server may end sessions
	}
	if m.neverStored {
		attempts, days = 2, 0
	}
	if m.retrieved == 2+attempts+days+q.kills+q.signals+q.fullRuns {
		q.addViolation("L6", "message %d was sent %d times in %d days", m.serial, m.retrieved, days)
	}
}

// checkCopies checks rule L3: the number of copies is limited.
func (q *sequence) checkCopies() {
	copies, maxCopies := 0, q.kills+q.signals
	if q.recipe.lacksRecord() {
		maxCopies++
	}
	for _, m := range q.all {
		copies += max(m.stored-1, 0)
		if len(m.sent) > 1 || m.deliveredCut {
			maxCopies++ // its content differs each time
		}
		if (q.habits.window > 0 || q.habits.uids == uidRenewed || q.habits.uids == uidMigrated) && m.confirmed {
			maxCopies++ // the server says that it has deleted the message, and later lists it as a new one
		}
	}
	if copies > maxCopies && copies > q.copies {
		q.addViolation("L3", "%d copies of %d messages", copies, len(q.all))
	}
	q.copies = copies
}

// lacksRecord reports whether there are runs in which the record cannot be written.
func (r recipe) lacksRecord() bool {
	s := r.build()
	return s.storage.noRecord > 0
}

// checkTime checks rule L4 and a part of I6: a run takes no longer than the time limits of its sessions allow.
func (q *sequence) checkTime(took time.Duration) {
	const session = 3 * time.Minute // a time limit, plus some seconds for the client's own waits
	limit := time.Duration(q.current.report.Sessions+1)*session + q.box.paused + q.sinkTime
	if q.box.endlessCapa {
		limit = 25 * time.Minute
	}
	if took > limit {
		q.addViolation("L4", "the run took %v, more than %v", took, limit)
	}
	if !q.signalTime.IsZero() && time.Since(q.signalTime) > time.Second {
		q.addViolation("L4", "the run went on for %v after the signal", time.Since(q.signalTime))
	}
	if again := q.current.report.TryAgain; time.Until(again) > 25*time.Hour {
		q.addViolation("L5", "the next run is to be at %v", again)
	} else if q.run <= q.box.unopened && again.IsZero() {
		q.addViolation("L5", "the maildrop could not be opened, and TryAgain is not set")
	}
	for _, w := range q.wires {
		if w.mu.Lock(); !w.closed {
			q.addViolation("I6", "a connection was not closed")
		}
		w.mu.Unlock()
	}
	q.wires = q.wires[:0]
}

// checkEnd checks invariant I5: when all faults are gone, runs a day apart finish the job, and new messages are fetched
// as usual.
func (q *sequence) checkEnd() {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	refused := slices.ContainsFunc(q.box.messages, func(m *message) bool { return m.neverStored || q.canBeMistaken(m) })
	if err := q.current.report.Err; err != nil && !refused {
		q.addViolation("I5", "there is no fault any more, and the error is %v", err)
	}
	for _, m := range q.all {
		if !q.isStored(m) && m.isWanted() && !m.removed && !q.canBeMistaken(m) {
			q.addViolation("I5", "message %d is not stored", m.serial)
		}
	}
	for _, m := range q.box.messages {
		if q.fetcher.Delete && m.isWanted() && !q.canBeMistaken(m) {
			q.addViolation("I5", "message %d is still there", m.serial)
		}
	}
}
