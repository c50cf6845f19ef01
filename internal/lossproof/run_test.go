package lossproof

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// An experiment is a session with a fault, and then a session without faults.
type experiment struct {
	server   server
	program  program
	security security

	fault        fault
	fromClient   bool // the fault is in the octets that the client sends
	faultAt      int  // the octet before which the fault happens, -1 for none
	splitReplies bool // each Read of the client returns one octet
	failingCall  *failingCall
	hook         *hookFault
	plain        *plainFault
	storeFull    int // number of the message at which the store is full, 0 for never
}

func (e experiment) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v | %s | %v", e.server, e.program.name, e.security)
	if e.faultAt >= 0 {
		sender := map[bool]string{true: "client", false: "server"}[e.fromClient]
		fmt.Fprintf(&b, " | %s at %s octet %d", e.fault.name, sender, e.faultAt)
	}
	if e.splitReplies {
		b.WriteString(" | octet by octet")
	}
	if e.failingCall != nil {
		fmt.Fprintf(&b, " | %v", e.failingCall)
	}
	if e.hook != nil {
		fmt.Fprintf(&b, " | %v", e.hook)
	}
	if e.plain != nil {
		fmt.Fprintf(&b, " | within TLS: %+v", *e.plain)
	}
	if e.storeFull > 0 {
		fmt.Fprintf(&b, " | store full at %d", e.storeFull)
	}
	return b.String()
}

// A violation is an invariant that did not hold.
type violation struct{ invariant, what string }

// A run is an experiment in progress.
type run struct {
	experiment
	drop              *maildrop
	store             *store
	firstSession      *programSession // the session with the fault
	session           *session
	w                 *wire
	err               error         // error of the first session
	paused            atomic.Int64  // nanoseconds in pauses of the program
	pausedBeforeFault int64         // value of paused when the fault happened
	duration          time.Duration // time after the fault, or of the whole session; without pauses of the program
	client            atomic.Pointer[pop3.Client]

	mu         sync.Mutex
	violations []violation
}

func (r *run) addViolation(invariant, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, violation{invariant, fmt.Sprintf(format, args...)})
}

// run carries out the experiment in a bubble of synctest.
func (e experiment) run(memory resultCache) *run {
	drop := newMaildrop()
	if e.server.onlyMessage > 0 {
		drop.mails = drop.mails[e.server.onlyMessage-1 : e.server.onlyMessage]
	}
	r := &run{experiment: e, drop: drop, store: &store{record: map[string]bool{}, fullAt: e.storeFull}}
	before := slices.Clone(drop.mails)
	r.firstSession, r.err = r.runSession(e.server, e.security, true)
	r.checkFirst(before)
	r.store.fullAt = 0
	if !e.program.record {
		r.store.record = map[string]bool{}
	}
	memory.runOrReuse(r, func() {
		if _, err := r.runSession(e.server.healthy(), inClear, false); err != nil {
			r.addViolation("I5", "the second session failed: %v", err)
		}
	})
	r.checkSecond(before)
	return r
}

// A resultCache stores the results of second sessions. They depend only on the state in which the session begins.
type resultCache map[string]savedState

// maxResults is the number of states that are stored.
const maxResults = 10_000

// A savedState is everything that a session can change.
type savedState struct{ drop, stored []mail }

// runOrReuse runs the second session, or uses the stored result.
func (m resultCache) runOrReuse(r *run, session func()) {
	key := fmt.Sprintf("%q %q %v %v %+v", r.drop.mails, r.store.mails, r.store.record, r.program, r.server.healthy())
	if w, ok := m[key]; ok {
		r.drop.mails, r.store.mails = w.drop, w.stored
		return
	}
	found := len(r.violations)
	session()
	if len(m) == maxResults {
		clear(m)
	}
	if len(r.violations) == found {
		m[key] = savedState{r.drop.mails, r.store.mails}
	}
}

// runSession runs one session. withFault says whether it is the first one, which has the fault.
func (r *run) runSession(variant server, security security, withFault bool) (*programSession, error) {
	goroutines := runtime.NumGoroutine()
	w := newWire()
	r.prepareWire(w, withFault)
	s := newSession(r.drop, variant, r.onDele)
	s.offersTLS = security == startTLSLater
	if withFault {
		r.w, r.session = w, s
	}
	v := &programSession{program: r.program, w: w, store: r.store, checkErr: r.checkErr, sleep: r.sleep,
		onClient: r.client.Store}
	v.checkMessage = func(num int, data string) { r.checkMessage(s, num, data) }
	v.dial = func(ctx context.Context) (*pop3.Client, error) {
		return security.dial(ctx, r.options(w, s, security, withFault))
	}
	watchdog := time.AfterFunc(7*24*time.Hour, func() {
		r.addViolation("I6", "the session hangs")
		clientEnd{w: w}.Close()
		w.end()
	})
	began := time.Now()
	r.paused.Store(0)
	err := v.run()
	watchdog.Stop()
	r.client.Store(nil)
	r.measure(w, began)
	synctest.Wait()
	r.checkConnection(w, s)
	w.end()
	synctest.Wait()
	if n := countLeakedGoroutines(goroutines); n > 0 {
		r.addViolation("I6", "%d goroutines left", n)
	}
	return v, err
}

