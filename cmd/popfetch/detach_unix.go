//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// detach keeps a command out of the reach of Ctrl-C, which would end it in the midst of a message, and has all of its
// children killed with it.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
