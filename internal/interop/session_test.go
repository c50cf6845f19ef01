package interop_test

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// A scenario is what a client does on one connection. It can run with a real server, or with a recorded dialogue in
// place of a server.
type scenario struct {
	name string
	run  func(t *testing.T, c *pop3.Client, f *facts, conn connFacts)
}

// The type connFacts has the facts about the connection that a scenario needs.
type connFacts struct {
	account     interop.Account
	tls         bool
	noTimestamp bool // the greeting was read in clear before STLS, so APOP cannot use its timestamp
}

var scenarios = []scenario{
	{"capabilities", playCapabilities},
	{"maildrop", playMaildrop},
	{"refusals", playRefusals},
	{"wrong password", playWrongPassword},
	{"deletion", playDeletion},
	{"apop", playApop},
	{"plain", playPlain},
}

// playCapabilities checks the greeting and the capabilities, before and after the login.
func playCapabilities(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	before, after := f.capsClear, f.capsAfter
	if conn.tls {
		before, after = f.capsTLS, f.capsAfterTLS
	}
	assertCaps(t, c, before)
	f.assertPolicy(t, c)
	login(t, c, conn.account)
	assert.Equal(t, pop3.StateTransaction, c.State())
	assertCaps(t, c, after)
	require.NoError(t, c.Quit(t.Context()))
	assert.Equal(t, pop3.StateClosed, c.State())
}

func assertCaps(t *testing.T, c *pop3.Client, lines []string) {
	t.Helper()
	got, err := c.Capa(t.Context())
	require.NoError(t, err)
	var announced []string
	for name, args := range got {
		announced = append(announced, strings.Join(append([]string{name}, args...), " "))
	}
	assert.ElementsMatch(t, withoutRevision(lines), withoutRevision(announced))
}

// assertPolicy checks the announced EXPIRE and LOGIN-DELAY.
func (f *facts) assertPolicy(t *testing.T, c *pop3.Client) {
	t.Helper()
	caps, err := c.Capa(t.Context())
	require.NoError(t, err)
	days, known := caps.Expire()
	assert.Equal(t, f.announcesExpire, known)
	if known {
		assert.Equal(t, -1, days, "for ever")
	}
	delay, known := caps.LoginDelay()
	assert.Equal(t, f.announcesDelay, known)
	assert.Equal(t, f.loginDelay, delay)
}

var revision = regexp.MustCompile(`\+deb12u\d+`)

// withoutRevision removes the Debian revision, which changes with each security update of a package.
func withoutRevision(lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, revision.ReplaceAllString(line, ""))
	}
	return out
}

// playMaildrop lists and reads five messages with every method.
func playMaildrop(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	ctx := t.Context()
	login(t, c, conn.account)
	mails := f.corpus(conn.account.Mail)

	uids, err := c.UidlAll(ctx)
	require.NoError(t, err)
	require.Len(t, uids, len(mails))
	sizes, err := c.ListAll(ctx)
	require.NoError(t, err)
	require.Len(t, sizes, len(mails))
	drop, err := c.Stat(ctx)
	require.NoError(t, err)
	assert.Equal(t, len(mails), drop.Count)
	both, err := c.Listing(ctx)
	require.NoError(t, err)

	total := int64(0)
	for i, m := range mails {
		n := i + 1
		assertMatches(t, f.uid, uids[i].UID)
		assert.Equal(t, pop3.MessageInfo{Num: n, Size: sizes[i].Size, UID: uids[i].UID}, both[i])
		total += sizes[i].Size
		text := f.assertMail(t, c, n, m)
		assert.Equal(t, sizes[i].Size, int64(len(text))+f.sizeError(m), "the size of %s", m.Name)
	}
	assert.Equal(t, total, drop.Size)

	one, err := c.List(ctx, 2)
	require.NoError(t, err)
	assert.Equal(t, sizes[1], one)
	one, err = c.Uidl(ctx, 2)
	require.NoError(t, err)
	assert.Equal(t, uids[1], one)
	require.NoError(t, c.Noop(ctx))
	require.NoError(t, c.Quit(ctx))
}

// assertMail retrieves a message, with RETR and with TOP, and compares it with the message in the store. It returns the
// whole message.
func (f *facts) assertMail(t *testing.T, c *pop3.Client, n int, m interop.Mail) []byte {
	t.Helper()
	got, err := c.Retr(t.Context(), n)
	text := read(t, got, err)
	assertSame(t, f.expected(m), f.comparable(text), m.Name)
	for _, lines := range []int{0, 1, 3} {
		got, err = c.Top(t.Context(), n, lines)
		assertSame(t, f.withoutVarying(f.top(m, text, lines)), f.withoutVarying(read(t, got, err)), m.Name)
	}
	return text
}

// top returns the reply to TOP that is expected for a message and a number of lines. text is the reply to RETR.
func (f *facts) top(m interop.Mail, text []byte, lines int) []byte {
	header, body, found := strings.Cut(string(text), "\r\n\r\n")
	switch {
	case f.truncatesTop && !found:
		return nil
	case !found:
		return text
	case f.truncatesTop && !bytes.HasSuffix(m.Stored, []byte("\n")):
		body = body[:strings.LastIndex(strings.TrimSuffix(body, "\r\n"), "\r\n")+len("\r\n")]
	}
	out := header + "\r\n\r\n"
	if lines > 0 {
		out += f.textAfterHeader
	}
	for range lines {
		line, rest, found := strings.Cut(body, "\r\n")
		if !found {
			out += line
			break
		}
		out, body = out+line+"\r\n", rest
	}
	return []byte(out)
}

