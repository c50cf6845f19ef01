package pop3test_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// exampleServer starts a server with two messages.
func exampleServer() *pop3test.Server {
	return pop3test.NewServer(&pop3test.Mailbox{
		User:     "mrose",
		Password: "tanstaaf",
		Messages: [][]byte{
			[]byte("Subject: one\r\n\r\nfirst\r\n"),
			[]byte("Subject: two\r\n\r\nsecond\r\n"),
		},
	})
}

// connect dials and logs in. It is a part of the programs that the examples test.
func connect(ctx context.Context, srv *pop3test.Server) (*pop3.Client, error) {
	c, err := pop3.DialStartTLS(ctx, "pop.example.com", &pop3.Options{
		TLSConfig:   srv.ClientTLS(),
		DialContext: srv.DialContext, // DialContext makes the server look like one on another machine
	})
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx, "mrose", "tanstaaf"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// A test starts a server, runs a program against it, and checks which messages are left.
func Example() {
	srv := exampleServer()
	defer srv.Close()

	ctx := context.Background()
	c, err := connect(ctx, srv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(c.Stat(ctx))
	fmt.Println(c.Dele(ctx, 1))
	fmt.Println(c.Quit(ctx))

	for _, m := range srv.Left("mrose") {
		fmt.Printf("%q\n", m)
	}
	// Output:
	// {2 47} <nil>
	// <nil>
	// <nil>
	// "Subject: two\r\n\r\nsecond\r\n"
}

// A virus scanner on the server refuses one message of one user. The program under test still
// reads the other messages, and those of another user. PendingFaults returns a fault that did
// not happen.
func ExampleFault() {
	messages := [][]byte{[]byte("Subject: one\r\n\r\n"), []byte("Subject: two\r\n\r\n")}
	srv := pop3test.NewServer(
		&pop3test.Mailbox{User: "alice", Password: "secret", Messages: messages},
		&pop3test.Mailbox{User: "bob", Password: "secret", Messages: messages},
	)
	defer srv.Close()
	srv.SetFaults(
		pop3test.Fault{User: "alice", At: "RETR 1", Reply: "-ERR virus found"},
		// There is no third message, so this fault does not happen.
		pop3test.Fault{User: "alice", At: "RETR 3", Reply: "-ERR [SYS/TEMP] not now"},
	)

	ctx := context.Background()
	for _, user := range []string{"alice", "bob"} {
		c, err := pop3.DialInsecure(ctx, srv.Addr, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(user, c.Login(ctx, user, "secret"))
		for m, err := range c.Messages(ctx, 1, 2) {
			fmt.Println(m.Num, err)
		}
		c.Quit(ctx)
	}
	for _, fault := range srv.PendingFaults() {
		fmt.Println("did not happen:", fault.At)
	}
	// Output:
	// alice <nil>
	// 1 pop3: RETR 1: -ERR virus found
	// 2 <nil>
	// bob <nil>
	// 1 <nil>
	// 2 <nil>
	// did not happen: RETR 3
}

// If the connection is lost after DELE and before QUIT, nothing is deleted (RFC 1939 section
// 6). The next session lists the same messages again, so a program must remember which
// messages it has already stored.
func ExampleFault_lostConnection() {
	srv := exampleServer()
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{Session: 1, At: "QUIT", Drop: pop3test.BeforeCommand})

	ctx := context.Background()
	for range 2 {
		c, err := connect(ctx, srv)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(c.Stat(ctx))
		c.Dele(ctx, 1, 2)
		err = c.Quit(ctx)
		fmt.Println("not known whether it was deleted:", errors.Is(err, pop3.ErrCommitUnknown))
		fmt.Println("left:", len(srv.Left("mrose")))
	}
	// Output:
	// {2 47} <nil>
	// not known whether it was deleted: true
	// left: 2
	// {2 47} <nil>
	// not known whether it was deleted: false
	// left: 0
}

// Another session has locked the maildrop, and unlocks it a little later. The program under
// test tries three times if the error is temporary.
func ExampleFault_retry() {
	srv := exampleServer()
	defer srv.Close()
	srv.SetFaults(
		pop3test.Fault{Session: 1, At: "AUTH", Reply: "-ERR [IN-USE] maildrop already locked"},
		pop3test.Fault{Session: 2, At: "AUTH", Reply: "-ERR [IN-USE] maildrop already locked"},
	)

	ctx := context.Background()
	for range 3 {
		c, err := connect(ctx, srv)
		var refused *pop3.Error
		if errors.As(err, &refused) && refused.Temporary() {
			fmt.Println("try again:", refused.Text)
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(c.Stat(ctx))
		fmt.Println(c.Quit(ctx))
	}
	fmt.Println("sessions:", len(srv.Sessions()))
	// Output:
	// try again: maildrop already locked
	// try again: maildrop already locked
	// {2 47} <nil>
	// <nil>
	// sessions: 3
}

// A program must not treat a message that is cut in the middle as complete. The reader of such a message returns an
// error that is not io.EOF.
func ExampleFault_cutMessage() {
	srv := exampleServer()
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR 2", Drop: pop3test.InBody, Octets: 20})

	ctx := context.Background()
	c, err := connect(ctx, srv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	for num := 1; num <= 2; num++ {
		m, err := c.Retr(ctx, num)
		if err != nil {
			fmt.Println(err)
			return
		}
		octets, err := io.ReadAll(m)
		fmt.Printf("%q, cut: %v\n", octets, errors.Is(err, io.ErrUnexpectedEOF))
	}
	// Output:
	// "Subject: one\r\n\r\nfirst\r\n", cut: false
	// "Subject: two\r\n\r\nseco", cut: true
}

// A program that does not set Options.InsecureAuth can log in with USER and PASS to a server
// on the same machine, but not in clear to another machine. DialContext makes the test find
// this.
func ExampleServer_DialContext() {
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "mrose", Password: "tanstaaf"})
	srv.Caps = []string{"USER", "UIDL", "TOP"} // without SASL, because SCRAM does not need InsecureAuth
	srv.Start()
	defer srv.Close()

	ctx := context.Background()
	for _, opts := range []*pop3.Options{
		{DialContext: srv.DialContext},
		{DialContext: srv.DialContext, InsecureAuth: true},
	} {
		c, err := pop3.DialInsecure(ctx, "pop.example.com", opts)
		if err != nil {
			fmt.Println(err)
			return
		}
		err = c.Login(ctx, "mrose", "tanstaaf")
		fmt.Println("InsecureAuth is missing:", errors.Is(err, pop3.ErrInsecureAuth))
		c.Close()
	}
	// Output:
	// InsecureAuth is missing: true
	// InsecureAuth is missing: false
}

// The server can be used without a network.
func ExampleServer_ServeConn() {
	srv := pop3test.NewUnstartedServer()
	srv.Greeting = "Dovecot ready."
	client, server := net.Pipe()
	go srv.ServeConn(server)

	in := bufio.NewReader(client)
	greeting, _ := in.ReadString('\n')
	fmt.Printf("%q\n", greeting)
	fmt.Fprint(client, "QUIT\r\n")
	rest, err := io.ReadAll(in)
	fmt.Printf("%q %v\n", rest, err)
	// Output:
	// "+OK Dovecot ready.\r\n"
	// "+OK pop3test server signing off\r\n" <nil>
}

// The log of the commands shows what a program really sent.
func ExampleServer_Commands() {
	srv := exampleServer()
	defer srv.Close()
	ctx := context.Background()
	c, err := pop3.DialInsecure(ctx, srv.Addr, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Capa(ctx)
	c.User(ctx, "mrose")
	c.Pass(ctx, "tanstaaf")
	c.Dele(ctx, 1)
	c.Close() // closes the connection without QUIT
	srv.Close()
	fmt.Printf("%q\n", srv.Commands())
	// Output:
	// ["CAPA" "USER mrose" "PASS tanstaaf" "DELE 1"]
}

// A script is played to the client, and done reports what the client did wrong. This client
// forgot to log in.
func ExampleScript() {
	conn, done := pop3test.Script(`
		S: +OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>
		C: APOP mrose c4c9334bac560ecc979e58001b3e22fb
		S: +OK mrose's maildrop has 2 messages (320 octets)
		C: STAT
		S: +OK 2 320
	`)
	in := bufio.NewReader(conn)
	greeting, _ := in.ReadString('\n')
	fmt.Printf("%q\n", greeting)
	fmt.Fprint(conn, "STAT\r\n")
	_, err := in.ReadString('\n')
	fmt.Println(err)
	fmt.Println(done())
	// Output:
	// "+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>\r\n"
	// EOF
	// pop3test: line 3 of the script: the client sent "STAT\r\n", not "APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n"
}

// A script can also control the timing. Here the reply arrives after two milliseconds, one octet at a time, and then
// the connection breaks.
func ExampleScript_timing() {
	conn, done := pop3test.Script(`
		C: STAT
		PAUSE 2ms
		CHUNK 1
		S: +OK 2 320
		RESET
	`)
	fmt.Fprint(conn, "STAT\r\n")
	octets, err := io.ReadAll(markingReader{conn})
	fmt.Printf("%q %v %v\n", octets, err, done())
	// Output:
	// "+|O|K| |2| |3|2|0|\r|\n|" read script script: connection reset by peer <nil>
}

// A markingReader adds a mark to the data of each Read.
type markingReader struct{ io.Reader }

func (r markingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:len(p)-1])
	if err == nil {
		p[n] = '|'
		n++
	}
	return n, err
}
