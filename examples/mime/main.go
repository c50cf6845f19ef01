// Command mime prints the text and the attachments of all messages in a maildrop. It uses
// github.com/emersion/go-message, which decodes charsets and nested parts. It changes nothing on the server.
//
//	POP3_SERVER=pop.example.org POP3_USER=alice POP3_PASSWORD=... go run .
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // charsets other than UTF-8
	"github.com/emersion/go-message/mail"

	"github.com/seed-2d50cddb/pop3"
)

func main() {
	server, name, password := os.Getenv("POP3_SERVER"), os.Getenv("POP3_USER"), os.Getenv("POP3_PASSWORD")
	if server == "" {
		log.Fatal("set POP3_SERVER, POP3_USER and POP3_PASSWORD")
	}
	if err := run(context.Background(), os.Stdout, server, name, password, nil); err != nil {
		log.Fatal(err)
	}
}

// run prints the parts of all messages to w.
func run(ctx context.Context, w io.Writer, server, name, password string, opts *pop3.Options) error {
	c, err := pop3.DialTLS(ctx, server, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Login(ctx, name, password); err != nil {
		return err
	}
	infos, err := c.ListAll(ctx)
	if err != nil {
		return err
	}
	var nums []int
	for _, info := range infos {
		nums = append(nums, info.Num)
	}
	for m, err := range c.Messages(ctx, nums...) {
		if m == nil {
			return err // the connection was lost
		}
		if err == nil {
			err = printParts(w, m)
		}
		if err != nil { // the server has refused the message, or the message is malformed; the next one may be fine
			fmt.Fprintf(w, "message %d: %v\n", m.Num, err)
		}
	}
	return c.Quit(ctx)
}

// printParts prints the parts of a message. It reads the whole message first, so that an error of the parser
// does not leave unread data on the connection.
func printParts(w io.Writer, m *pop3.Message) error {
	content, err := io.ReadAll(m)
	if err != nil {
		return err
	}
	parts, err := mail.CreateReader(bytes.NewReader(content))
	if err != nil && !message.IsUnknownCharset(err) {
		return err
	}
	subject, _ := parts.Header.Subject()
	fmt.Fprintf(w, "message %d: %s\n", m.Num, subject)
	for {
		part, err := parts.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !message.IsUnknownCharset(err): // if the charset is unknown, print the bytes unchanged
			return err
		}
		body, err := io.ReadAll(part.Body)
		if err != nil {
			return err
		}
		switch header := part.Header.(type) {
		case *mail.InlineHeader:
			fmt.Fprintf(w, "  text: %q\n", body)
		case *mail.AttachmentHeader:
			filename, _ := header.Filename() // the sender has chosen the name, so do not use it as a path
			fmt.Fprintf(w, "  attachment %q: %d bytes\n", filename, len(body))
		}
	}
}
