// Package fetch brings new mail from a POP3 maildrop to where it is to be kept, and loses none of it.
//
//	f := fetch.Fetcher{
//		Connect: func(ctx context.Context) (*pop3.Client, error) {
//			c, err := pop3.DialTLS(ctx, "pop.example.org", nil)
//			if err != nil {
//				return nil, err
//			}
//			if err := c.Login(ctx, name, password); err != nil {
//				c.Close()
//				return nil, err
//			}
//			return c, nil
//		},
//		Sink:    fetch.Maildir{Dir: "/home/me/Maildir"}, // made once, with Create
//		Seen:    fetch.FileSeen{Dir: "/home/me/.local/state/mail"},
//		Account: "me@pop.example.org",
//		Delete:  true,
//		KeepFor: 14 * 24 * time.Hour,
//	}
//	report, err := f.Run(ctx)
//
// A [Fetcher] says what to do, [Fetcher.Run] does it once, and is called again for what has come since. Messages go
// to a [Sink]: a [Maildir], an [Mbox], an [EMLFolder], a [SinkFunc] of the caller. What was stored is remembered in a
// [Seen]: a [FileSeen] on the disk, a [MemorySeen] in a program that keeps running, a database of the caller.
//
// # What is promised
//
// Whatever goes wrong, and whenever: a connection that is lost, a disk that is full, a server that lies, a process
// that is killed, a power cut:
//
//   - Each message is on the server, or was stored octet for octet as the server sent it.
//   - A message is deleted from the server only after the sink said that it is stored for good.
//   - What the report calls deleted was confirmed by the server; what it calls kept is there; everything else is
//     called unconfirmed.
//   - The next run that nothing disturbs finishes what was left undone. Each message is stored once. A message is
//     stored again where a run ended between storing it and remembering that it was stored, which concerns one
//     message at most, and where nothing is remembered. After a power cut this concerns the messages since the last
//     sync of the record, which is done after every hundred messages and before a DELE or QUIT.
//
// # How
//
// New is what has a unique-id (UIDL, RFC 1939 section 7) that is not in the record. A message is in the record as soon
// as it is stored, before the next one is looked at. Message numbers mean nothing outside their session, and never
// leave it.
//
// DELE is sent after all messages of a session were retrieved, never ahead of a reply, and only if the server was
// still in step with its replies then. The record says which messages are about to be deleted before QUIT is sent.
// If they are there in the next session, because the answer to QUIT was lost, was negative, or was not true, they are
// retrieved again, and deleted if their content is what was stored. So a server that gives a unique-id to another
// message loses none either. Where the server never deletes, whatever it says, this is done once a day.
//
// The same second look decides wherever the record may be wrong: after a message was missing from the list, after it
// came with another size than is listed now, after replies may have been mixed up. It costs a transfer and stores
// nothing twice. Header fields in which servers keep notes (Status, X-UID and the like) do not count in it.
//
// A message that is shorter than the server's LIST claims may have been cut, for some servers end a message properly
// when they can't read on. It is stored, is not deleted, and is looked at once more in the next run ([ErrSizeShort]).
// A longer one is fine: many servers count line ends as one octet.
//
// A QUIT may remove whatever was retrieved, if the server announces EXPIRE 0 or says nothing about it (RFC 2449
// section 6.7). So a session in which a message was retrieved and not stored ends without it ([ErrQuitWithheld]), and
// another one, which retrieves nothing, carries out the deletions.
//
// A message that can't be fetched or stored does not keep the others from their reader. It is in the report and is
// tried again in the next run. After ten failures in a row, or three lost connections, the run ends.
//
// # Servers without unique-ids
//
// Some have none, and some give the same one to several messages. Then messages are told apart by their content: each
// run retrieves all of them, stores those that it has not stored before, and deletes a message only by its number in
// the session that retrieved it.
package fetch
