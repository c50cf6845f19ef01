package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// benchTLS compares ways to begin a session, one after the other: the time of one, and the processor time of this
// side.
func benchTLS(ctx context.Context, b benchFlags) error {
	dir, remove, err := tempDir()
	if err != nil {
		return err
	}
	defer remove()
	lab, err := openLab(dir, labSize{Maildrops: 1, Servers: 1})
	if err != nil {
		return err
	}
	defer lab.servers.stop()
	trust, err := (&config{ca: lab.ca()}).trust()
	if err != nil {
		return err
	}
	cached := trust.Clone()
	cached.ClientSessionCache = tls.NewLRUClientSessionCache(100)
	const n = 500
	for _, way := range []struct {
		name       string
		config     *tls.Config
		mechanisms []string
	}{
		{"full handshake, no login", trust, nil},
		{"resumed handshake, no login", cached, nil},
		{"resumed handshake, PLAIN", cached, []string{"PLAIN"}},
		{"resumed handshake, SCRAM-SHA-256", cached, []string{"SCRAM-SHA-256"}},
		{"resumed handshake, SCRAM-SHA-512", cached, []string{"SCRAM-SHA-512"}},
	} {
		opts := &pop3.Options{TLSConfig: way.config, Mechanisms: way.mechanisms}
		times, resumed, cpu, err := sessionsInTurn(ctx, lab.accounts[0], opts, n)
		if err != nil {
			return err
		}
		fmt.Printf("%s: median %v, processor time %v each; %d of %d resumed\n", way.name,
			times[n/2].Round(time.Microsecond), (cpu / n).Round(time.Microsecond), resumed, n)
	}
	return nil
}

func sessionsInTurn(ctx context.Context, a Account, opts *pop3.Options, n int) (times []time.Duration, resumed int,
	cpu time.Duration, err error) {
	cpu = cpuOf(os.Getpid())
	for range n {
		begin := time.Now()
		c, err := pop3.DialTLS(ctx, a.Addr, opts)
		if err != nil {
			return nil, 0, 0, err
		}
		if opts.Mechanisms != nil {
			err = c.Login(ctx, a.User, a.Password)
		}
		state, _ := c.TLSConnectionState()
		if state.DidResume {
			resumed++
		}
		times = append(times, time.Since(begin))
		c.Quit(ctx)
		if err != nil {
			return nil, 0, 0, err
		}
	}
	slices.Sort(times)
	return times, resumed, cpuOf(os.Getpid()) - cpu, nil
}
