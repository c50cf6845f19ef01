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
)

// A FileSeen is a [Seen] in a folder, with two files for each account, whose names are made from a digest of the
// account. The one that ends in .seen has a line of JSON for each change. Changes are added at its end and brought
// to the disk; when many are out of date a new file takes its place, at once and whole. A last line that was cut by
// a crash counts for nothing. The one that ends in .lock is locked while the history is open, against other
// processes too, and stays; a process that is killed leaves no lock behind. Plan 9, Solaris, AIX and WebAssembly have no
// such locks: there the file is the lock, is removed when the history is closed, and has to be removed by hand after
// a kill, as the error says.
//
// To forget all about an account, remove its file: whatever is on the server is new then.
type FileSeen struct {
	Dir string // made if it is not there
}

// Open gives the history of an account.
func (s FileSeen) Open(_ context.Context, account string) (History, error) {
	h, err := s.open(account)
	if err != nil {
		return nil, fmt.Errorf("fetch: seen messages of %q: %w", account, err)
	}
	return h, nil
}

func (s FileSeen) open(account string) (*fileHistory, error) {
	if err := makeDir(s.Dir); err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(account))
	name := filepath.Join(s.Dir, hex.EncodeToString(digest[:16]))
	lock, err := lockFile(name + ".lock")
	if err != nil {
		return nil, err
	}
	h := &fileHistory{account: account, name: name + ".seen", entries: make(map[entryKey]Entry), lock: lock}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return h, nil
}

// A fileHistory is an open file of a [FileSeen].
type fileHistory struct {
	account string
	name    string
	entries map[entryKey]Entry
	lock    io.Closer
	file    *os.File // for adding
	size    int64    // of what is good in it
	broken  error    // why nothing can be added any more
}

// A header is the first line of the file.
type header struct {
	Version int    `json:"fetch"`
	Account string `json:"account"`
}

const formatVersion = 1

// A change is every other line: an entry, or that there is none any more.
type change struct {
	Entry
	Gone bool `json:"gone,omitzero"`
}

// open reads the file, writes it anew if that is needed, and gets ready to add to it.
func (h *fileHistory) open() error {
	content, err := os.ReadFile(h.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.size = int64(len(content))
	renew, err := h.read(content)
	if err == nil && renew {
		err = h.renew()
	}
	if err == nil {
		h.file, err = os.OpenFile(h.name, os.O_WRONLY|os.O_APPEND, 0)
	}
	return err
}

// read takes in what the file holds, and tells whether to write it anew.
func (h *fileHistory) read(content []byte) (renew bool, err error) {
	if len(content) == 0 {
		return true, nil
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	cut := len(lines[len(lines)-1]) > 0
	lines = lines[:len(lines)-1]
	for i, line := range lines {
		if i == 0 && !h.isHeader(line) || i > 0 && !h.take(line) {
			return false, fmt.Errorf("line %d of %s is damaged: repair it, or move the file away to fetch everything again",
				i+1, h.name)
		}
	}
	return cut || len(lines) > 2*len(h.entries)+spareLines, nil
}

// spareLines are those that may be out of date in any file, however few entries it has.
const spareLines = 100

func (h *fileHistory) isHeader(line []byte) bool {
	var got header
	return json.Unmarshal(line, &got) == nil && got == header{formatVersion, h.account}
}

// take does what a line says, if it is one.
func (h *fileHistory) take(line []byte) bool {
	var c change
	if json.Unmarshal(line, &c) != nil {
		return false
	}
	if c.Gone {
		delete(h.entries, c.key())
	} else {
		h.entries[c.key()] = c.Entry
	}
	return true
}

// renew writes the whole file, beside the old one, and puts it in its place.
func (h *fileHistory) renew() error {
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

func (h *fileHistory) Load(context.Context) ([]Entry, error) {
	return slices.Collect(maps.Values(h.entries)), nil
}

func (h *fileHistory) Save(_ context.Context, entries ...Entry) error {
	for _, e := range entries {
		h.entries[e.key()] = e
	}
	if err := h.add(entries, false); err != nil {
		return h.failed(err)
	}
	if err := h.file.Sync(); err != nil {
		h.broken = err // what is on the disk now, nobody knows
		return h.failed(err)
	}
	return nil
}

func (h *fileHistory) Forget(_ context.Context, entries ...Entry) error {
	for _, e := range entries {
		delete(h.entries, e.key())
	}
	if err := h.add(entries, true); err != nil {
		return h.failed(err)
	}
	return nil
}

// add writes changes at the end of the file. If it can't, the file is as it was before.
func (h *fileHistory) add(entries []Entry, gone bool) (err error) {
	if h.broken != nil {
		return h.broken
	}
	var lines []byte
	for _, e := range entries {
		if gone {
			e = Entry{UID: e.UID, Copy: e.Copy}
		}
		if lines, err = lineOf(lines, change{e, gone}); err != nil {
			return err
		}
	}
	if _, err := h.file.Write(lines); err != nil {
		h.broken = h.file.Truncate(h.size)
		return err
	}
	h.size += int64(len(lines))
	return nil
}

func (h *fileHistory) failed(err error) error {
	return fmt.Errorf("fetch: seen messages of %q: %w", h.account, err)
}

func (h *fileHistory) Close() error { return errors.Join(h.file.Close(), h.lock.Close()) }
