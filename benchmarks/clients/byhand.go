package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strings"
)

// byHand is a simple client that uses only net/textproto.
var byHand = Client{Name: "net/textproto", Version: "by hand", Open: func(ctx context.Context, j Job) (session, error) {
	conn, err := connect(ctx, j)
	if err != nil {
		return nil, err
	}
	s := byHandSession{textproto.NewConn(conn)}
	if err := s.reply(); err != nil {
		return nil, err
	}
	if err := s.cmd("USER %s", j.User); err != nil {
		return nil, err
	}
	return s, s.cmd("PASS %s", j.Password)
}}

type byHandSession struct{ c *textproto.Conn }

func (s byHandSession) reply() error {
	line, err := s.c.ReadLine()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = errors.New(line)
	}
	return err
}

func (s byHandSession) cmd(format string, args ...any) error {
	if err := s.c.PrintfLine(format, args...); err != nil {
		return err
	}
	return s.reply()
}

// readList sends LIST or UIDL, and returns the second word of each line by the message number.
func (s byHandSession) readList(command string) (map[int]string, error) {
	if err := s.cmd("%s", command); err != nil {
		return nil, err
	}
	lines, err := s.c.ReadDotLines()
	if err != nil {
		return nil, err
	}
	table := make(map[int]string, len(lines))
	for _, line := range lines {
		var num int
		var value string
		if _, err := fmt.Sscanf(line, "%d %s", &num, &value); err != nil {
			return nil, err
		}
		table[num] = value
	}
	return table, nil
}

func (s byHandSession) list(int) (int, error) {
	if _, err := s.readList("LIST"); err != nil {
		return 0, err
	}
	return s.uidl(0)
}

func (s byHandSession) fetch(n int) (octets int64, err error) {
	for i := range n {
		if err := s.cmd("RETR %d", i+1); err != nil {
			return octets, err
		}
		n, err := io.Copy(io.Discard, s.c.DotReader())
		octets += n
		if err != nil {
			return octets, err
		}
	}
	return octets, nil
}

func (s byHandSession) uidl(int) (int, error) {
	uids, err := s.readList("UIDL")
	return len(uids), err
}

func (s byHandSession) dele(n int) error {
	for i := range n {
		if err := s.cmd("DELE %d", i+1); err != nil {
			return err
		}
	}
	return nil
}

func (s byHandSession) quit() error { return errors.Join(s.cmd("QUIT"), s.c.Close()) }
