package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
	"github.com/seed-2d50cddb/pop3/benchmarks/link"
)

// A cell identifies one measurement.
type cell struct {
	scene, client string
	trip          time.Duration
}

// A bench carries out the measurements.
type bench struct {
	servers  map[string]server
	clients  []clients.Client
	dir      string    // folder for the files of clients
	progress io.Writer // progress messages

	mu       sync.Mutex
	results  map[cell][]clients.Result
	failures map[cell]error
}

// jobLimit ends a client that hangs.
const jobLimit = 10 * time.Minute

func newBench(dir string, progress io.Writer) *bench {
	return &bench{
		servers: make(map[string]server), dir: dir, progress: progress,
		results: make(map[cell][]clients.Result), failures: make(map[cell]error),
	}
}

// brisk carries out the trials that are not [trial.patient], one after the other. The clients take turns, so that other
// work on the machine affects all of them.
func (b *bench) brisk(ctx context.Context, scenes []scene) error {
	for i := range scenes {
		s := &scenes[i]
		trials := s.trials(b.clients)
		fmt.Fprintf(b.progress, "%s\n", s.title())
		for range s.runs {
			for _, t := range trials {
				if !t.patient() {
					b.try(ctx, t)
				}
			}
		}
	}
	return ctx.Err()
}

// commandRate is how many commands per second all patient clients may send together.
const commandRate = 1000

// patient carries out the patient trials at the same time, as many as commandRate allows. The trials with the longest
// round trips start first.
func (b *bench) patient(ctx context.Context, scenes []scene) error {
	var trials []trial
	for i := range scenes {
		for _, t := range scenes[i].trials(b.clients) {
			if t.patient() {
				trials = append(trials, slices.Repeat([]trial{t}, t.runs)...)
			}
		}
	}
	slices.SortStableFunc(trials, func(x, y trial) int { return cmp.Compare(y.trip, x.trip) })
	fmt.Fprintf(b.progress, "%d sessions that mostly wait, together\n", len(trials))
	rate := semaphore.NewWeighted(commandRate)
	var running sync.WaitGroup
	defer running.Wait()
	for _, t := range trials {
		own := min(int64(time.Second/t.trip), commandRate)
		if err := rate.Acquire(ctx, own); err != nil {
			return err
		}
		running.Go(func() {
			defer rate.Release(own)
			b.try(ctx, t)
		})
	}
	return nil
}

// try carries out a trial once and keeps the result. A client that has failed is not used again.
func (b *bench) try(ctx context.Context, t trial) {
	at := cell{t.scene.id, t.client.Name, t.trip}
	b.mu.Lock()
	failed := b.failures[at]
	b.mu.Unlock()
	if failed != nil {
		return
	}
	r, err := b.session(ctx, t)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		fmt.Fprintf(b.progress, "  %s, %s, %v: %v\n", at.scene, at.client, at.trip, err)
		b.failures[at] = err
		return
	}
	b.results[at] = append(b.results[at], r)
}

// session prepares the maildrop and the link, and runs the client.
func (b *bench) session(ctx context.Context, t trial) (r clients.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, jobLimit)
	defer cancel()
	s := t.scene
	a, err := b.servers[s.server].open(ctx, visit{s.drop, s.overTLS, s.work == clients.Dele})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	addr := a.addr
	if s.trips != nil {
		l, err := link.Listen(t.trip, a.addr)
		if err != nil {
			return r, err
		}
		defer l.Close()
		addr = l.Addr
	}
	r, err = clients.Run(ctx, clients.Job{
		Client: t.client.Name, Work: s.work, Addr: addr, TLS: s.overTLS, CAFile: a.caFile,
		User: a.user, Password: a.password, Count: s.drop.count, Dir: b.dir,
	})
	if err != nil {
		return r, err
	}
	return r, s.check(r, a)
}

// check returns an error if the client has not done all of the work.
func (s *scene) check(r clients.Result, a *account) error {
	if r.Messages >= 0 && r.Messages != s.drop.count {
		return fmt.Errorf("%d messages, not %d", r.Messages, s.drop.count)
	}
	switch s.work {
	case clients.Fetch, clients.Large:
		// Some clients count the size after they have changed the line ends, or count other things too.
		whole := int64(s.drop.count * s.drop.size)
		if r.Octets >= 0 && (r.Octets < whole*95/100 || r.Octets > whole*105/100+10_000) {
			return fmt.Errorf("%d octets, not about %d", r.Octets, whole)
		}
	case clients.Dele:
		if n, err := a.left(); err != nil || n > 0 {
			return errors.Join(fmt.Errorf("%d messages are left", n), err)
		}
	}
	return nil
}
