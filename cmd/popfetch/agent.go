package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// An agent stores messages with a mail delivery agent. That is a command that reads a message from its standard input.
// It exits with status 0 when it has stored the message.
type agent struct {
	argv    []string
	shell   bool // argv is a shell command, so {sender} and {recipient} are not replaced in it
	user    string
	env     []string
	timeout time.Duration
}

// permanentStatuses are the exit statuses with which an agent says that it will never accept the message. 65 is
// EX_DATAERR of sysexits.h, and qmail uses 100. For any other status the reason may be the agent, its configuration or
// the machine, so the next run tries again.
var permanentStatuses = []int{65, 100}

// check returns an error if the command does not exist.
func (a *agent) check(context.Context) error {
	if _, err := exec.LookPath(a.argv[0]); err != nil {
		return fmt.Errorf("command %s: %w", a.argv[0], err)
	}
	return nil
}

// deliver runs the command.
func (a *agent) deliver(ctx context.Context, message *os.File, e envelope) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, fmt.Errorf(
		"it took longer than %v (command_timeout)", a.timeout))
	defer cancel()
	env := append(slices.Clip(a.env), "POPFETCH_SENDER="+e.sender, "POPFETCH_RECIPIENT="+e.recipient)
	_, err := runCommand(ctx, a.arguments(e), env, message, nil)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("command %w", err)
	exit, exited := errors.AsType[*exec.ExitError](err)
	if exited && slices.Contains(permanentStatuses, exit.ExitCode()) {
		return fmt.Errorf("%w: %w", err, fetch.ErrPermanent)
	}
	return err
}

// arguments returns the command with {sender} and {recipient} replaced by the addresses of the envelope.
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

// commandWait limits the wait for the output of a command after the command has ended or was killed. Without the limit,
// a child of the command that keeps the output open would delay popfetch.
const commandWait = time.Second

// runCommand runs a command. When ctx is done, the command and its children are killed. The result output is the end of
// the text that the command has written to its standard error. If stdout is nil, the text includes the standard output.
// The error contains this text, but no argument of the command.
func runCommand(ctx context.Context, argv, env []string, stdin io.Reader, stdout io.Writer) (output string, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	captured := &tail{max: 500}
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, stdin, stdout, captured, commandWait
	if stdout == nil {
		cmd.Stdout = captured
	}
	ownGroup(cmd)
	err = cmd.Run()
	if text := bytes.TrimSpace(captured.text); len(text) > 0 {
		output = ": " + clean(string(text))
	}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // after ErrWaitDelay, only a child keeps the output open
		return output, nil
	case ctx.Err() != nil && cmd.ProcessState.ExitCode() < 0: // the command was killed because ctx is done
		err = context.Cause(ctx)
	}
	return output, fmt.Errorf("%s: %w%s", argv[0], err, output)
}

// A tail keeps only the end of the text that is written to it.
type tail struct {
	max  int
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-t.max):]
	return len(p), nil
}
