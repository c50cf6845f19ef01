package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	user     = "alice"
	password = "wonderland"
	account  = "alice@test"
)

// mails makes messages, each of which is unlike the others.
func mails(texts ...string) [][]byte {
	messages := make([][]byte, len(texts))
	for i, text := range texts {
		messages[i] = fmt.Appendf(nil, "Subject: %s\r\n\r\nThis is %s.\r\n", text, text)
	}
	return messages
}

// A maildrop is a server with one user, and the client's ways to it.
type maildrop struct {
	*pop3test.Server
	opts pop3.Options
}

func newMaildrop(messages [][]byte, uids ...string) *maildrop {
	box := &pop3test.Mailbox{User: user, Password: password, Messages: messages, UIDs: uids}
	return &maildrop{Server: pop3test.NewUnstartedServer(box), opts: pop3.Options{InsecureAuth: true}}
}

// connect has a session over a pipe, and is what a Fetcher calls.
func (d *maildrop) connect(ctx context.Context) (*pop3.Client, error) {
	near, far := net.Pipe()
	go d.ServeConn(far)
	c, err := pop3.NewClient(ctx, near, &d.opts)
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx, user, password); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// A store is a sink in memory, which fails when it is told to.
type store struct {
	mu    sync.Mutex
	got   [][]byte
	items []fetch.Item
	fail  func(call int) error
	calls int
}

var errFull = errors.New("no space left")

func (s *store) Deliver(_ context.Context, item fetch.Item, r io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		if err := s.fail(s.calls); err != nil {
			return err
		}
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.got = append(s.got, content)
	s.items = append(s.items, item)
	return nil
}

// texts are messages as strings, which print better.
func texts(messages [][]byte) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		all[i] = string(m)
	}
	return all
}

func TestRun(t *testing.T) {
	all := mails("one", "two", "three")
	d := newMaildrop(all)
	sink := new(store)
	f := fetch.Fetcher{Connect: d.connect, Sink: sink, Seen: new(fetch.MemorySeen), Account: account}

	report, err := f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fetch.Report{Listed: 3, Delivered: 3, Octets: report.Octets, Sessions: 1}, report)
	assert.Equal(t, texts(all), texts(sink.got))
	assert.Equal(t, texts(all), texts(d.Left(user)))

	report, err = f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fetch.Report{Listed: 3, Known: 3, Sessions: 1}, report)

	d.Deliver(user, mails("four")...)
	f.Delete = true
	report, err = f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fetch.Report{Listed: 4, Known: 3, Delivered: 1, Octets: report.Octets, Deleted: 4, Sessions: 1}, report)
	assert.Empty(t, d.Left(user))
	assert.Len(t, sink.got, 4)
}
