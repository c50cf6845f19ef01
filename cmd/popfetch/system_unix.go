//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// handleUnixSignals handles the signals that only Unix has. SIGHUP stops a single run. If nohup has started the
// process, SIGHUP is ignored and stays ignored.
func (s signals) handleUnixSignals(daemon bool, ends chan os.Signal) {
	signal.Notify(s.fetchNow, syscall.SIGUSR1)
	switch {
	case signal.Ignored(syscall.SIGHUP):
	case daemon:
		signal.Notify(s.reload, syscall.SIGHUP)
	default:
		signal.Notify(ends, syscall.SIGHUP)
	}
}

// ownGroup makes a command run in a process group of its own. Ctrl-C does not reach that group, so it cannot interrupt
// the delivery of a message. When the command is killed, its children are killed too.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone // this error makes Wait return the exit status of the command
		}
		return err
	}
}
