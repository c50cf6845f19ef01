package fetch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// syncDir brings the entries of a folder to the disk, so that a new name in it survives a power cut.
func syncDir(name string) error {
	if runtime.GOOS == "windows" { // can't, and need not
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a folder and those above it that are missing, all of them on the disk.
func makeDir(name string) error {
	parent := filepath.Dir(name)
	err := os.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrNotExist) && parent != name {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(name, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return syncDir(parent)
}
