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
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-2d50cddb/pop3"
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
	CA          file          `name:"ca" placeholder:"FILE" help:"The only certificates to trust for POP3."`
	Mechanisms  []string      `help:"The only mechanisms to log in with."`
	Timeout     time.Duration `help:"Longest wait for a POP3 server; 0 is that of the library."`

	roots   *x509.CertPool // the certificates of CA
	mail    jetstream.JetStream
	maxSize int64        // the largest message that the stream can take
	options pop3.Options // the options of all connections
	about   hello        // the next hello; only the method loop uses about and held
	held    *lease       // the lease of all polls
	ended   chan func()  // loop calls one for each poll that has ended
}

const (
	beat   = time.Second           // the longest time between two hellos
	hurry  = 25 * time.Millisecond // the shortest time, used while there is more to do
	lookup = 5 * time.Second       // the time between two checks of the streams
)

// Validate is called by kong.
func (w *Worker) Validate() error {
	if w.Sink != "stream" && !strings.HasPrefix(w.Sink, "maildir:") {
		return errors.New("--sink has to be stream, or maildir: and a folder")
	}
	if w.CA.Filename != "" {
		if w.roots = x509.NewCertPool(); !w.roots.AppendCertsFromPEM(w.CA.Contents) {
			return fmt.Errorf("%s: no certificate in it", w.CA.Filename)
		}
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
	prometheus.MustRegister(pollCount, errorCount, handedBack, replyCount, handshakeCount, messageCount, octetCount,
		polling, lastPoll, natsWaiting, lagSeconds, pollSeconds)
	for _, reason := range []string{"unknown", "stopping", "lease", "nats"} {
		handedBack.WithLabelValues(reason) // each series starts at 0, so that a rate can be computed
	}
	w.options = pop3.Options{Timeout: w.Timeout, Trace: countReplies, Mechanisms: w.Mechanisms,
		ScramKeys: sasl.NewScramKeys(100_000),
		TLSConfig: &tls.Config{RootCAs: w.roots, ClientSessionCache: tls.NewLRUClientSessionCache(4096)}}
	if w.mail, err = w.connect(w.name, w.bus.js); err != nil {
		return err
	}
	defer w.mail.Conn().Close()
	if w.Sink == "stream" {
		err = waitFor(ctx, w.mail.Conn(), func(ctx context.Context) error {
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
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.bus.silence/2, cancel) })
	defer stop()
	w.about = hello{ID: rand.Text(), Name: w.name, Sessions: w.Sessions, Polls: make(map[string]uint64)}
	w.ended = make(chan func(), max(1, w.Sessions))
	var polls sync.WaitGroup
	for looked := time.Now(); !errors.Is(err, errLayout) && life.Err() == nil &&
		(ctx.Err() == nil || len(w.about.Polls) > 0); {
		all := w.ask(life, ctx.Err() == nil)
		for _, g := range all {
			held := w.held
			w.about.Polls[g.Key] = g.Revision
			polls.Go(func() {
				outcome := w.handle(life, held, g)
				w.ended <- func() { w.end(g.Key, outcome) }
			})
		}
		if time.Since(looked) > lookup {
			looked = time.Now()
			err = try(life, oneTry, w.bus.look)
		}
		w.rest(len(all) > 0)
	}
	cancel()
	polls.Wait()
	w.about.Stopped = true
	w.say(context.WithoutCancel(ctx))
	return err
}

// ask sends a hello to the leading scheduler. The answer renews the lease, and contains polls to do.
func (w *Worker) ask(ctx context.Context, more bool) (all []grant) {
	asked := time.Now()
	w.about.Free = 0
	if more {
		w.about.Free = max(0, w.Sessions-len(w.about.Polls))
	}
	answer, err := w.say(ctx)
	if err != nil || json.Unmarshal(answer.Data, &all) != nil {
		return nil
	}
	if !w.held.renew(asked) {
		if w.held != nil {
			w.held.end()
		}
		w.held = newLease(ctx, asked, w.bus.silence)
	}
	return all
}

// say sends a hello and returns the answer.
func (w *Worker) say(ctx context.Context) (answer *nats.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	w.about.Waiting = w.bus.waiting.Load()
	natsWaiting.Set(float64(w.about.Waiting))
	polling.Set(float64(len(w.about.Polls)))
	text, _ := json.Marshal(w.about)
	return w.bus.nc.RequestWithContext(ctx, helloSubject, text)
}

// rest waits until the next hello is due. It is due early if there may be more to do, or when a poll has ended.
func (w *Worker) rest(soon bool) {
	if !soon {
		select {
		case end := <-w.ended:
			end()
		case <-time.After(beat / 2):
			return
		}
	}
	time.Sleep(hurry)
	for len(w.ended) > 0 {
		(<-w.ended)()
	}
}

// end records that a poll has ended. It was reported, unless o is nil.
func (w *Worker) end(key string, o *Outcome) {
	delete(w.about.Polls, key)
	if o == nil {
		return
	}
	w.about.Done++
	w.about.Messages += uint64(o.Delivered)
	if o.Failed {
		w.about.Failed++
	}
}

// handle carries out a poll and reports it. It sends the report until NATS answers or ctx ends. It returns the outcome
// that was reported, or nil.
func (w *Worker) handle(ctx context.Context, held *lease, g grant) *Outcome {
	begin := time.Now()
	a, known := w.accounts.lookup(g.Key)
	log := slog.With("account", a.Name, "key", g.Key, "start", begin)
	r := report{Key: g.Key, Revision: g.Revision}
	if !known || g.Fingerprint != "" && a.print != g.Fingerprint {
		log.Warn("this worker has another accounts file than the scheduler", "missing", !known)
		handedBack.WithLabelValues("unknown").Inc()
		r.After = w.bus.silence
	} else {
		lagSeconds.Observe(max(0, g.Late.Seconds()))
		if o, reason := w.poll(ctx, held, a); reason == "" {
			r.Outcome = &o
		} else {
			log.Warn("a poll is left for later", "reason", reason, "error", o.Error)
			handedBack.WithLabelValues(reason).Inc()
		}
	}
	text, _ := json.Marshal(r)
	err := w.bus.insist(ctx, func(ctx context.Context) error {
		_, err := w.bus.nc.RequestWithContext(ctx, reportSubject, text)
		return err
	})
	if err != nil || r.Outcome == nil {
		return nil
	}
	r.Outcome.count(log, time.Since(begin))
	return r.Outcome
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
