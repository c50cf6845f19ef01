package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A Worker does the polls that the leading scheduler hands out.
type Worker struct {
	service
	mailConfig
	Sessions    int           `default:"200" help:"Polls at the same time in this worker."`
	Longest     time.Duration `default:"10m" help:"Longest time for a poll."`
	MaxMessages int           `default:"500" help:"Messages in a poll; the next one follows at once."`
	Sink        string        `default:"stream" help:"Where mail goes: stream, or maildir: and a folder that exists."`
	CA          string        `name:"ca" placeholder:"FILE" help:"The only certificates to trust for POP3."`
	Mechanisms  []string      `help:"The only mechanisms to log in with."`
	Timeout     time.Duration `help:"Longest wait for a POP3 server; 0 is that of the library."`

	roots   *x509.CertPool // the certificates of CA
	mail    jetstream.JetStream
	maxSize int64        // the largest message that the stream can take
	options pop3.Options // the options of all connections
	ended   chan endedPoll

	// Only the method loop uses these fields.
	hello hello         // the next hello
	lease *leases.Lease // the right to poll; all polls share it
}

const (
	helloInterval    = time.Second           // longest time between two hellos
	minHelloInterval = 25 * time.Millisecond // shortest time, used while there is more to do
	checkInterval    = 5 * time.Second       // time between two checks of the streams
)

// Validate is called by kong.
func (w *Worker) Validate() error {
	if w.Sink != "stream" && !strings.HasPrefix(w.Sink, "maildir:") {
		return errors.New("--sink has to be stream, or maildir: and a folder")
	}
	if w.CA == "" {
		return nil
	}
	text, err := os.ReadFile(w.CA)
	if err != nil {
		return err
	}
	if w.roots = x509.NewCertPool(); !w.roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s: no certificate in it", w.CA)
	}
	return nil
}

// Run is called by kong.
func (w *Worker) Run(ctx context.Context, js jetstream.JetStream, g globals) error {
	return w.run(ctx, js, g.Name, w)
}

// work makes what all polls share, and works until ctx ends. The cache of TLS sessions makes the next poll of a host
// cheap, and the cache of SCRAM keys the next poll of an account.
func (w *Worker) work(ctx context.Context) (err error) {
	prometheus.MustRegister(pollCount, errorCount, handedBack, handshakeCount, messageCount, octetCount,
		polling, lastPoll, natsWaiting, lagSeconds, pollSeconds)
	for _, reason := range []string{"unknown", "stopping", "lease", "nats"} {
		handedBack.WithLabelValues(reason) // each series starts at 0, so that a rate can be computed
	}
	w.options = pop3.Options{Timeout: w.Timeout, Mechanisms: w.Mechanisms,
		ScramKeys: sasl.NewScramKeys(100_000),
		TLSConfig: &tls.Config{RootCAs: w.roots, ClientSessionCache: tls.NewLRUClientSessionCache(4096)}}
	if w.mail, err = w.connect(w.name, w.bus.js); err != nil {
		return err
	}
	defer w.mail.Conn().Close()
	if w.Sink == "stream" {
		err = natsretry.WaitFor(ctx, w.mail.Conn(), func(ctx context.Context) error {
			_, err := mailStream.open(ctx, w.mail)
			w.maxSize = w.mail.Conn().MaxPayload() - 16<<10
			return err
		})
	}
	if err != nil {
		return err
	}
	w.works.Store(true)
	return w.loop(ctx)
}

// loop works until ctx ends. Then it lets running polls finish, for at most half of the time for which workers may be
// silent.
func (w *Worker) loop(ctx context.Context) (err error) {
	graceCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.bus.silence/2, cancel) })
	defer stop()
	w.hello = hello{ID: rand.Text(), Name: w.name, Sessions: w.Sessions, Polls: make(map[string]uint64)}
	w.ended = make(chan endedPoll, max(1, w.Sessions))
	var polls sync.WaitGroup
	for checked := time.Now(); !errors.Is(err, errLayout) && graceCtx.Err() == nil &&
		(ctx.Err() == nil || len(w.hello.Polls) > 0); {
		all := w.requestPolls(graceCtx, ctx.Err() == nil)
		for _, g := range all {
			lease := w.lease
			w.hello.Polls[g.Key] = g.Revision
			polls.Go(func() {
				w.ended <- endedPoll{g.Key, w.doPoll(graceCtx, lease, g)}
			})
		}
		if time.Since(checked) > checkInterval {
			checked = time.Now()
			err = natsretry.Try(graceCtx, natsretry.Timeout, w.bus.checkStreams)
		}
		w.waitForNextHello(len(all) > 0)
	}
	cancel()
	polls.Wait()
	w.hello.Stopped = true
	w.sendHello(context.WithoutCancel(ctx))
	return err
}

