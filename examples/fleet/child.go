package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A child is another process of this program. It ends when this one does, whatever way, since its standard input is
// then closed; see untilParentEnds.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	lines  *bufio.Reader
	reaped bool
}

// childVariable is set in the environment of a child.
const childVariable = "FLEET_CHILD"

// spawn starts this program with other arguments.
func spawn(args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), childVariable+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", args[0], err)
	}
	return &child{cmd: cmd, stdin: stdin, lines: bufio.NewReader(stdout)}, nil
}

// line reads what a lab process says when it is ready.
func (c *child) line() (string, error) {
	text, err := c.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s did not get ready: %w", c.cmd.Args[1], err)
	}
	return strings.TrimSpace(text), nil
}

// kill is kill -9.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.wait()
}

// stop asks it to end, and waits.
func (c *child) stop() {
	c.stdin.Close()
	late := time.AfterFunc(20*time.Second, func() { c.cmd.Process.Kill() })
	defer late.Stop()
	c.wait()
}

func (c *child) wait() {
	if !c.reaped {
		c.reaped = true
		c.cmd.Wait()
	}
}

// children are to be stopped together.
type children []*child

func (c children) stop() {
	for _, one := range c {
		one.stop()
	}
}

// untilParentEnds gives a context that ends with ctx and, in a child, when the process that started it ends or wants it
// to.
func untilParentEnds(ctx context.Context) context.Context {
	if os.Getenv(childVariable) == "" {
		return ctx
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel(errors.New("the parent process has ended"))
	}()
	return ctx
}
