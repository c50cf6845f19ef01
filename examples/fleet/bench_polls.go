package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// benchPolls polls all maildrops three times: with a message in each, with nothing new, and again.
func benchPolls(ctx context.Context, b benchFlags) error {
	r, err := openRig(ctx, labSize{Maildrops: b.maildrops, Servers: b.servers, Messages: 1, Octets: 4096}, b.sync)
	if err != nil {
		return err
	}
	defer r.close()
	crew, err := r.lab.hire(1, r.url, append(b.workerFlags(), "-sessions", "200", "-cpuprofile", b.profile)...)
	defer crew.stop()
	if err != nil {
		return err
	}
	for _, round := range []string{"one message of 4 kB in each", "nothing new", "nothing new"} {
		begin := time.Now()
		if err := r.allDue(); err != nil {
			return err
		}
		fmt.Printf("all made due in %.1f s, two reads and a write of NATS for each\n", time.Since(begin).Seconds())
		if err := r.measure(round, crew); err != nil {
			return err
		}
	}
	pid := crew[0].cmd.Process.Pid
	fmt.Printf("worker %s resident, NATS %s\n", octets(float64(residentOf(pid))),
		octets(float64(residentOf(r.nats.cmd.Process.Pid))))
	return nil
}

func (b benchFlags) workerFlags() []string {
	return []string{"-min", "1h", "-max", "1h", "-mechanisms", b.mechanisms, "-sink", "stream"}
}

// measure polls all maildrops and prints what it took.
func (r *rig) measure(what string, crew children) error {
	nats, worker, pop3, self := children{r.nats}.cpu(), crew.cpu(), r.lab.servers.cpu(), cpuOf(os.Getpid())
	messages := r.total("fleet_messages_total")
	took, err := r.poll(5*time.Minute, func(int) {})
	if err != nil {
		return err
	}
	n := time.Duration(len(r.lab.accounts))
	worker = (crew.cpu() - worker) / n
	fmt.Printf("%s: %d polls in %.1f s, %.0f a second; for a poll: worker %v (%.0f polls a second and core), "+
		"NATS %v, scheduler and bench %v, POP3 servers %v\n", what, n, took.Seconds(), float64(n)/took.Seconds(),
		worker, 1/worker.Seconds(), (children{r.nats}.cpu()-nats)/n, (cpuOf(os.Getpid())-self)/n,
		(r.lab.servers.cpu()-pop3)/n)
	pause(r.ctx, 1500*time.Millisecond) // the worker tells its metrics each second
	fmt.Printf("  messages %.0f, handshakes so far: full %.0f, resumed %.0f; failed %.0f\n",
		r.total("fleet_messages_total")-messages, r.total("fleet_handshakes_total", "kind", "full"),
		r.total("fleet_handshakes_total", "kind", "resumed"), r.total("fleet_polls_total", "outcome", "failed"))
	return nil
}
