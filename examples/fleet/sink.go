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

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// maildirSink delivers to a Maildir for each account, in a folder that is named by its key.
func maildirSink(root string) func(Account) fetch.Sink {
	return func(a Account) fetch.Sink {
		d := fetch.Maildir{Dir: filepath.Join(root, a.Key())}
		d.Create() // an error shows again when the run checks the sink
		return d
	}
}

// A streamSink delivers to a JetStream stream, from which other programs take the mail. Each mail is one message, so it
// must not be larger than NATS allows; see Poller.MaxSize. A mail that comes again, because a worker died between the
// delivery and the note of it, has the same unique-id and content, and JetStream drops it if that was not long ago.
type streamSink struct{ js jetstream.JetStream }

// openStreamSink opens the stream, which may be in another NATS account than the records.
func openStreamSink(ctx context.Context, nc *nats.Conn) (streamSink, error) {
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = mailStream.open(ctx, js)
	}
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
