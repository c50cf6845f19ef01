package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
)

// An EMLFolder is a [Sink] that makes one file of each message, octet for octet, whose name ends in .eml. Mail programs
// on all systems open such files, so it is a form for archives.
//
// A name is made of the date of the message in UTC and its unique-id, as in 20261124T083000Z-0000001a5f3c.eml. It has
// small letters, digits and some signs only, so it is good on all file systems. A unique-id that has anything else, or
// is long, is shortened and gets a part of its SHA-256; where there is none, that of the message is in its place. A
// message without a usable Date begins with "undated". If a file of that name is there with the same content, nothing
// is stored: a message that is delivered again makes no second file. With other content the new file gets a part of
// the SHA-256 of its content.
//
// The folder has to exist: Create makes it. A run never makes it, because one that has disappeared may be on a file
// system that is not mounted. Then Check and Deliver fail with an error that wraps [fs.ErrNotExist].
//
// A message is written to a file whose name begins with ".eml-", synced, and then gets its name; the folder is synced
// too. A process that is killed may leave such a file. Check removes it when it is 36 hours old.
type EMLFolder struct {
	Dir string // see Create
}

// Create makes the folder and its parents, as far as they are missing. A program calls it once, when it knows that Dir
// is the right place: when an account is set up, not before each run.
func (d EMLFolder) Create() error { return d.failed(makeDir(d.Dir)) }

const emlTemp = ".eml-"

// Check returns an error if no file can be made in the folder.
func (d EMLFolder) Check(context.Context) error {
	f, err := createNew(filepath.Join(d.Dir, emlTemp+uniqueName()))
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()), removeStale(d.Dir, emlTemp+"*"))
	}
	return d.failed(err)
}

// Deliver stores a message, unless it is there.
func (d EMLFolder) Deliver(ctx context.Context, item Item, r io.Reader) error {
	if err := d.DeliverUnsynced(ctx, item, r); err != nil {
		return err
	}
	return d.Sync(ctx)
}

// DeliverUnsynced stores a message, unless it is there. The message itself is synced; its name is synced by Sync.
func (d EMLFolder) DeliverUnsynced(_ context.Context, item Item, r io.Reader) error {
	f, err := createNew(filepath.Join(d.Dir, emlTemp+uniqueName()))
	if err != nil {
		return d.failed(err)
	}
	defer os.Remove(f.Name())
	m := &emlHeader{sum: sha256.New()}
	if err := fill(f, io.TeeReader(r, m), false); err != nil {
		return d.failed(err)
	}
	digest := hex.EncodeToString(m.sum.Sum(nil))
	return d.failed(d.name(f.Name(), m.date()+"-"+safeUID(item.UID, digest), digest))
}

// Sync makes the names of all messages in the folder survive a power cut.
func (d EMLFolder) Sync(context.Context) error { return d.failed(syncDir(d.Dir)) }

// name gives a file the first name that is free, unless a file of one of these names has the same content.
func (d EMLFolder) name(temp, base, digest string) error {
	for i := 0; ; i++ {
		name := filepath.Join(d.Dir, base)
		if i > 0 {
			name += "-" + digest[:digestLen]
		}
		if i > 1 { // there is one that has been changed since
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

// link gives a file a second name that must not exist. On file systems that have only one name for a file, it gets that
// one.
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

// Lengths in file names.
const (
	digestLen = 12 // of a SHA-256 in hexadecimal
	maxUIDLen = 40
)

// safeUID returns a unique-id as it may stand in a file name. It differs from those of all other unique-ids also where
// case does not count.
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

// An emlHeader takes what it needs from a message that is written to it.
type emlHeader struct {
	sum   hash.Hash
	start []byte
}

// maxHeaderLen is how much of a header is read for its Date.
const maxHeaderLen = 64 << 10

func (m *emlHeader) Write(p []byte) (int, error) {
	m.start = append(m.start, p[:min(len(p), maxHeaderLen-len(m.start))]...)
	return m.sum.Write(p)
}

// date returns the Date of the message for a file name.
func (m *emlHeader) date() string {
	header, _, _ := bytes.Cut(m.start, []byte("\r\n\r\n"))
	message, err := mail.ReadMessage(bytes.NewReader(append(header, "\r\n\r\n"...)))
	if err != nil {
		return "undated"
	}
	date, err := message.Header.Date()
	if date = date.UTC(); err != nil || date.Year() < 1 || date.Year() > 9999 {
		return "undated"
	}
	return date.Format("20060102T150405Z")
}

func (d EMLFolder) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fetch: folder %s: %w", d.Dir, missing(err, "EMLFolder.Create"))
}
