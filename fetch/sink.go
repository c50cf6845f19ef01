package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/crlf"
	"github.com/seed-2d50cddb/pop3/internal/mailheader"
)

// An Item is a message on the server, described by what is known before it is retrieved.
type Item struct {
	Account string // account of the maildrop
	Num     int    // message number, valid only in this session
	UID     string // unique-id, which must not be used as a file name; "" if there is none
	Size    int64  // size in LIST, only approximate; -1 if it is not known

	FirstSeen time.Time // when a run first found the message, if that is remembered
}

// A Sink stores messages. [Maildir], [Mbox] and [EMLFolder] are sinks. A [Fetcher] also uses the methods of
// [CheckedSink] and of [UnsyncedSink], if a sink has them.
type Sink interface {
	// Deliver reads a message from r until io.EOF and stores it, byte for byte, with CRLF line
	// ends. It returns nil only if the message is stored permanently and survives a power cut,
	// because the message may then be deleted from the server. If r fails before io.EOF, the
	// message is incomplete: Deliver must store nothing and return an error. r is valid until
	// Deliver returns. If Deliver does not read the whole message, the rest is read and
	// discarded.
	Deliver(ctx context.Context, item Item, r io.Reader) error
}

// A CheckedSink is a [Sink] that can find out early that it cannot store anything.
type CheckedSink interface {
	Sink

	// Check returns an error if no message could be stored now. A run calls it before it
	// connects. After an error it retrieves nothing.
	Check(ctx context.Context) error
}

// An UnsyncedSink is a [Sink] that stores several messages faster than one by one. If the history is an
// [UnsyncedHistory], a run calls DeliverUnsynced instead of Deliver. It calls Sync before it syncs the history.
type UnsyncedSink interface {
	Sink

	// DeliverUnsynced is like Deliver, but the message may be lost in a power cut until Sync has returned nil. The
	// message survives the end of the process.
	DeliverUnsynced(ctx context.Context, item Item, r io.Reader) error

	// Sync makes sure that all messages that DeliverUnsynced has stored, in this process or another
	// one, survive a power cut.
	Sync(ctx context.Context) error
}

// A SinkFunc is a function that is used as a [Sink].
type SinkFunc func(ctx context.Context, item Item, r io.Reader) error

// Deliver calls f.
func (f SinkFunc) Deliver(ctx context.Context, item Item, r io.Reader) error { return f(ctx, item, r) }

// A Maildir is a [Sink] that stores each message in a file, in the folders tmp, new and cur of a directory
// (https://cr.yp.to/proto/maildir.html). A message is written to tmp, synced and moved to new, and new is synced. So
// programs that read new see only complete messages. File names are made from the time, the process, a counter and
// random bytes, and never from data of the server. Any number of goroutines and processes may deliver at the same time.
//
// The directory must exist: Create makes it. A run never makes it, because a missing directory may be on a file system
// that is not mounted. Then Check and Deliver fail with an error that wraps [fs.ErrNotExist].
//
// A run writes up to 32 small messages to tmp, syncs them at the same time, and then moves them to new. That is many
// times faster. A process that is killed may leave these files in tmp. The specification lets mail readers remove such
// files after 36 hours.
type Maildir struct {
	Dir string // the directory, which must exist; see Create

	// LF stores lines with LF instead of CRLF. Mail readers on Unix expect that, but it breaks
	// the signatures of signed mail.
	LF bool
}

// Create makes the directory and its three folders, if they are missing. Call it once, when an account is set up. Do
// not call it before each run: then the directory may be missing only because its file system is not mounted.
func (d Maildir) Create() error {
	for _, folder := range []string{"new", "cur", "tmp"} {
		if err := makeDir(filepath.Join(d.Dir, folder)); err != nil {
			return d.wrapError(err)
		}
	}
	return nil
}

// Check returns an error if a file cannot be made in tmp and moved to new. It moves a file only if that might fail,
// because programs that watch new would see it.
func (d Maildir) Check(context.Context) error {
	for _, folder := range []string{"tmp", "new", "cur"} {
		if _, err := os.Stat(filepath.Join(d.Dir, folder)); err != nil {
			return d.wrapError(err)
		}
	}
	tmp, dest := d.newNames(".check.") // readers of a Maildir skip names that begin with a dot
	f, err := createNew(tmp)
	if err != nil {
		return d.wrapError(err)
	}
	f.Close()
	if !canMove(tmp, filepath.Dir(dest)) {
		err = os.Rename(tmp, dest)
		os.Remove(dest)
	}
	os.Remove(tmp)
	return d.wrapError(err)
}

