package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A FileSeen is a [Seen] in a folder, with two files for each account; Path returns their names. The file that ends in
// .seen contains the history. The file that ends in .lock is locked while the history is open, in this process or
// another one. It is not removed. The lock ends with the process. Plan 9, Solaris, AIX, WebAssembly and some file
// systems have no such locks. There the lock is a file (.lock or .held) that exists while the history is open. If the
// process is killed, remove that file by hand; the error says which one.
//
// Open fails if the disk is full, so that no message is stored that could not be remembered. To forget everything about
// an account, remove its .seen file: all messages on the server are new then.
//
// # The format
//
// Other programs may read and write the .seen file while no run has it open. Version 1 is UTF-8 text with a JSON object
// on each line:
//
//	{"fetch":1,"account":"me@pop.example.org"}
//	{"uid":"0000001a5f3c","size":4021,"octets":4021,"sha256":"9f86d0…","stored":"2026-11-24T08:30:00Z"}
//	{"uid":"0000001a5f3d","stored":"2026-11-24T08:31:00Z"}
//	{"uid":"0000001a5f3c","gone":true}
//
// The first line contains the version of the format and the account. Each other line is an [Entry], with the names in
// its definition, and replaces an earlier one with the same uid and copy. A line with "gone" removes the entry. A line
// with "boot", the boot ID of Linux, was not synced: it is valid until the machine is restarted, or if a line
// {"synced":true} follows. Unknown names are ignored. An incomplete last line, which a killed process leaves, is
// ignored. When many lines are out of date, a new file replaces the old one atomically.
//
// The version changes only if older versions of this package would misread the file. They then refuse it.
type FileSeen struct {
	Dir string // the folder; it is made if it does not exist
}

// Path returns the name of the file with the history of an account: Dir, the first 32 hexadecimal digits of the SHA-256
// of the account, and .seen. The file exists once the account was opened.
func (s FileSeen) Path(account string) string {
	digest := sha256.Sum256([]byte(account))
	return filepath.Join(s.Dir, hex.EncodeToString(digest[:16])+".seen")
}

// Open returns the history of an account.
func (s FileSeen) Open(_ context.Context, account string) (History, error) {
	h, err := s.open(account)
	if err != nil {
		return nil, fmt.Errorf("fetch: seen messages of %q: %w", account, err)
	}
	if h.bootID == "" {
		return syncedHistory{h}, nil
	}
	return h, nil
}

func (s FileSeen) open(account string) (*fileHistory, error) {
	if err := makeDir(s.Dir); err != nil {
		return nil, err
	}
	name := s.Path(account)
	lock, err := lockFile(strings.TrimSuffix(name, ".seen") + ".lock")
	if err != nil {
		return nil, err
	}
	h := &fileHistory{account: account, name: name, bootID: bootID(), lock: lock}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// A syncedHistory is not an [UnsyncedHistory]: each Save is synced.
type syncedHistory struct{ History }

// A fileHistory is an open file of a [FileSeen].
type fileHistory struct {
	account  string
	name     string
	bootID   string // result of bootID
	entries  map[entryKey]Entry
	lock     io.Closer
	file     appendFile
	size     int64 // size of the valid lines in the file
	reserved int64 // size up to which the file can grow without an error
	writeErr error // why nothing can be added, or nil
}

// An appendFile is a file that is written at its end. Tests replace it.
type appendFile interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
	reserve(end, bytes int64) error
}

type diskFile struct{ *os.File }

func (f diskFile) Sync() error                    { return fsync(f.File) }
func (f diskFile) reserve(end, bytes int64) error { return reserve(f.File, end, bytes) }

// A header is the first line of the file.
type header struct {
	Version int    `json:"fetch"`
	Account string `json:"account"`
}

const formatVersion = 1

// A change is any line after the header.
type change struct {
	Entry
	Gone   bool   `json:"gone,omitzero"`
	Boot   string `json:"boot,omitzero"`
	Synced bool   `json:"synced,omitzero"`
}

