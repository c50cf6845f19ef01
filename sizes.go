package pop3

import "math"

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
