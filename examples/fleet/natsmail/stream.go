package natsmail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// A Stream is a [fetch.Sink] that publishes each mail as one message, so the mail must not be larger than NATS allows.
// Other programs read the mail from the stream. A mail is delivered again if a process dies between the delivery and
// the entry in the history. JetStream then drops it by its unique-id and content, if the first delivery was not long
// ago.
type Stream struct {
	JetStream jetstream.JetStream
	Requests  *natsretry.Retrier
	Subject   string
}

// Deliver publishes a mail, and returns when it is stored.
func (s Stream) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(s.Subject)
	msg.Data = body
	msg.Header.Set("Account", item.Account)
	msg.Header.Set("UID", strconv.Quote(item.UID))
	if item.UID != "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", item.Account, item.UID, body))
		msg.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(sum[:]))
	}
	err = s.Requests.Do(ctx, func(ctx context.Context) error {
		_, err := s.JetStream.PublishMsg(ctx, msg)
		return err
	})
	if err != nil {
		return fmt.Errorf("fleet: publishing to %s: %w", s.Subject, err)
	}
	return nil
}