// requestPolls sends a hello to the leading scheduler. The answer renews the lease, and contains polls to do.
func (w *Worker) requestPolls(ctx context.Context, more bool) (all []grant) {
	requested := time.Now()
	w.hello.Free = 0
	if more {
		w.hello.Free = max(0, w.Sessions-len(w.hello.Polls))
	}
	answer, err := w.sendHello(ctx)
	if err != nil || json.Unmarshal(answer.Data, &all) != nil {
		return nil
	}
	if !w.lease.Renew(requested) {
		w.lease.End()
		w.lease = leases.New(ctx, requested, w.bus.silence)
	}
	return all
}

// sendHello sends a hello and returns the answer.
func (w *Worker) sendHello(ctx context.Context) (answer *nats.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, natsretry.Timeout)
	defer cancel()
	w.hello.Waiting = w.bus.requests.Waiting()
	natsWaiting.Set(float64(w.hello.Waiting))
	polling.Set(float64(len(w.hello.Polls)))
	text, _ := json.Marshal(w.hello)
	return w.bus.nc.RequestWithContext(ctx, helloSubject, text)
}

// waitForNextHello waits until the next hello is due. It is due early if there may be more to do, or when a poll has
// ended.
func (w *Worker) waitForNextHello(soon bool) {
	if !soon {
		select {
		case p := <-w.ended:
			w.recordEnd(p)
		case <-time.After(helloInterval / 2):
			return
		}
	}
	time.Sleep(minHelloInterval)
	for len(w.ended) > 0 {
		w.recordEnd(<-w.ended)
	}
}

// An endedPoll is a poll that has ended.
type endedPoll struct {
	key      string
	reported bool // false if the poll was handed back, or its report got no answer
}

func (w *Worker) recordEnd(p endedPoll) {
	delete(w.hello.Polls, p.key)
	if p.reported {
		w.hello.Done++
	}
}

// doPoll carries out a poll and reports it. It sends the report until a scheduler answers or ctx ends. It reports
// whether the poll has an outcome that was reported.
func (w *Worker) doPoll(ctx context.Context, lease *leases.Lease, g grant) (reported bool) {
	begin := time.Now()
	a, known := w.accounts.Lookup(g.Key)
	log := slog.With("account", a.Name, "key", g.Key, "start", begin)
	r := report{Key: g.Key, Revision: g.Revision}
	if !known || g.Fingerprint != "" && a.Fingerprint != g.Fingerprint {
		log.Warn("this worker has another accounts file than the scheduler", "missing", !known)
		handedBack.WithLabelValues("unknown").Inc()
		r.After = w.bus.silence
	} else {
		lagSeconds.Observe(max(0, g.Late.Seconds()))
		if o, reason := w.poll(ctx, lease, a); reason == "" {
			r.Outcome = &o
		} else {
			log.Warn("a poll is left for later", "reason", reason, "error", o.Error)
			handedBack.WithLabelValues(reason).Inc()
		}
	}
	text, _ := json.Marshal(r)
	err := w.bus.requests.Do(ctx, func(ctx context.Context) error {
		_, err := w.bus.nc.RequestWithContext(ctx, reportSubject, text)
		return err
	})
	if err != nil || r.Outcome == nil {
		return false
	}
	r.Outcome.count(log, time.Since(begin))
	return true
}

// count counts and logs a poll that was reported.
func (o Outcome) count(log *slog.Logger, took time.Duration) {
	pollCount.WithLabelValues(map[bool]string{true: "failed", false: "ok"}[o.Failed]).Inc()
	level := slog.LevelDebug
	if o.Code != "" {
		level = slog.LevelWarn
		errorCount.WithLabelValues(o.Code).Inc()
	}
	lastPoll.SetToCurrentTime()
	pollSeconds.Observe(took.Seconds())
	log.Log(context.Background(), level, "polled", "delivered", o.Delivered, "code", o.Code, "error", o.Error,
		"seconds", took.Seconds())
}
