package pop3_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// exampleServer starts a server with two messages for alice, so that the examples run
// anywhere.
func exampleServer() *pop3test.Server {
	return pop3test.NewTLSServer(&pop3test.Mailbox{
		User: "alice", Password: "correct horse",
		Messages: [][]byte{
			[]byte("From: bob@example.org\r\nSubject: Lunch?\r\n\r\nAt one.\r\n"),
			[]byte("From: carol@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
				"\r\n.hidden file attached\r\n"),
		},
		UIDs: []string{"uid-1", "uid-2"},
	})
}

// exampleClient returns a client that is logged in to exampleServer.
func exampleClient(ctx context.Context, srv *pop3test.Server) *pop3.Client {
	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Login(ctx, "alice", "correct horse"); err != nil {
		log.Fatal(err)
	}
	return c
}

// Print the subjects of the last ten messages. Nothing changes on the server.
func Example() {
	srv := exampleServer() // in a real program: "pop.example.org"
	defer srv.Close()
	ctx := context.Background()

	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(ctx, "alice", "correct horse"); err != nil {
		log.Fatal(err)
	}
	drop, err := c.Stat(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var nums []int
	for num := max(1, drop.Count-9); num <= drop.Count; num++ {
		nums = append(nums, num)
	}
	for m, err := range c.Tops(ctx, 0, nums...) {
		if m == nil {
			log.Fatal(err) // the connection was lost
		}
		if err != nil {
			log.Print(err) // the server refuses this message
			continue
		}
		header, err := mail.ReadMessage(m)
		if err != nil {
			log.Print(err)
			continue
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(header.Header.Get("Subject"))
		if err != nil { // an unknown charset: show it as it is
			subject = header.Header.Get("Subject")
		}
		fmt.Println(m.Num, subject)
	}
	if err := c.Quit(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 1 Lunch?
	// 2 Grüße
}

// Store every message in a file. Nothing is deleted. To store only new messages, see package
// fetch.
func Example_store() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()
	dir, err := os.MkdirTemp("", "mail")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	infos, err := c.ListAll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var nums []int
	for _, info := range infos {
		nums = append(nums, info.Num)
	}
	for m, err := range c.Messages(ctx, nums...) {
		if m == nil {
			log.Fatal(err) // the connection was lost
		}
		if err != nil {
			log.Print(err) // the server refuses this message
			continue
		}
		name := filepath.Join(dir, fmt.Sprintf("%d.eml", m.Num))
		if err := storeFile(name, m); err != nil {
			log.Print(err)
			continue
		}
		fmt.Println("stored", filepath.Base(name))
	}
	if err := c.Quit(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// stored 1.eml
	// stored 2.eml
}

// storeFile writes a message to a new file. After an error there is no file.
func storeFile(name string, m io.Reader) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, m) // the error is io.ErrUnexpectedEOF if the message was cut
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		os.Remove(name)
	}
	return err
}

// Delete the messages that were stored, and no others.
func Example_delete() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()                                                             // closing deletes nothing
	store := func(m io.Reader) (int64, error) { return io.Copy(io.Discard, m) } // a real program writes to a file

	infos, err := c.ListAll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	size := map[int]int64{}
	for _, info := range infos {
		size[info.Num] = info.Size
	}
	var stored []int
	for m, err := range c.Messages(ctx, 1, 2, 3) {
		if m == nil {
			log.Fatal(err) // the connection was lost: nothing is deleted
		}
		if err != nil {
			fmt.Println(err) // the server refuses this message: go on with the next one
			continue
		}
		n, err := store(m)
		if err != nil {
			log.Print(err)
			continue
		}
		if n < size[m.Num] {
			continue // the server may have sent only a part: keep the message
		}
		stored = append(stored, m.Num)
	}
	// One refused deletion does not cancel the others. Only Quit deletes.
	if err := errors.Join(c.Dele(ctx, stored...), c.Quit(ctx)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("left on the server:", len(srv.Left("alice")))
	// Output:
	// pop3: RETR 3: -ERR no such message, only 2 messages in maildrop
	// left on the server: 0
}

