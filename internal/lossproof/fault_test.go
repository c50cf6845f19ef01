package lossproof

import (
	"io"
	"slices"
	"syscall"
	"time"
)

// A fault happens at one octet of one direction.
type fault struct {
	name          string
	needsOctet    bool // the fault changes the octet after its place, so that octet must exist
	harmless      bool // the session must have the same result as without a fault
	cancels       bool // the fault only ends the context of a call
	corrupts      bool // the reader receives other octets than were sent
	confuses      bool // the fault can change one valid command into another, which cannot be noticed in clear
	noticedAtOnce bool // the client notices the fault at once, so the session must end at once

	// inject carries out the fault. rest contains the octets of the segment after the place of the fault. inject
	// returns the segments that replace rest. The first of them is appended to the octets before the place.
	inject func(w *wire, l *lane, rest []byte) (segments [][]byte)
}

// pause is a delay that every time limit allows. settleTime is long enough for every goroutine to reach its next wait.
const (
	pause      = 100 * time.Second
	settleTime = time.Millisecond
)

// commonFaults are those that can happen in either direction.
var commonFaults = []fault{
	{name: "silence", inject: func(w *wire, l *lane, rest []byte) [][]byte {
		l.discards = true
		return nil
	}},
	{name: "silence, writes block", inject: func(w *wire, l *lane, rest []byte) [][]byte {
		w.down.discards = w.down.discards || l == &w.down
		w.up.blocked = true
		return nil
	}},
	{name: "silence, then context cancelled", noticedAtOnce: true, inject: func(w *wire, l *lane, _ []byte) [][]byte {
		time.AfterFunc(settleTime, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.cancelCall()
		})
		return w.block(l)
	}},
	{name: "context cancelled", cancels: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		w.cancelCall()
		return [][]byte{rest}
	}},
	{name: "silence, then Close", noticedAtOnce: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		time.AfterFunc(settleTime, w.hangUp)
		return w.block(l)
	}},
	{name: "Close", inject: func(w *wire, l *lane, rest []byte) [][]byte {
		go w.hangUp()
		return [][]byte{rest}
	}},
	{name: "pause", harmless: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		l.readableAt = time.Now().Add(pause)
		return [][]byte{rest}
	}},
	flip(0x01), flip(0x20), flip(0x80),
	{name: "octet doubled", needsOctet: true, corrupts: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		return [][]byte{append([]byte{rest[0]}, rest...)}
	}},
	{name: "octet missing", needsOctet: true, corrupts: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		return [][]byte{rest[1:]}
	}},
	insert("CRLF", "\r\n"),
}

// block stops all octets in this lane from now on.
func (w *wire) block(l *lane) [][]byte {
	if l == &w.up {
		l.blocked = true
	} else {
		l.discards = true
	}
	return nil
}

// downFaults can happen on the way to the client.
var downFaults = append([]fault{
	{name: "FIN", noticedAtOnce: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		l.discards, l.endErr = true, io.EOF
		w.up.discards, w.up.endErr = true, io.EOF
		return nil
	}},
	{name: "RST", noticedAtOnce: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		l.discards, l.endErr = true, syscall.ECONNRESET
		w.up.discards, w.up.endErr = true, io.EOF
		w.writeErr = syscall.EPIPE
		return nil
	}},
	insert("terminator", ".\r\n"),
	insert("CRLF and terminator", "\r\n.\r\n"),
}, slices.Concat(extraReplies, commonFaults)...)

var extraReplies = []fault{
	insert("+OK", "+OK\r\n"),
	insert("-ERR", "-ERR\r\n"),
	insertSegment("+OK", "+OK\r\n"),
	insertSegment("-ERR", "-ERR\r\n"),
}

// upFaults can happen on the way to the server.
var upFaults = append([]fault{
	{name: "FIN", inject: func(w *wire, l *lane, rest []byte) [][]byte {
		l.discards, l.endErr = true, io.EOF
		return nil
	}},
	{name: "RST", noticedAtOnce: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		w.reset()
		return nil
	}},
	{name: "writes block for a while", harmless: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		l.blocked = true
		time.AfterFunc(pause, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			l.blocked = false
			w.changed.Broadcast()
		})
		return nil
	}},
}, commonFaults...)

// flip changes bits of an octet. The lowest bit changes one digit into another.
func flip(mask byte) fault {
	names := map[byte]string{0x01: "bit 0 flipped", 0x20: "bit 5 flipped", 0x80: "bit 7 flipped"}
	return fault{name: names[mask], needsOctet: true, corrupts: true, confuses: mask == 0x01,
		inject: func(w *wire, l *lane, rest []byte) [][]byte {
			rest[0] ^= mask
			return [][]byte{rest}
		}}
}

// insert adds octets to the segment at the place of the fault. So an extra reply arrives together with the reply before
// it.
func insert(name, octets string) fault {
	return fault{name: name + " inserted", corrupts: true, inject: func(w *wire, l *lane, rest []byte) [][]byte {
		return [][]byte{append([]byte(octets), rest...)}
	}}
}

// insertSegment adds octets in a segment of their own.
func insertSegment(name, octets string) fault {
	return fault{name: name + " inserted as a segment", corrupts: true,
		inject: func(w *wire, l *lane, rest []byte) [][]byte {
			return [][]byte{nil, []byte(octets), rest}
		}}
}
