//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// command runs popfetch in a process of its own.
func (p *workspace) command(args ...string) *exec.Cmd {
	p.t.Helper()
	self, err := os.Executable()
	require.NoError(p.t, err)
	cmd := exec.CommandContext(p.t.Context(), self, args...)
	cmd.Env = append(os.Environ(), envMain+"=1", "GORACE=atexit_sleep_ms=0", "TERM=xterm-256color")
	return cmd
}

// A runningProcess is a popfetch process that has begun to store its second message.
type runningProcess struct {
	*workspace
	srv      *pop3test.Server
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

// startProcess starts popfetch with an agent. At the second message the agent waits until a file named "go" exists.
func startProcess(t *testing.T, flags ...string) *runningProcess {
	t.Helper()
	v := &runningProcess{workspace: newWorkspace(t),
		srv: pop3test.NewServer(mailbox("ann", numberedMessages(30, 100)...))}
	t.Cleanup(v.srv.Close)
	script := fmt.Sprintf(`cd %s; if test -e first; then touch begun; until test -e go; do sleep 0.02; done; fi
		touch first; cat >> all`, v.dir)
	command := fmt.Sprintf("command = [\"sh\", \"-c\", %q]", script)
	account := v.account(v.srv, "ann", command, `delete = "after delivery"`)
	v.cmd = v.command(append(flags, "-c", v.configure(account))...)
	v.cmd.Stdout, v.cmd.Stderr = &v.out, &v.err
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, v.cmd.Start())
	t.Cleanup(func() { v.cmd.Process.Kill() })
	require.Eventually(t, func() bool { return v.exists("begun") }, 20*time.Second, 5*time.Millisecond)
	return v
}

func (v *runningProcess) exists(name string) bool {
	_, err := os.Stat(v.path(name))
	return err == nil
}

// signal sends a signal to the whole process group, as a terminal does when Ctrl-C is pressed.
func (v *runningProcess) signal(s syscall.Signal) {
	v.t.Helper()
	require.NoError(v.t, syscall.Kill(-v.cmd.Process.Pid, s))
}

// wait returns the exit status.
func (v *runningProcess) wait() int {
	v.t.Helper()
	v.cmd.Wait() // the exit status is read from ProcessState
	v.checkNoPassword(result{out: v.out.String(), err: v.err.String()})
	return v.cmd.ProcessState.ExitCode()
}

// stored counts the messages that the agent has stored.
func (v *runningProcess) stored() int {
	v.t.Helper()
	all, err := os.ReadFile(v.path("all"))
	require.NoError(v.t, err)
	return bytes.Count(all, []byte("Subject: "))
}

func TestFirstSignal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		flags  []string
		signal syscall.Signal
		status int
	}{
		{"SIGINT", nil, syscall.SIGINT, exitStopped}, {"SIGTERM", nil, syscall.SIGTERM, exitStopped},
		{"SIGTERM to a daemon", []string{"--daemon"}, syscall.SIGTERM, exitDone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := startProcess(t, tt.flags...)
			v.signal(tt.signal)
			require.NoError(t, os.WriteFile(v.path("go"), nil, 0o600))
			assert.Equal(t, tt.status, v.wait(), v.err.String())
			assert.GreaterOrEqual(t, v.stored(), 2, "the current message is stored")
			assert.Less(t, v.stored(), 30, "popfetch stops after it")
			assert.Len(t, v.srv.Left("ann"), 30-v.stored(), "stored messages are deleted")
			assert.Contains(t, v.out.String()+v.err.String(), " deleted, then stopped")
		})
	}
}

func TestSecondSignal(t *testing.T) {
	v := startProcess(t)
	v.signal(syscall.SIGINT)
	v.signal(syscall.SIGTERM)
	assert.Equal(t, exitStopped, v.wait())
	assert.Equal(t, 1, v.stored())
	assert.Len(t, v.srv.Left("ann"), 30, "nothing is deleted, because there was no QUIT")

	require.NoError(t, os.WriteFile(v.path("go"), nil, 0o600))
	assert.Equal(t, exitDone, v.run("-c", v.path("config.toml")).status)
	assert.Equal(t, 30, v.stored(), "each message is stored once")
	assert.Empty(t, v.srv.Left("ann"))
}
