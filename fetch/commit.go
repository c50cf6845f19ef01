package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// messagesToDelete returns the messages to be deleted: they are due for deletion, and this session has retrieved them.
// A message is not deleted while another listed message has the same unique-id and size and no entry. The other message
// may be a copy, and a later session would take it for the deleted message.
func (s *session) messagesToDelete() (due []*message) {
	now := time.Now()
	unknown := make(map[key]bool)
	for _, m := range s.plan.all {
		if m.entry == nil && m.fate != handledBefore {
			unknown[m.key()] = true
		}
	}
	for _, m := range s.plan.all {
		if m.isStored() && s.due(m.entry, now) && !unknown[m.key()] && !(s.marked[m.entry] && s.undeleted[m.entry]) {
			due = append(due, m)
		}
	}
	return due
}

// finish deletes the messages that are to be deleted, and ends the session.
func (s *session) finish(ctx context.Context) error {
	if s.c.State() != pop3.StateTransaction {
		if s.state == stateOpen {
			s.state = stateLost
		}
		return ctx.Err()
	}
	if s.maxAhead > 1 {
		if ok, err := s.verifyReplyOrder(ctx); !ok {
			return err
		}
	}
	if err := s.record.learnSurplus(ctx); err != nil {
		return err
	}
	toDelete := s.messagesToDelete()
	for _, m := range s.plan.all {
		s.hasUnstored = s.hasUnstored || m.requested && !m.isStored() || m.isStored() && s.isShort(m.entry)
	}
	if s.hasUnstored && s.expires {
		if len(toDelete) > 0 {
			s.quitWithheld, s.state = true, statePaused
		}
		return s.clearUnsure(ctx)
	}
	toDelete, err := s.dele(ctx, toDelete)
	if err == nil {
		err = s.commit(ctx, toDelete)
	}
	return err
}

// verifyReplyOrder reports whether each reply in this session belonged to its command. If not, verifyReplyOrder ends
// the session. An error ends the run.
func (s *session) verifyReplyOrder(ctx context.Context) (bool, error) {
	err := s.checkReplyOrder(ctx, len(s.plan.all))
	if err == nil {
		return true, nil
	}
	err = errors.Join(s.recordLoss(ctx, err), s.markUnsure(ctx))
	_, saveErr := s.markSuspects(ctx)
	return false, errors.Join(err, saveErr)
}

// markSuspects calls markSuspect for each message whose received size differs from its listed size, and reports whether
// there are any such messages. The server may have cut such a message and sent a second reply after it that reports the
// failure.
func (s *session) markSuspects(ctx context.Context) (found bool, err error) {
	for _, m := range s.plan.all {
		if m.sizeDiffers {
			found, err = true, errors.Join(err, s.markSuspect(ctx, m))
		}
	}
	return found, err
}

// checkReplyOrder sends STAT to check that each reply so far belonged to its command. The reply must contain the number
// of messages, which a reply to another command would not. Some servers refuse STAT, or send a wrong number. Then
// checkReplyOrder sends a second STAT, whose reply must be the same. If there was a surplus reply, the two replies
// would differ.
func (s *session) checkReplyOrder(ctx context.Context, messages int) error {
	first, err := s.stat(ctx)
	if err != nil || first.Count == messages {
		return err
	}
	second, err := s.stat(ctx)
	if err == nil && second.Count != first.Count {
		err = errors.New("two replies to STAT differ, so one of them belongs to another command")
	}
	return err
}

// stat sends STAT. If the server refuses it, or if the reply is malformed, stat returns a Count of -1 and no error.
func (s *session) stat(ctx context.Context) (pop3.DropListing, error) {
	drop, err := s.c.Stat(ctx)
	malformed, isMalformed := errors.AsType[*pop3.ProtocolError](err)
	if _, refused := errors.AsType[*pop3.Error](err); refused || isMalformed && !malformed.Fatal {
		return pop3.DropListing{Count: -1}, nil
	}
	return drop, err
}

