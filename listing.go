package pop3

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
)

// Listing is [Client.ListAll] and [Client.UidlAll] in one, in one round trip where the server pipelines, joined by
// number in the order of the scan listing. A message that only one of them has, since it just came, is without UID
// or is left out. It belongs before [Client.Dele], which says why.
//
// Where the server does not have UIDL (it announces capabilities without it, or none and refuses) the UIDs are
// empty and the error is nil. A refusal of an announced UIDL is an error, since a program that tells new from old
// by UID would lose mail.
func (c *Client) Listing(ctx context.Context) ([]MessageInfo, error) {
	list := command{verb: "LIST"}
	if err := c.start(ctx, list, StateTransaction); err != nil {
		return nil, err
	}
	defer c.conn.end()
	if _, err := c.pipelines(ctx); err != nil { // it may bring the capabilities
		return nil, err
	}
	ks := []command{list, {verb: "UIDL"}}
	if c.caps != nil && !c.caps.Has("UIDL") {
		ks = ks[:1]
	}
	infos, uids, err := c.readListings(ctx, ks)
	if err != nil {
		return nil, err
	}
	c.sizes.learn(infos)
	joinUIDs(infos, uids)
	return infos, nil
}

// readListings carries out LIST and perhaps UIDL. Both replies are read, whatever the first one says.
func (c *Client) readListings(ctx context.Context, ks []command) (infos, uids []MessageInfo, err error) {
	b, err := c.newBatch(ctx, commands{
		n:    len(ks),
		at:   func(i int) command { return ks[i] },
		size: func(int) int64 { return 0 },
		most: len(ks),
	})
	if err != nil {
		return nil, nil, err
	}
	defer b.close()
	infos, err = b.listing(addScan)
	if c.conn.closed() != nil || len(ks) == 1 {
		return infos, nil, err
	}
	uids, failed := b.listing(addUnique)
	var refusal *Error
	if err == nil && errors.As(failed, &refusal) && refusal.Code == "" {
		failed = c.lacksUIDL(ctx, refusal)
	}
	return infos, uids, cmp.Or(err, failed)
}

// listing reads the next reply, which is that to LIST or UIDL.
func (b *batch) listing(add func(*listing, []byte) error) (infos []MessageInfo, err error) {
	k := b.at(b.done)
	if _, err = b.status(); err == nil {
		infos, err = b.c.readListing(k, add)
	}
	b.c.trace.done(b.ctx, k, 0, err)
	b.answered()
	return infos, err
}

// lacksUIDL returns nil if the refusal of UIDL only says that the server does not have the command.
func (c *Client) lacksUIDL(ctx context.Context, refusal *Error) error {
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	if c.caps.Has("UIDL") {
		return refusal
	}
	return nil
}

// joinUIDs gives infos the unique-ids of uids, by number. The two lists are nearly always in the same order.
func joinUIDs(infos, uids []MessageInfo) {
	var byNum map[int]string
	for i := range infos {
		if i < len(uids) && uids[i].Num == infos[i].Num {
			infos[i].UID = uids[i].UID
			continue
		}
		if byNum == nil {
			byNum = make(map[int]string, len(uids))
			for _, info := range uids {
				byNum[info.Num] = info.UID
			}
		}
		infos[i].UID = byNum[infos[i].Num]
	}
}

// listAll carries out LIST or UIDL.
func (c *Client) listAll(ctx context.Context, verb string, add func(*listing, []byte) error) ([]MessageInfo, error) {
	k := command{verb: verb}
	var infos []MessageInfo
	err := c.list(ctx, k, func() (err error) {
		infos, err = c.readListing(k, add)
		return err
	}, StateTransaction)
	return infos, err
}

// readListing reads the lines of LIST or UIDL.
func (c *Client) readListing(k command, add func(*listing, []byte) error) ([]MessageInfo, error) {
	var l listing
	max := limit{lines: maxListEntries, octets: maxListOctets}
	if err := c.lines(k, max, func(line []byte) error { return add(&l, line) }); err != nil {
		return nil, err
	}
	infos := l.whole()
	if l.unordered && repeats(infos) {
		return nil, c.nonsense(k, nil, malformed("a message number comes twice"))
	}
	return infos, nil
}

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

// A uidStore holds unique-ids one behind the other, in strings of which each has many: in a long list more than a
// hundred of the usual length share an allocation. An id that is kept keeps no more than maxUIDMemory alive.
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

// A sizeTable remembers the sizes of LIST, by message number, in units of sizeUnit octets. It is kept for the
// session, so it is small: what is beyond 16 MiB, twice the widest window, is as good as infinite here.
type sizeTable []uint16

const sizeUnit = 2 * maxWindow >> 16

// learn replaces the table. A server that numbers messages wildly is not worth the memory.
func (t *sizeTable) learn(infos []MessageInfo) {
	last := 0
	for _, info := range infos {
		last = max(last, info.Num)
	}
	if last > 2*len(infos)+1000 {
		*t = nil
		return
	}
	*t = make(sizeTable, last+1)
	for _, info := range infos {
		(*t)[info.Num] = uint16(min(info.Size/sizeUnit+1, math.MaxUint16))
	}
}

// size gives the octets of a message, as far as they count for the window, -1 if they are not known.
func (t sizeTable) size(num int) int64 {
	if num >= len(t) || t[num] == 0 {
		return -1
	}
	return int64(t[num]) * sizeUnit
}
