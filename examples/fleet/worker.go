package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsmail"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A Worker does the polls that the leading scheduler hands out.
type Worker struct {
	service
	mailConfig
	Sessions    int           `default:"200" help:"Number of polls at the same time."`
	Longest     time.Duration `default:"10m" help:"Limit for the duration of a poll."`
	MaxMessages int           `default:"500" help:"Limit for the messages of a poll. Another poll fetches the rest."`
	Sink        string        `default:"stream" help:"Where mail goes: stream, or maildir: and an existing folder."`
	CA          string        `name:"ca" placeholder:"FILE" help:"Trust only these certificates of POP3 servers."`
	Mechanisms  []string      `help:"Log in only with these mechanisms."`
	Timeout     time.Duration `help:"Longest wait for a POP3 server; 0 means the default of package pop3."`

	roots   *x509.CertPool // certificates in the file CA
	mail    jetstream.JetStream
	maxSize int64        // size of the largest message that the mail stream accepts
	options pop3.Options // options of all connections to POP3 servers
	ended   chan string  // the key of each poll that has ended

	// Only the goroutine of the method loop uses these fields.
	hello hello         // the next hello
	lease *leases.Lease // the right to poll, for all polls
}

const (
	helloInterval    = time.Second           // longest time between two hellos
	minHelloInterval = 25 * time.Millisecond // shortest time between two hellos
	checkInterval    = 5 * time.Second       // time between two checks of the streams
)

// Validate is called by kong.
func (w *Worker) Validate() error {
	if w.Sink != "stream" && !strings.HasPrefix(w.Sink, "maildir:") {
		return errors.New("--sink must be stream, or maildir: and a folder")
	}
	if w.CA == "" {
		return nil
	}
	text, err := os.ReadFile(w.CA)
	if err != nil {
		return err
	}
	if w.roots = x509.NewCertPool(); !w.roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s contains no certificate", w.CA)
	}
	return nil
}

// Run is called by kong.
func (w *Worker) Run(ctx context.Context, js jetstream.JetStream, g globals) error {
	return w.run(ctx, js, g.Name, w)
}

// work polls until ctx ends. All polls share a cache of TLS sessions, which saves most of a handshake, and a cache of
// SCRAM keys, which saves their derivation from the password.
func (w *Worker) work(ctx context.Context) (err error) {
	prometheus.MustRegister(pollCount, errorCount, handedBack, handshakeCount, messageCount, octetCount,
		polling, lastPoll, natsWaiting, lagSeconds, pollSeconds)
	for _, reason := range []string{"unknown", "stopping", "lease", "nats"} {
		handedBack.WithLabelValues(reason) // starts the time series at 0, so that Prometheus sees the first increment
	}
	w.options = pop3.Options{Timeout: w.Timeout, Mechanisms: w.Mechanisms, ScramKeys: sasl.NewScramKeys(100_000),
		TLSConfig: &tls.Config{RootCAs: w.roots, ClientSessionCache: tls.NewLRUClientSessionCache(4096)}}
	if w.mail, err = w.connect(w.name, w.bus.js); err != nil {
		return err
	}
	defer w.mail.Conn().Close()
	if w.Sink == "stream" {
		err = natsretry.WaitFor(ctx, w.mail.Conn(), func(ctx context.Context) error {
			_, err := mailStream.open(ctx, w.mail)
			w.maxSize = w.mail.Conn().MaxPayload() - 16<<10 // the headers of the NATS message also need room
			return err
		})
	}
	if err != nil {
		return err
	}
	w.started.Store(true)
	return w.loop(ctx)
}

