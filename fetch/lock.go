package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// makeLock creates a lock file. It is for systems and file systems that have no other locks. If the file exists, the
// error wraps held. Close removes it; a process that is killed leaves it.
func makeLock(name string, held error) (io.Closer, error) {
	f, err := createNew(name)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w; if it was killed, remove %s", held, name)
	} else if err != nil {
		return nil, err
	}
	fmt.Fprintf(f, "%d\n", os.Getpid()) // what mail programs write into such a file
	return lockFileOnDisk{f}, nil
}

// A lockFileOnDisk is removed when it is closed.
type lockFileOnDisk struct{ *os.File }

func (f lockFileOnDisk) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }

// How long to wait for the lock of an mbox file, and between two attempts.
const (
	lockWait = 30 * time.Second
	lockPoll = 50 * time.Millisecond
)

var (
	errMboxLocked = errors.New("another program has locked it")
	errLockWait   = fmt.Errorf("waited %v for it to end: %w", lockWait, os.ErrDeadlineExceeded)
)

// lockMbox locks a whole file against other programs and against other parts of this one. It waits until ctx ends.
// unlock closes the file too: with some kinds of lock that alone would unlock it.
func lockMbox(ctx context.Context, f *os.File) (unlock func() error, err error) {
	leave, err := enter(ctx, f)
	if err != nil {
		return nil, err
	}
	for {
		lock, err := tryLockMbox(f)
		if err == nil {
			return func() error {
				defer leave()
				return errors.Join(f.Close(), lock.Close())
			}, nil
		}
		if errors.Is(err, errMboxLocked) {
			select {
			case <-time.After(lockPoll):
				continue
			case <-ctx.Done():
				err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
			}
		}
		leave()
		return nil, err
	}
}

// An occupied file is one that a goroutine of this process has locked. It is known by device and inode, since a file
// may have several names.
type occupied struct {
	info fs.FileInfo
	left chan struct{}
}

var (
	occupiedMutex sync.Mutex
	occupiedFiles []*occupied
)

// enter waits until no other goroutine has the file, under any name, and takes it.
func enter(ctx context.Context, f *os.File) (leave func(), err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mine := &occupied{info, make(chan struct{})}
	for {
		other := mine.claim()
		if other == nil {
			return mine.leave, nil
		}
		select {
		case <-other.left:
		case <-ctx.Done():
			return nil, fmt.Errorf("another account delivers to it: %w", context.Cause(ctx))
		}
	}
}

// claim adds o, or returns the one that has the same file.
func (o *occupied) claim() (other *occupied) {
	occupiedMutex.Lock()
	defer occupiedMutex.Unlock()
	for _, other := range occupiedFiles {
		if os.SameFile(o.info, other.info) {
			return other
		}
	}
	occupiedFiles = append(occupiedFiles, o)
	return nil
}

func (o *occupied) leave() {
	occupiedMutex.Lock()
	defer occupiedMutex.Unlock()
	occupiedFiles = slices.DeleteFunc(occupiedFiles, func(other *occupied) bool { return other == o })
	close(o.left)
}
