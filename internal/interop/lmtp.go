package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"time"
)

// deliverTimeout is for the whole corpus, which takes some seconds.
const deliverTimeout = 3 * time.Minute

// deliver hands the corpus to the LMTP server at addr, each message once, to all accounts that get it.
func deliver(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &lmtp{textproto.NewConn(conn)}
	defer c.conn.Close()
	if _, _, err := c.conn.ReadResponse(220); err != nil {
		return err
	}
	if err := c.cmd(250, "LHLO localhost"); err != nil {
		return err
	}
	to := map[MailKind][]string{}
	for _, a := range accounts() {
		to[a.Mail] = append(to[a.Mail], a.Name)
	}
	for kind, names := range to {
		for _, m := range Corpus(kind) {
			if err := c.send(m, names); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	return c.cmd(221, "QUIT")
}

type lmtp struct{ conn *textproto.Conn }

func (c *lmtp) cmd(want int, format string, args ...any) error {
	if err := c.conn.PrintfLine(format, args...); err != nil {
		return err
	}
	_, _, err := c.conn.ReadResponse(want)
	return err
}

// send delivers one message. A refusal of its content is not an error: Cyrus takes no message with a NUL.
func (c *lmtp) send(m Mail, names []string) error {
	if err := c.cmd(250, "MAIL FROM:<sender@example.org>"); err != nil {
		return err
	}
	for _, name := range names {
		if err := c.cmd(250, "RCPT TO:<%s>", name); err != nil {
			return err
		}
	}
	if err := c.cmd(354, "DATA"); err != nil {
		return err
	}
	// Not textproto's DotWriter: it changes line ends.
	text := append([]byte("\r\n"), m.Wire()...)
	text = bytes.ReplaceAll(text, []byte("\r\n."), []byte("\r\n.."))[2:]
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(text, "\r\n"...)
	}
	if _, err := c.conn.W.Write(append(text, ".\r\n"...)); err != nil {
		return err
	}
	if err := c.conn.W.Flush(); err != nil {
		return err
	}
	for range names {
		_, _, err := c.conn.ReadResponse(250)
		var refusal *textproto.Error
		if err != nil && !errors.As(err, &refusal) {
			return err
		}
	}
	return nil
}