// Deliver stores a message in new.
func (d Maildir) Deliver(_ context.Context, _ Item, r io.Reader) error {
	name, err := d.deliver(r)
	if err != nil {
		return err
	}
	if err = syncDir(filepath.Dir(name)); err != nil {
		os.Remove(name) // remove it, because the message will be delivered again
	}
	return d.wrapError(err)
}

// DeliverUnsynced stores a message in new. It syncs the content of the file; Sync syncs the name of the file in new.
func (d Maildir) DeliverUnsynced(_ context.Context, _ Item, r io.Reader) error {
	_, err := d.deliver(r)
	return err
}

// Sync syncs new, so that the names of all messages in it survive a power cut.
func (d Maildir) Sync(context.Context) error {
	return d.wrapError(syncDir(filepath.Join(d.Dir, "new")))
}

// deliver stores a message in new and returns the name of its file.
func (d Maildir) deliver(r io.Reader) (name string, err error) {
	f, err := d.stage(r)
	if err != nil {
		return "", err
	}
	f.sync()
	return f.dest, f.moveToNew()
}

// stage writes a message to tmp.
func (d Maildir) stage(r io.Reader) (*stagedFile, error) {
	tmp, dest := d.newNames("")
	f, err := createNew(tmp)
	if err != nil {
		return nil, d.wrapError(err)
	}
	write := crlf.Copy
	if d.LF {
		write = crlf.CopyLF
	}
	if err := write(f, r); err != nil {
		return nil, d.wrapError(errors.Join(err, f.Close(), os.Remove(tmp)))
	}
	return &stagedFile{File: f, maildir: d, dest: dest}, nil
}

// A stagedFile is a message in tmp. Later it is synced and moved to new, or removed.
type stagedFile struct {
	*os.File
	maildir Maildir
	dest    string
	syncErr error // error of sync
}

func (f *stagedFile) sync() { f.syncErr = errors.Join(fsync(f.File), f.Close()) }

// moveToNew moves the file to new, if it was synced.
func (f *stagedFile) moveToNew() error {
	err := f.syncErr
	if err == nil {
		err = os.Rename(f.Name(), f.dest)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return f.maildir.wrapError(err)
}

func (f *stagedFile) remove() {
	f.Close()
	os.Remove(f.Name())
}

// newNames returns the names that a new file has in tmp, and later in new.
func (d Maildir) newNames(prefix string) (tmp, dest string) {
	name := prefix + uniqueName()
	return filepath.Join(d.Dir, "tmp", name), filepath.Join(d.Dir, "new", name)
}

func (d Maildir) wrapError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fetch: maildir %s: %w", d.Dir, adviseCreate(err, "Maildir.Create"))
}

// An EMLFolder is a [Sink] that stores each message in a file whose name ends in .eml, byte for byte. Mail programs on
// all systems open such files, so it is suited for archives.
//
// A name consists of the date of the message in UTC and its unique-id, as in 20261124T083000Z-0000001a5f3c.eml. Apart
// from the T and the Z of the date, it contains only lower-case letters, digits and a few signs, so it is valid on all
// file systems. A unique-id with other characters, or a long one, is shortened, and a part of its SHA-256 is added.
// Without a unique-id the SHA-256 of the message is used. Without a valid Date the name begins with "undated". If there
// is a file of this name with the same content, nothing is stored, so a message that is delivered again makes no second
// file. If the content differs, a part of the SHA-256 of the content is added to the name.
//
// The folder must exist: Create makes it. A run never makes it, because a missing folder may be on a file system that
// is not mounted. Then Check and Deliver fail with an error that wraps [fs.ErrNotExist].
//
// A message is written to a file whose name begins with ".eml-" and synced. Then the file is renamed, and the folder is
// synced. A process that is killed may leave such a file. Check removes it when it is 36 hours old.
type EMLFolder struct {
	Dir string // the folder, which must exist; see Create
}

// Create makes the folder and its parents, if they are missing. Call it once, when an account is set up. Do not call it
// before each run: then the folder may be missing only because its file system is not mounted.
func (d EMLFolder) Create() error { return d.wrapError(makeDir(d.Dir)) }

