package fetch

import (
	"context"
	"fmt"
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

	stored   bool       // the latest message
	unstored bool       // a message was retrieved and not stored whole
	halt     bool       // no further message is to be retrieved in this session
	cut      bool       // not all that was planned was retrieved, and another session can go on with it
	progress bool       // something was done that need not be done again
	marks    []*message // to be deleted
}

// session has one session. again tells that there is something left to do in another one.
func (r *run) session(ctx context.Context) (again bool, err error) {
	s := &session{run: r}
	defer func() { r.wait(waitAfter(err, s.delay)) }()
	if s.c, err = r.Connect(ctx); err != nil {
		return false, fmt.Errorf("fetch: connecting: %w", err)
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
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	s.plan = s.run.plan(infos, caps.Has("UIDL"), time.Now())
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

// batch gives the messages to be retrieved in this session.
func (s *session) batch() []*message {
	all, n := s.plan.retrieve, s.CommitEvery
	atOnce := n <= 0 || !s.Delete || s.KeepFor > 0 || s.delay > 0
	if atOnce || len(all) <= n || all[0].UID == "" {
		return all
	}
	s.cut = true
	return all[:n]
}
