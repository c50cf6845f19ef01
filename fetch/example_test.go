package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/mail"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// exampleServer has three messages for alice.
func exampleServer() (*pop3test.Server, func(ctx context.Context) (*pop3.Client, error)) {
	alice := &pop3test.Mailbox{User: "alice", Password: "wonderland", Messages: [][]byte{
		[]byte("From: bob@example.org\r\nSubject: Lunch?\r\n\r\nAt one?\r\n"),
		[]byte("From: carol@example.org\r\nSubject: The report\r\n\r\nIs attached.\r\n"),
		[]byte("From: bob@example.org\r\nSubject: Dinner?\r\n\r\nAt eight?\r\n"),
	}, UIDs: []string{"a1", "a2", "a3"}}
	server := pop3test.NewTLSServer(alice)
	connect := func(ctx context.Context) (*pop3.Client, error) {
		c, err := pop3.DialTLS(ctx, server.Addr, &pop3.Options{TLSConfig: server.ClientTLS()})
		if err != nil {
			return nil, err
		}
		if err := c.Login(ctx, "alice", "wonderland"); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	return server, connect
}

// Store new mail in a Maildir, and remember it on disk.
func Example() {
	server, connect := exampleServer()
	defer server.Close()
	dir, err := os.MkdirTemp("", "mail-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	maildir := fetch.Maildir{Dir: filepath.Join(dir, "Maildir")}
	if err := maildir.Create(); err != nil { // once, when the account is set up
		log.Fatal(err)
	}
	f := fetch.Fetcher{
		Connect: connect,
		Sink:    maildir,
		Seen:    fetch.FileSeen{Dir: filepath.Join(dir, "seen")},
		Account: "alice@" + server.Addr,
	}
	for range 2 {
		report, err := f.Run(context.Background())
		if err != nil {
			log.Print(err)
		}
		fmt.Printf("%d on the server, %d stored now, %d before\n",
			report.Listed, report.Delivered, report.Known)
	}
	// Output:
	// 3 on the server, 3 stored now, 0 before
	// 3 on the server, 0 stored now, 3 before
}

// Loop over the results of a run.
func ExampleFetcher_Results() {
	server, connect := exampleServer()
	defer server.Close()
	dir, err := os.MkdirTemp("", "mail-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	maildir := fetch.Maildir{Dir: dir}
	if err := maildir.Create(); err != nil {
		log.Fatal(err)
	}
	f := fetch.Fetcher{Connect: connect, Sink: maildir, Delete: true, MaxMessages: 2}
	var report fetch.Report
	for r, err := range f.Results(context.Background(), &report) {
		if err != nil {
			log.Print(err)
			break
		}
		fmt.Println("message", r.Num, r.Outcome)
	}
	fmt.Println(len(server.Left("alice")), "left")
	// Output:
	// message 1 delivered
	// message 2 delivered
	// message 1 deleted
	// message 2 deleted
	// message 1 skipped
	// 1 left
}

// Write a sink of your own. A message that it refuses stays on the server.
func ExampleSinkFunc() {
	server, connect := exampleServer()
	defer server.Close()
	f := fetch.Fetcher{
		Connect: connect,
		Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
			content, err := io.ReadAll(r) // read the whole message before using it
			if err != nil {
				return err
			}
			m, err := mail.ReadMessage(bytes.NewReader(content))
			if err != nil {
				return err
			}
			if m.Header.Get("From") == "carol@example.org" {
				return errors.New("not today")
			}
			fmt.Println(m.Header.Get("Subject"))
			return nil
		}),
		Delete: true,
	}
	report, err := f.Run(context.Background())
	fmt.Println(err)
	fmt.Println(report.Deleted, "deleted,", len(server.Left("alice")), "left")
	// Output:
	// Lunch?
	// Dinner?
	// fetch: message 2 (unique-id "a2"): not today; the next run tries again
	// 2 deleted, 1 left
}

// Wait before the next run, at least as long as the server asks for.
func ExampleReport() {
	server, connect := exampleServer()
	defer server.Close()
	server.SetFaults(pop3test.Fault{At: "RETR 2", Reply: "-ERR [SYS/TEMP] not now"})
	f := fetch.Fetcher{
		Connect: connect,
		Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		}),
		Seen:    new(fetch.MemorySeen),
		Account: "alice",
	}

	const interval = time.Minute
	report, _ := f.Run(context.Background())
	for _, p := range report.Problems {
		fmt.Println(p.Outcome, p.Err)
	}
	wait := max(interval, time.Until(report.TryAgain))
	fmt.Println("again in", wait.Round(time.Minute))
	// Output:
	// failed pop3: RETR 2: -ERR [SYS/TEMP] not now
	// again in 5m0s
}

