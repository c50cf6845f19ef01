package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// A sink is where the mail of all accounts goes.
type sink interface {
	create(a Account) error // makes the place for the mail of an account if it has none yet
	of(a Account) fetch.Sink
}

// maildirs delivers to a Maildir for each account, in a folder that is named by its key.
type maildirs string

func (root maildirs) of(a Account) fetch.Sink {
	return fetch.Maildir{Dir: filepath.Join(string(root), a.Key())}
}

func (root maildirs) create(a Account) error {
	if _, err := os.Stat(string(root)); err != nil { // a missing folder may be on a file system that is not mounted
		return fmt.Errorf("fleet: the folder of all Maildirs has to exist: %w", err)
	}
	return fetch.Maildir{Dir: filepath.Join(string(root), a.Key())}.Create()
}

// A streamSink delivers to a JetStream stream, from which other programs read the mail. Each mail is one message, so it
// must not be larger than NATS allows; see Poller.MaxSize. A mail is delivered again if a worker dies between the
// delivery and the history entry. It then has the same unique-id and content, and JetStream drops it if that was not
// long ago.
type streamSink struct {
	bus *Bus
	js  jetstream.JetStream // JetStream for the mail, which may be in another NATS account than the records
}

func (s streamSink) create(Account) error    { return nil }
func (s streamSink) of(a Account) fetch.Sink { return s }

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
	err = s.bus.insist(ctx, func(ctx context.Context) error {
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
