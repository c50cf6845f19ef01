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

// deliverTimeout limits the delivery of the whole corpus, which takes some seconds.
const deliverTimeout = 3 * time.Minute

// deliver sends the mail of kinds to the server at addr. It sends each message once, to all accounts that get it. An
// LMTP server replies for each recipient; an SMTP server replies once.
func deliver(ctx context.Context, addr string, smtp bool, kinds ...MailKind) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	d := &delivery{textproto.NewConn(conn), smtp}
	defer d.conn.Close()
	if _, _, err := d.conn.ReadResponse(220); err != nil {
		return err
	}
	hello := "LHLO"
	if smtp {
		hello = "HELO"
	}
	if err := d.cmd(250, "%s localhost", hello); err != nil {
		return err
	}
	to := map[MailKind][]string{}
	for _, a := range accounts() {
		recipient := a.Name
		if smtp {
			recipient += "@example.org"
		}
		to[a.Mail] = append(to[a.Mail], recipient)
	}
	for _, kind := range kinds {
		for _, m := range Corpus(kind) {
			if err := d.send(m, to[kind]); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	return d.cmd(221, "QUIT")
}

// A delivery is a session with an LMTP or SMTP server.
type delivery struct {
	conn *textproto.Conn
	smtp bool
}

func (d *delivery) cmd(want int, format string, args ...any) error {
	if err := d.conn.PrintfLine(format, args...); err != nil {
		return err
	}
	_, _, err := d.conn.ReadResponse(want)
	return err
}

// send delivers one message. It is not an error if the server refuses the content, because Cyrus refuses a message
// with a NUL.
func (d *delivery) send(m Mail, recipients []string) error {
	if err := d.cmd(250, "MAIL FROM:<sender@example.org>"); err != nil {
		return err
	}
	for _, recipient := range recipients {
		if err := d.cmd(250, "RCPT TO:<%s>", recipient); err != nil {
			return err
		}
	}
	if err := d.cmd(354, "DATA"); err != nil {
		return err
	}
	// textproto's DotWriter cannot be used, because it changes line ends
	text := append([]byte("\r\n"), m.Wire()...)
	text = bytes.ReplaceAll(text, []byte("\r\n."), []byte("\r\n.."))[2:]
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(text, "\r\n"...)
	}
	if _, err := d.conn.W.Write(append(text, ".\r\n"...)); err != nil {
		return err
	}
	if err := d.conn.W.Flush(); err != nil {
		return err
	}
	replies := len(recipients)
	if d.smtp {
		replies = 1
	}
	for range replies {
		_, _, err := d.conn.ReadResponse(250)
		var refusal *textproto.Error
		if err != nil && !errors.As(err, &refusal) {
			return err
		}
	}
	return nil
}
