package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// An overtakingServer is a server that handles pipelined commands wrongly. If the next RETR has arrived already, the
// server sends its +OK before the end of the current message. The unique-id of a message is its text.
type overtakingServer struct {
	mu       sync.Mutex
	messages []string
}

// serve serves one session.
func (o *overtakingServer) serve(conn net.Conn) {
	defer conn.Close()
	o.mu.Lock()
	s := &overtakingSession{messages: slices.Clone(o.messages), commands: bufio.NewReader(conn)}
	o.mu.Unlock()
	io.WriteString(conn, "+OK\r\n")
	for {
		line, err := s.commands.ReadString('\n')
		if err != nil {
			return
		}
		if line == "QUIT\r\n" {
			o.mu.Lock()
			o.messages = slices.DeleteFunc(o.messages, func(m string) bool { return slices.Contains(s.marked, m) })
			o.mu.Unlock()
		}
		io.WriteString(conn, s.answer(line))
	}
}

type overtakingSession struct {
	messages []string
	marked   []string
	commands *bufio.Reader
}

func (s *overtakingSession) answer(line string) string {
	verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch {
	case verb == "CAPA":
		return "+OK\r\nUIDL\r\nPIPELINING\r\nEXPIRE NEVER\r\n.\r\n"
	case verb == "RETR" && s.commands.Buffered() == 0:
		return "+OK\r\n" + s.message(arg) + ".\r\n"
	case verb == "RETR":
		next, _ := s.commands.ReadString('\n')
		return "+OK\r\n" + s.message(arg) + "+OK\r\n.\r\n" + s.message(strings.Fields(next)[1]) + ".\r\n"
	case verb == "DELE":
		s.marked = append(s.marked, s.message(arg))
	case verb == "LIST" && arg != "":
		return fmt.Sprintf("+OK %s %d\r\n", arg, len(s.message(arg)))
	case verb == "LIST" || verb == "UIDL":
		reply := "+OK\r\n"
		for i, m := range s.messages {
			reply += map[string]string{"LIST": fmt.Sprintf("%d %d\r\n", i+1, len(m)), "UIDL": fmt.Sprintf("%d %s",
				i+1, m)}[verb]
		}
		return reply + ".\r\n"
	}
	return "+OK\r\n"
}

func (s *overtakingSession) message(arg string) string {
	var num int
	fmt.Sscan(arg, &num)
	return s.messages[num-1]
}

// A message that was overtaken is stored with an extra line. It is stored again correctly before anything is deleted,
// in the same run or in a later one.
func TestOvertaken(t *testing.T) { bubble(t, testOvertaken) }

func testOvertaken(t *testing.T) {
	all := []string{"one\r\n", "two\r\n", "three\r\n", "four\r\n"}
	server := overtakingServer{messages: slices.Clone(all)}
	var servers sync.WaitGroup
	defer servers.Wait()
	stored := map[string][]string{}
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) {
			client, conn := net.Pipe()
			servers.Go(func() { server.serve(conn) })
			c, err := pop3.NewClient(ctx, client, &pop3.Options{InsecureAuth: true})
			if err == nil {
				err = c.User(ctx, "u")
			}
			if err == nil {
				err = c.Pass(ctx, "p")
			}
			return c, err
		},
		Sink: fetch.SinkFunc(func(_ context.Context, item fetch.Item, r io.Reader) error {
			octets, err := io.ReadAll(r)
			if err == nil {
				stored[item.UID+"\r\n"] = append(stored[item.UID+"\r\n"], string(octets))
			}
			return err
		}),
		Seen: new(fetch.MemorySeen), Account: account, Delete: true,
	}
	report, err := f.Run(t.Context())
	require.Error(t, err, "a session was lost")
	assert.Equal(t, 4, report.Deleted)
	_, err = f.Run(t.Context())
	require.NoError(t, err)
	assert.Empty(t, server.messages)
	for _, m := range all {
		assert.Equal(t, m, stored[m][len(stored[m])-1])
	}
	assert.Equal(t, []string{"two\r\n+OK\r\n", "two\r\n"}, stored["two\r\n"])
}
