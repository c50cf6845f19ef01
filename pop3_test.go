package pop3_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// play returns a client whose server plays script. The test fails if the client sends anything else.
func play(t *testing.T, script string, opts *pop3.Options) *pop3.Client {
	t.Helper()
	conn, done := pop3test.Script(script)
	c, err := pop3.NewClient(t.Context(), conn, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	})
	return c
}

// insecure is for tests in which passwords may be sent in clear.
var insecure = &pop3.Options{InsecureAuth: true}

// transcript returns a recorded session as a script. It inserts the password. The argument chunks becomes its first
// line, which sets the size of the pieces that the server sends.
func transcript(t *testing.T, name, password, chunks string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "transcripts", filepath.FromSlash(name)))
	require.NoError(t, err)
	return chunks + "\n" + strings.ReplaceAll(string(b), "***", password)
}

// chunkings are lines of a script that make the same octets arrive in pieces of different sizes.
var chunkings = []string{"CHUNK 0", "CHUNK 1", "CHUNK ~7 1", "CHUNK ~3 2"}

func TestDescriptionSession(t *testing.T) {
	for _, chunks := range chunkings {
		t.Run(chunks, func(t *testing.T) {
			ctx := t.Context()
			c := play(t, transcript(t, "description/session.txt", "secret", chunks), insecure)
			assert.Equal(t, "Dovecot ready.", c.Greeting())
			assert.Equal(t, pop3.StateAuthorization, c.State())
			require.NoError(t, c.User(ctx, "alice"))
			require.NoError(t, c.Pass(ctx, "secret"))
			assert.Equal(t, pop3.StateTransaction, c.State())

			drop, err := c.Stat(ctx)
			require.NoError(t, err)
			assert.Equal(t, pop3.DropListing{Count: 1, Size: 1070}, drop)
			infos, err := c.ListAll(ctx)
			require.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{{Num: 1, Size: 1070}}, infos)

			m, err := c.Retr(ctx, 1)
			require.NoError(t, err)
			body, err := io.ReadAll(m)
			require.NoError(t, err)
			assert.Equal(t, "Return-Path: <bob@example.org>\r\nSubject: Test\r\n\r\nHello, Alice!\r\n.\r\n",
				string(body))

			require.NoError(t, c.Dele(ctx, 1))
			require.NoError(t, c.Quit(ctx))
			assert.Equal(t, pop3.StateClosed, c.State())
		})
	}
}

func TestDescriptionAnswers(t *testing.T) {
	for _, chunks := range chunkings {
		t.Run(chunks, func(t *testing.T) {
			ctx := t.Context()
			c := play(t, transcript(t, "description/user-unknown.txt", "secret", chunks), insecure)

			assertRefused := func(cmd, text string, err error) {
				t.Helper()
				var e *pop3.Error
				require.ErrorAs(t, err, &e)
				assert.Equal(t, cmd, e.Cmd)
				assert.Equal(t, text, e.Text)
			}
			assertRefused("USER frated", "sorry, no mailbox for frated here", c.User(ctx, "frated"))
			require.NoError(t, c.User(ctx, "MonstrVB"))
			assertRefused("PASS ***", "maildrop already locked", c.Pass(ctx, "secret"))
			require.NoError(t, c.User(ctx, "MonstrVB"))
			require.NoError(t, c.Pass(ctx, "secret"))

			drop, err := c.Stat(ctx)
			require.NoError(t, err)
			assert.Equal(t, pop3.DropListing{Count: 2, Size: 320}, drop)
			info, err := c.List(ctx, 2)
			require.NoError(t, err)
			assert.Equal(t, pop3.MessageInfo{Num: 2, Size: 200}, info)
			_, err = c.List(ctx, 3)
			assertRefused("LIST 3", "no such message, only 2 messages in maildrop", err)

			require.NoError(t, c.Dele(ctx, 2))
			assertRefused("DELE 2", "message 2 already deleted", c.Dele(ctx, 2))
			require.NoError(t, c.Rset(ctx))
			require.NoError(t, c.Noop(ctx))

			infos, err := c.UidlAll(ctx)
			require.NoError(t, err)
			assert.Equal(t, []pop3.MessageInfo{
				{Num: 1, UID: "whqtswO00WBw418f9t5JxYwZ"},
				{Num: 2, UID: "QhdPYR:00WBw1Ph7x7"},
			}, infos)
			info, err = c.Uidl(ctx, 2)
			require.NoError(t, err)
			assert.Equal(t, pop3.MessageInfo{Num: 2, UID: "QhdPYR:00WBw1Ph7x7"}, info)
			_, err = c.Uidl(ctx, 3)
			assertRefused("UIDL 3", "no such message, only 2 messages in maildrop", err)

			m, err := c.Top(ctx, 1, 10)
			require.NoError(t, err)
			body, err := io.ReadAll(m)
			require.NoError(t, err)
			assert.Equal(t, "Subject: one\r\n\r\nfirst line\r\n", string(body))
			_, err = c.Top(ctx, 100, 3)
			assertRefused("TOP 100 3", "no such message", err)
			require.NoError(t, c.Quit(ctx))
		})
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
