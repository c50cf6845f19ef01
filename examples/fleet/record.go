package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// recordVersion is the version of the records that this program writes. A later version that adds fields raises it, and
// this program keeps them. A change that this program would misread needs a bucket with another name.
const recordVersion = 1

// longestWait is the longest believable time between two polls. A record that asks for more is due at once.
const longestWait = 8 * 24 * time.Hour

// A Record is what the fleet remembers of an account between polls, apart from its messages. The revision of its key
// identifies the next poll: the grant names it, and the report of the poll replaces it.
type Record struct {
	Version     int           `json:"v"`
	Account     string        `json:"account"`
	Host        string        `json:"host"`
	Fingerprint string        `json:"fingerprint"` // of what a login needs; see Account.fingerprint
	Next        time.Time     `json:"next"`        // when the account is due, by the clock of NATS
	Every       time.Duration `json:"every"`       // present interval, which follows the activity
	Polled      time.Time     `json:"polled"`      // time of the last poll
	Total       int64         `json:"total"`       // messages delivered

	Fails   int       `json:"fails"`   // failed polls in a row
	Crashes int       `json:"crashes"` // workers in a row that died in a poll
	Code    string    `json:"code"`    // short name of the last error
	Error   string    `json:"error"`   // last error, for people
	Aside   bool      `json:"aside"`   // not polled until somebody releases it, or its credentials change
	Removed time.Time `json:"removed"` // since when it is missing from the accounts file

	later map[string]json.RawMessage // all fields, if a later version has written them
}

// recordOf reads a record from the bucket.
func recordOf(kve jetstream.KeyValueEntry) (r Record, err error) {
	if err = json.Unmarshal(kve.Value(), &r); err == nil && (keyOf(r.Account) != kve.Key() || r.Host == "") {
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
	value, _ := json.Marshal(r) // strings, numbers and times: this cannot fail
	if r.later == nil {
		return value
	}
	fields := maps.Clone(r.later)
	json.Unmarshal(value, &fields) // replaces those that this version knows
	value, _ = json.Marshal(fields)
	return value
}

// due returns when the account is due. The record was stored at a time by the clock of NATS.
func (r Record) due(stored time.Time) time.Time {
	if wait := r.Next.Sub(stored); wait < 0 || wait > longestWait {
		return stored
	}
	return r.Next
}
