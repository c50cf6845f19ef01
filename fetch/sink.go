package fetch

import (
	"context"
	"io"
	"time"
)

// An Item is a message on the server, as it is known before it is retrieved.
type Item struct {
	Account string // whose maildrop it is in
	Num     int    // message number, valid in the session only
	UID     string // unique-id, chosen by the server and not fit for a file name; "" if it gave none
	Size    int64  // octets, as the server counts: a hint; -1 if it gave no size that makes sense

	FirstSeen time.Time // when a run first found the message, if that is remembered
}

// A Sink stores messages. [Maildir], [Mbox] and [EMLFolder] are sinks. A sink may have more methods, which a
// [Fetcher] then uses: those of [CheckedSink] and of [UnsyncedSink].
type Sink interface {
	// Deliver reads a message from r until io.EOF and stores it, octet for octet with CRLF line ends. It returns
	// nil only if the message is stored for good and survives a power cut: after that it may be deleted from the
	// server. If r fails before io.EOF the message is not whole; then Deliver must store nothing and return an
	// error. r is valid until Deliver returns; the rest that Deliver has not read is read and discarded.
	Deliver(ctx context.Context, item Item, r io.Reader) error
}

// A CheckedSink is a [Sink] that can find out early that it cannot store anything.
type CheckedSink interface {
	Sink

	// Check returns an error if no message could be stored now. A run calls it before it connects, and with an
	// error retrieves nothing.
	Check(ctx context.Context) error
}

// An UnsyncedSink is a [Sink] that stores several messages faster than one by one. A run uses DeliverUnsynced in place
// of Deliver if its record is an [UnsyncedHistory]. It calls Sync before it syncs the record.
type UnsyncedSink interface {
	Sink

	// DeliverUnsynced is Deliver, but the message may not survive a power cut before Sync returns nil. It survives
	// the end of the process.
	DeliverUnsynced(ctx context.Context, item Item, r io.Reader) error

	// Sync makes all messages that DeliverUnsynced has stored, in other processes too, survive a power cut.
	Sync(ctx context.Context) error
}

// A SinkFunc is a function that is a [Sink].
type SinkFunc func(ctx context.Context, item Item, r io.Reader) error

// Deliver calls f.
func (f SinkFunc) Deliver(ctx context.Context, item Item, r io.Reader) error { return f(ctx, item, r) }
