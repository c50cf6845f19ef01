package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
)

// recordVersion is the version of the records that this program writes. A later version that adds fields raises it, and
// this program keeps the new fields. A change that this program would misread needs a bucket with another name.
const recordVersion = 1

// longestWait is the longest plausible time between two polls. A record with a later time is due at once.
const longestWait = 8 * 24 * time.Hour

// maxCrashes is the number of workers that may die in polls of an account before it is set aside, with this code.
const (
	maxCrashes  = 5
	codeCrashed = "crashed"
)

// A Record is what the fleet remembers about an account between polls, except for its messages. The revision of its key
// identifies the next poll: the grant names it, and the report of the poll replaces it.
type Record struct {
	Version     int           `json:"v"`
	Account     string        `json:"account"`
	Host        string        `json:"host"`
	Fingerprint string        `json:"fingerprint"` // digest of what a login needs; see accounts.Account
	Next        time.Time     `json:"next"`        // when the account is due, by the clock of NATS
	Every       time.Duration `json:"every"`       // current interval, which depends on the activity
	Polled      time.Time     `json:"polled"`      // time of the last poll
	Total       int64         `json:"total"`       // messages delivered

	Fails   int       `json:"fails"`   // failed polls in a row
	Crashes int       `json:"crashes"` // polls in a row in which the worker died
	Code    string    `json:"code"`    // short name of the last error
	Error   string    `json:"error"`   // last error, for people
	Aside   bool      `json:"aside"`   // not polled until somebody releases it, or its credentials change
	Removed time.Time `json:"removed"` // since when it is missing from the accounts file

	later map[string]json.RawMessage // all fields of a record that a later version has written
}

// recordOf reads a record from the bucket.
func recordOf(kve jetstream.KeyValueEntry) (r Record, err error) {
	if err = json.Unmarshal(kve.Value(), &r); err == nil && (accounts.KeyOf(r.Account) != kve.Key() || r.Host == "") {
		err = errors.New("name or host is wrong")
	}
	if err == nil && r.Version > recordVersion {
		err = json.Unmarshal(kve.Value(), &r.later)
	}
	if err != nil {
		return Record{}, fmt.Errorf("record %s is damaged: %w", kve.Key(), err)
	}
	return r, nil
}

// value returns the record as the bucket stores it.
func (r Record) value() []byte {
	r.Version = max(r.Version, recordVersion)
	value, _ := json.Marshal(r) // cannot fail: the fields are strings, numbers and times
	if r.later == nil {
		return value
	}
	fields := maps.Clone(r.later)
	json.Unmarshal(value, &fields) // replaces the fields that this version knows
	value, _ = json.Marshal(fields)
	return value
}

// due returns when the account is due. stored is when the record was stored, by the clock of NATS.
func (r Record) due(stored time.Time) time.Time {
	if wait := r.Next.Sub(stored); wait < 0 || wait > longestWait {
		return stored
	}
	return r.Next
}

// Again returns the record of an account that is due at once and has no failures.
func (r Record) Again() Record {
	r.Aside, r.Fails, r.Crashes, r.Next = false, 0, 0, time.Time{}
	return r
}

// Crashed returns the record of an account that is due at once, after a worker has died in its poll.
func (r Record) Crashed() Record {
	r.Crashes++
	r.Next = time.Time{}
	if r.Crashes >= maxCrashes {
		r.Aside, r.Code = true, codeCrashed
		r.Error = fmt.Sprintf("%d workers died in this poll; the error before: %q", r.Crashes, r.Error)
	}
	return r
}

// A Policy decides when an account is polled next.
type Policy struct {
	First    time.Duration `default:"10m" help:"New accounts are polled within this time."`
	Min      time.Duration `default:"1m" help:"Interval of busy accounts."`
	Max      time.Duration `default:"10m" help:"Interval of idle accounts."`
	Backoff  time.Duration `default:"6h" help:"Longest wait after failures."`
	Refusals int           `default:"5" help:"Refused logins in a row after which an account is set aside."`
	Failures int           `default:"50" help:"Failures in a row after which an account is set aside."`
}

// An Outcome is the result of a poll.
type Outcome struct {
	Delivered int
	More      bool      // a limit of ours left messages for the next poll
	TryAgain  time.Time // earliest next poll that the server allows
	Failed    bool      // nothing could be done
	Refused   bool      // the server refused the credentials
	Code      string    // short name of the error
	Error     string
}

// New returns the record of a new account. spread is a random number from 0 to 1, in all methods of Policy. It
// distributes polls over time.
func (p Policy) New(a accounts.Account, now time.Time, spread float64) Record {
	return Record{Account: a.Name, Host: a.Host(), Fingerprint: a.Fingerprint, Every: p.Max,
		Next: now.Add(scale(p.First, spread))}
}

// Next returns the record after a poll that ended now.
func (p Policy) Next(r Record, now time.Time, o Outcome, spread float64) Record {
	r.Total += int64(o.Delivered)
	r.Polled, r.Crashes, r.Code, r.Error = now, 0, o.Code, o.Error
	if o.Failed {
		// The wait doubles with each failure. Half of it is random, because all accounts of a host fail together.
		wait := min(float64(p.Min)*math.Exp2(float64(r.Fails)), float64(p.Backoff))
		r.Fails++
		r.Next = now.Add(scale(time.Duration(wait), 0.5+spread/2))
		r.Aside = o.Refused && r.Fails >= p.Refusals || r.Fails >= p.Failures
	} else {
		r.Fails, r.Every = 0, min(max(r.Every+r.Every/2, p.Min), p.Max)
		if o.Delivered > 0 {
			r.Every = p.Min
		}
		r.Next = now.Add(scale(r.Every, 0.9+spread/5))
		if o.More {
			r.Next = now
		}
	}
	if r.Next.Before(o.TryAgain) { // LOGIN-DELAY takes precedence over our intervals
		r.Next = o.TryAgain
	}
	return r
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }
