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
// A [Fetcher] has the settings. [Fetcher.Run] fetches what is new and is called again for what has come since. Messages
// are stored by a [Sink]: a [Maildir], an [Mbox], an [EMLFolder], or a [SinkFunc] of your own. What was stored is
// remembered by a [Seen]: a [FileSeen] on disk, a [MemorySeen] in a program that keeps running, or a database.
//
// # What is promised
//
// Whatever goes wrong, and whenever it does (a lost connection, a full disk, a server that lies, a killed process,
// a power cut):
//
//   - Each message is on the server, or was stored octet for octet as the server sent it.
//   - A message is deleted only in a session that has seen its content, after the content was stored and synced.
//   - What the report calls deleted was confirmed by the server. What it calls kept is on the server. A message that
//     was marked, and whose deletion the server did not confirm, is called unconfirmed.
//   - Each message is stored once. It may be stored again if nothing is remembered, if a process is killed between
//     storing a message and remembering it (at most that one message), or after a power cut (at most the messages
//     since the last sync).
//
// And it goes on, over any number of runs:
//
//   - A message that fails does not hold up the others. It is tried again after them, in the next runs.
//   - What is not done is in the report of each run, with the reason. If a deletion that was asked for does not happen,
//     Run returns an error each time.
//
// # How
//
// A message is new if its unique-id (UIDL, RFC 1939 section 7) is not remembered. Each message is remembered as soon
// as it is stored. These notes are written at once. They are synced before anything is deleted, after every hundred
// messages, and at the end of the run, if the [Sink] and the [History] can do that ([UnsyncedSink], [UnsyncedHistory]).
// Otherwise each message and each note is synced by itself.
//
// A message that was stored by an earlier session is retrieved again before it is deleted, and its content compared:
// there are servers that give a unique-id to another message. So with Fetcher.KeepFor each message is retrieved twice.
// It is also retrieved again if the record may be wrong about it: after a message was missing from the list, came with
// another size, or came in a session in which replies may have been mixed up. Header fields in which servers keep notes
// (Status, X-UID and the like) do not count in the comparison. A content that is known under another unique-id is not
// stored again, so a server may change all its unique-ids.
//
// DELE is sent after all messages of a session were retrieved, and only if the replies still belong to their
// commands. A server that deletes nothing, or does not answer QUIT, is asked again once, and then once a day.
//
// Every session that brought something new is followed by another one, since some servers show only a part of a
// maildrop. A server that announces LOGIN-DELAY gets one session in each run.
//
// # Messages that fail
//
// A message that could not be retrieved or stored is tried again in the next run, in a session after the one that
// deletes. So it cannot prevent deletions. After five runs that failed it is set aside and tried once a day
// ([ErrSetAside]). If those runs stored nothing at all, it is also tried as soon as another message is stored. A
// sink that will never store a message returns an error that wraps [ErrPermanent].
//
// If a connection is lost among messages that were asked for ahead, the others are asked for one by one, so that no
// innocent message is blamed. While a slow sink works on such a message, NOOP keeps the session open.
//
// A message that is shorter than the server's LIST claims may have been cut: some servers end a message properly
// when they cannot read on. It is stored, is not deleted, and is looked at again once a day ([ErrSizeShort]). A
// server whose sizes are all too large by a constant, or by the number of lines, is recognized. A message that is
// longer than claimed is accepted, because many servers count a line end as one octet.
//
// QUIT may remove whatever was retrieved, if the server announces EXPIRE 0 or says nothing about it (RFC 2449 section
// 6.7). So a session in which a message was retrieved and not stored ends without QUIT ([ErrQuitWithheld]), and another
// one carries out the deletions.
//
// # Servers without unique-ids
//
// Some servers have none, and some give the same one to several messages. Then messages are told apart by their
// content: each run retrieves all of them and stores those that it has not stored before.
package fetch