func ExampleDialTLS() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	// With a public server the options are nil: DialTLS(ctx, "pop.example.org", nil).
	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, encrypted := c.TLSConnectionState()
	fmt.Println(c.State(), encrypted)
	// Output: AUTHORIZATION true
}

func ExampleDialStartTLS() {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "alice", Password: "correct horse"})
	defer srv.Close()
	ctx := context.Background()
	c, err := pop3.DialStartTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, encrypted := c.TLSConnectionState()
	fmt.Println(encrypted)
	// Output: true
}

// To a server that does not offer STLS the client sends only CAPA.
func ExampleDialStartTLS_refused() {
	conn, _ := pop3test.Script(`
		S: +OK ready
		C: CAPA
		S: +OK
		S: USER
		S: .
	`)
	_, err := pop3.DialStartTLS(context.Background(), "pop.example.org", &pop3.Options{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	})
	fmt.Println(errors.Is(err, pop3.ErrTLSRequired))
	// Output: true
}

// On a connection in clear the password is not sent, unless the server is on the same machine
// or InsecureAuth is set.
func ExampleDialInsecure() {
	conn, _ := pop3test.Script("S: +OK ready")
	ctx := context.Background()
	c, err := pop3.DialInsecure(ctx, "pop.example.org", &pop3.Options{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(errors.Is(c.User(ctx, "alice"), pop3.ErrInsecureAuth))
	// Output: true
}

// A client can use any connection. Here the other end is a session of a test server.
func ExampleNewClient() {
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "alice", Password: "correct horse"})
	here, there := net.Pipe()
	go srv.ServeConn(there)
	ctx := context.Background()
	c, err := pop3.NewClient(ctx, here, &pop3.Options{InsecureAuth: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Login(ctx, "alice", "correct horse"), c.State())
	// Output: <nil> TRANSACTION
}

// Connect through a SOCKS proxy of the program's own choice. Without a DialContext, ALL_PROXY
// and NO_PROXY are used.
func ExampleOptions_proxy() {
	socks, err := proxy.SOCKS5("tcp", "127.0.0.1:1", nil, nil) // nobody listens here
	if err != nil {
		log.Fatal(err)
	}
	_, err = pop3.DialTLS(context.Background(), "pop.example.org", &pop3.Options{
		DialContext: socks.(proxy.ContextDialer).DialContext,
	})
	fmt.Println(err != nil)
	// Output: true
}

// A limitedConn frees its slot when it is closed. NetConn returns the wrapped connection, so
// that the library can use it like any TCP connection.
type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) NetConn() net.Conn { return c.Conn }

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// The provider allows two sessions at a time. A third one waits, as long as its context and
// Timeout allow.
func ExampleOptions_limit() {
	srv := exampleServer()
	defer srv.Close()
	slots := make(chan struct{}, 2)
	opts := &pop3.Options{
		TLSConfig: srv.ClientTLS(),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			release := sync.OnceFunc(func() { <-slots })
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				release()
				return nil, err
			}
			return &limitedConn{conn, release}, nil
		},
	}

	ctx := context.Background()
	one, err1 := pop3.DialTLS(ctx, srv.Addr, opts)
	two, err2 := pop3.DialTLS(ctx, srv.Addr, opts)
	fmt.Println(err1, err2, len(slots))
	one.Close()
	two.Close()
	fmt.Println(len(slots))
	// Output:
	// <nil> <nil> 2
	// 0
}

