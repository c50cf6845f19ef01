package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// finish deletes what is to be deleted and ends the session. again tells that another one has something to do.
func (s *session) finish(ctx context.Context) (again bool, err error) {
	marks := slices.Concat(s.plan.due, s.marks)
	marks = slices.DeleteFunc(marks, func(m *message) bool { return !m.mayGo() })
	again = s.cut || len(marks) > 0
	if s.c.State() != pop3.StateTransaction {
		return again, ctx.Err()
	}
	if err := s.inStep(ctx); err != nil {
		return again, s.outOfStep(ctx, err)
	}
	if s.unstored && s.expires {
		s.withheld = true
		return again, nil
	}
	marks, err = s.dele(ctx, marks)
	if err == nil {
		err = s.commit(ctx, marks)
	}
	return s.cut, err
}

// inStep makes sure, before anything is deleted, that each reply to what was sent ahead was the one to its command:
// the next one has to name the number that is asked for.
func (s *session) inStep(ctx context.Context) error {
	if len(s.fresh) == 0 || s.asked < 2 {
		return nil
	}
	_, err := s.c.List(ctx, s.latest)
	return err
}

// maxMarks is how many DELE are sent at once: more than 2,200 commands kill some servers.
const maxMarks = 1000

// dele marks messages as deleted, and returns those for which the server did it.
func (s *session) dele(ctx context.Context, marks []*message) (marked []*message, err error) {
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
			s.settled[m.UID] = true
			s.fail(Result{Item: m.Item, Outcome: Kept, Err: refusal})
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
		if part != nil && !ok {
			return nil, dele
		} else if part == nil {
			continue
		}
		num, err := strconv.Atoi(strings.TrimPrefix(refusal.Cmd, "DELE "))
		if err != nil {
			return nil, dele
		}
		refused[num] = refusal
	}
	return refused, nil
}

// commit sends QUIT, and takes note of what became of the messages that are marked. That they may be gone is
// remembered before it is so.
func (s *session) commit(ctx context.Context, marked []*message) error {
	entries := make([]*Entry, len(marked))
	for i, m := range marked {
		m.entry.Deleted = time.Now()
		entries[i] = m.entry
	}
	if err := s.record.save(ctx, entries...); err != nil {
		return err
	}
	err := s.c.Quit(ctx)
	remembered := s.ended(ctx, entries, err)
	if len(marked) == 0 {
		return remembered // however it ended, nothing was to be deleted
	}
	outcome := Deleted
	switch {
	case errors.Is(err, pop3.ErrCommitUnknown):
		outcome = Unconfirmed
	case err != nil:
		outcome = Kept
	}
	for _, m := range marked {
		s.settled[m.UID] = true
		s.emit(Result{Item: m.Item, Outcome: outcome, Err: err})
	}
	s.progress = true
	if err != nil {
		err = fmt.Errorf("fetch: %w", err)
	}
	return errors.Join(err, remembered)
}

// ended takes note of how QUIT, with the messages of entries marked, has ended.
func (s *session) ended(ctx context.Context, entries []*Entry, err error) error {
	if _, refused := errors.AsType[*pop3.Error](err); err != nil && !refused {
		return s.doubt(ctx)
	}
	for _, e := range entries {
		e.Answers++
	}
	for _, e := range s.fresh { // a server that has answered everything in order has mixed up nothing
		if e.Unsure {
			e.Unsure = false
			entries = append(entries, e)
		}
	}
	return s.record.save(context.WithoutCancel(ctx), entries...)
}
