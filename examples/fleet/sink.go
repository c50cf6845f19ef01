package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// maildirSink delivers to a Maildir for each account, in a folder of its key.
func maildirSink(root string) func(Account) fetch.Sink {
	return func(a Account) fetch.Sink {
		d := fetch.Maildir{Dir: filepath.Join(root, a.Key())}
		d.Create() // an error shows again when the run checks the sink
		return d
	}
}

// A streamSink delivers to a JetStream stream, from where other programs take the mail. A message is one message, so
// it must fit: Poller.MaxSize is for that. A message that comes again since a worker died between delivery and the
// note of it is known by its unique-id and its octets, and dropped by JetStream if it was not long ago.
type streamSink struct{ js jetstream.JetStream }

const mailSubject = "mail."

// openStreamSink makes the stream.
func openStreamSink(ctx context.Context, js jetstream.JetStream, c BusConfig) (streamSink, error) {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "MAIL", Subjects: []string{mailSubject + "*"}, Replicas: c.Replicas, Duplicates: 10 * time.Minute,
	})
	return streamSink{js}, err
}

func (s streamSink) of(Account) fetch.Sink { return s }

func (s streamSink) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(mailSubject + keyOf(item.Account))
	msg.Data = body
	msg.Header.Set("Account", item.Account)
	msg.Header.Set("UID", strconv.Quote(item.UID))
	var opts []jetstream.PublishOpt
	if item.UID != "" {
		opts = append(opts, jetstream.WithMsgID(messageID(item, body)))
	}
	err = insist(ctx, func(ctx context.Context) error {
		_, err := s.js.PublishMsg(ctx, msg, opts...)
		return err
	})
	if err != nil {
		return fmt.Errorf("fleet: delivering: %w", err)
	}
	return nil
}

func messageID(item fetch.Item, body []byte) string {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%q %q ", item.Account, item.UID)
	text.Write(body)
	sum := sha256.Sum256(text.Bytes())
	return hex.EncodeToString(sum[:])
}
