// Package pop3test is a POP3 server for tests, as net/http/httptest is an HTTP server. It has two parts: a
// [Server], which does what a server should until it is told to do wrong, and [Script], which plays one
// dialogue word for word.
//
// It imports nothing of package pop3, so that a mistake in one cannot hide in the other, and it can test
// any client.
//
// # A server
//
// A test gives the server its mailboxes, lets the program under test connect to [Server.Addr], and then
// looks at what is [Server.Left] in a maildrop and at the [Server.Commands] that came:
//
//	srv := pop3test.NewServer(&pop3test.Mailbox{
//		User:     "mrose",
//		Password: "tanstaaf",
//		Messages: [][]byte{[]byte("Subject: one\r\n\r\nfirst\r\n")},
//	})
//	defer srv.Close()
//
// The server implements RFC 1939, with the extensions CAPA, RESP-CODES, AUTH-RESP-CODE and PIPELINING (RFC
// 2449, RFC 3206), STLS (RFC 2595), AUTH (RFC 5034) with the mechanisms SCRAM-SHA-1, -256 and -512 with and
// without channel binding, PLAIN, LOGIN, CRAM-MD5, XOAUTH2, OAUTHBEARER, EXTERNAL and ANONYMOUS, and UTF8
// and LANG (RFC 6856). It is strict where servers in use are lenient: a bare LF, two spaces, a command of
// more than 255 octets and PASS without USER in front of it get a -ERR, so that a careless client is found
// out. It lets a client log in without TLS.
//
// A maildrop belongs to one session at a time; a second login gets "-ERR [IN-USE]", after a fifth of a
// second, in which a session that is about to end can do so. Nothing is removed but by a QUIT that came
// whole, in a session that is logged in.
//
// # This machine and others
//
// A test that dials [Server.Addr] sees a server on the same machine, to which clients may send passwords in clear. Dial
// with [Server.DialContext] to have the server look like one on another machine. If Caps announces USER and no SASL, as
// many servers do, a forgotten Options.InsecureAuth of package pop3 then makes the test fail, as the program would fail
// in production.
//
// # TLS
//
// [NewServer] offers STLS, and [NewTLSServer] has TLS from the first octet. Both use a certificate of their
// own, which [Server.ClientTLS] trusts. It is valid for the address of the server, for localhost and
// example.com.
//
// # Faults
//
// What servers and networks do wrong is told to the server as a list of [Fault] values. Each says when it
// strikes and what happens then:
//
//	srv.SetFaults(
//		// In the first session the connection is lost in the middle of a message.
//		pop3test.Fault{Session: 1, At: "RETR 2", Drop: pop3test.InBody, Octets: 100},
//		// In the second one the maildrop is locked.
//		pop3test.Fault{Session: 2, At: "AUTH", Reply: "-ERR [IN-USE] another session has it"},
//		// All replies come one octet at a time.
//		pop3test.Fault{Chunk: 1},
//	)
//
// There are faults that end a connection before, in or after a reply or after any octet in either
// direction, with FIN, RST, a close_notify or mere silence; that delay replies or let them drip; that put
// another reply or a second one in the place of the right one; that lie about sizes; that cut a message
// short and end it properly; that make QUIT remove something else than it says; and those of servers that
// end lines in LF or cannot pipeline. SetFaults with no fault makes the server sound again, also in the
// middle of a session.
//
// # Without a network
//
// [Server.ServeConn] serves a connection that the test made, such as one end of a [net.Pipe]. In a bubble
// of testing/synctest that takes no time, however long the delays and timeouts are that the test is about:
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
// Where a test is about the exact octets of a server, real or invented, [Script] is simpler than a Server:
// it takes the dialogue as the RFCs print it and returns a connection for the client to use.
package pop3test