// Login uses the strongest mechanism that both sides have, here SCRAM-SHA-256 bound to the TLS
// connection. The server offers other mechanisms too, so a refusal of SCRAM does not prove that
// the password is wrong: certain is false.
func ExampleClient_Login() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	err = c.Login(ctx, "alice", "wrong")
	var refusal *pop3.Error
	if errors.As(err, &refusal) {
		rejects, certain := refusal.RejectsCredentials()
		fmt.Println(rejects, certain, refusal.Temporary())
	}
	fmt.Println(c.Login(ctx, "alice", "correct horse"), c.State())
	// Output:
	// true false false
	// <nil> TRANSACTION
}

// Log in with OAuth 2.0, as Gmail and Microsoft 365 require. The token comes from a token
// source, such as that of golang.org/x/oauth2.
func ExampleClient_Auth() {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "alice@example.org", Password: "ya29.token"})
	defer srv.Close()
	ctx := context.Background()
	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	err = c.Auth(ctx, sasl.XOAuth2("alice@example.org", "expired"))
	var failure *sasl.OAuthError
	fmt.Println(errors.As(err, &failure)) // get a new token

	fmt.Println(c.Auth(ctx, sasl.XOAuth2("alice@example.org", "ya29.token")), c.State())
	// Output:
	// true
	// <nil> TRANSACTION
}

// Read only the headers of the messages. If the server supports pipelining, this takes one
// round trip.
func ExampleClient_Tops() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()
	for m, err := range c.Tops(ctx, 0, 1, 2) {
		if err != nil {
			log.Fatal(err)
		}
		header, err := mail.ReadMessage(m)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Num, header.Header.Get("From"))
	}
	// Output:
	// 1 bob@example.org
	// 2 carol@example.org
}

// Write a message of any size to a file. The message is never held in memory as a whole.
func ExampleClient_Retr() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()

	dir, err := os.MkdirTemp("", "mail")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file, err := os.Create(filepath.Join(dir, "2.eml"))
	if err != nil {
		log.Fatal(err)
	}

	m, err := c.Retr(ctx, 2)
	if err != nil {
		log.Fatal(err)
	}
	n, err := io.Copy(file, m)           // the error is io.ErrUnexpectedEOF if the message was cut
	err = errors.Join(err, file.Close()) // a full disk may be reported only here
	fmt.Println(n, err)
	// Output: 88 <nil>
}

// A refused message does not end the loop. Any other error does.
func ExampleClient_Messages() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()
	for m, err := range c.Messages(ctx, 1, 7, 2) {
		if m == nil {
			log.Fatal(err) // the session is over
		}
		if err != nil {
			fmt.Println(err)
			continue
		}
		n, err := io.Copy(io.Discard, m)
		fmt.Println(m.Num, n, err)
	}
	// Output:
	// 1 51 <nil>
	// pop3: RETR 7: -ERR no such message, only 2 messages in maildrop
	// 2 88 <nil>
}

// Delete the messages that are older than a month, by the Date in their headers. Messages without a Date are kept.
func Example_deleteOld() {
	alice := &pop3test.Mailbox{User: "alice", Password: "correct horse", Messages: [][]byte{
		[]byte("Date: Mon, 2 Nov 2026 08:30:00 +0000\r\nSubject: New\r\n\r\n1\r\n"),
		[]byte("Date: Fri, 2 Oct 2020 08:30:00 +0000\r\nSubject: Old\r\n\r\n2\r\n"),
		[]byte("Subject: Who knows\r\n\r\n3\r\n"),
	}}
	srv := pop3test.NewTLSServer(alice)
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()

	infos, err := c.ListAll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var nums, old []int
	for _, info := range infos {
		nums = append(nums, info.Num)
	}
	now := time.Date(2026, time.November, 24, 0, 0, 0, 0, time.UTC) // in a real program: time.Now()
	for m, err := range c.Tops(ctx, 0, nums...) {
		if m == nil {
			log.Fatal(err) // the session is over
		}
		if err != nil {
			continue // the server refuses this message
		}
		header, err := mail.ReadMessage(m)
		if err != nil {
			continue
		}
		if date, err := header.Header.Date(); err == nil && date.Before(now.AddDate(0, -1, 0)) {
			fmt.Println("deleting:", header.Header.Get("Subject"))
			old = append(old, m.Num) // deleted after the loop, because the client is busy inside it
		}
	}
	if err := errors.Join(c.Dele(ctx, old...), c.Quit(ctx)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("left on the server:", len(srv.Left("alice")))
	// Output:
	// deleting: Old
	// left on the server: 2
}

// Find the messages that are new since the last session. Unique-ids are valid across sessions,
// message numbers are not.
func ExampleClient_Listing() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()

	seen := map[string]bool{"uid-1": true} // from a file or a database
	infos, err := c.Listing(ctx)
	if err != nil { // errors.ErrUnsupported if the server has no unique-ids
		log.Fatal(err)
	}
	for _, info := range infos {
		if !seen[info.UID] {
			fmt.Printf("new: message %d, %s, about %d octets\n", info.Num, info.UID, info.Size)
		}
	}
	// Output: new: message 2, uid-2, about 88 octets
}

