package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A run is one call of [Fetcher.Results]. It has as many sessions as necessary.
type run struct {
	*Fetcher
	yield         func(Result, error) bool
	callerStopped bool // the caller has left the loop
	report        *Report
	record        *record
	hasUIDs       bool          // the server has unique-ids
	loginDelay    time.Duration // LOGIN-DELAY, 0 if the server does not announce it
	lastPlan      *plan         // plan of the last session

	listed      map[key][]*message    // messages by key, from the last session that listed messages with this key
	marked      map[*Entry]bool       // messages that were marked when QUIT was sent in this run
	undeleted   map[*Entry]bool       // messages that are still listed after a QUIT that should have deleted them
	counted     map[*Entry]bool       // entries whose messages the report has counted
	keptReasons map[*Entry]keptReason // why messages stay on the server
	failures    map[*Entry]int        // how often messages failed in this run

	firstFailures int // number of messages that failed for the first time in this run

	fetched, compared budget // new messages that were retrieved, and stored messages that were retrieved to be compared
	finishedMessages  int    // number of messages that were retrieved, for Progress
	allMessages       int    // number of messages to be retrieved in the run, as far as is known
	allOctets         int64

	recordChecked bool
	unsynced      bool  // delivered messages may be lost in a power cut
	noTop         bool  // TOP has ended a connection, so TOP is not sent again
	oneByOne      bool  // messages are no longer requested ahead
	lostInRow     int   // number of sessions that were lost since a message was stored or QUIT succeeded
	lostAfter     int   // number of RETR commands that were answered in the last lost session
	sessionLimit  int   // number of messages after which the server hangs up, 0 if there is no limit
	commitAfter   int   // number of messages before QUIT, because longer sessions were lost; 0 means no limit
	lostErr       error // why the last session was lost
	listErr       error // error about malformed lines in the last list
	quitErr       error // why the last QUIT with deletions was not confirmed
	quitWithheld  bool  // a session with messages to delete ended without QUIT
	quitSent      bool  // QUIT was sent in the last session
	owedHasFailed bool  // a message with Owed set was tried first and failed

	errorCount int   // number of results with an error
	firstError error // the first error of a result
}

// These are the limits on sessions in a run: their number, and the number of sessions in a row that make no progress.
const (
	maxSessions = 100
	maxIdle     = 3
)

// progress counts the messages that were handled. A message that fails under a new unique-id in each session counts
// once.
func (r *run) progress() int {
	return r.report.Delivered + r.report.Known + r.firstFailures + len(r.marked)
}

// do carries out the run.
func (r *run) do(ctx context.Context) (err error) {
	defer func() {
		r.report.Aborted = err
		err = errors.Join(err, r.joinErrors(err))
	}()
	if err := r.check(); err != nil {
		return err
	}
	if sink, ok := r.Sink.(CheckedSink); ok && !r.DryRun {
		if err := sink.Check(ctx); err != nil {
			return err
		}
	}
	r.record, err = openRecord(ctx, r.Seen, r.Account)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.record.history.Close()) }()
	r.listed = make(map[key][]*message)
	r.marked, r.undeleted = make(map[*Entry]bool), make(map[*Entry]bool)
	r.counted, r.keptReasons = make(map[*Entry]bool), make(map[*Entry]keptReason)
	r.failures = make(map[*Entry]int)
	err = r.sessions(ctx)
	return errors.Join(err, r.reportRest(ctx))
}

// sessions carries out sessions as long as something is left to do. It also does so if the last session has found new
// messages, because some servers list only a part of a maildrop at a time.
func (r *run) sessions(ctx context.Context) error {
	unfinished := true // something is left to do
	idle := 0
	for range maxSessions {
		s, before := &session{run: r}, r.progress()
		err := s.execute(ctx)
		if idle++; r.progress() > before {
			idle = 0
		}
		r.delayNextRun(waitAfter(err, r.loginDelay))
		if err != nil && s.plan == nil && !unfinished && ctx.Err() == nil {
			return nil // earlier sessions have handled all known messages, so a failed login does not matter
		}
		if err != nil || r.DryRun || r.callerStopped || r.loginDelay > 0 {
			return err
		}
		unfinished = s.unfinished
		if !unfinished && !s.mayFindMore || idle == maxIdle {
			return nil
		}
	}
	return nil
}