// Fetch only the mail of one sender. In the next run Select is called again for the other messages.
func ExampleFetcher_selectBySender() {
	server, connect := exampleServer()
	defer server.Close()
	f := fetch.Fetcher{
		Connect: connect,
		Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
			m, err := mail.ReadMessage(r)
			if err == nil {
				fmt.Println(m.Header.Get("Subject"))
			}
			return err
		}),
		Select: func(_ context.Context, _ fetch.Item, header []byte) fetch.Decision {
			if header == nil {
				return fetch.WantHeader
			}
			m, err := mail.ReadMessage(bytes.NewReader(header))
			if err == nil && m.Header.Get("From") != "bob@example.org" {
				return fetch.Leave
			}
			return fetch.Fetch
		},
	}
	report, err := f.Run(context.Background())
	fmt.Println(len(report.Skipped), "left", err)
	// Output:
	// Lunch?
	// Dinner?
	// 1 left <nil>
}

// Skip all messages that are on the server now, and fetch only those that arrive later. To skip only the messages
// before a date, use NotBefore.
func ExampleFetcher_startFromNow() {
	server, connect := exampleServer()
	defer server.Close()
	f := fetch.Fetcher{
		Connect: connect,
		Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		}),
		Seen:    new(fetch.MemorySeen),
		Account: "alice",
		Select:  func(context.Context, fetch.Item, []byte) fetch.Decision { return fetch.Skip },
	}
	report, err := f.Run(context.Background())
	fmt.Println(report.Delivered, "stored,", report.Kept.PassedOver, "passed over", err)

	f.Select = nil
	server.Deliver("alice", []byte("Subject: New\r\n\r\n"))
	report, err = f.Run(context.Background())
	fmt.Println(report.Delivered, "stored", err)
	// Output:
	// 0 stored, 3 passed over <nil>
	// 1 stored <nil>
}

// A message that the sink will never store is set aside. It is in each report.
func ExampleErrPermanent() {
	server, connect := exampleServer()
	defer server.Close()
	f := fetch.Fetcher{
		Connect: connect,
		Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
			m, err := mail.ReadMessage(r)
			if err == nil && m.Header.Get("From") == "carol@example.org" {
				err = fmt.Errorf("no mail of Carol: %w", fetch.ErrPermanent)
			}
			return err
		}),
		Seen:    new(fetch.MemorySeen),
		Account: "alice",
	}
	for range 2 {
		report, _ := f.Run(context.Background())
		for _, p := range report.Problems {
			fmt.Println(p.Outcome, errors.Is(p.Err, fetch.ErrPermanent), p.Err)
		}
	}
	// Output:
	// failed true no mail of Carol: the message will never be stored
	// failed true set aside for good: no mail of Carol: the message will never be stored
}

// Make an archive with a file for each message.
func ExampleEMLFolder() {
	server, connect := exampleServer()
	defer server.Close()
	dir, err := os.MkdirTemp("", "mail-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	archive := fetch.EMLFolder{Dir: filepath.Join(dir, "archive")}
	if err := archive.Create(); err != nil { // once
		log.Fatal(err)
	}
	f := fetch.Fetcher{Connect: connect, Sink: archive}
	if _, err := f.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(archive.Dir, "*.eml"))
	fmt.Println(len(files), "files", err)
	// Output:
	// 3 files <nil>
}

// Store messages in an mbox file.
func ExampleMbox() {
	server, connect := exampleServer()
	defer server.Close()
	dir, err := os.MkdirTemp("", "mail-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	mbox := &fetch.Mbox{Path: filepath.Join(dir, "alice")}
	if err := mbox.Create(); err != nil { // once
		log.Fatal(err)
	}
	f := fetch.Fetcher{Connect: connect, Sink: mbox}
	if _, err := f.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(mbox.Path)
	fmt.Println(bytes.Count(content, []byte("From MAILER-DAEMON")), "messages", err)
	// Output:
	// 3 messages <nil>
}
