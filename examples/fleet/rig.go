package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A rig is what measurements stand on: POP3 servers and NATS in other processes, the scheduler in this one.
type rig struct {
	lab      *laboratory
	nats     *child
	url      string
	config   config
	bus      *Bus
	roster   roster
	gatherer gatherer
	ctx      context.Context
	closing  []func()
}

// openRig starts the servers.
func openRig(ctx context.Context, size labSize, sync bool, flags ...string) (_ *rig, err error) {
	r := &rig{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	var dir string
	var remove func()
	if dir, remove, err = tempDir(); err != nil {
		return nil, err
	}
	r.closing = append(r.closing, remove)
	if r.lab, err = openLab(dir, size); err != nil {
		return nil, err
	}
	r.closing = append(r.closing, r.lab.servers.stop)
	if r.nats, err = spawn("lab-nats", "-dir", filepath.Join(dir, "nats"), fmt.Sprintf("-sync=%t", sync)); err != nil {
		return nil, err
	}
	r.closing = append(r.closing, r.nats.stop)
	if r.url, err = r.nats.line(); err != nil {
		return nil, err
	}
	return r, r.join(ctx, flags)
}

// join connects this process.
func (r *rig) join(ctx context.Context, flags []string) (err error) {
	f := r.config.flags("bench")
	r.config.policyFlags(f)
	f.Parse(append(flags, "-nats", r.url))
	if r.bus, err = r.config.open(ctx); err != nil {
		return err
	}
	r.closing = append(r.closing, r.bus.nc.Close)
	if _, err = r.gatherer.listen(r.bus.nc); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.roster.follow(ctx, r.bus.schedules) })
	r.closing = append(r.closing, func() { cancel(); wg.Wait() })
	r.ctx = ctx
	return nil
}

// close stops everything, what was last first.
func (r *rig) close() {
	for len(r.closing) > 0 {
		last := len(r.closing) - 1
		r.closing[last]()
		r.closing = r.closing[:last]
	}
}

// scheduler gives one that lets everything through.
func (r *rig) scheduler() *Scheduler {
	n := len(r.lab.accounts)
	return &Scheduler{Bus: r.bus, Owner: "bench",
		Limits: Limits{Rate: rate.Inf, Burst: n, Sessions: n, Resend: time.Minute}}
}

// allDue makes all maildrops due, while no scheduler runs.
func (r *rig) allDue() error {
	if err := r.scheduler().Enlist(r.ctx, r.lab.byKey()); err != nil {
		return err
	}
	keys := make(chan string)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for key := range keys {
				releaseAccount(r.ctx, r.bus.schedules, key)
			}
		})
	}
	for _, a := range r.lab.accounts {
		keys <- a.Key()
	}
	close(keys)
	wg.Wait()
	return nil
}

// poll schedules until each maildrop was polled, and gives the time that it took. meanwhile is called now and then.
func (r *rig) poll(limit time.Duration, meanwhile func(polled int)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	begin := time.Now()
	wg.Go(func() { r.scheduler().Run(ctx) })
	for {
		polled := r.roster.polledSince(begin)
		if polled >= len(r.lab.accounts) {
			return time.Since(begin), nil
		}
		meanwhile(polled)
		if !pause(ctx, 50*time.Millisecond) {
			return 0, fmt.Errorf("only %d of %d maildrops were polled in %v", polled, len(r.lab.accounts), limit)
		}
	}
}

// total sums up a metric of all workers.
func (r *rig) total(name string, labels ...string) float64 {
	var sum float64
	for _, t := range r.gatherer.snapshot() {
		sum += t.value(name, labels...)
	}
	return sum
}
