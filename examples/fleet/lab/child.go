package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Child is another process. A child that runs [Main] ends when this process does, because its standard input is then
// closed.
type Child struct {
	Cmd    *exec.Cmd
	stdin  io.Closer
	lines  *bufio.Reader
	reaped bool
}

// childVariable tells the program that it is a child, for [IsChild].
const childVariable = "FLEET_LAB_CHILD"

// IsChild reports whether this process was started by [Spawn].
func IsChild() bool { return os.Getenv(childVariable) != "" }

// Program is the program with [Main] that [Spawn] starts; "" means this program.
var Program string

// Spawn starts a server.
func Spawn(args ...string) (*Child, error) {
	program, err := Program, error(nil)
	if program == "" {
		program, err = os.Executable()
	}
	if err != nil {
		return nil, err
	}
	return Start(exec.Command(program, args...), os.Stderr)
}

// Start starts a command. Its standard error goes to w.
func Start(cmd *exec.Cmd, w io.Writer) (*Child, error) {
	cmd.Stderr = w
	cmd.Env = append(cmd.Environ(), childVariable+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Child{Cmd: cmd, stdin: stdin, lines: bufio.NewReader(stdout)}, nil
}

// Line returns the next line that the child prints.
func (c *Child) Line() (string, error) {
	text, err := c.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s did not get ready: %w", strings.Join(c.Cmd.Args[:2], " "), err)
	}
	return strings.TrimSpace(text), nil
}

// Kill kills the child with SIGKILL.
func (c *Child) Kill() {
	c.Cmd.Process.Signal(syscall.SIGCONT)
	c.Cmd.Process.Kill()
	c.wait()
}

// Stop asks the child to end, as a supervisor does, and waits. It returns how the child ended.
func (c *Child) Stop() error {
	c.Cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(30*time.Second, func() { c.Cmd.Process.Kill() })
	defer late.Stop()
	return c.wait()
}

// Output waits until the child ends by itself, and returns what it has printed.
func (c *Child) Output() (string, error) {
	text, err := io.ReadAll(c.lines)
	return string(text), errors.Join(err, c.wait())
}

func (c *Child) wait() error {
	if c.reaped {
		return nil
	}
	c.reaped = true
	io.Copy(io.Discard, c.lines)
	err := c.Cmd.Wait()
	c.stdin.Close()
	return err
}

// CPU returns the processor time that the child has used.
func (c *Child) CPU() time.Duration { return cpuOf(c.Cmd.Process.Pid) }

// Resident returns the memory of the child in bytes.
func (c *Child) Resident() int64 { return residentOf(c.Cmd.Process.Pid) }
