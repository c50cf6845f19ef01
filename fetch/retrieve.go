package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// retrieve brings messages to the sink. An error ends the run.
func (s *session) retrieve(ctx context.Context, batch []*message) error {
	s.asked = len(batch)
	next := 0
	for m, refusal := range s.messages(ctx, batch) {
		if m == nil {
			return s.hungUp(ctx, batch[next:], refusal)
		}
		if err := s.take(ctx, batch[next], m, refusal); err != nil {
			return err
		}
		next++
		if s.halt || s.enough {
			break
		}
	}
	if next < len(batch) {
		s.unstored = true // some of the rest may be on its way already
		s.cut = !s.enough
	}
	return nil
}

// messages asks for the messages of a batch, ahead of replies where that is safe.
func (s *session) messages(ctx context.Context, batch []*message) iter.Seq2[*pop3.Message, error] {
	nums := make([]int, len(batch))
	for i, m := range batch {
		nums[i] = m.Num
	}
	return func(yield func(*pop3.Message, error) bool) {
		for done := 0; done < len(batch); {
			end := done + s.ahead(batch[done:])
			for m, err := range s.c.Messages(ctx, nums[done:end]...) {
				if !yield(m, err) || m == nil {
					return
				}
			}
			done = end
		}
	}
}

// ahead is how many messages at the front of a batch may be asked for at once. Where replies were mixed up it is one, or
// the second look would be mixed up like the first: there is a server whose reply overtakes the end of the message
// before it, if it was asked for ahead.
func (s *session) ahead(batch []*message) int {
	for i, m := range batch {
		if s.mixedUp || m.look && m.group.unsure() {
			return max(i, 1)
		}
	}
	return len(batch)
}

// hungUp judges the loss of the connection, with the messages in rest not retrieved. If it was at a message that can
// be told from others, the run goes on without that one: a server may stumble over it every time.
func (s *session) hungUp(ctx context.Context, rest []*message, err error) error {
	_, broken := errors.AsType[*pop3.ProtocolError](err)
	s.mixedUp = s.mixedUp || broken
	if !s.stored {
		return s.goOn(ctx, err) // it was in the midst of a message that has failed
	}
	if err := s.outOfStep(ctx, err); err != nil {
		return err
	}
	if len(rest) > 0 {
		if rest[0].UID == "" {
			err, s.hangUp = s.hangUp, nil
			return err
		}
		s.failed(rest[0], 0, s.hangUp)
	}
	return nil
}

// outOfStep ends a session in which what was delivered may be other messages than those that were asked for. A
// server that leaves out a reply, or gives one twice, shifts all that follow, and then comes a wait in vain or a
// reply too many.
func (s *session) outOfStep(ctx context.Context, err error) error {
	if doubt := s.doubt(ctx); doubt != nil {
		return errors.Join(err, doubt)
	}
	return s.goOn(ctx, err)
}

// goOn returns nil if another session may follow on one that was lost because of err.
func (s *session) goOn(ctx context.Context, err error) error {
	err = fmt.Errorf("fetch: %w", err)
	if s.lost++; ctx.Err() != nil || s.lost == maxLost {
		return err
	}
	s.hangUp = err
	s.cut = true
	return nil
}

// doubt marks what was delivered in this session, to be looked at again.
func (s *session) doubt(ctx context.Context) error {
	for _, e := range s.fresh {
		e.Unsure = true
	}
	return s.record.save(context.WithoutCancel(ctx), s.fresh...)
}

// take deals with one message that was asked for.
func (s *session) take(ctx context.Context, item *message, m *pop3.Message, refusal error) error {
	s.count++
	s.latest = item.Num
	if refusal != nil {
		s.failed(item, 0, refusal)
		return nil
	}
	b := s.newBody(item, m)
	b.progress(0)
	err := s.Sink.Deliver(ctx, item.Item, b)
	if err == nil || b.known != nil {
		err = b.drop()
	}
	s.report.Octets += b.octets
	switch {
	case b.known != nil:
		return s.recognized(ctx, item, b)
	case err == nil:
		return s.delivered(ctx, item, b)
	}
	s.unstored = true
	s.failed(item, b.octets, err)
	switch b.err {
	case ErrTooLarge:
		s.halt = true // it may go on for ever
	case errShifted:
		s.halt = true
		return s.doubt(ctx)
	}
	return nil
}

func (s *session) newBody(item *message, m io.Reader) *body {
	b := &body{from: m, claimed: item.Size, max: s.MaxSize, identity: newIdentity()}
	if item.look {
		b.entries = item.group.entries
	}
	p := Progress{Item: item.Item, Messages: s.count - 1, AllMessages: s.allMessages, AllOctets: s.allOctets}
	received := s.report.Octets
	b.progress = func(octets int64) {
		if s.Progress != nil {
			p.Received, p.Octets = octets, received+octets
			s.Progress(p)
		}
	}
	return b
}

// delivered takes note of a message that the sink has stored.
func (s *session) delivered(ctx context.Context, item *message, b *body) error {
	res := Result{Item: item.Item, Outcome: Delivered, Octets: b.octets}
	now := time.Now()
	e := &Entry{UID: item.UID, Size: item.Size, Octets: b.octets, Digest: b.digest, Stored: now}
	e.Short = e.Octets < e.Size && !s.AcceptShort
	e.Unsure = e.Octets != e.Size // until the session has ended well
	s.fresh = append(s.fresh, e)
	err := s.record.add(ctx, e)
	if e.Short {
		s.unstored = true
		s.settled[item.UID] = true
		res.Err = sizeShort(e.Octets, e.Size)
		s.fail(res)
	} else {
		s.emit(res)
	}
	if err != nil {
		return err
	}
	s.row = 0
	s.stored, s.progress = true, true
	return s.identified(ctx, item, e, now)
}

// recognized takes note of a message that was stored before and still is on the server.
func (s *session) recognized(ctx context.Context, item *message, b *body) error {
	e := b.known
	before := *e
	e.Deleted, e.Missing, e.Unsure = time.Time{}, time.Time{}, false
	e.Size, e.Octets = item.Size, b.octets
	if e.Short {
		e.Short = e.Octets < e.Size && !s.AcceptShort
		e.Looked = e.Short
		s.unstored = s.unstored || e.Short
	}
	if *e != before {
		if err := s.record.save(ctx, e); err != nil {
			return err
		}
	}
	s.report.Known++
	s.stored = true
	g := item.group
	g.entries = without(g.entries, e)
	return s.identified(ctx, item, e, time.Now())
}

// identified ends the work on a message that is stored, as e. When all of its group are, the entries that are left
// belong to messages that are not there any more.
func (s *session) identified(ctx context.Context, item *message, e *Entry, now time.Time) error {
	g := item.group
	item.entry = e
	if g.left--; !e.Short {
		g.stored(item)
	}
	if s.due(e, now) {
		s.marks = append(s.marks, item)
	}
	switch {
	case g.left > 0 || len(g.entries) == 0:
		return nil
	case g.uid == "":
		return s.record.miss(ctx, now, g.entries...)
	}
	return s.record.forget(ctx, g.entries...)
}

// failed takes note of a message that was not stored.
func (s *session) failed(item *message, octets int64, err error) {
	s.settled[item.UID] = true
	s.stored, s.progress = false, true
	if s.row++; s.row == maxFailures {
		s.enough = true
	}
	s.wait(waitAfter(err, s.delay))
	s.fail(Result{Item: item.Item, Outcome: Failed, Octets: octets, Err: err})
}
