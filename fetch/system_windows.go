package fetch

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Windows has no such flag. Only users with a privilege can make symbolic links there.
const noFollow = 0

// errSharing is ERROR_SHARING_VIOLATION: the file is open elsewhere.
const errSharing = syscall.Errno(32)

// lockFile opens a file in such a way that nobody else can open it until it is closed or the process ends. The file is
// not removed.
func lockFile(name string) (io.Closer, error) {
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, err
	}
	const access, shareNothing = syscall.GENERIC_READ | syscall.GENERIC_WRITE, 0
	h, err := syscall.CreateFile(path, access, shareNothing, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	switch {
	case errors.Is(err, errSharing):
		return nil, ErrLocked
	case err != nil:
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}

// tryLockMbox locks a file with a second file that ends in .lock.
func tryLockMbox(f *os.File) (io.Closer, error) { return makeLock(f.Name()+".lock", errMboxLocked) }

// canMove returns false: only an attempt shows whether a file can be moved.
func canMove(name, dir string) bool { return false }

// isOwnedByUser returns true: this process cannot open files of other users.
func isOwnedByUser(fs.FileInfo) bool { return true }
