package pop3

import (
	"slices"
	"strings"
)

// A listing collects the lines of LIST or UIDL. Until the last one has come an entry is kept small, in parts that are
// never moved: with a million of them both count.
type listing struct {
	parts     [][]entry
	count     int // of the entries
	last      int // the number that came last
	unordered bool
	uids      uidStore // empty for LIST
}

// An entry is a message number with the size of the message, or with the length of its unique-id.
type entry struct {
	num    int
	octets int64
}

// The number of entries in a part.
const (
	minPart = 32
	maxPart = 4096
)

func addScan(l *listing, line []byte) error {
	num, size, err := parseScan(line)
	if err == nil {
		l.add(entry{num, size})
	}
	return err
}

func addUnique(l *listing, line []byte) error {
	num, uid, err := parseUnique(line)
	if err == nil {
		l.add(entry{num, int64(len(uid))})
		l.uids.add(uid)
	}
	return err
}

func (l *listing) add(e entry) {
	if e.num <= l.last {
		l.unordered = true
	}
	l.last = e.num
	end := len(l.parts) - 1
	if end < 0 || len(l.parts[end]) == cap(l.parts[end]) {
		l.parts = append(l.parts, make([]entry, 0, min(max(l.count, minPart), maxPart)))
		end++
	}
	l.parts[end] = append(l.parts[end], e)
	l.count++
}

// whole gives all entries; nil if there are none.
func (l *listing) whole() []MessageInfo {
	if l.count == 0 {
		return nil
	}
	infos := make([]MessageInfo, 0, l.count)
	uids := l.uids.all()
	for _, part := range l.parts {
		for _, e := range part {
			info := MessageInfo{Num: e.num}
			if uids == nil {
				info.Size = e.octets
			} else {
				info.UID, uids = nextUID(uids, e.octets)
			}
			infos = append(infos, info)
		}
	}
	return infos
}

// A uidStore holds unique-ids joined in long strings: in a long list more than a hundred ids of the usual length
// share an allocation. An id that is kept keeps no more than maxUIDMemory alive.
type uidStore struct {
	full []string
	open strings.Builder
}

const (
	minUIDMemory = 256
	maxUIDMemory = 8 << 10
)

func (s *uidStore) add(uid []byte) {
	if size := s.open.Cap(); s.open.Len()+len(uid) > size {
		s.full = append(s.full, s.open.String())
		s.open = strings.Builder{}
		s.open.Grow(max(min(2*size, maxUIDMemory), minUIDMemory, len(uid)))
	}
	s.open.Write(uid)
}

// all gives the strings; nil if nothing was added.
func (s *uidStore) all() []string {
	if s.open.Len() == 0 {
		return nil
	}
	return append(s.full, s.open.String())
}

// nextUID cuts a unique-id of n octets off the strings of a uidStore.
func nextUID(stored []string, n int64) (uid string, rest []string) {
	for len(stored[0]) == 0 {
		stored = stored[1:]
	}
	uid, stored[0] = stored[0][:n], stored[0][n:]
	return uid, stored
}

// repeats reports whether a message number comes twice.
func repeats(infos []MessageInfo) bool {
	nums := make([]int, len(infos))
	for i, info := range infos {
		nums[i] = info.Num
	}
	slices.Sort(nums)
	return len(slices.Compact(nums)) < len(infos)
}
