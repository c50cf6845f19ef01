package fetch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// fsync is a variable so that tests can count its calls and make it fail.
var fsync = (*os.File).Sync

// warnUnsyncable makes syncDir log its warning only once, so that it does not fill the log. Tests replace it.
var warnUnsyncable = new(sync.Once)

// syncDir syncs a folder, so that the names in it survive a power cut. Some file systems cannot sync a folder (vboxsf,
// 9p, some of FUSE). On these, syncDir returns nil, and logs a warning once in each process.
func syncDir(name string) error {
	if runtime.GOOS == "windows" { // Windows cannot sync folders; its journal keeps the names
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = errors.Join(fsync(d), d.Close())
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		warnUnsyncable.Do(func() {
			slog.Warn("fetch: the file system cannot sync folders; a power cut may lose the latest messages",
				"folder", name, "err", err)
		})
		return nil
	}
	return err
}

// makeDir makes a folder and its missing parents, and syncs them, so that they survive a power cut.
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

// adviseCreate adds advice to an error about a file that does not exist. It returns any other error unchanged.
func adviseCreate(err error, create string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; mount its file system, or make it with %s", err, create)
	}
	return err
}

// createNew creates a file. It fails if the name exists, even if the name is a symbolic link to a missing file.
func createNew(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// replaceFile writes a file, and replaces an existing one atomically.
func replaceFile(name string, content []byte) error {
	temp := name + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := createNew(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = fsync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(name))
}

// A temporary file that is older than staleAge was left by a process that was killed. The specification of Maildir uses
// the same age.
const staleAge = 36 * time.Hour

// removeStale removes temporary files that killed processes have left in a folder.
func removeStale(dir, pattern string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if matched, err := filepath.Match(pattern, e.Name()); err != nil || !matched {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > staleAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

var deliveries atomic.Int64

// uniqueName returns a file name in the form that the specification of Maildir defines: the seconds, a part that is
// unique within a second, and the host.
func uniqueName() string {
	now := time.Now()
	var random [8]byte
	rand.Read(random[:])
	return fmt.Sprintf("%d.M%dP%dQ%dR%x.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), deliveries.Add(1),
		random, hostName())
}

// hostName returns the name that this machine had at the first call. Characters that must not be in a file name are
// replaced as the specification of Maildir says.
var hostName = sync.OnceValue(func() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return strings.NewReplacer("/", `\057`, ":", `\072`, string(filepath.Separator), `\057`).Replace(host)
})

// On Linux, better functions replace these functions. Tests replace them too.
var (
	// reserve makes sure that there is room on the disk to append some bytes to a file. end is the size
	// of the file.
	reserve = checkSpace

	// bootID returns a string that is different after each start of the machine, or "" if there
	// is none.
	bootID = func() string { return "" }

	// syncAll syncs all file systems. After it, everything that any process has written survives a power cut. It is
	// called only if bootID does not return "".
	syncAll = func() {}
)

// checkSpace appends some bytes to a file and removes them again. It fails if there is no room for them.
func checkSpace(f *os.File, end, bytes int64) error {
	_, err := f.Write(make([]byte, bytes))
	return errors.Join(err, f.Truncate(end))
}

// makeLock creates a lock file. It is for systems and file systems that have no other locks. If the file exists,
// makeLock returns an error that wraps lockedErr. Close removes the file. If the process is killed, the file
// stays.
func makeLock(name string, lockedErr error) (io.Closer, error) {
	f, err := createNew(name)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w; if it was killed, remove %s", lockedErr, name)
	} else if err != nil {
		return nil, err
	}
	fmt.Fprintf(f, "%d\n", os.Getpid()) // mail programs write their process id too
	return lockFileOnDisk{f}, nil
}

// A lockFileOnDisk is a lock file. Close removes it.
type lockFileOnDisk struct{ *os.File }

func (f lockFileOnDisk) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }

// The time to wait for the lock of an mbox file, and between two attempts.
const (
	lockWait = 30 * time.Second
	lockPoll = 50 * time.Millisecond
)

var (
	errMboxLocked = errors.New("another program has locked it")
	errLockWait   = fmt.Errorf("waited %v for it to end: %w", lockWait, os.ErrDeadlineExceeded)
)

// lockMbox locks a whole file against other programs and other goroutines of this program. It waits for the lock until
// ctx is done. unlock also closes the file, because some kinds of lock end anyway when the file is closed.
func lockMbox(ctx context.Context, f *os.File) (unlock func() error, err error) {
	unlockInProcess, err := lockInProcess(ctx, f)
	if err != nil {
		return nil, err
	}
	for {
		lock, err := tryLockMbox(f)
		if err == nil {
			return func() error {
				defer unlockInProcess()
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
		unlockInProcess()
		return nil, err
	}
}

// A processLock is a file that a goroutine of this process has locked. It is identified by device and inode, because a
// file may have several names.
type processLock struct {
	info     fs.FileInfo
	released chan struct{}
}

var (
	processLocksMutex sync.Mutex
	processLocks      []*processLock
)

// lockInProcess waits until no other goroutine of this process uses the file under any of its names. Then it locks the
// file for the caller.
func lockInProcess(ctx context.Context, f *os.File) (unlock func(), err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	lock := &processLock{info, make(chan struct{})}
	for {
		other := lock.tryLock()
		if other == nil {
			return lock.unlock, nil
		}
		select {
		case <-other.released:
		case <-ctx.Done():
			return nil, fmt.Errorf("another account delivers to it: %w", context.Cause(ctx))
		}
	}
}

// tryLock adds o to processLocks. If another goroutine has locked the same file, tryLock returns the lock of that
// goroutine instead.
func (o *processLock) tryLock() (other *processLock) {
	processLocksMutex.Lock()
	defer processLocksMutex.Unlock()
	for _, other := range processLocks {
		if os.SameFile(o.info, other.info) {
			return other
		}
	}
	processLocks = append(processLocks, o)
	return nil
}

func (o *processLock) unlock() {
	processLocksMutex.Lock()
	defer processLocksMutex.Unlock()
	processLocks = slices.DeleteFunc(processLocks, func(other *processLock) bool { return other == o })
	close(o.released)
}
