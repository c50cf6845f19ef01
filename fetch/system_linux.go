package fetch

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// fallocate is a variable so that tests can make it fail.
var fallocate = syscall.Fallocate

func init() { reserve, bootID, syncAll = allocate, readBootID, syscall.Sync }

// allocate makes sure that there is room on the disk to append some bytes to a file. end is the size of the file. If
// the file system supports it, the room stays reserved until the file is truncated.
func allocate(f *os.File, end, bytes int64) error {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	err := retryInterrupted(func() error { return fallocate(int(f.Fd()), keepSize, end, bytes) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV):
		return checkSpace(f, end, bytes)
	}
	return &os.PathError{Op: "reserve room in", Path: f.Name(), Err: err}
}

func readBootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