// countLeakedGoroutines returns the number of goroutines that are left in the bubble. It returns 0 at once if the
// process has no more goroutines than before, because counting those of the bubble takes longer.
func countLeakedGoroutines(before int) int {
	if runtime.NumGoroutine() <= before {
		return 0
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	const root = 3 // the function in the bubble, and the goroutines that wait for it
	return strings.Count(string(stacks), "synctest bubble ") - root
}

// prepareWire prepares a wire: the fault, and the functions that are called when it happens.
func (r *run) prepareWire(w *wire, withFault bool) {
	w.log.addViolation = func(invariant, what string) { r.addViolation(invariant, "%s", what) }
	w.hangUp = func() {
		if c := r.client.Load(); c != nil {
			c.Close()
			return
		}
		w.mu.Lock() // without a client, the running call is the dial
		defer w.mu.Unlock()
		w.cancelCall()
	}
	w.onFault = func() { r.pausedBeforeFault = r.paused.Load() }
	if !withFault {
		return
	}
	w.singleOctets, w.log.alertSize = r.splitReplies, r.security.alert()
	if r.failingCall != nil {
		w.failCall = r.failingCall.next
	}
	if r.faultAt < 0 || r.fault.inject == nil {
		return
	}
	l := &w.down
	if r.fromClient {
		l = &w.up
	}
	l.fault, l.faultAt = &r.fault, r.faultAt
}

func (r *run) sleep(d time.Duration) {
	time.Sleep(d)
	r.paused.Add(int64(d))
}

func (r *run) measure(w *wire, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	paused := r.paused.Load()
	if !w.faultTime.IsZero() {
		began, paused = w.faultTime, paused-r.pausedBeforeFault
	}
	r.duration = time.Since(began) - time.Duration(paused)
}

// checkErr checks every error of the client.
func (r *run) checkErr(err error) {
	if err == nil {
		return
	}
	r.checkSecret("error", fmt.Sprintf("%v %+v %#v", err, err, err))
}

// secretForms are the forms in which the password could be shown.
var secretForms = []string{
	password,
	base64.StdEncoding.EncodeToString([]byte(password))[:12],
	base64.StdEncoding.EncodeToString([]byte("x" + password))[4:12],
	base64.StdEncoding.EncodeToString([]byte("xx" + password))[4:12],
	hex.EncodeToString([]byte(password)),
	url.QueryEscape(password),
}

func (r *run) checkSecret(where, text string) {
	for _, form := range secretForms {
		if strings.Contains(text, form) {
			r.addViolation("I6", "the secret in an %s: %s", where, text)
		}
	}
}

// checkConnection checks invariant I6, except for the time.
func (r *run) checkConnection(w *wire, s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		r.addViolation("I6", "the connection was not closed")
	}
	if s.quits > 1 {
		r.addViolation("I4", "QUIT came %d times", s.quits)
	}
}

// checkWrite checks invariant I4. Pipelined commands may be written while a read fails, but QUIT may not. After the
// caller has the error, nothing may be written.
func (l *writeLog) checkWrite(p []byte) {
	l.octets = append(l.octets, p...)
	quit := strings.HasPrefix(string(p), "QUIT")
	switch {
	case l.callError && len(p) != l.alertSize:
		l.addViolation("I4", fmt.Sprintf("written after the session had failed: %q", firstOctets(p)))
	case quit && l.readError:
		l.addViolation("I4", "QUIT was written after an error of the transport")
	case quit && !l.quitting:
		l.addViolation("I4", "QUIT was written without a call of Quit")
	}
}

func firstOctets(p []byte) []byte { return p[:min(len(p), 40)] }

// A security says how the connection is protected.
type security int

const (
	inClear security = iota
	startTLSLater
	implicitTLS // TLS 1.3
	implicitTLS12
)

func (s security) String() string { return [...]string{"in clear", "STLS", "TLS", "TLS 1.2"}[s] }

// alert returns the size of a close alert. Every command is longer.
func (s security) alert() int { return [...]int{-1, 24, 24, 31}[s] }

func (s security) dial(ctx context.Context, opts *pop3.Options) (*pop3.Client, error) {
	switch s {
	case startTLSLater:
		return pop3.DialStartTLS(ctx, hostName, opts)
	case implicitTLS, implicitTLS12:
		return pop3.DialTLS(ctx, hostName, opts)
	}
	return pop3.DialInsecure(ctx, hostName, opts)
}

// options returns options with which the client dials the model.
func (r *run) options(w *wire, s *session, security security, withFault bool) *pop3.Options {
	opts := &pop3.Options{TLSConfig: clientTLS(), InsecureAuth: security == inClear, Trace: r.trace(withFault)}
	if security == implicitTLS12 {
		opts.TLSConfig = opts.TLSConfig.Clone()
		opts.TLSConfig.MaxVersion = tls.VersionTLS12
	}
	opts.DialContext = func(context.Context, string, string) (net.Conn, error) {
		w.injectAtStart()
		h := &host{session: s, w: w}
		if withFault {
			h.fault = r.plain
		}
		go h.serve(security >= implicitTLS)
		return clientEnd{w: w}, nil
	}
	return opts
}
