// Package fetch fetches new mail from a POP3 maildrop, stores it, and loses none of it.
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
// A [Fetcher] has the settings. [Fetcher.Run] fetches the new messages; call it again to fetch those that have arrived
// since. A [Sink] stores the messages: a [Maildir], an [Mbox], an [EMLFolder], or a [SinkFunc] of your own. A [Seen]
// remembers which messages were stored: a [FileSeen] on disk, a [MemorySeen] in a program that keeps running, or a type
// of your own that uses a database.
//
// # What is promised
//
// These promises hold whatever fails, and whenever it fails (a lost connection, a full disk, a server that lies, a
// killed process, a power cut):
//
//   - Each message is on the server, or was stored byte for byte as the server sent it.
//   - A message is deleted only after its content was stored and synced, and only in a session that has retrieved it.
//   - The report counts a message as deleted only if the server has confirmed the deletion, and as kept only if the
//     message is on the server. If the server does not confirm the deletion, the message counts as unconfirmed.
//   - Each message is stored once, with three exceptions. If Fetcher.Seen is nil, each run stores all messages. If a
//     process is killed after it has stored a message and before it has remembered it, that one message is stored
//     again. After a power cut, the messages that were stored since the last sync may be stored again.
//
// Repeated runs make progress:
//
//   - A message that fails does not stop the others. Later runs try it again, after the other messages.
//   - The report of each run lists what was not done, with the reason. Each run returns an error until all requested
//     deletions have happened.
//
// # How it works
//
// A message is new if its unique-id (UIDL, RFC 1939 section 7) is not remembered. Each message is remembered as soon as
// it is stored. If the sink is an [UnsyncedSink] and the history is an [UnsyncedHistory], they are synced together.
// That happens before anything is deleted, after every hundred messages, and at the end of the run. Otherwise every
// message and every change of the history is synced by itself.
//
// If an earlier session has stored a message, the message is retrieved again before it is deleted, and its content is
// compared with what was stored. Some servers give the unique-id of one message to another, so the unique-id alone is
// not enough. With Fetcher.KeepFor each message is therefore retrieved twice. A message is also retrieved again if the
// history may be wrong about it. That is so if it was missing from a list, if its size has changed, or if replies may
// have been mixed up in the session that stored it. The comparison ignores header fields in which servers keep notes
// (Status, X-UID and others). A message whose content is known under another unique-id is not stored again, so a server
// may change all its unique-ids. If the content of a stored message has changed and its header has not, the message is
// retrieved a second time before it is stored again. Some servers send different content each time; such a message is
// stored only once.
//
// DELE is sent after all messages of a session were retrieved, and only if it is certain which reply belongs to which
// command. If the server then deletes nothing, or does not reply to QUIT, deletion is tried once more, and after that
// once a day. If the connection is lost while messages are compared, later sessions compare fewer of them before QUIT.
//
// After a session with new messages there is another session, because some servers list only a part of a maildrop at a
// time. If the server announces LOGIN-DELAY, a run has only one session.
//
// # Messages that fail
//
// A message that could not be retrieved or stored is tried again in the next run. That run deletes messages in an
// earlier session, so that the failing message cannot prevent deletions. After five failed runs the message is set
// aside, and from then on it is tried once a day ([ErrSetAside]). If no message was stored in the last of these runs,
// it is also tried as soon as another message is stored. A sink returns an error that wraps [ErrPermanent] if it will
// never store the message.
//
// Several messages are requested at once. If the connection is lost meanwhile, the remaining messages are requested one
// by one, so that a failure counts only for the message that caused it. While a slow sink stores a message of less
// than 256 KiB that was requested alone, NOOP keeps the session open.
//
// A message that is shorter than the server's LIST claims may have been cut, because some servers end a message
// normally when they cannot read the rest. It is stored and not deleted. It is retrieved again in the next run, and
// then once a day ([ErrSizeShort]). If all claimed sizes are too large by the same number of bytes, or by the number of
// lines, the messages count as complete. A message that is longer than claimed is accepted, because many servers count
// a line end as one byte.
//
// If the server announces EXPIRE 0, or does not announce EXPIRE, QUIT may remove every message that was retrieved (RFC
// 2449 section 6.7). So a session in which a message was retrieved and not stored ends without QUIT
// ([ErrQuitWithheld]), and another session carries out the deletions.
//
// # Servers without unique-ids
//
// Some servers have no unique-ids, and some give the same unique-id to several messages. Messages without a unique-id
// of their own are recognized by their content: each run retrieves all of them and stores those that were not stored
// before.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A Fetcher fetches new mail from one maildrop. Connect and Sink must be set; the zero value of each other field is a
// safe default. The fields must not be changed during a run.
type Fetcher struct {
	// Connect returns a client that is logged in. It is called for each session of a run, so it
	// can get a fresh token each time. The run closes the client.
	Connect func(ctx context.Context) (*pop3.Client, error)

	// Sink is where messages are stored.
	Sink Sink

	// Seen remembers what was stored. If it is nil, nothing is remembered between runs: each run
	// fetches all messages on the server.
	Seen Seen

	// Account names the maildrop in Seen, and must be unique. If the maildrop moves to another
	// server, change Connect and keep Account; otherwise all messages would be new.
	Account string

	// Delete deletes from the server the messages that this run or an earlier one has stored. If
	// it is false, nothing is deleted.
	Delete bool

	// KeepFor is how long messages stay on the server after they were stored, before Delete
	// deletes them. It needs Seen. Each message is retrieved a second time before it is deleted,
	// because some servers give its unique-id to another message, even to one with the same
	// header.
	KeepFor time.Duration

	// CommitEvery is the number of messages after which the run ends the session with QUIT, which
	// commits their deletion, and continues in a new session. If it is 0, QUIT is
	// sent once, at the end. It has no effect if new messages are not deleted at once, if the server
	// has no unique-ids, or if it announces LOGIN-DELAY.
	CommitEvery int

	// AcceptShort accepts a message as complete even if it is shorter than the server's LIST claims.
	// It is for servers that count wrongly.
	AcceptShort bool

	// MaxSize is the size of the largest message that is fetched, in bytes; 0 means no limit. A
	// message that turns out to be larger, although the server claims a smaller size, is not stored.
	MaxSize int64

	// MaxMessages and MaxOctets limit how much new mail a run stores; 0 means no limit. A single
	// message may be larger than MaxOctets. Messages that could not be stored do not count. MaxOctets
	// is also the limit for the bytes that a run retrieves only to compare them with what was stored.
	MaxMessages int
	MaxOctets   int64

	// NewestFirst fetches the newest messages first.
	NewestFirst bool

	// Select, if not nil, decides about each new message before it is retrieved. In the first call
	// header is nil. If Select returns [WantHeader], it is called again with the header and the blank
	// line after it. The header is requested with TOP. If the server does not have TOP, the message is
	// retrieved, and Select gets the header from its beginning. Select is called again in the next run
	// for each message that was not stored, unless it returned [Skip]. For a message without a
	// unique-id of its own, Skip is the same as [Leave].
	Select func(ctx context.Context, item Item, header []byte) Decision

	// DryRun stores, deletes and remembers nothing. The messages that would be fetched or deleted
	// are in the report and in the results, with the outcomes [Pending] and [PendingDeletion].
	DryRun bool

	// Progress, if not nil, is called on the goroutine of the run. It is called for each message
	// before the message is retrieved, whenever a part of it has arrived, and when it is
	// finished. It should return quickly.
	Progress func(Progress)
}

