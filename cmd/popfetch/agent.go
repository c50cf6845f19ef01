package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// An agent gives each message to a mail delivery agent: a command with the message at its standard input, which says
// with exit status 0 that it has stored it for good.
type agent struct {
	argv    []string
	shell   bool // argv is a shell, which gets no {sender} and no {recipient}
	user    string
	env     []string
	timeout time.Duration
}

// permanentStatuses are the exit statuses of an agent that will never take the message: EX_DATAERR of sysexits.h, and
// that of qmail. All others may be about the agent, its configuration or the machine.
var permanentStatuses = []int{65, 100}

// deliver runs the command.
func (a *agent) deliver(ctx context.Context, message *os.File, e envelope) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, fmt.Errorf(
		"it did not end within %v (command_timeout)", a.timeout))
	defer cancel()
	argv := a.arguments(e)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	said := &tail{max: 500}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = message, said, said
	cmd.Env = append(slices.Clip(a.env), "POPFETCH_SENDER="+e.sender, "POPFETCH_RECIPIENT="+e.recipient)
	cmd.WaitDelay = commandWait
	ownGroup(cmd)
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // the command itself has ended well
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	status := cmd.ProcessState.ExitCode()
	err = fmt.Errorf("command %s: %w%s", argv[0], err, said.quote())
	if slices.Contains(permanentStatuses, status) {
		return fmt.Errorf("%w: %w", err, fetch.ErrPermanent)
	}
	return err
}

// arguments puts the envelope in the place of {sender} and {recipient}.
func (a *agent) arguments(e envelope) []string {
	if a.shell {
		return a.argv
	}
	if e.recipient == "" {
		e.recipient = a.user
	}
	argv := slices.Clone(a.argv)
	for i := range argv[1:] {
		argv[i+1] = strings.NewReplacer("{sender}", e.sender, "{recipient}", e.recipient).Replace(argv[i+1])
	}
	return argv
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

// quote returns the text on one line, as the end of an error.
func (t *tail) quote() string {
	text := bytes.TrimSpace(t.text)
	if len(text) == 0 {
		return ""
	}
	return ": " + clean(string(text))
}
