package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// maxEndTime limits how long a call may take after its context has ended or the connection was closed.
const maxEndTime = 50 * time.Millisecond

// A phase is a moment of a session in which the client waits for the server.
type phase struct {
	name   string
	script []string // the dialogue before this moment; it begins after the login if do is set
	do     func(ctx context.Context, c *pop3.Client) error
}

// waitingPhases are the phases after the login.
var waitingPhases = []phase{
	{"status line", []string{"C: NOOP"}, noopOnly},
	{"half a status line", []string{"C: NOOP", `s: "+O"`}, noopOnly},
	{"list", []string{"C: LIST", "S: +OK", "S: 1 1"}, func(ctx context.Context, c *pop3.Client) error {
		_, err := c.ListAll(ctx)
		return err
	}},
	{"body", []string{"C: RETR 1", "S: +OK", "S: a"}, func(ctx context.Context, c *pop3.Client) error {
		m, err := c.Retr(ctx, 1)
		if err == nil {
			_, err = io.Copy(io.Discard, m)
		}
		return err
	}},
	{"drain", []string{"C: RETR 1", "S: +OK", "S: a"}, func(ctx context.Context, c *pop3.Client) error {
		m, err := c.Retr(ctx, 1)
		if err == nil {
			m.Close()
			err = c.Noop(ctx)
		}
		return err
	}},
	{"loop over messages", []string{"C: CAPA", "S: +OK", "S: PIPELINING", "S: .", "C: RETR 1", "C: RETR 2",
		"S: +OK", "S: a",
		"S: ."}, func(ctx context.Context, c *pop3.Client) error {
		_, err := outcomes(ctx, c, 1, 2)
		return err
	}},
	{"DELE of many", []string{"C: CAPA", "S: -ERR", "C: DELE 1", "S: +OK", "C: DELE 2"},
		func(ctx context.Context, c *pop3.Client) error { return c.Dele(ctx, 1, 2) }},
	{"listing", []string{"C: CAPA", "S: +OK", "S: PIPELINING", "S: UIDL", "S: .", "C: LIST", "C: UIDL",
		"S: +OK", "S: ."},
		func(ctx context.Context, c *pop3.Client) error {
			_, err := c.Listing(ctx)
			return err
		}},
	{"write", []string{"DEAF"}, noopOnly},
	{"QUIT", []string{"C: QUIT"}, func(ctx context.Context, c *pop3.Client) error { return c.Quit(ctx) }},
}

func noopOnly(ctx context.Context, c *pop3.Client) error { return c.Noop(ctx) }

// endings are the ways in which another goroutine ends a call.
var endings = []struct {
	name string
	end  func(cancel context.CancelFunc, c *pop3.Client)
	err  error
}{
	{"cancel", func(cancel context.CancelFunc, _ *pop3.Client) { cancel() }, context.Canceled},
	{"Close", func(_ context.CancelFunc, c *pop3.Client) { c.Close() }, net.ErrClosed},
}

// If another goroutine ends a call after the login, the call returns the reason at once. QUIT is not sent, and no
// goroutine is left (H-243, H-244).
func TestEndedCalls(t *testing.T) {
	for _, ph := range waitingPhases {
		for _, e := range endings {
			t.Run(map[string]string{"cancel": "H-243 ", "Close": "H-244 "}[e.name]+e.name+" in "+ph.name,
				func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := loggedInClient(t, script(ph.script).add("HOLD"), pop3.Options{})
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						var ended time.Time
						time.AfterFunc(500*time.Millisecond, func() {
							ended = time.Now()
							e.end(cancel, c)
						})
						err := ph.do(ctx, c)
						assert.ErrorIs(t, err, e.err)
						checkError(t, err)
						assert.LessOrEqual(t, time.Since(ended), maxEndTime)
						next := c.Noop(t.Context())
						assert.ErrorIs(t, next, net.ErrClosed)
						assert.ErrorIs(t, next, e.err)
						assert.NoError(t, c.Close())
					})
				})
		}
	}
}