// open reads the file, rewrites it if necessary, and opens it for appending.
func (h *fileHistory) open() error {
	content, err := os.ReadFile(h.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.size = int64(len(content))
	outdated, err := h.read(content)
	if err == nil && outdated {
		err = h.rewrite()
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(h.name, os.O_WRONLY|os.O_APPEND|noFollow, 0)
	if err != nil {
		return err
	}
	h.file = diskFile{f}
	return h.reserveSpace()
}

// read reads the entries, and reports whether the file must be rewritten.
func (h *fileHistory) read(content []byte) (outdated bool, err error) {
	h.entries = make(map[entryKey]Entry)
	if len(content) == 0 {
		return true, nil
	}
	lines := bytes.Split(content, []byte("\n"))
	last := len(lines) - 1
	unsynced := make(map[entryKey]change)
	for i, line := range lines {
		switch {
		case i == 0 && h.isHeader(line) || i > 0 && h.applyLine(line, unsynced):
		case i < last || i == 0:
			return false, fmt.Errorf("line %d of %s is damaged: repair it, or move the file away to fetch everything "+
				"again", i+1, h.name)
		}
	}
	incomplete := len(lines[last]) > 0
	unsyncedFound := h.applyUnsynced(unsynced)
	return incomplete || unsyncedFound || last > 2*len(h.entries)+spareLines, nil
}

// spareLines is the number of outdated lines that a file may have in addition to one for each entry.
const spareLines = 100

func (h *fileHistory) isHeader(line []byte) bool {
	var got header
	return json.Unmarshal(line, &got) == nil && got == header{formatVersion, h.account}
}

// applyLine applies a line, or adds it to unsynced. It reports whether the line is valid.
func (h *fileHistory) applyLine(line []byte, unsynced map[entryKey]change) bool {
	var c change
	if json.Unmarshal(line, &c) != nil {
		return false
	}
	switch {
	case c.Synced:
		for _, c := range unsynced {
			h.apply(c)
		}
		clear(unsynced)
	case c.Boot != "":
		unsynced[c.key()] = c
	default:
		delete(unsynced, c.key())
		h.apply(c)
	}
	return true
}

func (h *fileHistory) apply(c change) {
	if c.Gone {
		delete(h.entries, c.key())
	} else {
		h.entries[c.key()] = c.Entry
	}
}

// applyUnsynced applies the changes that were not synced, and reports whether the file must be rewritten. Changes that
// were written before a restart of the machine are discarded, because their messages may be lost. If the machine was
// not restarted, nothing was lost, and everything is synced now.
func (h *fileHistory) applyUnsynced(unsynced map[entryKey]change) (outdated bool) {
	synced := false
	for _, c := range unsynced {
		if c.Boot != h.bootID {
			outdated = true
			continue
		}
		if !c.Gone && !synced {
			syncAll()
			synced, outdated = true, true
		}
		h.apply(c)
	}
	return outdated
}

// rewrite writes a new file and replaces the old one.
func (h *fileHistory) rewrite() error {
	content, err := lineOf(nil, header{formatVersion, h.account})
	for _, e := range h.entries {
		if err == nil {
			content, err = lineOf(content, change{Entry: e})
		}
	}
	if err != nil {
		return err
	}
	h.size = int64(len(content))
	return replaceFile(h.name, content)
}

// lineOf adds v as a line of JSON to b.
func lineOf(b []byte, v any) ([]byte, error) {
	line, err := json.Marshal(v)
	return append(append(b, line...), '\n'), err
}

// minReserved is the room that must be reserved before a message is delivered. reserveStep is the room that is reserved
// at a time.
const (
	minReserved = 32 << 10
	reserveStep = 256 << 10
)

// reserveSpace reserves room on the disk for the next entries.
func (h *fileHistory) reserveSpace() error {
	if h.reserved-h.size >= minReserved {
		return nil
	}
	if err := h.file.reserve(h.size, reserveStep); err != nil {
		return err
	}
	h.reserved = h.size + reserveStep
	return nil
}

func (h *fileHistory) Load(context.Context) ([]Entry, error) {
	return slices.AppendSeq(make([]Entry, 0, len(h.entries)), maps.Values(h.entries)), nil
}

func (h *fileHistory) Save(_ context.Context, entries ...Entry) error {
	err := h.save("", entries)
	if err == nil {
		err = h.sync()
	}
	return h.wrapError(err)
}

// SaveUnsynced adds entries that are lost in a power cut, unless Sync has returned nil before the power cut.
func (h *fileHistory) SaveUnsynced(_ context.Context, entries ...Entry) error {
	return h.wrapError(h.save(h.bootID, entries))
}

func (h *fileHistory) save(boot string, entries []Entry) (err error) {
	var lines []byte
	for _, e := range entries {
		h.entries[e.key()] = e
		if lines, err = lineOf(lines, change{Entry: e, Boot: boot}); err != nil {
			return err
		}
	}
	if err := h.appendLines(lines); err != nil {
		return err
	}
	return h.reserveSpace()
}

// Sync makes all changes so far survive a power cut.
func (h *fileHistory) Sync(context.Context) error {
	err := h.appendLines([]byte(`{"synced":true}` + "\n"))
	if err == nil {
		err = h.sync()
	}
	return h.wrapError(err)
}

func (h *fileHistory) sync() error {
	err := h.file.Sync()
	if err != nil {
		h.writeErr = err // after a failed sync it is not known what is on the disk
	}
	return err
}

func (h *fileHistory) Forget(_ context.Context, entries ...Entry) (err error) {
	var lines []byte
	for _, e := range entries {
		delete(h.entries, e.key())
		if lines, err = lineOf(lines, removal{e.UID, e.Copy, true, h.bootID}); err != nil {
			return h.wrapError(err)
		}
	}
	return h.wrapError(h.appendLines(lines))
}

// A removal is the line that removes an entry.
type removal struct {
	UID  string `json:"uid"`
	Copy int    `json:"copy,omitzero"`
	Gone bool   `json:"gone"`
	Boot string `json:"boot,omitzero"`
}

// appendLines appends lines to the file. If that fails, it truncates the file to its previous size.
func (h *fileHistory) appendLines(lines []byte) error {
	if h.writeErr != nil {
		return h.writeErr
	}
	if _, err := h.file.Write(lines); err != nil {
		h.writeErr = h.file.Truncate(h.size)
		h.reserved = h.size
		return err
	}
	h.size += int64(len(lines))
	return nil
}

func (h *fileHistory) wrapError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("seen messages of %q: %w", h.account, err) // the caller adds to the error what it was doing
}

// Close closes the file and frees its unused room.
func (h *fileHistory) Close() (err error) {
	if h.file != nil {
		if h.writeErr == nil && h.reserved > h.size {
			err = h.file.Truncate(h.size)
		}
		err = errors.Join(err, h.file.Close())
	}
	return errors.Join(err, h.lock.Close())
}
