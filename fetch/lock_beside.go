//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package fetch

import (
	"context"
	"os"
)

// lockMbox locks a file by another one beside it, and fails if that can't be at once.
func lockMbox(_ context.Context, f *os.File) (unlock func(), err error) {
	lock, err := lockFile(f.Name() + ".lock")
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}
