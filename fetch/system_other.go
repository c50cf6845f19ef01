//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package fetch

import (
	"io"
	"io/fs"
	"os"
)

// noFollow does not exist on all of these systems.
const noFollow = 0

// lockFile makes a lock file, which must not exist. If the process is killed, the file stays.
func lockFile(name string) (io.Closer, error) { return makeLock(name, ErrLocked) }

// tryLockMbox locks a file with a second file that ends in .lock.
func tryLockMbox(f *os.File) (io.Closer, error) { return makeLock(f.Name()+".lock", errMboxLocked) }

// canMove returns false: only an attempt shows whether a file can be moved.
func canMove(name, dir string) bool { return false }

// isOwnedByUser returns false, because these systems have no common way to find out the owner.
func isOwnedByUser(fs.FileInfo) bool { return false }
