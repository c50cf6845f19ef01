// Package pop3test provides a POP3 server for tests, as net/http/httptest provides an HTTP server. It has two
// parts: a [Server], which behaves correctly until a test gives it faults, and [Script], which plays one
// dialogue word for word.
//
// It shares no code with package pop3, so that a mistake in one is not hidden by the same mistake in the other.
// It can test any client.
//
// # A server
//
// A test gives the server its mailboxes and lets the program under test connect to [Server.Addr]. Then it
// checks which messages are left in the maildrop ([Server.Left]) and which commands were received
// ([Server.Commands]):
//
//	srv := pop3test.NewServer(&pop3test.Mailbox{
//		User:     "mrose",
//		Password: "tanstaaf",
//		Messages: [][]byte{[]byte("Subject: one\r\n\r\nfirst\r\n")},
//	})
//	defer srv.Close()
//
// The server implements RFC 1939, and the extensions CAPA, RESP-CODES, AUTH-RESP-CODE and PIPELINING (RFC 2449,
// RFC 3206), STLS (RFC 2595), AUTH (RFC 5034), UTF8 and LANG (RFC 6856). The mechanisms of AUTH are
// SCRAM-SHA-1, -256 and -512, each with and without channel binding, PLAIN, LOGIN, CRAM-MD5, XOAUTH2,
// OAUTHBEARER, EXTERNAL and ANONYMOUS.
//
// The server is strict where most servers are lenient, so that a test finds the mistakes of a client. It replies -ERR
// to a line that ends in a bare LF, to two successive spaces, to a command of more than 255 octets, and to PASS without
// USER. It lets a client log in without TLS.
//
// A maildrop belongs to one session at a time. A second login waits a fifth of a second for the first session
// to end, and then gets "-ERR [IN-USE]". Messages are removed only by a complete QUIT in a session that is
// logged in.
//
// # This machine and others
//
// A test that dials [Server.Addr] sees a server on the same machine, to which clients may send passwords in clear. Dial
// with [Server.DialContext] to make the server look like one on another machine. Many servers announce USER and no
// SASL. If Caps does the same, a program that needs Options.InsecureAuth of package pop3 and does not set it fails in
// the test, as it would in production.
//
// # TLS
//
// [NewServer] offers STLS, and [NewTLSServer] uses TLS from the first octet. Both use the same built-in
// certificate, which is valid for the address of the server, for localhost and for example.com.
// [Server.ClientTLS] trusts it.
//
// # Faults
//
// A list of [Fault] values makes the server do what broken servers and networks do. Each value says when a
// fault happens and what it does:
//
//	srv.SetFaults(
//		// In the first session the connection is lost in the middle of a message.
//		pop3test.Fault{Session: 1, At: "RETR 2", Drop: pop3test.InBody, Octets: 100},
//		// In the second session the maildrop is locked.
//		pop3test.Fault{Session: 2, At: "AUTH", Reply: "-ERR [IN-USE] another session has it"},
//		// All replies are sent one octet at a time.
//		pop3test.Fault{Chunk: 1},
//	)
//
// Faults can end a connection before, in or after a reply, or after any octet in either direction, with FIN,
// RST, a close_notify or silence. They can delay replies or send them slowly, replace a reply, or send an extra
// one. They can change sizes, end a message too early, or make QUIT remove other messages than those marked.
// They can also imitate servers that end lines in LF, or that announce PIPELINING without supporting it.
// SetFaults without arguments removes all faults, even in the middle of a session.
//
// # Without a network
//
// [Server.ServeConn] serves a connection that the test made, such as one end of a [net.Pipe]. In a bubble of
// testing/synctest, delays and timeouts take no real time, however long they are:
//
//	synctest.Test(t, func(t *testing.T) {
//		srv := pop3test.NewUnstartedServer(box)
//		srv.SetFaults(pop3test.Fault{At: "STAT", Delay: time.Hour})
//		client, server := net.Pipe()
//		go srv.ServeConn(server) // ends when the client hangs up
//		...
//	})
//
// # Scripts
//
// To test a client with the exact octets of a server, use [Script] in place of a Server. It takes the dialogue
// as the RFCs print it and returns a connection for the client to use.
package pop3test
