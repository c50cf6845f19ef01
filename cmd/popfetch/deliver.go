package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/mail"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/crlf"
)

// newSink returns the destination of an account as a fetch.Sink.
func (a *account) newSink() fetch.Sink {
	lf := a.LineEnds != "crlf"
	switch {
	case a.Maildir != "":
		return fetch.Maildir{Dir: string(a.Maildir), LF: lf}
	case a.Mbox != "":
		return fetch.Mbox{Path: string(a.Mbox)}
	case a.Eml != "":
		return fetch.EMLFolder{Dir: string(a.Eml)}
	case a.LMTP.addr != "":
		l := &lmtp{a.LMTP, cmp.Or(a.Recipient, a.User), a.CommandTimeout.Duration}
		return spooled{check: l.check, deliver: l.deliver}
	}
	agent := &agent{argv: a.Command, user: a.User, env: a.env, timeout: a.CommandTimeout.Duration}
	if a.ShellCommand != "" {
		agent.argv, agent.shell = list{"/bin/sh", "-c", string(a.ShellCommand)}, true
	}
	return spooled{lf: lf, check: agent.check, deliver: agent.deliver}
}

// create creates the Maildir, mbox or folder of an account in the first run. In a later run a missing destination is an
// error, because it may be on a file system that is not mounted.
func (a *account) create(ctx context.Context) error {
	destination, canCreate := a.sink.(interface {
		Create() error
		Check(ctx context.Context) error
	})
	if !canCreate {
		return nil
	}
	isNew, err := a.isNew()
	switch {
	case err != nil:
		return err
	case isNew:
		return destination.Create()
	}
	if err = destination.Check(ctx); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path, command := a.Maildir, "mkdir -p %[1]s/cur %[1]s/new %[1]s/tmp"
	switch {
	case a.Mbox != "":
		path, command = a.Mbox, "touch %s"
	case a.Eml != "":
		path, command = a.Eml, "mkdir -p %s"
	}
	return fmt.Errorf("%s does not exist; mount its file system, or create it if it is new: "+command, path, path)
}

// isNew reports whether the account has no record of stored messages. Then nothing was fetched from it yet.
func (a *account) isNew() (bool, error) {
	seen, isFile := a.seen.(fetch.FileSeen)
	if !isFile {
		return false, nil
	}
	_, err := os.Stat(seen.Path(a.key()))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// A spooled sink writes a message to a file, and delivers the file only when the message is complete. A command that
// received the message through a pipe would not know whether the message was complete.
type spooled struct {
	lf      bool // lines end in LF instead of CRLF
	check   func(ctx context.Context) error
	deliver func(ctx context.Context, message *os.File, e envelope) error
}

// Check returns an error if the command or the server of the destination does not exist.
func (s spooled) Check(ctx context.Context) error { return s.check(ctx) }

func (s spooled) Deliver(ctx context.Context, _ fetch.Item, r io.Reader) error {
	file, err := os.CreateTemp("", "popfetch-")
	if err != nil {
		return err
	}
	defer file.Close()
	if os.Remove(file.Name()) != nil { // Windows cannot remove an open file
		defer os.Remove(file.Name())
	}
	if s.lf {
		err = crlf.CopyLF(file, r)
	} else {
		_, err = io.Copy(file, r)
	}
	if err != nil {
		return err
	}
	e := readEnvelope(io.NewSectionReader(file, 0, 1<<20))
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.deliver(ctx, file, e)
}

// An envelope contains the sender and the recipient of a message. The server that accepted the message has written them
// in the header.
type envelope struct{ sender, recipient string }

// readEnvelope reads the envelope from the header. Each server adds its fields at the top, so the first field of a kind
// is used. It comes from the last server.
func readEnvelope(r io.Reader) (e envelope) {
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(lines.Bytes()) > 0 {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.ToLower(name) {
		case "return-path":
			e.sender = cmp.Or(e.sender, address(value))
		case "x-original-to", "delivered-to":
			e.recipient = cmp.Or(e.recipient, address(value))
		}
	}
	return e
}

// address returns the address in a header field. It returns "" if there is no address. It also returns "" if the
// address begins with "-", because a command could mistake such an address for a flag.
func address(value string) string {
	a, err := mail.ParseAddress(strings.TrimSpace(value))
	if err != nil || strings.HasPrefix(a.Address, "-") {
		return ""
	}
	return a.Address
}

// An lmtpAddress is the address of an LMTP server. It is a Unix socket or HOST:PORT.
type lmtpAddress struct{ network, addr string }

func (a *lmtpAddress) read(v any) error {
	var socket path
	if socket.read(v) == nil {
		*a = lmtpAddress{"unix", string(socket)}
		return nil
	}
	text, _ := v.(string)
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || port == "" {
		return errors.New(`the path of a socket or a host with a port, as in "/run/dovecot/lmtp" or "localhost:24"`)
	}
	*a = lmtpAddress{"tcp", text}
	return nil
}

// An lmtp stores messages with an LMTP server (RFC 2033). The server replies for each message whether it has stored
// that message.
type lmtp struct {
	server    lmtpAddress
	recipient string
	timeout   time.Duration
}

// check returns an error if the server does not reply.
func (l *lmtp) check(ctx context.Context) error { return l.session(ctx, (*smtp.Client).Noop) }

func (l *lmtp) deliver(ctx context.Context, message *os.File, e envelope) error {
	return l.session(ctx, func(c *smtp.Client) error { return l.transfer(c, message, e) })
}

// session connects to the server, calls do, and sends QUIT if do returns nil.
func (l *lmtp) session(ctx context.Context, do func(*smtp.Client) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, fmt.Errorf(
		"no reply within %v (command_timeout)", l.timeout))
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, l.server.network, l.server.addr)
	if err != nil {
		return fmt.Errorf("lmtp %s: %w", l.server.addr, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := smtp.NewClientLMTP(conn)
	if err = do(c); err == nil {
		c.Quit() // the message is stored, so an error of QUIT does not matter
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("lmtp %s: %w", l.server.addr, err)
}

// transfer sends a message. Only a permanent refusal of the data means that the server will never accept this message.
// A refused sender or recipient may be a mistake in the configuration.
func (l *lmtp) transfer(c *smtp.Client, message io.Reader, e envelope) error {
	if err := c.Mail(e.sender, nil); err != nil {
		return err
	}
	if err := c.Rcpt(l.recipient, nil); err != nil {
		return err
	}
	data, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(data, message); err != nil {
		return err
	}
	err = data.Close()
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok && !reply.Temporary() {
		return fmt.Errorf("%w: %w", err, fetch.ErrPermanent)
	}
	return err
}
