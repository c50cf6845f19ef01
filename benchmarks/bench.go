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

// A cell identifies the measurements in one cell of a table.
type cell struct {
	workload, client string
	trip             time.Duration
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

// jobTimeout limits the time of a session, because a client may hang.
const jobTimeout = 10 * time.Minute

func newBench(dir string, progress io.Writer) *bench {
	return &bench{
		servers: make(map[string]server), dir: dir, progress: progress,
		results: make(map[cell][]clients.Result), failures: make(map[cell]error),
	}
}

// runInTurns carries out the trials that do not mostly wait, one after the other. Each client runs once in each round,
// so that other work on the machine affects all clients.
func (b *bench) runInTurns(ctx context.Context, workloads []workload) error {
	for i := range workloads {
		s := &workloads[i]
		trials := s.trials(b.clients)
		fmt.Fprintf(b.progress, "%s\n", s.title())
		for range s.runs {
			for _, t := range trials {
				if !t.mostlyWaits() {
					b.runTrial(ctx, t)
				}
			}
		}
	}
	return ctx.Err()
}

// commandRate limits how many commands per second all concurrent clients send together.
const commandRate = 1000

// runConcurrently carries out the trials that mostly wait, as many at the same time as commandRate allows. The trials
// with the longest round trips start first.
func (b *bench) runConcurrently(ctx context.Context, workloads []workload) error {
	var trials []trial
	for i := range workloads {
		for _, t := range workloads[i].trials(b.clients) {
			if t.mostlyWaits() {
				trials = append(trials, slices.Repeat([]trial{t}, t.runs)...)
			}
		}
	}
	slices.SortStableFunc(trials, func(x, y trial) int { return cmp.Compare(y.trip, x.trip) })
	fmt.Fprintf(b.progress, "%d sessions that mostly wait, at the same time\n", len(trials))
	slots := semaphore.NewWeighted(commandRate)
	var running sync.WaitGroup
	defer running.Wait()
	for _, t := range trials {
		share := min(int64(time.Second/t.trip), commandRate)
		if err := slots.Acquire(ctx, share); err != nil {
			return err
		}
		running.Go(func() {
			defer slots.Release(share)
			b.runTrial(ctx, t)
		})
	}
	return nil
}

// runTrial carries out a trial once and stores the result. If the trial failed before, runTrial does nothing.
func (b *bench) runTrial(ctx context.Context, t trial) {
	key := cell{t.workload.id, t.client.Name, t.trip}
	b.mu.Lock()
	failed := b.failures[key]
	b.mu.Unlock()
	if failed != nil {
		return
	}
	r, err := b.session(ctx, t)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		fmt.Fprintf(b.progress, "  %s, %s, %v: %v\n", key.workload, key.client, key.trip, err)
		b.failures[key] = err
		return
	}
	b.results[key] = append(b.results[key], r)
}

// session prepares the maildrop and the link, and runs the client.
func (b *bench) session(ctx context.Context, t trial) (r clients.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	s := t.workload
	a, err := b.servers[s.server].open(ctx, mailRequest{s.drop, s.overTLS, s.work == clients.Dele})
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
func (s *workload) check(r clients.Result, a *account) error {
	if r.Messages >= 0 && r.Messages != s.drop.count {
		return fmt.Errorf("%d messages instead of %d", r.Messages, s.drop.count)
	}
	switch s.work {
	case clients.Fetch, clients.Large:
		// some clients count octets after they have changed the line ends, or count more than the messages
		want := int64(s.drop.count * s.drop.size)
		if r.Octets >= 0 && (r.Octets < want*95/100 || r.Octets > want*105/100+10_000) {
			return fmt.Errorf("%d octets instead of about %d", r.Octets, want)
		}
	case clients.Dele:
		if n, err := a.remaining(); err != nil || n > 0 {
			return errors.Join(fmt.Errorf("%d messages are left", n), err)
		}
	}
	return nil
}