// reportRest reports what the run has not done, and why.
func (r *run) reportRest(ctx context.Context) error {
	for _, reason := range r.keptReasons {
		r.report.Kept.add(reason)
	}
	for e := range r.undeleted {
		if r.keptReasons[e] == 0 {
			r.report.Kept.NotDeleted++
		}
	}
	changed := r.record.corrected
	for e := range r.failures {
		if noneStored := r.report.Delivered == 0; e.NoneStored != noneStored {
			e.NoneStored = noneStored
			changed = append(changed, e)
		}
	}
	if r.lastPlan != nil && !r.callerStopped {
		for _, m := range r.remaining() {
			r.reportUnhandled(m)
		}
		changed = append(changed, r.setOwed()...)
	}
	if r.DryRun {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	changed = slices.DeleteFunc(changed, func(e *Entry) bool { return !slices.Contains(r.record.byUID[e.UID], e) })
	return errors.Join(r.record.save(ctx, changed...), r.sync(ctx))
}

// remaining returns the messages that the last session listed. It adds messages that only earlier sessions listed, if
// they are untried or were requested and may not be stored. Some servers no longer list a message that was requested,
// and some lists are incomplete. An untried message is not added if a message of the same size was handled, because
// that may be the same message: some servers change all unique-ids.
func (r *run) remaining() []*message {
	all, handled := slices.Clone(r.lastPlan.all), make(map[int64]bool) // by size
	for _, messages := range r.listed {
		for _, m := range messages {
			handled[m.Size] = handled[m.Size] || !m.isUnhandled()
		}
	}
	for _, messages := range r.listed {
		for _, m := range messages {
			unlisted := m.isUnhandled() && r.lastPlan.groups[m.UID] == nil && !handled[m.Size]
			if unlisted || m.requested && r.lastPlan.groups[m.UID] != m.group {
				all = append(all, m)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *message) int { return a.Num - b.Num })
	return all
}

// isUnhandled reports whether the run has not handled the message.
func (m *message) isUnhandled() bool { return m.fate == untried || m.fate == overLimit }

// reportUnhandled reports a message that the run has left on the server.
func (r *run) reportUnhandled(m *message) {
	switch m.fate {
	case skipped, unselected:
		r.yieldFailure(m.skipResult)
	case overLimit:
		r.yieldResult(Result{Item: m.Item, Outcome: Skipped, Err: ErrLimit})
	case untried:
		r.yieldResult(Result{Item: m.Item, Outcome: Skipped, Err: ErrNotReached})
	}
}

// setOwed decides which failed messages the next run must try first: those that this run did not reach. It sets Owed in
// their entries. If a message with Owed set has failed in this run, no message is owed, so that the other messages come
// first. If the last session sent no QUIT and there is something to delete, only messages over a limit are owed, so
// that the deletion comes first.
func (r *run) setOwed() (changed []*Entry) {
	now := time.Now()
	deletes := !r.quitSent && slices.ContainsFunc(r.lastPlan.all, func(m *message) bool {
		return m.entry != nil && r.due(m.entry, now)
	})
	owed := make(map[*Entry]bool)
	for _, m := range r.lastPlan.all {
		if e := cmp.Or(m.entry, m.similar); e != nil && (!e.Failed.IsZero() || r.isShort(e)) {
			owed[e] = owed[e] || !r.owedHasFailed && (m.fate == overLimit || m.fate == untried && !deletes)
		}
	}
	for e, value := range owed {
		if value != e.Owed {
			e.Owed = value
			changed = append(changed, e)
		}
	}
	return changed
}

// sync syncs the messages, and then the history, so that both survive a power cut.
func (r *run) sync(ctx context.Context) error {
	if r.unsynced {
		if err := r.Sink.(UnsyncedSink).Sync(ctx); err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		r.unsynced = false
	}
	return r.record.sync(ctx)
}

// joinErrors joins the errors that did not end the run. aborted is the error that ended the run, or nil.
func (r *run) joinErrors(aborted error) error {
	var err error
	if r.quitWithheld {
		err = fmt.Errorf("fetch: %w", ErrQuitWithheld)
	}
	err = errors.Join(err, r.quitErr, r.lostErr, r.listErr, r.report.Kept.err())
	notReached := 0
	for _, res := range r.report.Skipped {
		if res.Err == ErrNotReached {
			notReached++
		}
	}
	if notReached > 0 && aborted == nil {
		err = errors.Join(err, fmt.Errorf("fetch: %s %w", count(notReached), ErrNotReached))
	}
	if r.errorCount > 1 {
		err = errors.Join(err, fmt.Errorf("fetch: %d messages failed, the first: %w", r.errorCount, r.firstError))
	} else if r.errorCount == 1 && !errors.Is(aborted, errors.Unwrap(r.firstError)) {
		err = errors.Join(err, fmt.Errorf("fetch: %w", r.firstError))
	}
	return err
}

// yieldResult adds a result to the report, and yields it unless the caller has left the loop.
func (r *run) yieldResult(res Result) {
	r.report.add(res)
	if !r.callerStopped && !r.yield(res, nil) {
		r.callerStopped = true
	}
}

// yieldFailure yields a result with an error. Unless the message was only skipped, Run returns that error too.
func (r *run) yieldFailure(res Result) {
	if res.Outcome != Skipped {
		if r.errorCount++; r.firstError == nil {
			r.firstError = res.failure()
		}
	}
	r.yieldResult(res)
}

// countKnown counts a message that was stored or skipped before, once in a run.
func (r *run) countKnown(e *Entry) {
	if !r.counted[e] {
		r.counted[e] = true
		r.report.Known++
	}
}

// delayNextRun sets Report.TryAgain to the time d from now, unless TryAgain is later already.
func (r *run) delayNextRun(d time.Duration) {
	if at := time.Now().Add(min(d, waitMost)); d > 0 && at.After(r.report.TryAgain) {
		r.report.TryAgain = at
	}
}

// A session is one session with the server. Message numbers are valid in one session only, so everything that contains
// them is in a session or in its plan.
type session struct {
	*run
	c       *pop3.Client
	plan    *plan
	expires bool // QUIT may remove the messages that were retrieved

	maxAhead       int           // the greatest number of messages that were requested at once
	timePerMessage time.Duration // average time for a message in the latest batch
	answered       int           // number of RETR commands with a reply
	deliveredCount int           // number of delivered messages
	hasUnstored    bool          // a message was retrieved and not stored completely
	uidReused      bool          // the server gave a unique-id to another message
	requestedAlone bool          // the current message was requested alone
	cutErr         error         // error of the last message that was cut
	buffer         []byte        // buffer for readAhead

	staged      []stagedMessage // messages that will be stored together
	stagedSince time.Time       // when the first of them was staged

	retrieveAgain []*message // messages to be retrieved once more
	state         sessionState
	unfinished    bool // another session has something to do
	mayFindMore   bool // another session may find something new
}

// A sessionState says whether a session can retrieve further messages, and if not, why.
type sessionState int

const (
	stateOpen   sessionState = iota // further messages can be retrieved
	statePaused                     // another session can continue
	stateLost                       // the connection was lost, or cannot be trusted
)

// execute carries out the session.
func (s *session) execute(ctx context.Context) (err error) {
	if s.c, err = s.Connect(ctx); err != nil {
		s.c = nil
		return fmt.Errorf("fetch: connecting: %w", err)
	}
	if s.c == nil {
		return errors.New("fetch: Connect returned no client and no error")
	}
	defer s.c.Close()
	s.report.Sessions++
	s.quitSent = false
	if err = s.prepare(ctx); err != nil {
		return err
	}
	if s.DryRun {
		return s.dryRun(ctx)
	}
	batch, postponed := s.batch()
	err = s.retrieveAll(ctx, batch)
	// Suspects are retrieved only if a lost connection would not undo a deletion.
	if err == nil && len(postponed) == 0 && len(s.messagesToDelete()) == 0 {
		suspects := s.plan.suspects
		if n := s.sessionLimit; n > 0 {
			suspects = suspects[:min(len(suspects), max(0, n-s.answered))]
		}
		err = s.retrieveAll(ctx, suspects)
	}
	if err == nil {
		err = s.finish(ctx)
	}
	return errors.Join(err, s.recordResults(context.WithoutCancel(ctx)))
}

// prepare reads the capabilities and the list of messages, and plans the session.
func (s *session) prepare(ctx context.Context) error {
	caps, refusal := s.c.Capa(ctx)
	if _, refused := errors.AsType[*pop3.Error](refusal); refusal != nil && !refused {
		return fmt.Errorf("fetch: %w", refusal)
	}
	days, announced := caps.Expire()
	s.expires = (!announced || days == 0) && !caps.Has("EXPIRENEVER") // Mailutils announces EXPIRE NEVER in this form
	s.loginDelay, _ = caps.LoginDelay()
	s.delayNextRun(s.loginDelay)
	infos, err := s.list(ctx)
	noUIDs := errors.Is(err, errors.ErrUnsupported)
	if err != nil && !noUIDs {
		if refusal != nil {
			err = fmt.Errorf("%w; then: %w", refusal, err)
		}
		return fmt.Errorf("fetch: %w", err)
	}
	anyUID := slices.ContainsFunc(infos, func(i pop3.MessageInfo) bool { return i.UID != "" })
	hadUIDs := s.hasUIDs // an earlier session of this run has found unique-ids
	s.hasUIDs = anyUID || hadUIDs || !noUIDs && caps.Has("UIDL") || s.record.hasUIDs()
	justArrived := len(infos) == 1 && caps.Has("UIDL") // a new message may have no unique-id yet
	if s.hasUIDs && !anyUID && !hadUIDs && len(infos) > 0 && !justArrived {
		return fmt.Errorf("fetch: %s: %w", count(len(infos)), ErrNoUID)
	}
	now := time.Now()
	s.plan = s.run.plan(infos, now)
	s.lastPlan = s.plan
	if err := s.followFailed(ctx); err != nil {
		return err
	}
	if err := s.callSelect(ctx, caps); err != nil {
		return err
	}
	s.separateFailed(s.plan, now)
	s.setTotals()
	return nil
}

// list returns the messages. A malformed line affects only its own message. Some servers refuse to list an empty
// maildrop, so list returns no messages and no error if STAT confirms that the maildrop is empty.
func (s *session) list(ctx context.Context) ([]pop3.MessageInfo, error) {
	infos, err := s.c.Listing(ctx)
	if malformed, ok := errors.AsType[*pop3.ProtocolError](err); ok && !malformed.Fatal && len(infos) > 0 {
		s.listErr = fmt.Errorf("fetch: %w", err)
		return infos, s.checkReplyOrder(ctx, len(infos))
	}
	refusal, refused := errors.AsType[*pop3.Error](err)
	if !refused || refusal.Temporary() || errors.Is(err, errors.ErrUnsupported) {
		return infos, err
	}
	if maildrop, failed := s.c.Stat(ctx); failed == nil && maildrop.Count == 0 {
		return nil, nil
	}
	return nil, err
}

// setTotals sets the totals that Progress reports.
func (s *session) setTotals() {
	s.allMessages, s.allOctets = s.finishedMessages, s.report.Octets
	for i, m := range slices.Concat(s.plan.toStore, s.plan.toCompare, s.plan.suspects) {
		if s.MaxMessages > 0 && !m.compare && i+s.fetched.messages >= s.MaxMessages {
			continue
		}
		s.allMessages++
		s.allOctets += max(0, m.Size)
	}
}

// dryRun reports what a run would do (DryRun).
func (s *session) dryRun(ctx context.Context) error {
	now := time.Now()
	for list := slices.Concat(s.plan.toStore, s.plan.suspects); len(list) > 0; list = list[1:] {
		m := list[0]
		if m.compare {
			continue
		}
		if len(s.withinBudget(list[:1], &s.fetched)) == 0 {
			m.fate = overLimit
			continue
		}
		m.fate = handledBefore
		s.fetched.messages++
		s.fetched.octets += max(0, m.Size)
		s.yieldResult(Result{Item: m.Item, Outcome: Pending})
	}
	for _, m := range slices.Concat(s.plan.toCompare, s.plan.suspects) {
		if !m.compare {
			continue
		}
		m.fate = handledBefore
		switch {
		case !m.group.isSingle() && !m.likelyStored: // probably a new message
			s.yieldResult(Result{Item: m.Item, Outcome: Pending})
		case slices.ContainsFunc(m.group.known, func(e *Entry) bool { return s.due(e, now) }):
			s.yieldResult(Result{Item: m.Item, Outcome: PendingDeletion})
		default:
			s.report.Known++
		}
	}
	s.c.Quit(ctx) // nothing was marked, so the result does not matter
	return nil
}

// batch returns the messages to be retrieved first, and those that are left for another session. Some are left because
// of CommitEvery, or because the server closes the connection after some messages. Messages with the same unique-id are
// not separated, because only a session that retrieves all of them can distinguish them. They are separated only if the
// server closes the connection after some messages.
func (s *session) batch() (batch, postponed []*message) {
	if len(s.withinBudget(s.plan.toStore, &s.fetched)) == 0 {
		for _, m := range s.plan.toStore {
			m.fate = overLimit
		}
		s.plan.toStore = nil
	}
	all, n, limit := slices.Concat(s.plan.toStore, s.plan.toCompare), s.CommitEvery, s.sessionLimit
	if n <= 0 || !s.Delete || s.KeepFor > 0 || s.loginDelay != 0 {
		n = len(all)
	}
	if s.commitAfter > 0 {
		n = min(n, s.commitAfter)
	}
	switch {
	case limit > 0 && limit < min(n, len(all)):
		return all[:limit], all[limit:]
	case n >= len(all):
		return all, nil
	}
	chosen := make(map[*group]bool)
	for _, m := range all[:n] {
		chosen[m.group] = true
	}
	for _, m := range all {
		if chosen[m.group] {
			batch = append(batch, m)
		} else {
			postponed = append(postponed, m)
		}
	}
	return batch, postponed
}

// retrieveAll retrieves the new messages, and then those that are to be compared.
func (s *session) retrieveAll(ctx context.Context, list []*message) error {
	var toStore, toCompare []*message
	for _, m := range list {
		if m.compare {
			toCompare = append(toCompare, m)
		} else {
			toStore = append(toStore, m)
		}
	}
	if err := s.retrieve(ctx, toStore, &s.fetched); err != nil {
		return err
	}
	return s.retrieve(ctx, toCompare, &s.compared)
}

// recordResults records the result of the session for each message, and finds out whether another session has something
// to do.
func (s *session) recordResults(ctx context.Context) error {
	now := time.Now()
	limitReached := slices.ContainsFunc(s.plan.all, func(m *message) bool { return m.fate == overLimit })
	unfinished := false
	toDelete := make(map[*message]bool)
	for _, m := range s.messagesToDelete() {
		toDelete[m] = true
	}
	for _, m := range s.plan.all {
		m.handled = m.fate != overLimit && m.fate != skipped && m.fate != unselected
		switch m.fate {
		case untried:
			if m.handled = false; limitReached && !m.compare {
				m.fate = overLimit
			} else {
				unfinished = true
			}
		case knownBefore:
			s.recordKept(m, s.plan.madeAt)
		case committed:
			m.handled = !s.marked[m.entry]
		case delivered, recognized:
			again := m.entry.Unsure || toDelete[m]
			if !again {
				s.recordKept(m, now)
				again = s.state == stateLost && s.due(m.entry, now) && !s.undeleted[m.entry]
			}
			unfinished, m.handled = unfinished || again, !again
		}
	}
	s.unfinished = unfinished
	s.mayFindMore = s.deliveredCount > 0 && s.state == stateOpen
	if s.uidReused {
		if err := s.distrustUIDs(ctx, now); err != nil {
			return err
		}
	}
	if s.state == stateLost {
		return nil
	}
	return s.updateUnlisted(ctx, now)
}

// distrustUIDs marks all messages that were not retrieved in this session, so that they are compared again. It is
// called if the server has given a unique-id to another message.
func (s *session) distrustUIDs(ctx context.Context, now time.Time) error {
	var entries []*Entry
	for _, m := range s.plan.all {
		e := m.entry
		if m.fate != knownBefore && m.fate != handledBefore || e == nil {
			continue
		}
		if !e.Stored.IsZero() {
			e.Missing = now
		} else if e.Size != 0 {
			e.Skipped = time.Time{} // Select is asked again
		}
		entries = append(entries, e)
		m.handled = false
	}
	return s.record.save(ctx, entries...)
}

// recordKept records why a known message stays on the server.
func (s *session) recordKept(m *message, now time.Time) {
	reason := keptNotDeleted
	switch e := m.entry; {
	case !e.Skipped.IsZero():
		reason = keptPassedOver
	case m.fate == delivered && s.isShort(e):
		reason = keptShort
		s.yieldResult(Result{Item: m.Item, Outcome: Kept, Octets: e.Octets, Err: sizeShort(e)})
	case !s.Delete:
		reason = keptDeleteOff
	case now.Sub(e.Stored) < s.KeepFor:
		reason = keptFor
	case s.isShort(e):
		reason = keptShort
	case m.isStored() && !s.undeleted[e]:
		reason = keptAmbiguous
	}
	s.keptReasons[m.entry] = reason
}

// updateUnlisted updates the entries of messages that are no longer on the server.
func (s *session) updateUnlisted(ctx context.Context, now time.Time) error {
	missing := slices.DeleteFunc(s.plan.missing, func(e *Entry) bool { return s.plan.groups[e.UID] != nil })
	var deleted []*Entry
	for _, g := range s.plan.groups {
		deleted = append(deleted, g.deleted...)
		unused, complete := g.unusedEntries()
		for _, e := range unused {
			switch {
			case g.uid == "" && complete:
				missing = append(missing, e)
			case g.uid == "" || e.Stored.IsZero() || e.Digest == "" || e.isSurelyDeleted():
				deleted = append(deleted, e)
			default: // another message has its unique-id now, so the message may have a new one
				e.Missing = now
				if err := s.record.rename(ctx, e, ""); err != nil {
					return err
				}
			}
		}
	}
	if err := s.record.forget(ctx, deleted...); err != nil {
		return err
	}
	return s.record.recordMissing(ctx, now, missing...)
}