// loop asks for polls and does them until ctx ends. Then running polls may continue for half of Bus.silence. After that
// graceCtx ends, and with it all polls.
func (w *Worker) loop(ctx context.Context) (err error) {
	graceCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(w.bus.silence/2, cancel) })
	defer stop()
	w.hello = hello{ID: rand.Text(), Name: w.name, Sessions: w.Sessions, Polls: make(map[string]uint64)}
	w.ended = make(chan string, max(1, w.Sessions))
	var polls sync.WaitGroup
	checked := time.Now()
	for ctx.Err() == nil || len(w.hello.Polls) > 0 && graceCtx.Err() == nil {
		w.hello.Free = max(0, w.Sessions-len(w.hello.Polls))
		if ctx.Err() != nil {
			w.hello.Free = 0
		}
		grants := w.requestPolls(graceCtx)
		for _, g := range grants {
			lease := w.lease
			w.hello.Polls[g.Key] = g.Revision
			polls.Go(func() {
				w.doPoll(graceCtx, lease, g)
				w.ended <- g.Key
			})
		}
		if time.Since(checked) > checkInterval {
			checked = time.Now()
			err = natsretry.Try(graceCtx, natsretry.Timeout, w.bus.checkStreams)
			if errors.Is(err, errLayout) {
				break
			}
		}
		w.waitForNextHello(len(grants) > 0)
	}
	cancel()
	polls.Wait()
	w.hello.Stopped = true
	w.sendHello(context.WithoutCancel(ctx))
	return err
}

// requestPolls sends a hello to the leading scheduler. The answer renews the lease, and contains polls to do.
func (w *Worker) requestPolls(ctx context.Context) (grants []grant) {
	requested := time.Now()
	answer, err := w.sendHello(ctx)
	if err != nil || json.Unmarshal(answer.Data, &grants) != nil {
		return nil
	}
	if !w.lease.Renew(requested) {
		w.lease.End()
		w.lease = leases.New(ctx, requested, w.bus.silence)
	}
	return grants
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

// waitForNextHello waits until it is time for the next hello: at once if soon is set, when a poll has ended, or after
// half of helloInterval. It waits at least minHelloInterval.
func (w *Worker) waitForNextHello(soon bool) {
	if !soon {
		select {
		case key := <-w.ended:
			delete(w.hello.Polls, key)
		case <-time.After(helloInterval / 2):
			return
		}
	}
	time.Sleep(minHelloInterval)
	for len(w.ended) > 0 {
		delete(w.hello.Polls, <-w.ended)
	}
}

// doPoll carries out a poll and sends its report, again and again until a scheduler answers or ctx ends.
func (w *Worker) doPoll(ctx context.Context, lease *leases.Lease, g grant) {
	begin := time.Now()
	a, known := w.accounts.Lookup(g.Key)
	log := slog.With("account", a.Name, "key", g.Key, "start", begin)
	r := report{Key: g.Key, Revision: g.Revision}
	if !known || g.Fingerprint != "" && a.Fingerprint != g.Fingerprint {
		log.Warn("the accounts files of this worker and of the scheduler differ", "missing", !known)
		handedBack.WithLabelValues("unknown").Inc()
		r.After = w.bus.silence
	} else {
		lagSeconds.Observe(max(0, g.Late.Seconds()))
		if o, reason := w.poll(ctx, lease, a); reason == "" {
			r.Outcome = &o
		} else {
			log.Warn("a poll was handed back", "reason", reason, "error", o.Error)
			handedBack.WithLabelValues(reason).Inc()
		}
	}
	text, _ := json.Marshal(r)
	err := w.bus.requests.Do(ctx, func(ctx context.Context) error {
		_, err := w.bus.nc.RequestWithContext(ctx, reportSubject, text)
		return err
	})
	if err == nil && r.Outcome != nil {
		r.Outcome.count(log, time.Since(begin))
	}
}

// count counts and logs the outcome of a poll.
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

// poll fetches the new mail of an account while the lease is valid. If something else than the account or its server
// interrupts the poll, reason is not empty, and the outcome must not be reported.
func (w *Worker) poll(storeCtx context.Context, lease *leases.Lease, a accounts.Account) (o Outcome, reason string) {
	ctx, cancel := context.WithTimeout(lease.Context(), w.Longest)
	defer cancel()
	report, err := w.fetch(ctx, storeCtx, lease, a)
	o = outcomeOf(report, err)
	switch {
	case storeCtx.Err() != nil:
		reason = "stopping"
	case !lease.Valid() || errors.Is(err, leases.ErrLost):
		reason = "lease"
	case errors.Is(err, natsretry.ErrUnavailable):
		reason = "nats"
	case ctx.Err() != nil:
		o.More, o.Code = o.Delivered > 0, "slow"
	}
	return o, reason
}

// fetch fetches the new mail of an account until ctx ends. It may store the history until storeCtx ends.
func (w *Worker) fetch(ctx, storeCtx context.Context, lease *leases.Lease, a accounts.Account) (fetch.Report, error) {
	history := &natsmail.History{Bucket: w.bus.seen, Requests: &w.bus.requests, Key: a.Key(), Lease: lease,
		StoreContext: storeCtx}
	if _, err := history.Open(ctx, a.Name); err != nil {
		return fetch.Report{Aborted: err}, err
	}
	sink, err := w.sinkOf(a, history.IsNew())
	if err != nil {
		return fetch.Report{Aborted: err}, err
	}
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) { return w.login(ctx, lease, a) },
		Sink:    sink, Seen: history, Account: a.Name,
		Delete: a.Delete, MaxMessages: w.MaxMessages, MaxSize: w.maxSize,
	}
	report, err := f.Run(ctx)
	messageCount.Add(float64(report.Delivered))
	octetCount.Add(float64(report.Octets))
	return report, err
}

