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

// An experiment is one session with one fault, and then one without.
type experiment struct {
	server   server
	program  program
	security security

	fault     fault
	up        bool // the fault is in what the client sends
	at        int  // the octet before which it happens, -1 for none
	octetwise bool // the client gets one octet at a time
	torture   *torture
	hook      *hook
	plain     *plainFault
	storeFull int // the message at which the store is full
}

func (e experiment) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v | %s | %v", e.server, e.program.name, e.security)
	if e.at >= 0 {
		sender := map[bool]string{true: "client", false: "server"}[e.up]
		fmt.Fprintf(&b, " | %s at %s octet %d", e.fault.name, sender, e.at)
	}
	if e.octetwise {
		b.WriteString(" | octet by octet")
	}
	if e.torture != nil {
		fmt.Fprintf(&b, " | %v", e.torture)
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
	drop     *maildrop
	store    *store
	first    *visit // the session with the fault
	session  *session
	w        *wire
	err      error         // error of the first session
	paused   atomic.Int64  // nanoseconds in pauses of the program
	struckIn int64         // those before the fault happened
	took     time.Duration // time from the fault (or from the beginning) to the end, without pauses of the program
	client   atomic.Pointer[pop3.Client]

	mu         sync.Mutex
	violations []violation
}

func (r *run) broke(invariant, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, violation{invariant, fmt.Sprintf(format, args...)})
}

// do carries out the experiment in a bubble of synctest.
func (e experiment) do(memory memory) *run {
	drop := newMaildrop()
	if e.server.only > 0 {
		drop.mails = drop.mails[e.server.only-1 : e.server.only]
	}
	r := &run{experiment: e, drop: drop, store: &store{record: map[string]bool{}, full: e.storeFull}}
	before := slices.Clone(drop.mails)
	r.first, r.err = r.visit(e.server, e.security, true)
	r.judge(before)
	r.store.full = 0
	if !e.program.record {
		r.store.record = map[string]bool{}
	}
	memory.recall(r, func() {
		if _, err := r.visit(e.server.healthy(), inClear, false); err != nil {
			r.broke("I5", "the second session failed: %v", err)
		}
	})
	r.judgeSecond(before)
	return r
}

// A memory stores the results of second sessions. They depend only on the state in which the session begins.
type memory map[string]world

// maxMemory is the number of states that are stored.
const maxMemory = 10_000

// A world is everything that a session can change.
type world struct{ drop, stored []mail }

// recall runs the second session, or returns the stored result.
func (m memory) recall(r *run, session func()) {
	key := fmt.Sprintf("%q %q %v %v %+v", r.drop.mails, r.store.mails, r.store.record, r.program, r.server.healthy())
	if w, ok := m[key]; ok {
		r.drop.mails, r.store.mails = w.drop, w.stored
		return
	}
	found := len(r.violations)
	session()
	if len(m) == maxMemory {
		clear(m)
	}
	if len(r.violations) == found {
		m[key] = world{r.drop.mails, r.store.mails}
	}
}

// visit runs one session. faulty says whether it is the first one, which has the fault.
func (r *run) visit(how server, security security, faulty bool) (*visit, error) {
	goroutines := runtime.NumGoroutine()
	w := newWire()
	r.rig(w, faulty)
	s := newSession(r.drop, how, r.onDele)
	s.clear = security == startTLSLater
	if faulty {
		r.w, r.session = w, s
	}
	v := &visit{program: r.program, w: w, store: r.store, look: r.look, sleep: r.sleep, ready: r.client.Store}
	v.got = func(num int, data string) { r.got(s, num, data) }
	v.dial = func(ctx context.Context) (*pop3.Client, error) {
		return security.dial(ctx, r.options(w, s, security, faulty))
	}
	watchdog := time.AfterFunc(7*24*time.Hour, func() {
		r.broke("I6", "the session hangs")
		clientEnd{w: w}.Close()
		w.shut()
	})
	began := time.Now()
	r.paused.Store(0)
	err := v.run()
	watchdog.Stop()
	r.client.Store(nil)
	r.measure(w, began)
	synctest.Wait()
	r.hygiene(w, s)
	w.shut()
	synctest.Wait()
	if n := goroutinesBeyond(goroutines); n > 0 {
		r.broke("I6", "%d goroutines left", n)
	}
	return v, err
}

