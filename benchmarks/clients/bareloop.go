package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// bareLoop shows the limit of what is possible. One goroutine writes all commands, and the loop only counts the ends of
// replies. It assumes that every reply is positive. It sends all commands together, except for the login and QUIT.
var bareLoop = Client{Name: "bare loop", Version: "the limit", Limit: true, Pipelines: true, Open: openBareLoop}

func openBareLoop(ctx context.Context, j Job) (session, error) {
	conn, err := connect(ctx, j)
	if err != nil {
		return nil, err
	}
	s := &bareSession{conn: conn, buf: make([]byte, 64<<10), work: j.Work}
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	if _, err := s.count(lineEnd, 1); err != nil {
		return nil, err
	}
	for _, line := range []string{"USER " + j.User, "PASS " + j.Password} {
		if _, err := s.exchange([]byte(line+"\r\n"), lineEnd, 1); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var (
	lineEnd    = []byte("\r\n")
	terminator = []byte("\r\n.\r\n")
)

type bareSession struct {
	conn   net.Conn
	buf    []byte
	work   Work
	unsent bytes.Buffer // commands that are sent together with the next commands
}

// exchange sends commands, and reads until end has occurred n times.
func (s *bareSession) exchange(commands, end []byte, n int) (octets int64, err error) {
	writeErr := make(chan error, 1)
	go func() {
		_, err := s.conn.Write(commands)
		writeErr <- err
	}()
	octets, err = s.count(end, n)
	return octets, errors.Join(err, <-writeErr)
}

// count reads until end has occurred n times, and returns the number of octets. An occurrence of end may be split
// between two reads.
func (s *bareSession) count(end []byte, n int) (octets int64, err error) {
	carried := 0
	for {
		got, err := s.conn.Read(s.buf[carried:])
		octets += int64(got)
		unread := s.buf[:carried+got]
		for n > 0 {
			i := bytes.Index(unread, end)
			if i < 0 {
				break
			}
			unread = unread[i+len(end):]
			n--
		}
		if n == 0 {
			return octets, nil
		}
		if err != nil {
			return octets, err
		}
		carried = copy(s.buf, unread[max(0, len(unread)-len(end)+1):])
	}
}

// list does not send its commands if the next call is fetch, because fetch sends them together with its own commands.
func (s *bareSession) list(n int) (int, error) {
	s.unsent.WriteString("LIST\r\nUIDL\r\n")
	if s.work == Fetch {
		return n, nil
	}
	_, err := s.exchange(s.unsent.Bytes(), terminator, 2)
	return n, err
}

func (s *bareSession) fetch(n int) (int64, error) {
	lists := bytes.Count(s.unsent.Bytes(), lineEnd)
	for i := range n {
		fmt.Fprintf(&s.unsent, "RETR %d\r\n", i+1)
	}
	return s.exchange(s.unsent.Bytes(), terminator, lists+n)
}

func (s *bareSession) uidl(n int) (int, error) {
	_, err := s.exchange([]byte("UIDL\r\n"), terminator, 1)
	return n, err
}

func (s *bareSession) dele(n int) error {
	for i := range n {
		fmt.Fprintf(&s.unsent, "DELE %d\r\n", i+1)
	}
	_, err := s.exchange(s.unsent.Bytes(), lineEnd, n)
	return err
}

// quit reads to the end of the connection.
func (s *bareSession) quit() error {
	defer s.conn.Close()
	if _, err := s.conn.Write([]byte("QUIT\r\n")); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, s.conn)
	return err
}
