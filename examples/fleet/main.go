// Command fleet polls many POP3 maildrops with many processes: schedulers decide which maildrop is due, workers fetch
// with package fetch, and everything that has to be remembered is in NATS JetStream. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

var commands = map[string]func(ctx context.Context, args []string) error{
	"init": initialize, "scheduler": runScheduler, "worker": runWorker,
	"list": list, "release": release, "poll": pollNow, "pause": pauseHosts, "resume": resumeHosts,
	"reconcile": reconcile,
}

const usage = `usage: fleet command [flags], with one of these commands:

  init       make the streams in JetStream, or migrate those of an earlier version
  scheduler  queue the accounts that are due, and serve the page; run two
  worker     poll accounts; run as many as there is work for

  list       list accounts: all of them, or by -host, -code, -state
  release    give accounts that were set aside another chance, by name, -host, -code or -all
  poll       poll accounts now, by name, -host, -code or -all
  pause      poll no accounts of these hosts
  resume     poll the accounts of these hosts again
  reconcile  make the records follow the accounts file, with -force if many accounts are gone

"fleet command -h" lists the flags. Each flag can be set in the environment: FLEET_HOST_SESSIONS is -host-sessions.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		slog.Error("fleet "+os.Args[1]+" failed", "error", err)
		stop()
		os.Exit(1)
	}
}

// initialize is the only command that makes or changes streams.
func initialize(ctx context.Context, args []string) error {
	var c config
	var l layout
	f := c.flags("init")
	c.mail.flags(f, "mail-", "", "`URLs` of NATS for the mail stream, if it is not in the account of the rest")
	f.IntVar(&l.Replicas, "replicas", 0, "of each stream; 3 on a cluster; 0 leaves it, and is 1 for a new one")
	f.DurationVar(&l.AckWait, "ackwait", 0, "how long a worker may be silent; 0 leaves it, and is 30s for a new queue")
	f.Int64Var(&l.MailBytes, "mail-bytes", 0, "limit of the mail stream; 0 leaves it, and is 1 GiB for a new one")
	if err := c.parse(f, args); err != nil {
		return err
	}
	nc, mail, err := c.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	defer mail.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	mailJS, err := jetstream.New(mail)
	if err != nil {
		return err
	}
	for _, one := range []jetstream.JetStream{js, mailJS} {
		err := waitFor(ctx, one.Conn(), func(ctx context.Context) error {
			_, err := one.AccountInfo(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("JetStream: %w", err)
		}
	}
	return l.initialize(ctx, js, mailJS, os.Stdout)
}

// connect connects to NATS. The connection for mail is the same one if nothing else was asked for.
func (c *config) connect() (nc, mail *nats.Conn, err error) {
	if nc, err = c.nats.connect(c.name); err != nil || c.mail.url == "" {
		return nc, nc, err
	}
	if mail, err = c.mail.connect(c.name); err != nil {
		nc.Close()
	}
	return nc, mail, err
}

// waitFor tries until NATS is there and what is missing has been made, and logs what it waits for.
func waitFor(ctx context.Context, nc *nats.Conn, do func(ctx context.Context) error) error {
	for last := ""; ; {
		err := fmt.Errorf("%w: it is not connected", errAway)
		if nc.IsConnected() {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			err = do(try)
			cancel()
		}
		missing := errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound)
		if err == nil || !isAway(err) && !missing {
			return err
		}
		if err.Error() != last {
			last = err.Error()
			slog.Warn("waiting for NATS", "error", err)
		}
		if !pause(ctx, time.Second) {
			return err
		}
	}
}

// A service is a scheduler or a worker from its start to its end.
type service struct {
	config
	accounts *accountsFile
	bus      *Bus
	mail     *nats.Conn
	monitor  atomic.Pointer[monitor]
}

// run opens everything, runs work, and closes everything. The HTTP server says that the service is not ready until work
// has set another monitor.
func (s *service) run(ctx context.Context, work func(ctx context.Context) error) (err error) {
	slog.SetDefault(slog.With("process", s.name))
	starting := func() error { return errors.New("starting: NATS is not there, or fleet init has not been run") }
	s.monitor.Store(&monitor{healthy: func() error { return nil }, ready: starting, metrics: prometheus.NewRegistry(),
		page: servePage(new(atomic.Pointer[view]))})
	stop, err := serveHTTP(s.http, &s.monitor)
	if err != nil {
		return err
	}
	defer stop()
	if s.accounts, err = s.openAccounts(); err != nil {
		return err
	}
	nc, mail, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	defer mail.Close()
	s.mail = mail
	err = waitFor(ctx, nc, func(ctx context.Context) (err error) {
		s.bus, err = openBus(ctx, nc)
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	return work(ctx)
}

func runScheduler(ctx context.Context, args []string) error {
	var s service
	f := s.flags("scheduler")
	s.accountFlags(f)
	s.serviceFlags(f)
	s.schedulerFlags(f)
	if err := s.parse(f, args); err != nil {
		return err
	}
	return s.run(ctx, func(ctx context.Context) error {
		sched := s.scheduler(s.bus, s.accounts)
		s.monitor.Store(&monitor{healthy: sched.healthy, ready: sched.ready, metrics: schedulerMetrics(sched, s.bus.nc),
			page: servePage(&sched.view)})
		return sched.Run(ctx)
	})
}

func runWorker(ctx context.Context, args []string) error {
	var s service
	f := s.flags("worker")
	s.accountFlags(f)
	s.serviceFlags(f)
	s.workerFlags(f)
	if err := s.parse(f, args); err != nil {
		return err
	}
	stop, err := s.profile()
	if err != nil {
		return err
	}
	defer stop()
	return s.run(ctx, func(ctx context.Context) error {
		var w *Worker
		err := waitFor(ctx, s.mail, func(ctx context.Context) (err error) {
			w, err = s.worker(ctx, s.bus, s.mail, s.accounts)
			return err
		})
		if err != nil {
			return err
		}
		registerNATS(w.Metrics.registry, s.bus.nc)
		s.monitor.Store(&monitor{healthy: func() error { return nil }, ready: w.ready, metrics: w.Metrics.registry,
			page: http.NotFound})
		telling, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var wg sync.WaitGroup
		wg.Go(func() { w.tell(telling, time.Second) })
		err = w.Run(ctx)
		cancel()
		wg.Wait()
		return err
	})
}

// tell tells the schedulers what this worker does, until ctx ends.
func (w *Worker) tell(ctx context.Context, every time.Duration) {
	h := hello{Name: w.Owner, Version: version(), Sessions: w.Sessions}
	for {
		families, err := w.Metrics.registry.Gather()
		if err == nil {
			h.read(families)
			h.Held = w.gate.closed()
			text, _ := json.Marshal(h)
			w.Bus.nc.Publish(helloSubject, text)
		}
		if !pause(ctx, every) {
			return
		}
	}
}
