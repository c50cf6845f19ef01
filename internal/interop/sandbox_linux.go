package interop

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

//go:embed sandbox.sh
var sandboxScript string

// A sandbox is a process tree in namespaces of its own.
type sandbox struct {
	process *os.Process
	done    chan struct{} // closed when all processes have ended
}

// startSandbox runs command with a root directory of its own. The directory has three layers: the machine's root, the
// packages in the folder root, and state/etc. A file in a later layer replaces a file with the same name in an earlier
// one.
func startSandbox(root, state string, log *os.File, command ...string) (*sandbox, error) {
	args := append([]string{"-c", sandboxScript, "sandbox", root, state}, command...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Unshareflags: syscall.CLONE_NEWNS, // with Cloneflags our mounts would be visible to the machine
		Pdeathsig:    syscall.SIGKILL,
		Setsid:       true,
	}
	box := &sandbox{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the thread that started the process ends, so this thread must
		// not end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		box.process = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // an error means that the process was killed, or the log has the reason
			close(box.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%w: start in a namespace: %v", ErrUnavailable, err)
	}
	return box, nil
}

// stop kills the first process of the namespace. The kernel then kills the others and removes the mounts.
func (b *sandbox) stop() {
	_ = b.process.Kill() // fails only if the process has already ended
	<-b.done
}

// lock waits for a lock file, so that two programs do not unpack into the same folder at once.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// available returns an error if this machine lacks something that a sandbox needs.
func available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: namespaces and mounts need root", ErrUnavailable)
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil || !strings.Contains(string(release), "\nID=debian") ||
		!strings.Contains(string(release), `VERSION_ID="12"`) {
		return fmt.Errorf("%w: the packages and their configuration are those of Debian 12", ErrUnavailable)
	}
	systems, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(systems), "\toverlay\n") {
		return fmt.Errorf("%w: the kernel has no overlayfs (modprobe overlay)", ErrUnavailable)
	}
	return nil
}