// Dele marks messages and Quit deletes them. After Close they are still there.
func ExampleClient_Dele() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()

	c := exampleClient(ctx, srv)
	fmt.Println(c.Dele(ctx, 1), c.Close(), len(srv.Left("alice")))

	c = exampleClient(ctx, srv)
	fmt.Println(c.Dele(ctx, 1), c.Quit(ctx), len(srv.Left("alice")))
	// Output:
	// <nil> <nil> 2
	// <nil> <nil> 1
}

// The server refuses to mark some of the messages. The error of Dele joins one *Error for each
// of them. The other messages are marked.
func ExampleClient_Dele_refused() {
	srv := exampleServer()
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "DELE 2", Reply: "-ERR message 2 is locked"})
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	err := c.Dele(ctx, 1, 2, 3)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			if refusal, ok := errors.AsType[*pop3.Error](err); ok {
				fmt.Println(refusal.Num, refusal.Text)
			}
		}
	}
	fmt.Println(c.Quit(ctx), len(srv.Left("alice")))
	// Output:
	// 2 message 2 is locked
	// 3 no such message, only 2 messages in maildrop
	// <nil> 1
}

// The connection is lost after QUIT was sent: the message may be deleted or not.
func ExampleClient_Quit() {
	conn, _ := pop3test.Script(`
		S: +OK ready
		C: USER alice
		S: +OK
		C: PASS correct horse
		S: +OK
		C: DELE 1
		S: +OK
		C: QUIT
		EOF
	`)
	ctx := context.Background()
	c, err := pop3.NewClient(ctx, conn, &pop3.Options{InsecureAuth: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.User(ctx, "alice"), c.Pass(ctx, "correct horse"), c.Dele(ctx, 1))
	err = c.Quit(ctx)
	fmt.Println(errors.Is(err, pop3.ErrCommitUnknown), errors.Is(err, io.ErrUnexpectedEOF))
	// Output:
	// <nil> <nil> <nil>
	// true true
}

// An Error has the command, the response code and the server's text.
func ExampleError() {
	conn, _ := pop3test.Script(`
		S: +OK ready
		C: USER alice
		S: +OK
		C: PASS correct horse
		S: -ERR [IN-USE] the maildrop is open elsewhere
	`)
	ctx := context.Background()
	c, err := pop3.NewClient(ctx, conn, &pop3.Options{InsecureAuth: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.User(ctx, "alice"))
	err = c.Pass(ctx, "correct horse")
	var refusal *pop3.Error
	if errors.As(err, &refusal) && refusal.Temporary() {
		fmt.Println("try later:", refusal.Code, "-", refusal.Text)
	}
	// Output:
	// <nil>
	// try later: IN-USE - the maildrop is open elsewhere
}

// Log commands and replies. Secrets are not shown.
func ExampleLogTrace() {
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "alice", Password: "correct horse"})
	here, there := net.Pipe()
	go srv.ServeConn(there)
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "reply" {
				return slog.Attr{}
			}
			return a
		},
	}))
	c, err := pop3.NewClient(ctx, here, &pop3.Options{InsecureAuth: true, Trace: pop3.LogTrace(logger)})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.User(ctx, "alice")
	c.Pass(ctx, "correct horse")
	// Output:
	// level=DEBUG msg="pop3: command" cmd="USER alice"
	// level=DEBUG msg="pop3: reply" cmd="USER alice"
	// level=DEBUG msg="pop3: done" cmd="USER alice" octets=0
	// level=DEBUG msg="pop3: command" cmd="PASS ***"
	// level=DEBUG msg="pop3: reply" cmd="PASS ***"
	// level=DEBUG msg="pop3: done" cmd="PASS ***" octets=0
}

