package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestMain(m *testing.M) {
	if runHelper() {
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	user     = "alice"
	password = "wonderland"
	account  = "alice@test"
)

// mails makes messages that are all different.
func mails(texts ...string) [][]byte {
	messages := make([][]byte, len(texts))
	for i, text := range texts {
		messages[i] = fmt.Appendf(nil, "Subject: %s\r\n\r\nThis is %s.\r\n", text, text)
	}
	return messages
}

// A maildrop is a server with one user, and the options of its clients.
type maildrop struct {
	*pop3test.Server
	opts           pop3.Options
	sent, received int64 // octets that the server sent and received in its first session
}

func newMaildrop(messages [][]byte, uids ...string) *maildrop {
	box := &pop3test.Mailbox{User: user, Password: password, Messages: messages, UIDs: uids}
	return &maildrop{Server: pop3test.NewUnstartedServer(box), opts: pop3.Options{InsecureAuth: true}}
}

// connect connects over a pipe. A Fetcher calls it.
func (d *maildrop) connect(ctx context.Context) (*pop3.Client, error) {
	near, far := net.Pipe()
	if d.sent == 0 {
		near = &meter{near, d}
	}
	go d.ServeConn(far)
	c, err := pop3.NewClient(ctx, near, &d.opts)
	if err != nil {
		return nil, err
	}
	err = c.User(ctx, user)
	if err == nil {
		err = c.Pass(ctx, password) // SCRAM in Login would take long
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// A meter counts the octets that the client sends and receives.
type meter struct {
	net.Conn
	d *maildrop
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.d.sent += int64(n)
	return n, err
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.d.received += int64(n)
	return n, err
}

// A store is a sink in memory. If callErr is set, it returns the error of each call.
type store struct {
	mu       sync.Mutex
	messages [][]byte
	items    []fetch.Item
	callErr  func(call int) error
	calls    int
}

var errFull = errors.New("no space left")

func (s *store) Deliver(_ context.Context, item fetch.Item, r io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.callErr != nil {
		if err := s.callErr(s.calls); err != nil {
			return err
		}
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.messages = append(s.messages, content)
	s.items = append(s.items, item)
	return nil
}

// texts returns messages as strings, which are easier to read in failures.
func texts(messages [][]byte) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		all[i] = string(m)
	}
	return all
}
