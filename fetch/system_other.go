//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package fetch

import (
	"io"
	"io/fs"
	"os"
)

// noFollow has no counterpart on all of these systems.
const noFollow = 0

// lockFile makes a file that must not exist. A process that is killed leaves it.
func lockFile(name string) (io.Closer, error) { return makeLock(name, ErrLocked) }

// tryLockMbox locks a file with a second file that ends in .lock.
func tryLockMbox(f *os.File) (io.Closer, error) { return makeLock(f.Name()+".lock", errMboxLocked) }

// canMove reports false: only the attempt to move a file tells.
func canMove(name, dir string) bool { return false }

// isOwnedByUser reports false: these systems have no common way to find out.
func isOwnedByUser(fs.FileInfo) bool { return false }
