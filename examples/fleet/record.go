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

// recordVersion is the version of the records that this program writes. If a later program adds a field, it must
// increase the version, and this program keeps the field. If a later program changes the meaning of a field, it must
// use another bucket.
const recordVersion = 1

// maxWait is the longest plausible time between two polls. A record with a later time is wrong, and is due at once.
const maxWait = 8 * 24 * time.Hour

// After maxCrashes polls in a row in which the worker died, the account is set aside, with codeCrashed as its error
// code.
const (
	maxCrashes  = 5
	codeCrashed = "crashed"
)

// A Record is the state of an account between polls, without its history. The revision of the record identifies the
// next poll: the grant contains it, and the report of the poll replaces only this revision.
type Record struct {
	Version     int           `json:"v"`
	Account     string        `json:"account"`
	Host        string        `json:"host"`
	Fingerprint string        `json:"fingerprint"` // digest of what a login needs; see accounts.Account
	Next        time.Time     `json:"next"`        // when the account is due, by the clock of NATS
	Every       time.Duration `json:"every"`       // current interval between polls
	Polled      time.Time     `json:"polled"`      // time of the last poll
	Total       int64         `json:"total"`       // number of messages delivered

	Fails   int       `json:"fails"`   // number of failed polls in a row
	Crashes int       `json:"crashes"` // number of polls in a row in which the worker died
	Code    string    `json:"code"`    // short name of the last error; see codeOf
	Error   string    `json:"error"`   // text of the last error
	Aside   bool      `json:"aside"`   // true if the account is not polled until it is released or its login changes
	Removed time.Time `json:"removed"` // when the account was found missing in the accounts file, or zero

	fields map[string]json.RawMessage // all fields, if a later version has written the record
}

// recordOf reads a record from the bucket.
func recordOf(kve jetstream.KeyValueEntry) (r Record, err error) {
	if err = json.Unmarshal(kve.Value(), &r); err == nil && (accounts.KeyOf(r.Account) != kve.Key() || r.Host == "") {
		err = errors.New("its name does not belong to its key, or it has no host")
	}
	if err == nil && r.Version > recordVersion {
		err = json.Unmarshal(kve.Value(), &r.fields)
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
	if r.fields == nil {
		return value
	}
	fields := maps.Clone(r.fields)
	json.Unmarshal(value, &fields) // replaces the fields of this version
	value, _ = json.Marshal(fields)
	return value
}

// due returns when the account is due. stored is the time at which NATS stored the record, by the clock of NATS.
func (r Record) due(stored time.Time) time.Time {
	if wait := r.Next.Sub(stored); wait < 0 || wait > maxWait {
		return stored
	}
	return r.Next
}

// Again returns the record with the failures reset and the account due at once.
func (r Record) Again() Record {
	r.Aside, r.Fails, r.Crashes, r.Next = false, 0, 0, time.Time{}
	return r
}

// Crashed returns the record after a worker has died in a poll of the account. The account is due at once.
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
	First    time.Duration `default:"10m" help:"Poll new accounts within this time."`
	Min      time.Duration `default:"1m" help:"Interval between polls of busy accounts."`
	Max      time.Duration `default:"10m" help:"Interval between polls of idle accounts."`
	Backoff  time.Duration `default:"6h" help:"Longest interval after failures."`
	Refusals int           `default:"5" help:"Set an account aside after so many refused logins in a row."`
	Failures int           `default:"50" help:"Set an account aside after so many failures in a row."`
}

// An Outcome is the result of a poll.
type Outcome struct {
	Delivered int       // number of messages delivered
	More      bool      // true if a limit of the worker left messages for the next poll
	TryAgain  time.Time // earliest time for the next poll, if the server has sent one
	Failed    bool      // true if the poll ended early and delivered nothing
	Refused   bool      // true if the server refused the credentials
	Code      string    // short name of the error; see codeOf
	Error     string    // text of the error
}

// New returns the record of a new account. spread is a random number from 0 to 1, which distributes the polls of many
// accounts over time.
func (p Policy) New(a accounts.Account, now time.Time, spread float64) Record {
	return Record{Account: a.Name, Host: a.Host(), Fingerprint: a.Fingerprint, Every: p.Max,
		Next: now.Add(scale(p.First, spread))}
}

// Next returns the record after a poll that has ended at the time now. spread is a random number as for New.
func (p Policy) Next(r Record, now time.Time, o Outcome, spread float64) Record {
	r.Total += int64(o.Delivered)
	r.Polled, r.Crashes, r.Code, r.Error = now, 0, o.Code, o.Error
	if o.Failed {
		// The wait doubles with each failure. Half of it is random, because all accounts of a host may fail together.
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
