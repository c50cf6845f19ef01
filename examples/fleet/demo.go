package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"
)

// demo runs everything on this machine: NATS, the scheduler and the page in this process, the POP3 servers and the
// workers in others.
func demo(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("demo", flag.ExitOnError)
	maildrops := f.Int("maildrops", 500, "how many")
	servers := f.Int("servers", 3, "POP3 servers they are on")
	workers := f.Int("workers", 2, "processes that poll")
	addr := f.String("http", "127.0.0.1:8080", "`address` of the page")
	url := f.String("nats", "", "`URL` of a NATS server or cluster, in place of one of its own")
	f.Parse(args)
	dir, remove, err := tempDir()
	if err != nil {
		return err
	}
	defer remove()
	lab, err := openLab(dir, labSize{Maildrops: *maildrops, Servers: *servers, Messages: 2, Octets: 4096, Deliver: 5})
	if err != nil {
		return err
	}
	defer lab.servers.stop()
	if err := lab.spoil(); err != nil {
		return err
	}
	if *url == "" {
		s, err := startNATS(filepath.Join(dir, "nats"), true)
		if err != nil {
			return err
		}
		defer s.Shutdown()
		*url = s.ClientURL()
	}
	return lab.play(ctx, *url, *addr, *workers)
}

// spoil makes some accounts ones that can't be polled, so that there is something to see.
func (l *laboratory) spoil() error {
	for n := range min(3, len(l.accounts)) {
		l.accounts[n].Password = "wrong"
	}
	l.accounts = append(l.accounts, Account{Name: "nobody@127.0.0.1", Addr: "127.0.0.1:1", User: "u", Password: "p"})
	return l.save()
}

// demoTimes are short, so that there is something to see.
var demoTimes = []string{"-min", "3s", "-max", "20s", "-backoff", "30s", "-refusals", "3", "-ackwait", "6s"}

// play runs the fleet until ctx ends.
func (l *laboratory) play(ctx context.Context, url, addr string, workers int) error {
	var c config
	f := c.flags("demo")
	c.policyFlags(f)
	c.limitFlags(f)
	f.Parse(append(demoTimes, "-nats", url))
	b, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer b.nc.Close()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := c.scheduler(b)
	if err := s.Enlist(ctx, l.byKey()); err != nil {
		return err
	}
	crew, err := l.hire(workers, url, demoTimes...)
	defer crew.stop()
	if err != nil {
		return err
	}
	fmt.Printf("%d maildrops, %d workers: http://%s/ and /metrics; mail goes to %s\n", len(l.accounts), workers,
		listener.Addr(), filepath.Join(l.dir, "mail"))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.Run(ctx) })
	return new(status).serve(ctx, b, listener)
}

func (l *laboratory) byKey() fileAccounts {
	accounts := make(fileAccounts, len(l.accounts))
	for _, a := range l.accounts {
		accounts[a.Key()] = a
	}
	return accounts
}

// hire starts workers.
func (l *laboratory) hire(workers int, url string, flags ...string) (children, error) {
	var crew children
	for n := range workers {
		w, err := spawn(append([]string{"worker", "-nats", url, "-accounts", l.file(), "-ca", l.ca(),
			"-name", fmt.Sprintf("worker-%d-%d", n+1, time.Now().UnixMilli()%1e6),
			"-sink", "maildir:" + filepath.Join(l.dir, "mail")}, flags...)...)
		if err != nil {
			return crew, err
		}
		crew = append(crew, w)
	}
	return crew, nil
}
