//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package fetch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// lockFile makes a file that must not have been there. On these systems a process that is killed leaves it behind.
func lockFile(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w; if there is none, remove %s", ErrLocked, name)
	} else if err != nil {
		return nil, err
	}
	return madeFile{f}, nil
}

// A madeFile is removed when it is closed.
type madeFile struct{ *os.File }

func (f madeFile) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }
