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
	case !q.saved(m) && !(m.cut && m.oddSize):
		q.broke("I2", "DELE of message %d, which is not stored", m.serial)
	case time.Since(m.delivered) < q.fetcher.KeepFor:
		q.broke("I2", "message %d is deleted %v after it was stored", m.serial, time.Since(m.delivered))
	}
}

// saved reports whether a complete version of a message is stored.
func (q *sequence) saved(m *message) bool {
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
	q.visit.about[m] = append(q.visit.about[m], res.Outcome)
	if res.Outcome == fetch.Deleted {
		q.visit.confirmed = append(q.visit.confirmed, m)
	}
	if res.Outcome == fetch.Deleted && q.box.close != closeReadOnly && slices.Contains(q.box.messages, m) {
		q.broke("I3", "message %d was reported deleted and is there", m.serial)
	}
}

// messageOf returns the message of a result. It finds the message by its unique-id, or else by its number in the latest
// session.
func (q *sequence) messageOf(res fetch.Result) *message {
	var serial int
	if _, err := fmt.Sscanf(res.UID, "uid%d", &serial); err == nil {
		return q.messages[serial-1]
	}
	if res.Num < 1 || res.Num > len(q.box.view) {
		return nil
	}
	return q.box.view[res.Num-1]
}

// fair reports whether nothing prevents the next run from handling all messages.
func (q *sequence) fair() bool {
	return !q.within(q.place.full, q.place.fullUntil) && !q.within(q.place.noRecord, q.place.noRecTill) &&
		q.box.refusesLogin() == "" && q.run > q.box.unopened && !q.box.drips
}

// judge checks the result of a run.
func (q *sequence) judge(took time.Duration) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	if q.killed {
		return // the program was killed, so it reports nothing
	}
	fair, lawless := q.visit.fair && q.ended.IsZero(), q.recipe.lawless()
	for _, m := range q.visit.present {
		q.judgeLoss(m)
		if lawless {
			continue
		}
		if !q.heals && fair {
			q.judgeArrival(m)
			q.judgeDeparture(m)
		}
		q.judgeTold(m)
		q.judgeCost(m)
	}
	err := q.visit.report.Err
	// Select needed the message, so it was retrieved.
	withheld := q.fetcher.Select != nil && errors.Is(err, fetch.ErrQuitWithheld)
	if err != nil && !withheld && fair && (q.recipe.mild() || len(q.visit.present) == 0) {
		q.broke("I0", "no reason for the error %v", err)
	}
	for _, m := range q.visit.confirmed {
		m.confirmed = true
	}
	if !lawless {
		q.judgeCount()
	}
	q.judgeTime(took)
}

// lawless reports whether messages cannot be told apart and there is another fault as well. They cannot if unique-ids
// mean nothing. They cannot if there are no unique-ids and either sizes differ each time or the server confirms
// deletions that it has not done. Then only I0 to I5 and L4 are checked: no mail is lost, and each run ends.
func (r recipe) lawless() bool {
	if r.has("no UIDL") || r.has("all unique-ids equal") || r.has("unique-ids equal in pairs") {
		return r.has("size differs each time") || r.has("QUIT lies") && len(r.faults) > 3
	}
	meaningless := func(f chosen) bool { return f.name == uidsArePositions || f.name == uidsChange }
	wrong := func(f chosen) bool { return !f.mild && !meaningless(f) || f.name == windowed || f.group == "removed" }
	return slices.ContainsFunc(r.faults, meaningless) && slices.ContainsFunc(r.faults, wrong)
}

// judgeLoss checks invariant I1, and the rest of I3.
func (q *sequence) judgeLoss(m *message) {
	gone := slices.Contains(q.box.gone[q.visit.gone:], m)
	switch told := q.visit.about[m]; {
	case !gone || m.removed:
	case !q.saved(m) && !(m.cut && m.oddSize):
		q.broke("I1", "message %d is neither on the server nor stored", m.serial)
	case !q.box.expires && !slices.Contains(told, fetch.Deleted) && !slices.Contains(told, fetch.Unconfirmed) &&
		q.box.close != closeHalf && q.box.close != closeRefused:
		q.broke("I3", "message %d is gone, and that was not reported", m.serial)
	}
}

// judgeArrival checks rule L1: within 2 runs, or 2 times the number of sessions that limits of the server or the caller
// require.
func (q *sequence) judgeArrival(m *message) {
	if !m.retrievable() || !m.wanted() || m.oddUID || m.unnamed || m.oddSize || q.run <= m.unwanted ||
		q.nameless() || q.hidden(m) || q.mistakable(m) || (q.fetcher.Delete || !q.named()) && q.quotaStarves() {
		return
	}
	if m.patience == 0 {
		m.patience = q.patience()
	}
	// The sessions of one run together show all messages.
	showsAll := q.box.window > 0 && q.recipe.mild() && q.fetcher.Select == nil
	if m.visible < q.run && !showsAll {
		return
	}
	if m.fairRuns++; !q.saved(m) && m.fairRuns == m.patience {
		q.broke("L1", "message %d is not stored after %d runs", m.serial, m.fairRuns)
	}
}