// assertSame compares long texts and shows only the first difference.
func assertSame(t *testing.T, want, got []byte, name string) {
	t.Helper()
	if string(want) == string(got) {
		return
	}
	first := 0
	for first < len(want) && first < len(got) && want[first] == got[first] {
		first++
	}
	show := func(b []byte) []byte { return b[max(0, first-40):min(len(b), first+40)] }
	assert.Fail(t, "octets differ", "%s: at %d of %d and %d:\nwant %q\ngot  %q",
		name, first, len(want), len(got), show(want), show(got))
}

// playRefusals sends commands for messages that do not exist, and an unknown command. The session continues after each
// refusal. There are few commands, because one server hangs up after five refusals.
func playRefusals(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	ctx := t.Context()
	login(t, c, conn.account)
	_, err := c.List(ctx, 99)
	assertRefused(t, f.noMessage, err)
	_, err = c.Retr(ctx, 99)
	assertRefused(t, f.noMessage, err)
	assertRefused(t, f.noMessage, c.Dele(ctx, 99))
	_, err = c.Cmd(ctx, "XFOO")
	assertRefused(t, f.unknownCommand, err)
	if f.unknownCloses {
		require.Error(t, c.Noop(ctx))
		assert.Equal(t, pop3.StateClosed, c.State())
		return
	}
	require.NoError(t, c.Noop(ctx))
	require.NoError(t, c.Quit(ctx))
}

// playWrongPassword logs in with a wrong password, and then with the right one, unless the server has hung up.
func playWrongPassword(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	ctx := t.Context()
	require.NoError(t, c.User(ctx, conn.account.Name))
	err := c.Pass(ctx, "wrong")
	if f.anyPassword {
		require.NoError(t, err)
		require.NoError(t, c.Quit(ctx))
		return
	}
	assertRefused(t, f.wrongPassword, err)
	if f.wrongCloses {
		assert.Error(t, c.User(ctx, conn.account.Name))
		assert.Equal(t, pop3.StateClosed, c.State())
		return
	}
	assert.Equal(t, pop3.StateAuthorization, c.State())
	login(t, c, conn.account)
	require.NoError(t, c.Quit(ctx))
}

// playDeletion marks messages, removes the marks, and finally deletes the first two of five.
func playDeletion(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	ctx := t.Context()
	login(t, c, conn.account)
	before, err := c.Stat(ctx)
	require.NoError(t, err)
	require.NoError(t, c.Dele(ctx, 1))
	_, err = c.Retr(ctx, 1)
	assertRefused(t, f.markedMessage, err)
	_, err = c.List(ctx, 1)
	if f.listsDeleted {
		require.NoError(t, err)
	} else {
		assertRefused(t, f.markedMessage, err)
	}
	again := c.Dele(ctx, 1)
	if f.deleAgain == nil {
		assert.NoError(t, again)
	} else {
		assertRefused(t, *f.deleAgain, again)
	}
	marked, err := c.Stat(ctx)
	require.NoError(t, err)
	assert.Equal(t, before.Count-1, marked.Count)
	require.NoError(t, c.Rset(ctx))
	after, err := c.Stat(ctx)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	require.NoError(t, c.Dele(ctx, 1, 2))
	require.NoError(t, c.Quit(ctx))
}

// playApop logs in with APOP, if the greeting has a timestamp and was not received in clear before STLS.
func playApop(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	err := c.Apop(t.Context(), conn.account.Name, conn.account.Password)
	if !f.apop || conn.noTimestamp {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	require.NoError(t, c.Quit(t.Context()))
}

// playPlain logs in with AUTH PLAIN, even if the server does not announce it. A server without SASL refuses, and the
// session continues.
func playPlain(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	err := c.Auth(t.Context(), sasl.Plain("", conn.account.Name, conn.account.Password))
	if f.plain != nil {
		assertRefused(t, *f.plain, err)
		login(t, c, conn.account)
	} else {
		require.NoError(t, err)
	}
	require.NoError(t, c.Quit(t.Context()))
}

// TestSession plays every scenario on every server, over each transport.
func TestSession(t *testing.T) {
	t.Parallel()
	forServers(t, slices.Concat(mainServers, otherServers), func(t *testing.T, f *facts, s *interop.Server) {
		for _, via := range f.transports() {
			for _, sc := range scenarios {
				t.Run(via.name+"/"+sc.name, func(t *testing.T) {
					t.Parallel()
					c := dial(t, s, via, nil)
					// After STLS the client discards the greeting, so the test cannot compare it.
					if via.name != overSTLS.name {
						assertMatches(t, f.greeting, c.Greeting())
					}
					sc.run(t, c, f, connFacts{s.Spare(), via.tls, via.name == overSTLS.name})
				})
			}
		}
	})
}