// goroutinesBeyond returns the number of goroutines that are left in the bubble. It returns 0 at once if the process
// has at most n goroutines, because counting those of the bubble takes longer.
func goroutinesBeyond(n int) int {
	if runtime.NumGoroutine() <= n {
		return 0
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	const root = 3 // the function in the bubble, and the goroutines that wait for it
	return strings.Count(string(stacks), "synctest bubble ") - root
}

// rig prepares a wire: the fault, and the functions that are called when it happens.
func (r *run) rig(w *wire, faulty bool) {
	w.log.broke = func(invariant, what string) { r.broke(invariant, "%s", what) }
	w.hangUp = func() {
		if c := r.client.Load(); c != nil {
			c.Close()
			return
		}
		w.mu.Lock() // without a client, the only call to end is the dial
		defer w.mu.Unlock()
		w.cancelCall()
	}
	w.struck = func() { r.struckIn = r.paused.Load() }
	if !faulty {
		return
	}
	w.octetwise, w.log.alert = r.octetwise, r.security.alert()
	if r.torture != nil {
		w.torture = r.torture.next
	}
	if r.at < 0 || r.fault.strike == nil {
		return
	}
	l := &w.down
	if r.up {
		l = &w.up
	}
	l.fault, l.at = &r.fault, r.at
}

func (r *run) sleep(d time.Duration) {
	time.Sleep(d)
	r.paused.Add(int64(d))
}

func (r *run) measure(w *wire, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	paused := r.paused.Load()
	if !w.struckAt.IsZero() {
		began, paused = w.struckAt, paused-r.struckIn
	}
	r.took = time.Since(began) - time.Duration(paused)
}

// look checks every error of the client.
func (r *run) look(err error) {
	if err == nil {
		return
	}
	r.noSecret("error", fmt.Sprintf("%v %+v %#v", err, err, err))
}

// forms are the forms in which the password could be shown.
var forms = []string{
	password,
	base64.StdEncoding.EncodeToString([]byte(password))[:12],
	base64.StdEncoding.EncodeToString([]byte("x" + password))[4:12],
	base64.StdEncoding.EncodeToString([]byte("xx" + password))[4:12],
	hex.EncodeToString([]byte(password)),
	url.QueryEscape(password),
}

func (r *run) noSecret(where, text string) {
	for _, form := range forms {
		if strings.Contains(text, form) {
			r.broke("I6", "the secret in an %s: %s", where, text)
		}
	}
}

// hygiene checks invariant I6, except for the time.
func (r *run) hygiene(w *wire, s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		r.broke("I6", "the connection was not closed")
	}
	if s.quits > 1 {
		r.broke("I4", "QUIT came %d times", s.quits)
	}
}

// wrote checks invariant I4. Pipelined commands may be written while an error is read, but QUIT may not. After the
// caller has the error, nothing may be written.
func (l *writeLog) wrote(p []byte) {
	l.octets = append(l.octets, p...)
	quit := strings.HasPrefix(string(p), "QUIT")
	switch {
	case l.callError && len(p) != l.alert:
		l.broke("I4", fmt.Sprintf("written after the session had failed: %q", clip(p)))
	case quit && l.readError:
		l.broke("I4", "QUIT was written after an error of the transport")
	case quit && !l.quitting:
		l.broke("I4", "QUIT was written without a call of Quit")
	}
}

func clip(p []byte) []byte { return p[:min(len(p), 40)] }

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
func (r *run) options(w *wire, s *session, security security, faulty bool) *pop3.Options {
	opts := &pop3.Options{TLSConfig: clientTLS(), InsecureAuth: security == inClear, Trace: r.trace(faulty)}
	if security == implicitTLS12 {
		opts.TLSConfig = opts.TLSConfig.Clone()
		opts.TLSConfig.MaxVersion = tls.VersionTLS12
	}
	opts.DialContext = func(context.Context, string, string) (net.Conn, error) {
		w.begin()
		h := &host{session: s, w: w}
		if faulty {
			h.fault = r.plain
		}
		go h.serve(security >= implicitTLS)
		return clientEnd{w: w}, nil
	}
	return opts
}