// shorten returns the text of an error for a record: one line of at most 500 bytes.
func shorten(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

// outcomeOf returns the outcome of a run. A run in which only some messages failed counts as successful, but the
// outcome contains the error.
func outcomeOf(r fetch.Report, err error) Outcome {
	o := Outcome{Delivered: r.Delivered, TryAgain: r.TryAgain, Error: shorten(err), Code: codeOf(err)}
	for _, s := range r.Skipped {
		o.More = o.More || errors.Is(s.Err, fetch.ErrLimit)
	}
	o.Failed = r.Aborted != nil && r.Delivered == 0
	if refusal, ok := errors.AsType[*pop3.Error](err); ok && r.Sessions == 0 {
		o.Refused, _ = refusal.RejectsCredentials()
	}
	return o
}

// login returns a session that is logged in. It writes to the server only while the lease is valid.
func (w *Worker) login(ctx context.Context, lease *leases.Lease, a accounts.Account) (*pop3.Client, error) {
	opts := w.options
	opts.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := proxy.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return lease.Conn(conn), nil
	}
	c, err := a.Dial(ctx, &opts)
	if err != nil {
		return nil, err
	}
	handshake := "none"
	if state, ok := c.TLSConnectionState(); ok {
		handshake = map[bool]string{true: "resumed", false: "full"}[state.DidResume]
	}
	handshakeCount.WithLabelValues(handshake).Inc()
	if err := a.Login(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// knownCodes are the response codes that codeOf returns. All other codes count as "refused", because each code is a
// time series, and a server can send any word.
var knownCodes = []pop3.Code{pop3.CodeInUse, pop3.CodeLoginDelay, pop3.CodeAuth, pop3.CodeSysTemp, pop3.CodeSysPerm,
	pop3.CodeUTF8}

// codeOf returns a short name for an error: the response code of a POP3 server, or a word in lower case.
func codeOf(err error) string {
	refusal, isRefusal := errors.AsType[*pop3.Error](err)
	switch {
	case err == nil:
		return ""
	case isRefusal:
		if i := slices.IndexFunc(knownCodes, refusal.Code.Is); i >= 0 {
			return string(knownCodes[i])
		}
		return "refused"
	case isType[*tls.CertificateVerificationError](err):
		return "certificate"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case isType[*pop3.ProtocolError](err):
		return "protocol"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "cut"
	case isType[*net.OpError](err):
		return "network"
	case errors.Is(err, fetch.ErrTooLarge):
		return "too large"
	}
	return "other"
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// sinkOf returns the sink for the mail of an account: the mail stream, or a Maildir, whose name is the key of the
// account. It makes the Maildir only if the account is new, that is, if it has no history.
func (w *Worker) sinkOf(a accounts.Account, isNew bool) (fetch.Sink, error) {
	root, ok := strings.CutPrefix(w.Sink, "maildir:")
	if !ok {
		return natsmail.Stream{JetStream: w.mail, Requests: &w.bus.requests, Subject: mailSubject + a.Key()}, nil
	}
	maildir := fetch.Maildir{Dir: filepath.Join(root, a.Key())}
	if !isNew {
		return maildir, nil
	}
	if _, err := os.Stat(root); err != nil { // perhaps its file system is not mounted
		return nil, fmt.Errorf("fleet: the folder of all Maildirs must exist: %w", err)
	}
	return maildir, maildir.Create()
}
