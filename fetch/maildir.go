package fetch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// A Maildir is a [Sink] that makes one file of each message, in the folders tmp, new and cur of a directory
// (https://cr.yp.to/proto/maildir.html). A message is written to tmp, brought to the disk, moved to new, and the
// folder is brought to the disk too; whoever looks into new sees whole messages only. Names are made from the time,
// the process, a counter and random octets, never from what the server says. Any number of goroutines and processes
// may deliver at the same time.
//
// A process that is killed may leave a file in tmp, which, as the specification has it, mail readers remove when it
// is 36 hours old.
type Maildir struct {
	Dir string // made, with its three folders, if it is not there
	LF  bool   // store lines with LF in place of CRLF, which mail readers on Unix expect and which alters signed mail
}

// Deliver stores a message in new.
func (d Maildir) Deliver(_ context.Context, _ Item, r io.Reader) error {
	if err := d.deliver(r); err != nil {
		return fmt.Errorf("fetch: maildir: %w", err)
	}
	return nil
}

func (d Maildir) deliver(r io.Reader) error {
	name := uniqueName()
	tmp, dest := filepath.Join(d.Dir, "tmp", name), filepath.Join(d.Dir, "new", name)
	f, err := d.create(tmp)
	if err != nil {
		return err
	}
	if err = fill(f, r, d.LF); err == nil {
		err = os.Rename(tmp, dest)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	if err = syncDir(filepath.Dir(dest)); err != nil {
		os.Remove(dest) // it will be delivered again
	}
	return err
}

// create makes a new file, and the folders if they are missing.
func (d Maildir) create(name string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := os.OpenFile(name, flags, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	for _, folder := range []string{"new", "cur", "tmp"} { // the one that is looked for comes last
		if err := makeDir(filepath.Join(d.Dir, folder)); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(name, flags, 0o600)
}

// fill writes all of r to f, brings it to the disk and closes f.
func fill(f *os.File, r io.Reader, lf bool) error {
	var err error
	if lf {
		err = copyLF(f, r)
	} else {
		_, err = io.Copy(f, r)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

var deliveries atomic.Int64

// uniqueName makes a file name as the specification of Maildir asks for: seconds, then what tells apart the
// deliveries of a second, then the host.
func uniqueName() string {
	now := time.Now()
	var random [8]byte
	rand.Read(random[:])
	return fmt.Sprintf("%d.M%dP%dQ%dR%x.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), deliveries.Add(1),
		random, hostName())
}

// hostName gives the name of this machine with what must not be in a file name replaced, as the specification
// replaces it.
func hostName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return strings.NewReplacer("/", `\057`, ":", `\072`, string(filepath.Separator), `\057`).Replace(host)
}