const emlTemp = ".eml-"

// Check returns an error if no file can be made in the folder.
func (d EMLFolder) Check(context.Context) error {
	f, err := d.newFile()
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()), removeStale(d.Dir, emlTemp+"*"))
	}
	return d.wrapError(err)
}

// Deliver stores a message, unless it is there already.
func (d EMLFolder) Deliver(ctx context.Context, item Item, r io.Reader) error {
	if err := d.DeliverUnsynced(ctx, item, r); err != nil {
		return err
	}
	return d.Sync(ctx)
}

// DeliverUnsynced stores a message, unless it is there already. It syncs the content of the file; Sync syncs the name.
func (d EMLFolder) DeliverUnsynced(_ context.Context, item Item, r io.Reader) error {
	f, err := d.newFile()
	if err != nil {
		return d.wrapError(err)
	}
	defer os.Remove(f.Name())
	m := &emlHeader{sum: sha256.New()}
	if err = crlf.Copy(f, io.TeeReader(r, m)); err == nil {
		err = fsync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return d.wrapError(err)
	}
	digest := hex.EncodeToString(m.sum.Sum(nil))
	return d.wrapError(d.linkName(f.Name(), m.date()+"-"+safeUID(item.UID, digest), digest))
}

// newFile makes a file for a message. If the folder is missing, the error names the folder.
func (d EMLFolder) newFile() (*os.File, error) {
	if _, err := os.Stat(d.Dir); err != nil {
		return nil, err
	}
	return createNew(filepath.Join(d.Dir, emlTemp+uniqueName()))
}

// Sync syncs the folder, so that the names of all messages in it survive a power cut.
func (d EMLFolder) Sync(context.Context) error { return d.wrapError(syncDir(d.Dir)) }

// linkName gives a file the first free name, unless a file with one of these names has the same content.
func (d EMLFolder) linkName(temp, stem, digest string) error {
	for i := 0; ; i++ {
		name := filepath.Join(d.Dir, stem)
		if i > 0 {
			name += "-" + digest[:digestLen]
		}
		if i > 1 { // a user has changed the file with the digest in its name
			name += fmt.Sprint("-", i)
		}
		name += ".eml"
		err := link(temp, name)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if same, err := hasDigest(name, digest); same || err != nil {
			return err
		}
	}
}

// link gives a file a second name, which must not exist. If the file system allows only one name for a file, it renames
// the file.
func link(old, name string) error {
	err := os.Link(old, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(name); err == nil {
		return fs.ErrExist
	}
	return os.Rename(old, name)
}

// hasDigest reports whether a file has the content with this SHA-256.
func hasDigest(name, digest string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(sum.Sum(nil)) == digest, nil
}

// The constants are the lengths of parts of file names.
const (
	digestLen = 12 // length of the part of a SHA-256, in hexadecimal
	maxUIDLen = 40
)

// safeUID returns a unique-id in a form that can be part of a file name. Two different unique-ids have different forms,
// even if case is ignored.
func safeUID(uid, digest string) string {
	if uid == "" {
		return digest[:2*digestLen]
	}
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, uid)
	if safe == uid && len(uid) <= maxUIDLen {
		return uid
	}
	sum := sha256.Sum256([]byte(uid))
	return safe[:min(len(safe), maxUIDLen)] + "-" + hex.EncodeToString(sum[:])[:digestLen]
}

// An emlHeader hashes a message that is written to it. It keeps the beginning of the message, which contains the Date.
type emlHeader struct {
	sum   hash.Hash
	start []byte
}

// maxHeaderLen is the size of the part of a message that is searched for the Date field.
const maxHeaderLen = 64 << 10

func (m *emlHeader) Write(p []byte) (int, error) {
	m.start = append(m.start, p[:min(len(p), maxHeaderLen-len(m.start))]...)
	return m.sum.Write(p)
}

// date returns the Date of the message for a file name.
func (m *emlHeader) date() string {
	date, err := mailheader.Parse(m.start).Date()
	if date = date.UTC(); err != nil || date.Year() < 1 || date.Year() > 9999 {
		return "undated"
	}
	return date.Format("20060102T150405Z")
}

func (d EMLFolder) wrapError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fetch: folder %s: %w", d.Dir, adviseCreate(err, "EMLFolder.Create"))
}
