package fetch

import (
	"context"
	"io"
)

// An Item is a message on the server, as it is known before it is retrieved.
type Item struct {
	Account string // whose maildrop it is in
	Num     int    // message number, valid in the session only
	UID     string // unique-id, chosen by the server and not fit for a file name; "" if it gave none
	Size    int64  // octets, as the server counts: a hint
}

// A Sink is where messages are stored.
type Sink interface {
	// Deliver stores the message that r gives, octet for octet with CRLF line ends. A nil error says that it
	// is stored for good, power cuts included: after it the message may be deleted from the server. If r
	// fails before io.EOF the message is not whole, so Deliver must store nothing and return the error. What
	// it leaves unread is read and dropped. r is valid until Deliver returns.
	Deliver(ctx context.Context, item Item, r io.Reader) error
}

// A SinkFunc is a function that is a [Sink].
type SinkFunc func(ctx context.Context, item Item, r io.Reader) error

// Deliver calls f.
func (f SinkFunc) Deliver(ctx context.Context, item Item, r io.Reader) error { return f(ctx, item, r) }
