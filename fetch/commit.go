package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// marks returns the messages that are to be deleted: those that are due and whose content was seen in this session.
func (s *session) marks() (marks []*message) {
	now := time.Now()
	for _, m := range s.plan.all {
		if m.group.listed[0] != m {
			continue
		}
		for _, m := range s.deletable(m.group) {
			if s.due(m.entry, now) && !(s.marked[m.entry] && s.undeleted[m.entry]) {
				marks = append(marks, m)
			}
		}
	}
	slices.SortFunc(marks, func(a, b *message) int { return a.Num - b.Num })
	return marks
}

// finish deletes what is to be deleted and ends the session.
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
		s.unstored = s.unstored || m.isStored() && s.isShort(m.entry)
	}
	for _, m := range s.dropped {
		s.unstored = s.unstored || !m.isStored()
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

// inStep reports whether each reply in this session was the one to its command. If not, the session is over. The error
// is that of the run.
func (s *session) inStep(ctx context.Context) (bool, error) {
	err := s.checkStep(ctx, len(s.plan.all))
	if err == nil {
		return true, nil
	}
	return false, errors.Join(s.hangUp(ctx, err), s.doubt(ctx))
}

// checkStep makes sure that each reply so far was the one to its command: the reply to STAT can belong to no other
// command. Some servers answer it in a way that makes no sense, or refuse it. They do so twice, and a reply too many
// would not be followed by one like it.
func (s *session) checkStep(ctx context.Context, messages int) error {
	drop, err := s.stat(ctx)
	if err != nil || drop.Count == messages {
		return err
	}
	again, err := s.stat(ctx)
	if err == nil && again.Count != drop.Count {
		err = errors.New("two replies to STAT differ, so that a reply belonged to another command")
	}
	return err
}

// stat asks for the number of messages, which is -1 if the reply is complete and makes no sense, or is a refusal.
func (s *session) stat(ctx context.Context) (pop3.DropListing, error) {
	drop, err := s.c.Stat(ctx)
	odd, isOdd := errors.AsType[*pop3.ProtocolError](err)
	if _, refused := errors.AsType[*pop3.Error](err); refused || isOdd && !odd.Fatal {
		return pop3.DropListing{Count: -1}, nil
	}
	return drop, err
}

// maxMarks is how many DELE are sent at once: more than 2,200 commands kill some servers.
const maxMarks = 1000

// dele marks messages as deleted, and returns those for which the server did it. That they may be gone is remembered
// before it is so, and that they are stored is on the disk.
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

// mark is dele for what is sent at once.
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

// refusals takes the error of Client.Dele apart, by message numbers; err is what is not a refusal.
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

// commit sends QUIT, and takes note of what became of the messages that are marked.
func (s *session) commit(ctx context.Context, marked []*message) error {
	err := s.c.Quit(ctx)
	outcome := Deleted
	switch {
	case errors.Is(err, pop3.ErrCommitUnknown):
		outcome = Unconfirmed
	case err != nil:
		outcome = Kept
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
		if m.entry.Confirmed = err == nil; err == nil {
			confirmed = append(confirmed, m.entry)
		}
	}
	remembered = errors.Join(remembered, s.record.save(context.WithoutCancel(ctx), confirmed...))
	for _, m := range marked {
		s.emit(Result{Item: m.Item, Outcome: outcome, Err: err})
	}
	if err != nil && len(marked) > 0 { // otherwise nothing was to be deleted, however it ended
		s.uncommitted = fmt.Errorf("fetch: %w", err)
		s.wait(waitAfter(err, s.delay))
		s.end = paused
		return errors.Join(ctx.Err(), remembered)
	}
	return remembered
}

// trust takes note that a server that has answered everything in order has mixed up nothing.
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
