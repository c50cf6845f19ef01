package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A session is one session with the server. Everything with message numbers is in it and in its plan.
type session struct {
	*run
	c       *pop3.Client
	plan    *plan
	expires bool          // QUIT may remove what was retrieved
	delay   time.Duration // LOGIN-DELAY, 0 if the server does not announce it

	asked    int        // messages that are retrieved in this session
	latest   int        // number of the latest of them
	stored   bool       // it was, or there was none
	unstored bool       // a message was retrieved and not stored whole
	halt     bool       // no further message is to be retrieved in this session
	cut      bool       // not all that was planned was retrieved, and another session can go on with it
	progress bool       // something was done that need not be done again
	marks    []*message // to be deleted
	fresh    []*Entry   // of what was delivered
}

// session has one session. again tells that there is something left to do in another one.
func (r *run) session(ctx context.Context) (again bool, err error) {
	s := &session{run: r, stored: true}
	defer func() { r.wait(waitAfter(err, s.delay)) }()
	if s.c, err = r.Connect(ctx); err != nil {
		return false, fmt.Errorf("fetch: connecting: %w", err)
	}
	if s.c == nil {
		return false, errors.New("fetch: Connect gave no client and no error")
	}
	defer s.c.Close()
	r.report.Sessions++
	if err = s.look(ctx); err != nil {
		return false, err
	}
	if r.DryRun {
		return false, s.pretend(ctx)
	}
	if err = r.record.miss(ctx, time.Now(), s.plan.missing...); err != nil {
		return false, err
	}
	if err = s.retrieve(ctx, s.batch()); err != nil {
		return false, err
	}
	again, err = s.finish(ctx)
	return again && s.progress, err
}

// look finds out what there is to do.
func (s *session) look(ctx context.Context) error {
	caps, err := s.c.Capa(ctx)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	days, known := caps.Expire()
	s.expires = !known || days == 0
	s.delay, _ = caps.LoginDelay()
	s.wait(s.delay)
	infos, err := s.c.Listing(ctx)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("fetch: %w", err)
	}
	hasUIDs := caps.Has("UIDL") || s.record.hasUIDs()
	if hasUIDs && len(infos) > 0 && !slices.ContainsFunc(infos, func(i pop3.MessageInfo) bool { return i.UID != "" }) {
		return fmt.Errorf("fetch: no unique-ids at all, where there should be: %w", ErrNoUID)
	}
	s.plan = s.run.plan(infos, hasUIDs, time.Now())
	s.report.Listed, s.report.Known = len(infos), s.plan.known
	if !s.enough {
		s.skipped = s.plan.skipped
	}
	s.allMessages, s.allOctets = s.count, s.report.Octets
	for _, m := range s.plan.retrieve {
		s.allMessages++
		s.allOctets += m.Size
	}
	return nil
}

// pretend reports what is planned.
func (s *session) pretend(ctx context.Context) error {
	for _, m := range append(s.plan.retrieve, s.plan.due...) {
		s.emit(Result{Item: m.Item, Outcome: Pending})
	}
	s.c.Quit(ctx) // nothing was marked, so it does not matter how it ends
	return nil
}

// batch gives the messages to be retrieved in this session. Those with the same unique-id stay together, since only
// the session that retrieves them can tell them apart.
func (s *session) batch() []*message {
	all, n := s.plan.retrieve, s.CommitEvery
	if n <= 0 || n >= len(all) || !s.Delete || s.KeepFor > 0 || s.delay > 0 {
		return all
	}
	chosen := make(map[*group]bool)
	for _, m := range all[:n] {
		chosen[m.group] = true
	}
	batch := slices.DeleteFunc(slices.Clone(all), func(m *message) bool { return !chosen[m.group] })
	s.cut = len(batch) < len(all)
	return batch
}