// Progress describes how far a run has come.
type Progress struct {
	Item     Item  // the message that is being retrieved
	Received int64 // bytes of the message that have arrived

	Messages, AllMessages int   // finished messages, and messages that the run expects in total
	Octets, AllOctets     int64 // bytes received in this run, and bytes that it expects by the claimed sizes
}

// Run fetches all new mail, stores it, and deletes messages from the server as Delete and KeepFor say. After an error
// the counts of the report are still right, but Report.Kept is complete only if the run was not aborted
// (Report.Aborted is nil).
//
// The error is nil if everything was done and nothing failed. Otherwise it joins the error that ended the run or one of
// its sessions, [ErrQuitWithheld], [ErrNotReached], and the first error about a single message. Report.Problems
// contains all errors about single messages. An error does not always mean that messages are missing: if Aborted is
// nil, and Problems and Skipped are empty, a session was lost, and a later session of the run has done the rest. The
// error wraps [pop3.ErrCommitUnknown] if the server did not confirm deletions; the next run finds out whether the
// messages were deleted.
func (f *Fetcher) Run(ctx context.Context) (Report, error) {
	var report Report
	for range f.Results(ctx, &report) {
	}
	return report, report.Err
}

// Results is like [Fetcher.Run], as a loop over the results of single messages; report may be nil. If Run would return
// an error, that error is yielded last, with a zero Result.
//
// If the loop is left early, no further message is retrieved. Stored messages are deleted from the server as at the end
// of a run, and the report contains the outcome.
func (f *Fetcher) Results(ctx context.Context, report *Report) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		r := &run{Fetcher: f, yield: yield, report: report}
		if r.report == nil {
			r.report = new(Report)
		}
		*r.report = Report{}
		r.report.Err = r.do(ctx)
		if r.report.Err != nil && !r.callerStopped {
			yield(Result{}, r.report.Err)
		}
	}
}

