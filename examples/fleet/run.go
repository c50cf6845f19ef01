package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func runScheduler(ctx context.Context, args []string) error {
	var c config
	f := c.flags("scheduler")
	c.policyFlags(f)
	c.limitFlags(f)
	f.Parse(args)
	accounts, err := openAccounts(c.accounts)
	if err != nil {
		return err
	}
	b, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer b.nc.Close()
	s := c.scheduler(b)
	if err := s.Enlist(ctx, accounts.accounts()); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.Follow(ctx, accounts, 5*time.Second) })
	err = s.Run(ctx) // until ctx ends
	wg.Wait()
	return err
}

func runWorker(ctx context.Context, args []string) error {
	var c config
	f := c.flags("worker")
	c.policyFlags(f)
	c.workerFlags(f)
	f.Parse(args)
	stop, err := c.profile()
	if err != nil {
		return err
	}
	defer stop()
	accounts, err := openAccounts(c.accounts)
	if err != nil {
		return err
	}
	b, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer b.nc.Close()
	w, err := c.worker(ctx, b, accounts)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { tellMetrics(ctx, b.nc, w.Metrics.registry, c.name, time.Second) })
	err = w.Run(ctx)
	cancel()
	wg.Wait()
	return err
}

// profile begins a CPU profile if one is asked for.
func (c *config) profile() (stop func(), err error) {
	if c.cpuProfile == "" {
		return func() {}, nil
	}
	f, err := os.Create(c.cpuProfile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

func runStatus(ctx context.Context, args []string) error {
	var c config
	f := c.flags("status")
	addr := f.String("http", "127.0.0.1:8080", "`address` of the page; it has names of accounts, so keep it inside")
	f.Parse(args)
	b, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer b.nc.Close()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/\n", l.Addr())
	return new(status).serve(ctx, b, l)
}

// release makes an account due that was set aside, or any other.
func release(ctx context.Context, args []string) error {
	var c config
	f := c.flags("release")
	f.Parse(args)
	b, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer b.nc.Close()
	for _, name := range f.Args() {
		if err := releaseAccount(ctx, b.schedules, keyOf(name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func releaseAccount(ctx context.Context, kv jetstream.KeyValue, key string) error {
	kve, err := kv.Get(ctx, key)
	if err != nil {
		return err
	}
	r := recordOf(kve)
	r.Aside, r.Fails, r.Next = false, 0, time.Now()
	_, err = kv.Update(ctx, key, r.value(), kve.Revision())
	return err
}
