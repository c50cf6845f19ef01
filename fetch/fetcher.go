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

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A Fetcher fetches new mail from one maildrop. Connect and Sink have to be set; the zero value of each other
// field is the safe choice. The fields must not be changed while a run is under way.
type Fetcher struct {
	// Connect gives a session that is logged in. It is called for each session of a run, so
	// that it can get a token that is fresh, and the run closes what it gives.
	Connect func(ctx context.Context) (*pop3.Client, error)

	// Sink is where messages are stored.
	Sink Sink

	// Seen remembers what was stored. If it is nil nothing is remembered from run to run: each
	// one fetches all that is on the server.
	Seen Seen

	// Account names the maildrop in Seen, and must be unique. It is only a name: give it
	// another Connect and keep Account when the server moves to another host, or all mail
	// would be new.
	Account string

	// Delete deletes from the server what was stored, in this run or in one before. Without it
	// nothing is deleted.
	Delete bool

	// KeepFor is how long messages stay on the server after they were stored, before Delete
	// takes them. It needs Seen. Each message is retrieved a second time before it is deleted,
	// because some servers give a unique-id to another message, whose header may be the same.
	KeepFor time.Duration

	// CommitEvery ends the session with QUIT after so many messages, which commits their
	// deletion, and goes on in another one; 0 does so at the end only. It has no effect where
	// nothing is deleted right away, on servers without unique-ids, and on those that announce
	// LOGIN-DELAY.
	CommitEvery int

	// AcceptShort takes a message for whole though fewer octets came than the server's LIST
	// claims. It is for servers that count wrongly.
	AcceptShort bool

	// MaxSize is the size of the largest message that is fetched, in octets; 0 is no limit.
	// One that turns out larger than the server claimed is not stored.
	MaxSize int64

	// MaxMessages and MaxOctets limit how much new mail a run stores; 0 is no limit. A single
	// message may be larger than MaxOctets. Messages that could not be stored do not count.
	// MaxOctets also limits how much a run retrieves to compare it with what was stored.
	MaxMessages int
	MaxOctets   int64

	// NewestFirst begins with the messages that came last.
	NewestFirst bool

	// Select, if not nil, decides about each new message before it is retrieved. header is nil
	// at first; a function that returns [WantHeader] is called again with the header and the
	// blank line after it. Headers are asked for with TOP; where the server does not have it,
	// the message is retrieved and Select sees its front. Select is called again in the next
	// run unless it returned [Skip], which needs a unique-id and otherwise is [Leave].
	Select func(ctx context.Context, item Item, header []byte) Decision

	// DryRun stores, deletes and remembers nothing: what would be fetched or deleted is in the
	// report and in the results, as [Pending] and [PendingDeletion].
	DryRun bool

	// Progress, if not nil, is called for each message before it is retrieved, whenever some
	// of it has come, and when it is dealt with, on the goroutine of the run. It should return
	// fast.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Item     Item  // the message that is on its way
	Received int64 // octets of it that came

	Messages, AllMessages int   // done, and to be done in this run as far as is known
	Octets, AllOctets     int64 // received in this run, and expected by what the server claims
}

// Run fetches all new mail, stores it, and deletes from the server what Delete says. The counts of the report are
// right also if there is an error; Report.Kept counts only if the run came to its end (Report.Aborted is nil).
//
// The error is nil if all was done and nothing went wrong on the way. Otherwise it joins what ended the run or one
// of its sessions, [ErrQuitWithheld], and the first of the errors of single messages, each of which is in
// Report.Problems. So an error does not mean that messages are missing: if Aborted is nil and Problems is empty,
// another session of the run has done what a lost one left. The error wraps [pop3.ErrCommitUnknown] if the server
// did not confirm deletions: the next run finds out.
func (f *Fetcher) Run(ctx context.Context) (Report, error) {
	var report Report
	for range f.Results(ctx, &report) {
	}
	return report, report.Err
}

// Results is [Fetcher.Run] as a loop over what happens to single messages; report may be nil. An error comes last,
// with no result.
//
// After a break no further message is retrieved, and what was stored is deleted and committed as if there had been
// no more; the outcome is in the report.
func (f *Fetcher) Results(ctx context.Context, report *Report) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		r := &run{Fetcher: f, yield: yield, report: report}
		if r.report == nil {
			r.report = new(Report)
		}
		*r.report = Report{}
		r.report.Err = r.do(ctx)
		if r.report.Err != nil && !r.stopped {
			yield(Result{}, r.report.Err)
		}
	}
}

// check finds mistakes in the fields.
func (f *Fetcher) check() error {
	switch {
	case f.Connect == nil:
		return errors.New("fetch: Connect is not set")
	case f.Sink == nil && !f.DryRun:
		return errors.New("fetch: Sink is not set")
	case f.Seen != nil && f.Account == "":
		return errors.New("fetch: Account is not set, and Seen needs it to tell maildrops apart")
	case f.Seen == nil && f.KeepFor > 0:
		return errors.New("fetch: KeepFor needs Seen, to know when a message was stored")
	}
	return nil
}

// ErrQuitWithheld: a session was ended without QUIT. A message had been retrieved and not been stored whole, and
// the server did not announce that it keeps such messages (EXPIRE, RFC 2449 section 6.7), so that QUIT might have
// removed it. What was to be deleted is left to another session that retrieves nothing of the kind.
var ErrQuitWithheld = errors.New("QUIT withheld, since it might remove a message that is not stored")

// ErrSizeShort: fewer octets of a message came than the server's LIST claims, though it ended properly. It was
// stored as it came and is not deleted. The next run looks whether there is more of it by then, and stores it
// again if there is. See Fetcher.AcceptShort for servers that just count wrongly.
var ErrSizeShort = errors.New("shorter than the server claims, so perhaps not whole; " +
	"if the server counts wrongly, set AcceptShort to have it deleted")

// ErrNotDeleted: the server was asked to delete messages, and they are still there. They are looked at again and
// deleted again once a day.
var ErrNotDeleted = errors.New("not deleted by the server, or with the unique-id of a message " +
	"that is not stored; deletion is tried again once a day")

// ErrPermanent is to be wrapped by the error of a [Sink] that will never store a message: it is set aside for
// good.
var ErrPermanent = errors.New("the message will never be stored")

// ErrSetAside: a message failed in several runs, and is tried once a day from then on, or never if the reason was
// ErrPermanent. It is on the server and in each report. To try it at once, remove its entry from Seen.
var ErrSetAside = errors.New("set aside")

// Reasons why a message is not fetched.
var (
	ErrTooLarge    = errors.New("message is larger than MaxSize")
	ErrLimit       = errors.New("left for the next run, by MaxMessages or MaxOctets")
	ErrNotReached  = errors.New("left for the next run: this one ended before it came to the message")
	ErrNotSelected = errors.New("not selected")
	ErrNoUID       = errors.New("left for the next run: the server, which has unique-ids, gave none")
)

// sizeShort says how much came.
func sizeShort(e *Entry) error {
	return fmt.Errorf("%d of %d octets: %w", e.Octets, e.Size, ErrSizeShort)
}
