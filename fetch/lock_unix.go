//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// lockFile locks a file, which stays, for as long as this process lives and does not close it.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = flock(f)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrLocked
	}
	return nil, &os.PathError{Op: "lock", Path: name, Err: err}
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return err
		}
	}
}

// lockPoll is how long to wait between two attempts.
const lockPoll = 50 * time.Millisecond

// lockMbox waits for a lock on a whole file, of the kind that mail programs use. It ends with the file at the latest.
func lockMbox(ctx context.Context, f *os.File) (unlock func(), err error) {
	whole := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	for {
		err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &whole)
		switch {
		case err == nil:
			return func() {}, nil
		case err != syscall.EAGAIN && err != syscall.EACCES && err != syscall.EINTR:
			return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: ctx.Err()}
		}
	}
}
