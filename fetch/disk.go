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

// replaceFile writes a file that takes the place of the one with this name, if there is one, whole or not at all.
func replaceFile(name string, content []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(name))
}