// Send a command that the package does not know.
func ExampleClient_CmdMulti() {
	conn, _ := pop3test.Script(`
		S: +OK ready
		C: XTND LISTS
		S: +OK lists follow
		S: newsletter
		S: announcements
		S: .
	`)
	ctx := context.Background()
	c, err := pop3.NewClient(ctx, conn, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	m, err := c.CmdMulti(ctx, "XTND LISTS")
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(m); lines.Scan(); {
		fmt.Println(lines.Text())
	}
	// Output:
	// newsletter
	// announcements
}

// Poll many accounts, with one client for each. All clients share the options. The options have
// a cache of TLS sessions and a cache of SCRAM keys, so that the next poll is cheap. Each poll
// has a time limit of its own.
func Example_poller() {
	srv := pop3test.NewTLSServer(
		&pop3test.Mailbox{User: "alice", Password: "a", Messages: [][]byte{[]byte("Subject: 1\r\n\r\n")}},
		&pop3test.Mailbox{User: "bob", Password: "b"},
	)
	defer srv.Close()
	config := srv.ClientTLS()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1000) // the number of hosts
	keys := sasl.NewScramKeys(10_000)                              // the number of accounts
	opts := &pop3.Options{TLSConfig: config, ScramKeys: keys, Timeout: 30 * time.Second}

	poll := func(ctx context.Context, name, password string) (int, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		c, err := pop3.DialTLS(ctx, srv.Addr, opts)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if err := c.Login(ctx, name, password); err != nil {
			return 0, err
		}
		drop, err := c.Stat(ctx)
		if err != nil {
			return 0, err
		}
		return drop.Count, c.Quit(ctx)
	}

	var polls sync.WaitGroup
	results := make([]string, 2)
	for i, account := range []string{"alice:a", "bob:b"} {
		polls.Go(func() {
			name, password, _ := strings.Cut(account, ":")
			n, err := poll(context.Background(), name, password)
			results[i] = fmt.Sprintln(name, n, err)
		})
	}
	polls.Wait()
	fmt.Print(results[0], results[1])
	// Output:
	// alice 1 <nil>
	// bob 0 <nil>
}

// Translate the settings that mail programs usually have into Options.
func ExampleOptions_settings() {
	srv := exampleServer()
	defer srv.Close()
	host, port, _ := net.SplitHostPort(srv.Addr)

	settings := struct {
		Host, Port      string
		TLS, SkipVerify bool
	}{host, port, true, true}

	dial := pop3.DialInsecure
	if settings.TLS {
		dial = pop3.DialTLS
	}
	opts := &pop3.Options{
		TLSConfig: &tls.Config{InsecureSkipVerify: settings.SkipVerify},
		// A program that skips the check of the certificate must also allow the password on an
		// unverified connection.
		InsecureAuth: settings.SkipVerify || !settings.TLS,
	}
	ctx := context.Background()
	c, err := dial(ctx, net.JoinHostPort(settings.Host, settings.Port), opts)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Login(ctx, "alice", "correct horse"))
	// Output: <nil>
}

