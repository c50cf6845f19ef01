package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// sinkOf returns where the mail of an account goes: the stream, or a Maildir in a folder that is named by its key. The
// Maildir is made for an account that has no history only.
func (w *Worker) sinkOf(a Account, isNew bool) (fetch.Sink, error) {
	root, ok := strings.CutPrefix(w.Sink, "maildir:")
	if !ok {
		return streamSink{w.bus, w.mail}, nil
	}
	maildir := fetch.Maildir{Dir: filepath.Join(root, a.Key())}
	if !isNew {
		return maildir, nil
	}
	if _, err := os.Stat(root); err != nil { // a missing folder may be on a file system that is not mounted
		return nil, fmt.Errorf("fleet: the folder of all Maildirs has to exist: %w", err)
	}
	return maildir, maildir.Create()
}

// A streamSink delivers to a JetStream stream, from which other programs read the mail. Each mail is one message, so it
// must not be larger than NATS allows; see Worker.maxSize. A mail is delivered again if a worker dies between the
// delivery and the history entry. It then has the same unique-id and content, and JetStream drops it if that was not
// long ago.
type streamSink struct {
	bus *Bus
	js  jetstream.JetStream // JetStream for the mail, which may be in another NATS account than the records
}

func (s streamSink) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(mailSubject + keyOf(item.Account))
	msg.Data = body
	msg.Header.Set("Account", item.Account)
	msg.Header.Set("UID", strconv.Quote(item.UID))
	if item.UID != "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", item.Account, item.UID, body))
		msg.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(sum[:]))
	}
	err = s.bus.insist(ctx, func(ctx context.Context) error {
		_, err := s.js.PublishMsg(ctx, msg)
		return err
	})
	if err != nil {
		return fmt.Errorf("fleet: delivering: %w", err)
	}
	return nil
}
