package fetch

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A Maildir is a [Sink] that makes one file of each message, in the folders tmp, new and cur of a directory
// (https://cr.yp.to/proto/maildir.html). A message is written to tmp, synced, moved to new, and new is synced.
// Programs that look into new see whole messages only. Names are made from the time, the process, a counter and random
// bytes, never from what the server says. Any number of goroutines and processes may deliver at the same time.
//
// The directory has to exist: Create makes it. A run never makes it, because one that has disappeared may be on a
// file system that is not mounted. Then Check and Deliver fail with an error that wraps [fs.ErrNotExist].
//
// A process that is killed may leave a file in tmp. The specification lets mail readers remove such files after 36
// hours.
type Maildir struct {
	Dir string // see Create
	LF  bool   // store lines with LF in place of CRLF, which mail readers on Unix expect and which alters signed mail
}

// Create makes the directory and its three folders, as far as they are missing. A program calls it once, when it
// knows that Dir is the right place: when an account is set up, not before each run.
func (d Maildir) Create() error {
	for _, folder := range []string{"new", "cur", "tmp"} {
		if err := makeDir(filepath.Join(d.Dir, folder)); err != nil {
			return d.failed(err)
		}
	}
	return nil
}

// Check returns an error if a file cannot be made in tmp and moved to new.
func (d Maildir) Check(context.Context) error {
	if _, err := os.Stat(filepath.Join(d.Dir, "cur")); err != nil {
		return d.failed(err)
	}
	tmp, dest := d.newNames(".check.") // readers of a Maildir skip names that begin with a dot
	f, err := createNew(tmp)
	if err == nil {
		f.Close()
		err = os.Rename(tmp, dest)
		os.Remove(tmp)
		os.Remove(dest)
	}
	return d.failed(err)
}

// Deliver stores a message in new.
func (d Maildir) Deliver(_ context.Context, _ Item, r io.Reader) error {
	name, err := d.deliver(r)
	if err == nil {
		if err = syncDir(filepath.Dir(name)); err != nil {
			os.Remove(name) // the message will be delivered again
		}
	}
	return d.failed(err)
}

// DeliverUnsynced stores a message in new. The message itself is synced; its name in new is synced by Sync.
func (d Maildir) DeliverUnsynced(_ context.Context, _ Item, r io.Reader) error {
	_, err := d.deliver(r)
	return d.failed(err)
}

// Sync makes the names of all messages in new survive a power cut.
func (d Maildir) Sync(context.Context) error { return d.failed(syncDir(filepath.Join(d.Dir, "new"))) }

// deliver stores a message in new and returns the name of its file.
func (d Maildir) deliver(r io.Reader) (name string, err error) {
	tmp, dest := d.newNames("")
	f, err := createNew(tmp)
	if err != nil {
		return "", err
	}
	if err = fill(f, r, d.LF); err == nil {
		err = os.Rename(tmp, dest)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return dest, err
}

// newNames returns the names of a new file in tmp and later in new.
func (d Maildir) newNames(prefix string) (tmp, dest string) {
	name := prefix + uniqueName()
	return filepath.Join(d.Dir, "tmp", name), filepath.Join(d.Dir, "new", name)
}

func (d Maildir) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fetch: maildir %s: %w", d.Dir, missing(err, "Maildir.Create"))
}