// mistakable reports whether the message can be mistaken for an old one, unless it is retrieved. The old one was
// stored, and then another program or the server itself deleted or hid it. Or the old one is never to be stored.
func (q *sequence) mistakable(m *message) bool {
	if q.named() || q.box.uids == uidRenewed {
		return false
	}
	return slices.ContainsFunc(q.all, func(o *message) bool {
		gone := o.removed || o.expired || q.habits.window > 0 && o.shown || q.box.uids == uidPosition && !o.wanted()
		alike := len(o.text) == len(m.text) || m.oddSize || q.box.uids == uidPosition && o.impossible
		return gone && alike && o != m
	})
}

// named reports whether a unique-id tells each message from all others.
func (q *sequence) named() bool { return q.habits.uids == uidUnique || q.habits.uids == uidMigrated }

// nameless reports whether some problem messages cannot be recognized in the next session. Such a message ends the
// session, or it is cut, so that QUIT is withheld.
func (q *sequence) nameless() bool {
	return q.box.uids == uidRenewed && slices.ContainsFunc(q.visit.present, func(m *message) bool {
		return m.fatal() || m.cut
	})
}

// hidden reports whether no session of the run could show the message.
func (q *sequence) hidden(m *message) bool { return q.box.window > 0 && m.shown }

// single reports whether a run can have only one session.
func (q *sequence) single() bool { return q.box.delay > 0 || q.box.locks > 0 || q.box.loginDelay != "" }

// quotaStarves reports whether the only session of each run can end before QUIT, because the server hangs up.
func (q *sequence) quotaStarves() bool {
	h := q.habits
	return h.quota > 0 && (h.delay > 0 || h.locks > 0 || h.loginDelay != "")
}

// patience returns the number of runs within which a message must be stored.
func (q *sequence) patience() int {
	forced := 1
	limits := []int{q.fetcher.MaxMessages, int(q.fetcher.MaxOctets / 200)}
	if q.single() || !q.named() || q.box.quota > 0 {
		limits = append(limits, q.box.window, q.box.quota, q.fetcher.CommitEvery)
	}
	// Each of these messages can end the session, and so can the deletions.
	if q.single() || !q.named() {
		for _, m := range q.visit.present {
			if !m.retrievable() || !m.wanted() || m.complains || q.run <= m.unwanted ||
				q.place.delay > q.box.idle && q.box.idle > 0 {
				forced++
			}
		}
		if q.fetcher.Delete {
			forced++
		}
	}
	for _, limit := range limits {
		if q.fetcher.NewestFirst {
			limit = max(limit-1, min(limit, 1)) // room for new messages
		}
		if limit > 0 {
			forced += (len(q.visit.present) - 1) / limit
		}
	}
	return 2 * forced
}

// deletable reports whether a stored message is to be deleted, and the server would delete it.
func (q *sequence) deletable(m *message) bool {
	return q.due(m) && q.box.close.deletes() && !m.undeletable && !m.cut && q.box.window == 0 &&
		!m.oddSize && !m.oddUID && !m.unnamed && m.retrievable() && !q.nameless() && !q.blocked(m) &&
		!q.quotaStarves() && (q.box.size == nil || q.hasSizeRule())
}

// blocked reports whether no session can end with QUIT after the message was retrieved. That is so if a run has only
// one session and there is another message of the same size that is not stored: QUIT might remove that one.
func (q *sequence) blocked(m *message) bool {
	if !q.single() || q.named() || strings.Contains(q.box.expire, "NEVER") {
		return false
	}
	return slices.ContainsFunc(q.visit.present, func(o *message) bool {
		lost := !o.retrievable() || !o.wanted() || q.run <= o.unwanted
		return lost && o != m && len(o.text) == len(m.text)
	})
}

// hasSizeRule reports whether the program can learn how the server counts sizes. It cannot if all sizes are equal, or
// if a message is cut or has another size each time.
func (q *sequence) hasSizeRule() bool {
	return !q.equal && !slices.ContainsFunc(q.visit.present, func(m *message) bool { return m.cut || m.resized })
}

// due reports whether the settings of the caller require the message to be deleted.
func (q *sequence) due(m *message) bool {
	if !q.clockOff.IsZero() && q.recipe.lacksRecord() {
		return false // the correction of the clock could not be saved
	}
	since := m.latest
	if q.clockOff.After(since) {
		since = q.clockOff // after a run corrects impossible dates, KeepFor begins with that run
	}
	return q.fetcher.Delete && !m.delivered.IsZero() && q.visit.began.Sub(since) >= q.fetcher.KeepFor
}