// check returns an error if a field is missing.
func (f *Fetcher) check() error {
	switch {
	case f.Connect == nil:
		return errors.New("fetch: Connect is not set")
	case f.Sink == nil && !f.DryRun:
		return errors.New("fetch: Sink is not set")
	case f.Seen != nil && f.Account == "":
		return errors.New("fetch: Account is not set, and Seen needs a name for the maildrop")
	case f.Seen == nil && f.KeepFor > 0:
		return errors.New("fetch: KeepFor needs Seen, to remember when a message was stored")
	}
	return nil
}

// ErrQuitWithheld means that a session was ended without QUIT. A message had been retrieved but not stored completely.
// The server did not announce that it keeps such messages (EXPIRE, RFC 2449 section 6.7), so QUIT might have removed
// it. Deletions are left to a later session that stores every message that it retrieves.
var ErrQuitWithheld = errors.New("QUIT withheld, because it might remove a message that is not stored")

// ErrSizeShort means that a message is shorter than the server's LIST claims, although the server ended it normally. It
// was stored as it was received, and is not deleted. It is retrieved again in the next run, and then once a day. It is
// stored again if its content has changed. For servers that count wrongly, set Fetcher.AcceptShort.
var ErrSizeShort = errors.New("shorter than the server claims, so perhaps incomplete; " +
	"if the server counts wrongly, set AcceptShort to have it deleted")

// ErrNotDeleted means that messages should have been deleted and are still on the server. Either the server was asked
// to delete them, or they have the unique-id of a message that is not stored. In the first case deletion is tried once
// more, and then once a day. Before each attempt the messages are compared with what was stored.
var ErrNotDeleted = errors.New("not deleted by the server, or with the unique-id of a message " +
	"that is not stored; deletion is tried again once a day")

// A [Sink] returns an error that wraps ErrPermanent if it will never store the message. The message is set aside for
// ever.
var ErrPermanent = errors.New("the message will never be stored")

// ErrSetAside means that a message has failed in several runs, or with [ErrPermanent]. In the first case it is tried
// once a day from then on, in the second case never. It stays on the server and in each report. To try it at once,
// remove its entry from Seen.
var ErrSetAside = errors.New("set aside")

// Errors of messages that were not fetched.
var (
	ErrTooLarge    = errors.New("message is larger than MaxSize")
	ErrLimit       = errors.New("left for the next run, because of MaxMessages or MaxOctets")
	ErrNotReached  = errors.New("left for the next run: this run ended before it reached the message")
	ErrNotSelected = errors.New("not selected")
	ErrNoUID       = errors.New("left for the next run: the server sent no unique-id for it, but has them")
)

// sizeShort returns ErrSizeShort with the sizes.
func sizeShort(e *Entry) error {
	return fmt.Errorf("%d of %d octets: %w", e.Octets, e.Size, ErrSizeShort)
}
