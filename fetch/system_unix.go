//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package fetch

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// noFollow makes it an error to open a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// These are variables so that tests can make them fail.
var (
	flock     = syscall.Flock
	fcntlLock = syscall.FcntlFlock
	access    = syscall.Access
)

// noLocks reports whether err means that the file system has no locks.
func noLocks(err error) bool {
	return errors.Is(err, syscall.ENOLCK) || errors.Is(err, errors.ErrUnsupported)
}

// lockFile locks a file until it is closed or the process ends. The file is not removed. If the file system has no
// locks, the lock is a file that ends in .held.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	err = retryInterrupted(func() error { return flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close()
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, ErrLocked
	case noLocks(err):
		return makeLock(name+".held", ErrLocked)
	}
	return nil, &os.PathError{Op: "lock", Path: name, Err: err}
}

// tryLockMbox locks a whole file as mail programs on Unix do, until it is closed. If another program has locked it, the
// error wraps errMboxLocked. If the file system has no locks, the lock is a file that ends in .lock.
func tryLockMbox(f *os.File) (io.Closer, error) {
	err := setLock(f, ofdSetLock)
	if errors.Is(err, syscall.EINVAL) { // the kernel does not know ofdSetLock
		err = setLock(f, syscall.F_SETLK)
	}
	switch {
	case err == nil:
		return io.NopCloser(nil), nil
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES):
		return nil, errMboxLocked
	case noLocks(err):
		return makeLock(f.Name()+".lock", errMboxLocked)
	}
	return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
}

func setLock(f *os.File, command int) error {
	whole := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	return retryInterrupted(func() error { return fcntlLock(f.Fd(), command, &whole) })
}

// ofdSetLock is F_OFD_SETLK, or F_SETLK if that does not exist. The locks of F_SETLK belong to the process, and end
// when any part of it closes the file. Those of F_OFD_SETLK belong to the open file.
var ofdSetLock = func() int {
	switch runtime.GOOS {
	case "linux":
		return 37
	case "darwin":
		return 90
	}
	return syscall.F_SETLK
}()

func retryInterrupted(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

// canMove reports whether a file can certainly be moved to a directory. It returns false if the user's permissions seem
// to be insufficient; the process may have other rights.
func canMove(name, dir string) bool {
	const write, search = 2, 1 // W_OK, X_OK
	var file, to syscall.Stat_t
	return access(dir, write|search) == nil && syscall.Stat(name, &file) == nil && syscall.Stat(dir, &to) == nil &&
		file.Dev == to.Dev
}

// isOwnedByUser reports whether a file belongs to the user of this process.
func isOwnedByUser(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
