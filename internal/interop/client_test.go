package interop_test

import (
	"context"
	"io"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// maxWait limits the wait for a server that does not reply. The slowest server takes twelve seconds on purpose.
const maxWait = 30 * time.Second

// pause is the time between two checks of what a server does.
const pause = 100 * time.Millisecond

// A transport is a way to connect.
type transport struct {
	name string
	tls  bool
	dial dialer
}

type dialer func(ctx context.Context, s *interop.Server, opts *pop3.Options) (*pop3.Client, error)

var (
	inClear  = transport{"clear", false, dialInClear}
	overSTLS = transport{"stls", true, dialSTLS}
	overTLS  = transport{"tls", true, dialTLS}
)

func dialInClear(ctx context.Context, s *interop.Server, opts *pop3.Options) (*pop3.Client, error) {
	return pop3.DialInsecure(ctx, s.Addr, opts)
}

func dialSTLS(ctx context.Context, s *interop.Server, opts *pop3.Options) (*pop3.Client, error) {
	return pop3.DialStartTLS(ctx, s.Addr, opts)
}

func dialTLS(ctx context.Context, s *interop.Server, opts *pop3.Options) (*pop3.Client, error) {
	return pop3.DialTLS(ctx, s.TLSAddr, opts)
}

// transports are the ways to connect that the server has.
func (f *facts) transports() []transport {
	if f.stls {
		return []transport{inClear, overSTLS, overTLS}
	}
	return []transport{inClear, overTLS}
}

// dial connects to a server with opts, which may be nil, and closes the connection when the test ends.
func dial(t *testing.T, s *interop.Server, via transport, opts *pop3.Options) *pop3.Client {
	t.Helper()
	var o pop3.Options
	if opts != nil {
		o = *opts
	}
	if o.TLSConfig == nil {
		o.TLSConfig = s.TLSConfig()
	}
	if o.Timeout == 0 {
		o.Timeout = maxWait
	}
	c, err := via.dial(t.Context(), s, &o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// login logs in with USER and PASS, the only method that all servers have.
func login(t *testing.T, c *pop3.Client, a interop.Account) {
	t.Helper()
	require.NoError(t, c.User(t.Context(), a.Name))
	require.NoError(t, c.Pass(t.Context(), a.Password))
}

// loggedIn dials and logs in.
func loggedIn(t *testing.T, s *interop.Server, a interop.Account) *pop3.Client {
	t.Helper()
	c := dial(t, s, inClear, nil)
	login(t, c, a)
	return c
}

// reserved has a lock for each maildrop that reserve has reserved.
var reserved sync.Map

// reserve waits until no other test has reserved the maildrop, and reserves it until this test ends.
func reserve(t *testing.T, s *interop.Server, a interop.Account) {
	lock, _ := reserved.LoadOrStore(s.Addr+" "+a.Name, &sync.Mutex{})
	lock.(*sync.Mutex).Lock()
	t.Cleanup(lock.(*sync.Mutex).Unlock)
}

// assertLeft checks that the expected number of messages is left in a maildrop. It tries for a while: some servers
// unlock a maildrop some time after the connection ends, and one replies to QUIT before it deletes. It checks
// twice, because more messages could be deleted later.
func assertLeft(t *testing.T, s *interop.Server, a interop.Account, want int) {
	t.Helper()
	var got int
	deadline := time.Now().Add(maxWait)
	for got = count(t, s, a); got != want && time.Now().Before(deadline); got = count(t, s, a) {
		<-time.After(pause)
	}
	require.Equal(t, want, got, "messages of %s in the end", a.Name)
	<-time.After(pause)
	require.Equal(t, want, count(t, s, a), "messages of %s a little later", a.Name)
}

// count returns how many messages a new session finds. It returns -1 if the login is refused.
func count(t *testing.T, s *interop.Server, a interop.Account) int {
	t.Helper()
	c := dial(t, s, inClear, nil)
	defer c.Close()
	if c.User(t.Context(), a.Name) != nil || c.Pass(t.Context(), a.Password) != nil {
		return -1
	}
	drop, err := c.Stat(t.Context())
	if err != nil || c.Quit(t.Context()) != nil {
		return -1
	}
	return drop.Count
}

// read reads a message to its end and returns its content.
func read(t *testing.T, m *pop3.Message, err error) []byte {
	t.Helper()
	require.NoError(t, err)
	text, err := io.ReadAll(m)
	require.NoError(t, err)
	require.NoError(t, m.Close())
	return text
}

// assertRefused checks that err is the expected refusal.
func assertRefused(t *testing.T, want refusal, err error) {
	t.Helper()
	var refused *pop3.Error
	if assert.ErrorAs(t, err, &refused) {
		assert.Equal(t, want.code, refused.Code)
		assertMatches(t, want.text, refused.Text)
	}
}

func assertMatches(t *testing.T, pattern, text string) {
	t.Helper()
	assert.Regexp(t, regexp.MustCompile(`^(?:`+pattern+`)$`), text)
}

// forEachServer runs a test with all main servers at the same time.
func forEachServer(t *testing.T, test func(t *testing.T, f *facts, s *interop.Server)) {
	t.Parallel()
	forServers(t, mainServers, test)
}

func forServers(t *testing.T, list []*facts, test func(t *testing.T, f *facts, s *interop.Server)) {
	for _, f := range list {
		t.Run(string(f.kind), func(t *testing.T) {
			t.Parallel()
			test(t, f, servers.get(t, f.kind, ""))
		})
	}
}