// A login ends at once when its context ends, after any line of the exchange.
func TestEndedLogins(t *testing.T) {
	ir := b64("\x00u\x00" + canary)
	for name, row := range map[string]struct {
		script []string
		do     func(ctx context.Context, c *pop3.Client) error
	}{
		"USER": {[]string{"C: USER u"}, byUser},
		"PASS": {[]string{"C: USER u", "S: +OK", "C: PASS " + canary}, byUser},
		"CAPA": {[]string{"C: CAPA"}, func(ctx context.Context, c *pop3.Client) error {
			return c.Login(ctx,
				"u", canary)
		}},
		"AUTH PLAIN": {[]string{"C: CAPA", "S: +OK", "S: SASL PLAIN", "S: .", "C: AUTH PLAIN " + ir},
			func(ctx context.Context, c *pop3.Client) error { return c.Login(ctx, "u", canary) }},
		"AUTH LOGIN": {[]string{"C: AUTH LOGIN", "S: +", "C: " + b64("u")}, byLogin},
		"cancelled exchange": {[]string{"C: AUTH LOGIN", "S: + !", "C: *"},
			func(ctx context.Context, c *pop3.Client) error { return c.Auth(ctx, sasl.Login("u", canary)) }},
	} {
		for _, e := range endings {
			t.Run(map[string]string{"cancel": "H-243 ", "Close": "H-244 "}[e.name]+e.name+" in "+name,
				func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						conn, done := pop3test.Script(strings.Join(append(append([]string{"S: +OK"},
							row.script...), "HOLD"), "\n"))
						c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true,
							Trace: checkingTrace(t)})
						require.NoError(t, err)
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						time.AfterFunc(500*time.Millisecond, func() { e.end(cancel, c) })
						start := time.Now()
						err = row.do(ctx, c)
						assert.ErrorIs(t, err, e.err)
						checkError(t, err)
						assert.LessOrEqual(t, time.Since(start), 500*time.Millisecond+maxEndTime)
						assert.ErrorIs(t, c.User(t.Context(), "u"), net.ErrClosed)
						assert.NoError(t, c.Close())
						assert.NoError(t, done(), "nothing more was sent")
					})
				})
		}
	}
}

// A dial ends at once when its context ends, in any step. The connection is closed and no goroutine is left.
func TestEndedDials(t *testing.T) {
	silentPeer := func(p *peer) { p.expectNothing() }
	for _, row := range []struct {
		name   string
		dial   dialFunc
		server func(p *peer)
	}{
		{"dial", pop3.DialTLS, nil},
		{"greeting", pop3.DialInsecure, func(p *peer) { p.send("+O"); silentPeer(p) }},
		{"TLS", pop3.DialTLS, readOnlyPeer},
		{"greeting inside TLS", pop3.DialTLS, func(p *peer) {
			if p.startTLS(serverTLS()) {
				silentPeer(p)
			}
		}},
		{"CAPA before TLS", pop3.DialStartTLS, func(p *peer) { p.send("+OK\r\n"); p.expect("CAPA"); silentPeer(p) }},
		{"STLS", pop3.DialStartTLS, func(p *peer) {
			p.send("+OK\r\n")
			p.expect("CAPA")
			p.send("-ERR\r\n")
			p.expect("STLS")
			silentPeer(p)
		}},
		{"TLS after STLS", pop3.DialStartTLS, func(p *peer) { tlsModes[1].before(p); readOnlyPeer(p) }},
	} {
		t.Run("H-243 "+row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := &pop3.Options{TLSConfig: clientTLS(), Trace: checkingTrace(t), DialContext: hangingDial}
				if row.server != nil {
					opts.DialContext = dialTo(serve(t, row.server))
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(500*time.Millisecond, cancel)
				start := time.Now()
				c, err := row.dial(ctx, tlsHost, opts)
				assert.Nil(t, c)
				assert.ErrorIs(t, err, context.Canceled)
				checkError(t, err)
				assert.LessOrEqual(t, time.Since(start), 500*time.Millisecond+maxEndTime)
			})
		})
		t.Run("H-001 timeout in "+row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := &pop3.Options{TLSConfig: clientTLS(), Trace: checkingTrace(t), DialContext: hangingDial}
				if row.server != nil {
					opts.DialContext = dialTo(serve(t, row.server))
				}
				start := time.Now()
				c, err := row.dial(t.Context(), tlsHost, opts)
				assert.Nil(t, c)
				timedOut(t, err)
				checkError(t, err)
				assert.Equal(t, 2*time.Minute, time.Since(start))
			})
		})
	}
}

