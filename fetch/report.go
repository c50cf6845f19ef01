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
	Unconfirmed                        // may be deleted or not: the server did not confirm the deletion
	Kept                               // was to be deleted and is still on the server
	Skipped                            // not fetched: ErrTooLarge, ErrLimit, ErrNotReached, ErrNotSelected or ErrNoUID
	Failed                             // not fetched or not stored; the message is on the server
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

// A Result is what happened to a message. There may be two results for one message: one after it was stored, and one
// after it was deleted or kept.
type Result struct {
	Item
	Outcome Outcome
	Octets  int64 // bytes received, if the message was retrieved
	Err     error // the reason, if the outcome is not what the settings ask for
}

// failure returns an error that names the message and says whether it is tried again.
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

// A Report describes what a run did.
type Report struct {
	Listed      int        // messages on the server, each counted once in a run
	Known       int        // messages that an earlier run has stored, or that are never fetched
	Delivered   int        // messages stored
	Octets      int64      // bytes received
	Deleted     int        // deletions that the server confirmed
	Unconfirmed int        // deletions that may or may not have happened
	Kept        KeptCounts // known messages that stay on the server
	Skipped     []Result   // messages with the outcome Skipped
	Pending     []Result   // with DryRun: messages that a run would fetch or delete
	Problems    []Result   // all other results with an error
	Sessions    int        // sessions that were logged in

	// TryAgain is the earliest time for the next run, if the server gave a reason to wait: it
	// announces LOGIN-DELAY, or refused something temporarily ([pop3.Error.Temporary]). Otherwise
	// it is zero.
	TryAgain time.Time

	// Err is what Run returns.
	Err error

	// Aborted is the part of Err that ended the run early: no connection or no login, lost
	// sessions, or a history that could not be written. It is nil if only single messages
	// failed; these are in Problems.
	Aborted error
}

// KeptCounts counts the known messages that stay on the server, by the reason. A message whose DELE was refused is in
// Report.Problems.
type KeptCounts struct {
	DeleteOff  int // Fetcher.Delete is not set
	KeepFor    int // Fetcher.KeepFor is not over
	PassedOver int // skipped by Select, or imported; they are never deleted

	// The following are messages that must be deleted but were not. As long as there are any, Run returns an error.
	Short      int // shorter than the server claims: ErrSizeShort
	NotDeleted int // the server was asked to delete them, but they are still there: ErrNotDeleted
	Ambiguous  int // they have the unique-id of a message that is not stored: ErrNotDeleted
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

func (k *KeptCounts) add(reason keptReason) {
	switch reason {
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

// err returns the error about messages that should have been deleted but were not.
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

// These constants are how long to wait before the next run, after each kind of refusal. waitMost is the longest wait.
const (
	waitInUse = time.Minute
	waitTemp  = 5 * time.Minute
	waitLogin = 5 * time.Minute
	waitMost  = 24 * time.Hour
)

// waitAfter returns how long to wait after err, and 0 if err is not a temporary refusal. announced is the LOGIN-DELAY
// of the server.
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