// judgeDeparture checks rule L2: within 3 runs.
func (q *sequence) judgeDeparture(m *message) {
	if !q.deletable(m) || !slices.Contains(q.box.messages, m) {
		return
	}
	patience := max(3, m.patience+1)
	if q.box.size != nil {
		patience += 3 // the program needs some messages to learn how the server counts sizes
	}
	if m.dueRuns++; m.dueRuns == patience {
		q.broke("L2", "message %d is stored and not deleted after %d runs", m.serial, m.dueRuns)
	}
}

// judgeTold checks rule L5: the report contains what was not done.
func (q *sequence) judgeTold(m *message) {
	report := &q.visit.report
	if !slices.Contains(q.box.messages, m) || !slices.Contains(q.visit.listed, m) {
		return
	}
	named := slices.ContainsFunc(q.visit.about[m], func(o fetch.Outcome) bool {
		return o == fetch.Skipped || o == fetch.Failed || o == fetch.Kept || o == fetch.Unconfirmed
	})
	switch {
	// In the last case the report cannot say which message is meant.
	case report.Aborted != nil || named || m.skipped || q.box.window > 0 && !q.named():
	case !q.saved(m) && m.stored == 0 && !q.mistakable(m):
		q.broke("L5", "message %d is not stored, and the report does not name it", m.serial)
	case report.Err == nil && q.due(m) && (q.box.close != closeReadOnly || m.confirmed):
		q.broke("L5", "message %d was to be deleted, is there, and the error is nil", m.serial)
	}
}

// judgeCost checks rule L6 for messages with a unique-id of their own: a message is sent once, some more times if it
// fails, and then once a day.
func (q *sequence) judgeCost(m *message) {
	if !q.named() || q.quotaStarves() {
		return
	}
	attempts, days := 6, int(time.Since(m.arrived)/(24*time.Hour))+1
	if q.habits.uids == uidMigrated {
		attempts++
	}
	if q.habits.quota > 0 || m.resizes || m.resized {
		attempts += 2 * days // the server may end sessions
	}
	if m.impossible {
		attempts, days = 2, 0
	}
	if m.retrieved == 2+attempts+days+q.kills+q.signals+q.fullRuns {
		q.broke("L6", "message %d was sent %d times in %d days", m.serial, m.retrieved, days)
	}
}

// judgeCount checks rule L3: the number of copies is limited.
func (q *sequence) judgeCount() {
	copies, most := 0, q.kills+q.signals
	if q.recipe.lacksRecord() {
		most++
	}
	for _, m := range q.all {
		copies += max(m.stored-1, 0)
		if len(m.sent) > 1 || m.halved {
			most++ // its content differs each time
		}
		if (q.habits.window > 0 || q.habits.uids == uidRenewed || q.habits.uids == uidMigrated) && m.confirmed {
			most++ // the server says that it has deleted the message, and later lists it as a new one
		}
	}
	if copies > most && copies > q.copies {
		q.broke("L3", "%d copies of %d messages", copies, len(q.all))
	}
	q.copies = copies
}

// lacksRecord reports whether there are runs in which the record cannot be written.
func (r recipe) lacksRecord() bool {
	s := r.build()
	return s.place.noRecord > 0
}

// judgeTime checks rule L4 and a part of I6: a part of a run that hangs takes no longer than its time limit.
func (q *sequence) judgeTime(took time.Duration) {
	const session = 3 * time.Minute // a time limit, plus some seconds for the client's own waits
	limit := time.Duration(q.visit.report.Sessions+1)*session + q.box.paused + q.sinkTime
	if q.box.drips {
		limit = 25 * time.Minute
	}
	if took > limit {
		q.broke("L4", "the run took %v, more than %v", took, limit)
	}
	if !q.ended.IsZero() && time.Since(q.ended) > time.Second {
		q.broke("L4", "the run went on for %v after the signal", time.Since(q.ended))
	}
	if again := q.visit.report.TryAgain; time.Until(again) > 25*time.Hour {
		q.broke("L5", "the next run is to be at %v", again)
	} else if q.run <= q.box.unopened && again.IsZero() {
		q.broke("L5", "the maildrop could not be opened, and nothing says that it may be later")
	}
	for _, w := range q.wires {
		if w.mu.Lock(); !w.closed {
			q.broke("I6", "a connection was not closed")
		}
		w.mu.Unlock()
	}
	q.wires = q.wires[:0]
}

// judgeEnd checks invariant I5: when all faults are gone, runs a day apart finish the job, and new messages are fetched
// as usual.
func (q *sequence) judgeEnd() {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	refused := slices.ContainsFunc(q.box.messages, func(m *message) bool { return m.impossible || q.mistakable(m) })
	if err := q.visit.report.Err; err != nil && !refused {
		q.broke("I5", "all is well, and the error is %v", err)
	}
	for _, m := range q.all {
		if !q.saved(m) && m.wanted() && !m.removed && !q.mistakable(m) {
			q.broke("I5", "message %d is not stored", m.serial)
		}
	}
	for _, m := range q.box.messages {
		if q.fetcher.Delete && m.wanted() && !q.mistakable(m) {
			q.broke("I5", "message %d is still there", m.serial)
		}
	}
}
