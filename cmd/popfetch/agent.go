package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
	"unicode"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// An agent is a sink that gives each message to a mail delivery agent: a command with the message at its standard
// input, which says with exit status 0 that it has stored it for good.
type agent struct {
	argv    []string
	env     []string
	hide    map[string]bool // environment variables that it does not get
	crlf    bool            // keep the CRLF of the message, in the place of LF
	timeout time.Duration
}

// Deliver lets the command store a message. It starts once the whole message is there, in a file without a name: a
// command can't tell the end of a message from the end of one that was cut.
func (a *agent) Deliver(ctx context.Context, _ fetch.Item, r io.Reader) error {
	spool, err := os.CreateTemp("", "popfetch-")
	if err != nil {
		return err
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	if err := a.copy(spool, r); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return a.run(ctx, spool)
}

// copy writes the message as the command wants it.
func (a *agent) copy(w io.Writer, r io.Reader) error {
	if a.crlf {
		_, err := io.Copy(w, r)
		return err
	}
	lf := &lfWriter{w: w}
	if _, err := io.Copy(lf, r); err != nil {
		return err
	}
	return lf.flush()
}

// run runs the command.
func (a *agent) run(ctx context.Context, message *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.argv[0], a.argv[1:]...)
	said := &tail{max: 500}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = message, said, said
	cmd.Env = a.environment()
	cmd.WaitDelay = commandWait
	detach(cmd)
	err := cmd.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay): // the command itself has ended well
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it did not end within %v (command_timeout)", a.timeout)
	}
	return fmt.Errorf("command %s: %w%s", a.argv[0], err, said.quote())
}

// environment is that of popfetch without passwords, and with the account.
func (a *agent) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !a.hide[name] {
			env = append(env, v)
		}
	}
	return append(env, a.env...)
}

// A tail keeps the end of what is written to it.
type tail struct {
	max  int
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-t.max):]
	return len(p), nil
}

// quote gives the text on one line, as the end of an error.
func (t *tail) quote() string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, string(bytes.ToValidUTF8(bytes.TrimSpace(t.text), []byte("?"))))
	if text == "" {
		return ""
	}
	return ": " + text
}
