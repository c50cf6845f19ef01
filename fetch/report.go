package fetch

import (
	"cmp"
	"errors"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// An Outcome is what happened to a message.
type Outcome int

const (
	Delivered   Outcome = iota + 1 // stored; with ErrSizeShort if there should have been more of it
	Deleted                        // gone from the server, which confirmed it
	Unconfirmed                    // deletion was asked for and not confirmed: it may be gone or not
	Kept                           // was to be deleted and is still on the server
	Skipped                        // not fetched, because of a limit
	Failed                         // not fetched or not stored; it is on the server
	Pending                        // with DryRun: would be fetched, or would be deleted if it was stored before
)

var outcomes = [...]string{Delivered: "delivered", Deleted: "deleted", Unconfirmed: "unconfirmed", Kept: "kept",
	Skipped: "skipped", Failed: "failed", Pending: "pending"}

// String gives the name of the outcome in lower case.
func (o Outcome) String() string {
	if o > 0 && int(o) < len(outcomes) {
		return outcomes[o]
	}
	return "unknown"
}

// A Result is something that happened to a message. There are two for one that is stored and deleted in a run.
type Result struct {
	Item
	Outcome Outcome
	Octets  int64 // that came, of a message that was retrieved
	Err     error // why, where it was not as it should be
}

// A Report is what a run did.
type Report struct {
	Listed      int      // messages on the server, when it was last asked
	Known       int      // those of them that an earlier run or an earlier session of this one has stored
	Delivered   int      // messages stored
	Octets      int64    // received
	Deleted     int      // deletions that the server confirmed
	Unconfirmed int      // deletions that may have happened or not
	Skipped     []Result // what was not fetched because of a limit
	Problems    []Result // all other results with an error
	Sessions    int      // in which the run was logged in

	// TryAgain is when the next run makes sense, if the server gave a reason to wait: it announces LOGIN-DELAY,
	// or refused something with [LOGIN-DELAY], [IN-USE] or [SYS/TEMP]. It is zero otherwise.
	TryAgain time.Time

	// Err is what Run returns.
	Err error

	// Aborted is the part of Err that ended the run before it was through: no connection or no login, a
	// session lost for good, a record that could not be written. It is nil if all the trouble was with single
	// messages, which are in Problems.
	Aborted error
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
	case Skipped:
		r.Skipped = append(r.Skipped, res)
		return
	}
	if res.Err != nil {
		r.Problems = append(r.Problems, res)
	}
}

// How long to wait where the server does not say.
const (
	waitInUse = time.Minute
	waitTemp  = 5 * time.Minute
	waitLogin = 5 * time.Minute
)

// waitAfter tells how long err, a refusal, asks to wait; announced is the LOGIN-DELAY of the server. It is 0 if there
// is nothing to wait for.
func waitAfter(err error, announced time.Duration) time.Duration {
	refusal, ok := errors.AsType[*pop3.Error](err)
	if !ok {
		return 0
	}
	switch {
	case refusal.Code.Is(pop3.CodeLoginDelay):
		return cmp.Or(announced, waitLogin)
	case refusal.Code.Is(pop3.CodeInUse):
		return waitInUse
	case refusal.Code.Is(pop3.CodeSysTemp):
		return waitTemp
	}
	return 0
}