// Leave a loop early. The client can be used afterwards.
func ExampleClient_Messages_break() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()

	var found int
	for m, err := range c.Messages(ctx, 1, 2) {
		if err != nil {
			log.Fatal(err)
		}
		content, err := io.ReadAll(m)
		if err != nil {
			log.Fatal(err)
		}
		if bytes.Contains(content, []byte("At one.")) {
			found = m.Num
			break
		}
	}
	fmt.Println(errors.Join(c.Dele(ctx, found), c.Quit(ctx)), len(srv.Left("alice")))
	// Output: <nil> 1
}

// Read the parts of a MIME message with the standard library. The whole message is read first,
// so that an error of the parser does not leave unread data on the connection. (For charsets and nested parts
// see examples/mime.)
func ExampleMessage() {
	content := "Content-Type: multipart/alternative; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n" +
		"--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b--\r\n"
	m := pop3.NewMessage(1, strings.NewReader(content)) // in a real program: from Retr or Messages

	b, err := io.ReadAll(m)
	if err != nil {
		log.Fatal(err) // the connection was lost: this is not the whole message
	}
	msg, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		log.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		log.Fatal(err)
	}
	for parts := multipart.NewReader(msg.Body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(part)
		fmt.Printf("%s: %s %v\n", part.Header.Get("Content-Type"), text, err)
	}
	// Output:
	// text/plain: Hello <nil>
	// text/html: <p>Hello</p> <nil>
}

// Keep a session open while the program is busy elsewhere.
func ExampleClient_KeepAlive() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()

	done := make(chan error)
	go func() { done <- c.KeepAlive(ctx, 30*time.Second) }()
	// ... minutes later:
	fmt.Println(c.Dele(ctx, 1), c.Quit(ctx))
	fmt.Println(<-done) // KeepAlive ends with the session
	// Output:
	// <nil> <nil>
	// <nil>
}

// Ask what the server can do.
func ExampleCapabilities() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c := exampleClient(ctx, srv)
	defer c.Close()
	caps, err := c.Capa(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(caps.Has("UIDL"), caps.Has("PIPELINING"))
	if days, ok := caps.Expire(); ok && days == 0 {
		fmt.Println("Quit deletes whatever was retrieved")
	}
	// Output: true true
}

// Measure each command with the hooks of Trace.
func ExampleTrace() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{
		TLSConfig: srv.ClientTLS(),
		Trace: &pop3.Trace{
			Done: func(_ context.Context, cmd string, octets int64, err error) {
				if octets > 0 {
					fmt.Println(cmd, octets, err)
				}
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(ctx, "alice", "correct horse"); err != nil {
		log.Fatal(err)
	}
	m, err := c.Retr(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, m)
	// Output: RETR 1 51 <nil>
}

// The server's reply to STAT makes no sense. Fatal is false, so the session can continue.
func ExampleProtocolError() {
	conn, _ := pop3test.Script(`
		S: +OK ready
		C: USER alice
		S: +OK
		C: PASS correct horse
		S: +OK
		C: STAT
		S: +OK seven messages
		C: LIST
		S: +OK
		S: 1 120
		S: .
	`)
	ctx := context.Background()
	c, err := pop3.NewClient(ctx, conn, &pop3.Options{InsecureAuth: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.User(ctx, "alice"), c.Pass(ctx, "correct horse")); err != nil {
		log.Fatal(err)
	}
	_, err = c.Stat(ctx)
	var protocolErr *pop3.ProtocolError
	if errors.As(err, &protocolErr) && !protocolErr.Fatal {
		infos, err := c.ListAll(ctx)
		fmt.Println(len(infos), err)
	}
	// Output: 1 <nil>
}

// Ask for UTF-8 before the login, if the server has it.
func ExampleClient_Utf8() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c, err := pop3.DialTLS(ctx, srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Utf8(ctx); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		log.Fatal(err)
	}
	fmt.Println(c.Login(ctx, "alice", "correct horse"))
	// Output: <nil>
}
