package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// marks returns the messages to be deleted: they are due for deletion, and this session has retrieved them. A message
// is not deleted while another listed message has the same unique-id and size and no entry. The other message may be
// a copy, and a later session would take it for the deleted message.
func (s *session) marks() (marks []*message) {
	now := time.Now()
	open := make(map[key]bool)
	for _, m := range s.plan.all {
		if m.entry == nil && m.fate != settled {
			open[m.key()] = true
		}
	}
	for _, m := range s.plan.all {
		if m.isStored() && s.due(m.entry, now) && !open[m.key()] && !(s.marked[m.entry] && s.undeleted[m.entry]) {
			marks = append(marks, m)
		}
	}
	return marks
}

// finish deletes the messages that are to be deleted, and ends the session.
func (s *session) finish(ctx context.Context) error {
	if s.c.State() != pop3.StateTransaction {
		if s.end == open {
			s.end = lost
		}
		return ctx.Err()
	}
	if s.asked > 1 {
		if ok, err := s.inStep(ctx); !ok {
			return err
		}
	}
	if err := s.record.learnSurplus(ctx); err != nil {
		return err
	}
	marks := s.marks()
	for _, m := range s.plan.all {
		s.unstored = s.unstored || m.asked && !m.isStored() || m.isStored() && s.isShort(m.entry)
	}
	if s.unstored && s.expires {
		if len(marks) > 0 {
			s.withheld, s.end = true, paused
		}
		return s.trust(ctx)
	}
	marks, err := s.dele(ctx, marks)
	if err == nil {
		err = s.commit(ctx, marks)
	}
	return err
}

// inStep reports whether each reply in this session belonged to its command. If not, inStep ends the session. If it
// returns an error, the run ends.
func (s *session) inStep(ctx context.Context) (bool, error) {
	err := s.checkStep(ctx, len(s.plan.all))
	if err == nil {
		return true, nil
	}
	err = errors.Join(s.hangUp(ctx, err), s.doubt(ctx))
	_, failed := s.suspectOdd(ctx)
	return false, errors.Join(err, failed)
}

// suspectOdd calls suspect for each message whose received size differs from its listed size, and reports whether there
// are any. The server may have cut such a message and sent a second reply after it that reports the failure.
func (s *session) suspectOdd(ctx context.Context) (some bool, err error) {
	for _, m := range s.plan.all {
		if m.isOdd {
			some, err = true, errors.Join(err, s.suspect(ctx, m))
		}
	}
	return some, err
}

// checkStep sends STAT to check that each reply so far belonged to its command. The reply must contain the number of
// messages, which a reply to another command would not. Some servers refuse STAT, or send a wrong number. Then
// checkStep sends a second STAT, whose reply must be the same. If there was a surplus reply, the two replies would
// differ.
func (s *session) checkStep(ctx context.Context, messages int) error {
	drop, err := s.stat(ctx)
	if err != nil || drop.Count == messages {
		return err
	}
	again, err := s.stat(ctx)
	if err == nil && again.Count != drop.Count {
		err = errors.New("two replies to STAT differ, so one of them belongs to another command")
	}
	return err
}

// stat sends STAT. If the server refuses it, or if the reply is malformed, stat returns a Count of -1 and no error.
func (s *session) stat(ctx context.Context) (pop3.DropListing, error) {
	drop, err := s.c.Stat(ctx)
	odd, isOdd := errors.AsType[*pop3.ProtocolError](err)
	if _, refused := errors.AsType[*pop3.Error](err); refused || isOdd && !odd.Fatal {
		return pop3.DropListing{Count: -1}, nil
	}
	return drop, err
}

// maxMarks is the number of DELE commands that are sent at once. Some servers crash when they get more than 2,200.
const maxMarks = 1000

// dele marks messages as deleted, and returns those that the server has marked. Before it sends DELE, it records that
// the messages may be deleted, and syncs the stored messages and the history.
func (s *session) dele(ctx context.Context, marks []*message) (marked []*message, err error) {
	entries := make([]*Entry, len(marks))
	for i, m := range marks {
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
	for part := range slices.Chunk(marks, maxMarks) {
		part, err := s.mark(ctx, part)
		if err != nil {
			return nil, err
		}
		marked = append(marked, part...)
	}
	return marked, nil
}

// mark sends one batch of DELE commands, and returns the messages that the server has marked as deleted.
func (s *session) mark(ctx context.Context, marks []*message) (marked []*message, err error) {
	nums := make([]int, len(marks))
	for i, m := range marks {
		nums[i] = m.Num
	}
	refused, err := refusals(s.c.Dele(ctx, nums...))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fetch: %w", err), s.doubt(ctx))
	}
	for _, m := range marks {
		if refusal := refused[m.Num]; refusal != nil {
			m.fate = committed
			s.trouble(Result{Item: m.Item, Outcome: Kept, Err: refusal})
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
	s.quit = true
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
	var remembered error
	if err == nil || refused {
		remembered = s.trust(ctx)
	} else {
		remembered = s.doubt(ctx)
	}
	var confirmed []*Entry
	for _, m := range marked {
		m.fate, s.marked[m.entry] = committed, true
		delete(s.kept, m.entry)
		if m.entry.Confirmed = err == nil; err == nil {
			confirmed = append(confirmed, m.entry)
		}
	}
	remembered = errors.Join(remembered, s.record.save(context.WithoutCancel(ctx), confirmed...))
	for _, m := range marked {
		s.emit(Result{Item: m.Item, Outcome: outcome, Err: err})
	}
	if err != nil && len(marked) > 0 { // without marked messages the error does not matter
		s.uncommitted = fmt.Errorf("fetch: %w", err)
		s.wait(waitAfter(err, s.delay))
		s.end = paused
		return errors.Join(ctx.Err(), remembered)
	}
	return remembered
}

// trust records that the server has not mixed up replies in this session.
func (s *session) trust(ctx context.Context) error {
	var entries []*Entry
	for _, m := range s.plan.all {
		if m.fate == delivered && m.entry.Unsure {
			m.entry.Unsure = false
			entries = append(entries, m.entry)
		}
	}
	return s.record.save(context.WithoutCancel(ctx), entries...)
}