// maxMarks is the number of DELE commands that are sent at once. Some servers crash when they get more than 2,200.
const maxMarks = 1000

// dele marks messages as deleted, and returns those that the server has marked. Before it sends DELE, it records that
// the messages may be deleted, and syncs the stored messages and the history.
func (s *session) dele(ctx context.Context, toDelete []*message) (marked []*message, err error) {
	entries := make([]*Entry, len(toDelete))
	for i, m := range toDelete {
		m.entry.Deleted = time.Now()
		m.entry.Quits++
		m.entry.Confirmed = false
		entries[i] = m.entry
	}
	if err := s.record.save(ctx, entries...); err != nil {
		return nil, err
	}
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(toDelete, maxMarks) {
		part, err := s.markPart(ctx, part)
		if err != nil {
			return nil, err
		}
		marked = append(marked, part...)
	}
	return marked, nil
}

// markPart sends one batch of DELE commands, and returns the messages that the server has marked as deleted.
func (s *session) markPart(ctx context.Context, messages []*message) (marked []*message, err error) {
	nums := make([]int, len(messages))
	for i, m := range messages {
		nums[i] = m.Num
	}
	refused, err := refusals(s.c.Dele(ctx, nums...))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fetch: %w", err), s.markUnsure(ctx))
	}
	for _, m := range messages {
		if refusal := refused[m.Num]; refusal != nil {
			m.fate = committed
			s.yieldFailure(Result{Item: m.Item, Outcome: Kept, Err: refusal})
		} else {
			marked = append(marked, m)
		}
	}
	return marked, nil
}

// refusals returns the refusals in an error of Client.Dele, by message number. If that error contains anything else,
// refusals returns it as err.
func refusals(dele error) (refused map[int]error, err error) {
	parts := []error{dele}
	if joined, ok := dele.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	refused = make(map[int]error)
	for _, part := range parts {
		refusal, ok := part.(*pop3.Error)
		if part == nil {
			continue
		} else if !ok || refusal.Num == 0 {
			return nil, dele
		}
		refused[refusal.Num] = refusal
	}
	return refused, nil
}

// commit sends QUIT, and records what happened to the marked messages.
func (s *session) commit(ctx context.Context, marked []*message) error {
	err := s.c.Quit(ctx)
	s.quitSent = true
	outcome := Deleted
	switch {
	case errors.Is(err, pop3.ErrCommitUnknown):
		outcome = Unconfirmed
	case err != nil:
		outcome = Kept
	default:
		s.lostInRow, s.commitAfter = 0, 2*s.commitAfter
	}
	_, refused := errors.AsType[*pop3.Error](err)
	var saveErr error
	if err == nil || refused {
		saveErr = s.clearUnsure(ctx)
	} else {
		saveErr = s.markUnsure(ctx)
	}
	var confirmed []*Entry
	for _, m := range marked {
		m.fate, s.marked[m.entry] = committed, true
		delete(s.keptReasons, m.entry)
		if m.entry.Confirmed = err == nil; err == nil {
			confirmed = append(confirmed, m.entry)
		}
	}
	saveErr = errors.Join(saveErr, s.record.save(context.WithoutCancel(ctx), confirmed...))
	for _, m := range marked {
		s.yieldResult(Result{Item: m.Item, Outcome: outcome, Err: err})
	}
	if err != nil && len(marked) > 0 { // without marked messages the error does not matter
		s.quitErr = fmt.Errorf("fetch: %w", err)
		s.delayNextRun(waitAfter(err, s.loginDelay))
		s.state = statePaused
		return errors.Join(ctx.Err(), saveErr)
	}
	return saveErr
}

// clearUnsure clears Unsure in the entries of this session, because the server has not mixed up replies.
func (s *session) clearUnsure(ctx context.Context) error {
	var entries []*Entry
	for _, m := range s.plan.all {
		if m.fate == delivered && m.entry.Unsure {
			m.entry.Unsure = false
			entries = append(entries, m.entry)
		}
	}
	return s.record.save(context.WithoutCancel(ctx), entries...)
}