// hangingDial is a network that does not answer.
func hangingDial(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// readOnlyPeer reads what the client sends and does not reply.
func readOnlyPeer(p *peer) { io.Copy(io.Discard, p.Conn) }

// With a context that is done before the call, the client does not dial and does not write.
func TestEndedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, dial := range []dialFunc{pop3.DialTLS, pop3.DialStartTLS, pop3.DialInsecure} {
		c, err := dial(
			ctx,
			tlsHost,
			&pop3.Options{DialContext: func(context.Context, string, string) (net.Conn, error) {
				t.Error("dialled")
				return nil, errors.New("dialled")
			}},
		)
		assert.Nil(t, c)
		assert.ErrorIs(t, err, context.Canceled)
	}
}

// If two goroutines use one client, their commands are never mixed (H-245).
func TestTwoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary,
			Messages: threeMessages()})
		client, server := net.Pipe()
		go srv.ServeConn(server)
		c := loginOver(t, client)
		var all sync.WaitGroup
		var done, busy atomic.Int32
		for i := range 4 {
			all.Go(func() {
				for range 200 {
					_, err := retr.do(t, t.Context(), c)
					switch {
					case err == nil:
						done.Add(1)
					case errors.Is(err, pop3.ErrBusy):
						busy.Add(1)
					default:
						t.Error(i, err)
					}
				}
			})
		}
		all.Wait()
		assert.Positive(t, done.Load())
		assert.EqualValues(t, 800, done.Load()+busy.Load())
		assert.NoError(t, c.Close())
		for _, line := range srv.Commands()[2:] {
			assert.Equal(t, "RETR 1", line)
		}
	})
}

// Ten thousand sessions are ended by another goroutine, each at a random moment and in one of the two ways (H-243,
// H-244).
func TestManyEndedSessions(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { endSessions(t, 2500, rand.New(rand.NewPCG(243, seed))) })
		})
	}
}

func endSessions(t *testing.T, sessions int, random *rand.Rand) {
	mails := threeMessages()
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: mails})
	// The delay makes each session take some time, so that it can be ended in the middle.
	srv.SetFaults(pop3test.Fault{Delay: time.Millisecond})
	for range sessions {
		moment := time.Duration(random.Int64N(int64(25 * time.Millisecond)))
		ender := endings[random.IntN(len(endings))]
		client, server := net.Pipe()
		var served sync.WaitGroup
		served.Go(func() { srv.ServeConn(server) })
		endedSession(t, client, moment, ender.end)
		served.Wait()
		if t.Failed() {
			return
		}
	}
	assert.Equal(t, len(mails), len(srv.Left("u")), "QUIT was sent")
	for _, line := range srv.Commands() {
		require.NotEqual(t, "QUIT", line)
	}
}

// endedSession uses a session that ends after the time moment.
func endedSession(t *testing.T, conn net.Conn, moment time.Duration, end func(context.CancelFunc, *pop3.Client)) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var client atomic.Pointer[pop3.Client]
	var ended atomic.Int64
	timer := time.AfterFunc(moment, func() {
		ended.Store(time.Now().UnixNano())
		if c := client.Load(); c != nil {
			end(cancel, c)
		} else {
			cancel()
		}
	})
	defer timer.Stop()
	err := wholeSession(ctx, conn, &client)
	if err != nil {
		assert.True(t, errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed), "%v", err)
		assert.LessOrEqual(t, time.Since(time.Unix(0, ended.Load())), maxEndTime)
	}
	if c := client.Load(); c != nil {
		c.Close()
	}
}

// wholeSession uses every method of the client except Quit.
func wholeSession(ctx context.Context, conn net.Conn, client *atomic.Pointer[pop3.Client]) error {
	c, err := pop3.NewClient(ctx, conn, &pop3.Options{InsecureAuth: true, Mechanisms: []string{"LOGIN"}})
	if err != nil {
		return err
	}
	client.Store(c)
	if err := c.Login(ctx, "u", canary); err != nil {
		return err
	}
	if _, err := c.Listing(ctx); err != nil {
		return err
	}
	if _, err := outcomes(ctx, c, 1, 2, 3); err != nil {
		return err
	}
	if err := c.Dele(ctx, 1, 2); err != nil {
		return err
	}
	if _, err := retr.do(nil, ctx, c); err != nil && !isRefusalOf(err) {
		return err
	}
	return c.Noop(ctx)
}

func isRefusalOf(err error) bool {
	var refusal *pop3.Error
	return errors.As(err, &refusal)
}

func threeMessages() [][]byte {
	return [][]byte{
		[]byte(
			"Subject: one\r\n\r\n.\r\n",
		), []byte("Subject: two\r\n\r\n..two\r\n"), []byte("Subject: three\r\n\r\nthree\r\n"),
	}
}
