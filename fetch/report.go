package fetch

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// An Outcome is what happened to a message.
type Outcome int

const (
	Delivered       Outcome = iota + 1 // stored
	Deleted                            // gone from the server, which confirmed it
	Unconfirmed                        // deletion not confirmed: it may be deleted or not
	Kept                               // was to be deleted and is still on the server
	Skipped                            // not fetched, because of a limit or by Select
	Failed                             // not fetched or not stored; it is on the server
	Pending                            // with DryRun: would be fetched
	PendingDeletion                    // with DryRun: was stored before and would be deleted
)

var outcomes = [...]string{Delivered: "delivered", Deleted: "deleted", Unconfirmed: "unconfirmed", Kept: "kept",
	Skipped: "skipped", Failed: "failed", Pending: "pending", PendingDeletion: "pending deletion"}

// String returns the name of the outcome in lower case.
func (o Outcome) String() string {
	if o > 0 && int(o) < len(outcomes) {
		return outcomes[o]
	}
	return "unknown"
}

// A Result is something that happened to a message. There may be two for one message: it was stored, and it was
// deleted or kept.
type Result struct {
	Item
	Outcome Outcome
	Octets  int64 // that were received, of a message that was retrieved
	Err     error // why, where it was not as it should be
}

// failure returns an error that names the message, and says what will become of it.
func (r Result) failure() error {
	name := fmt.Sprint("message ", r.Num)
	if r.UID != "" {
		name += fmt.Sprintf(" (unique-id %q)", printable.Clean(r.UID))
	}
	next := "; the next run tries again"
	if errors.Is(r.Err, ErrSetAside) || errors.Is(r.Err, ErrPermanent) {
		next = ""
	}
	return fmt.Errorf("%s: %w%s", name, r.Err, next)
}

// A Report is what a run did.
type Report struct {
	Listed      int        // messages on the server, each counted once in a run
	Known       int        // those of them that an earlier run has stored, or passed over
	Delivered   int        // messages stored
	Octets      int64      // octets received
	Deleted     int        // deletions that the server confirmed
	Unconfirmed int        // deletions that may have happened or not
	Kept        KeptCounts // messages that are known and stay on the server
	Skipped     []Result   // what was not fetched because of a limit or by Select
	Pending     []Result   // with DryRun: what a run would fetch or delete
	Problems    []Result   // all other results with an error
	Sessions    int        // in which the run was logged in

	// TryAgain is when the next run makes sense, if the server gave a reason to wait: it
	// announces LOGIN-DELAY, or refused something for a while ([pop3.Error.Temporary]). It is
	// zero otherwise.
	TryAgain time.Time

	// Err is what Run returns.
	Err error

	// Aborted is the part of Err that ended the run before it was through: no connection or no
	// login, a session lost for good, a record that could not be written. It is nil if all the
	// trouble was with single messages, which are in Problems.
	Aborted error
}

// KeptCounts counts the messages that are known and stay on the server, by the reason. A message whose DELE was
// refused is in Report.Problems.
type KeptCounts struct {
	DeleteOff  int // Fetcher.Delete is not set
	KeepFor    int // Fetcher.KeepFor is not over
	PassedOver int // skipped by Select or imported, so that they are never deleted

	// What is to be deleted and was not. Run returns an error as long as there is any.
	Short      int // shorter than the server claims: ErrSizeShort
	NotDeleted int // the server was asked to delete them, and has not: ErrNotDeleted
	Ambiguous  int // the same unique-id as a message that is not stored: ErrNotDeleted
}

// A keptReason is one of the reasons that KeptCounts counts.
type keptReason int

const (
	keptDeleteOff keptReason = iota + 1
	keptFor
	keptPassedOver
	keptShort
	keptNotDeleted
	keptAmbiguous
)

func (k *KeptCounts) add(why keptReason) {
	switch why {
	case keptDeleteOff:
		k.DeleteOff++
	case keptFor:
		k.KeepFor++
	case keptPassedOver:
		k.PassedOver++
	case keptShort:
		k.Short++
	case keptNotDeleted:
		k.NotDeleted++
	case keptAmbiguous:
		k.Ambiguous++
	}
}

// err is about what was to be deleted and was not.
func (k *KeptCounts) err() error {
	var errs []error
	if k.Short > 0 {
		errs = append(errs, fmt.Errorf("fetch: %s kept on the server: %w", count(k.Short), ErrSizeShort))
	}
	if n := k.NotDeleted + k.Ambiguous; n > 0 {
		errs = append(errs, fmt.Errorf("fetch: %s kept on the server: %w", count(n), ErrNotDeleted))
	}
	return errors.Join(errs...)
}

// add counts a result.
func (r *Report) add(res Result) {
	switch res.Outcome {
	case Delivered:
		r.Delivered++
	case Deleted:
		r.Deleted++
	case Unconfirmed:
		r.Unconfirmed++
	case Pending, PendingDeletion:
		r.Pending = append(r.Pending, res)
	case Skipped:
		r.Skipped = append(r.Skipped, res)
		return
	}
	if res.Err != nil {
		r.Problems = append(r.Problems, res)
	}
}

func count(messages int) string {
	if messages == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", messages)
}

// How long to wait where the server does not say, and at most.
const (
	waitInUse = time.Minute
	waitTemp  = 5 * time.Minute
	waitLogin = 5 * time.Minute
	waitMost  = 24 * time.Hour
)

// waitAfter returns how long to wait after err, if it is a refusal that is temporary; announced is the LOGIN-DELAY
// of the server. It is 0 if there is nothing to wait for.
func waitAfter(err error, announced time.Duration) time.Duration {
	refusal, ok := errors.AsType[*pop3.Error](err)
	switch {
	case !ok || !refusal.Temporary():
		return 0
	case refusal.Code.Is(pop3.CodeLoginDelay):
		return cmp.Or(announced, waitLogin)
	case refusal.Code.Is(pop3.CodeInUse):
		return waitInUse
	}
	return waitTemp
}
