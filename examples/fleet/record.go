package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// recordVersion is the version of the records that this program writes. A later version may add fields, which are kept;
// a change that this program would misread needs a bucket with another name.
const recordVersion = 1

// longestWait is the longest believable time between two polls. A record that asks for more is due at once.
const longestWait = 8 * 24 * time.Hour

// A Record is what the fleet remembers of an account between polls, apart from its messages. The revision of its key
// identifies the next poll: the due message names it, and the report of the poll changes it.
type Record struct {
	Version     int           `json:"v"`
	Account     string        `json:"account"`
	Host        string        `json:"host"`
	Fingerprint string        `json:"fingerprint,omitzero"` // of what a login needs; see Account.fingerprint
	Next        time.Time     `json:"next"`                 // when the account is due
	Written     time.Time     `json:"written,omitzero"`     // when Next was computed, by the same clock
	Every       time.Duration `json:"every"`                // present interval, which follows the activity
	Polled      time.Time     `json:"polled,omitzero"`      // time of the last poll
	Total       int64         `json:"total,omitzero"`       // messages delivered

	Fails   int       `json:"fails,omitzero"`   // failed polls in a row
	Code    string    `json:"code,omitzero"`    // short name of the last error
	Error   string    `json:"error,omitzero"`   // last error, for people
	Aside   bool      `json:"aside,omitzero"`   // not polled until somebody releases it, or its credentials change
	Removed time.Time `json:"removed,omitzero"` // since when it is missing from the accounts file

	unknown map[string]json.RawMessage // fields that a later version has written
}

// recordOf reads a record from the bucket.
func recordOf(kve jetstream.KeyValueEntry) (Record, error) {
	var r Record
	if err := json.Unmarshal(kve.Value(), &r); err != nil {
		return Record{}, fmt.Errorf("record %s is damaged: %w", kve.Key(), err)
	}
	if keyOf(r.Account) != kve.Key() || r.Host == "" {
		return Record{}, fmt.Errorf("record %s is damaged: %w", kve.Key(), errors.New("name or host is wrong"))
	}
	if err := json.Unmarshal(kve.Value(), &r.unknown); err != nil {
		return Record{}, err
	}
	maps.DeleteFunc(r.unknown, func(name string, _ json.RawMessage) bool { return recordFields[name] })
	return r, nil
}

var recordFields = map[string]bool{
	"v": true, "account": true, "host": true, "fingerprint": true, "next": true, "written": true, "every": true,
	"polled": true, "total": true, "fails": true, "code": true, "error": true, "aside": true, "removed": true,
}

// value returns the record as the bucket stores it.
func (r Record) value() []byte {
	r.Version = max(r.Version, recordVersion)
	value, _ := json.Marshal(r) // strings, numbers and times: this cannot fail
	if len(r.unknown) == 0 {
		return value
	}
	all := maps.Clone(r.unknown)
	var own map[string]json.RawMessage
	json.Unmarshal(value, &own)
	maps.Copy(all, own)
	value, _ = json.Marshal(all)
	return value
}

// due returns when the account is due by the clock of NATS, which wrote the record at the given time. The clock of the
// worker that computed Next may be wrong, but not the wait between Written and Next.
func (r Record) due(stored time.Time) time.Time {
	wait := r.Next.Sub(stored)
	if !r.Written.IsZero() {
		wait = r.Next.Sub(r.Written)
	}
	if wait < 0 || wait > longestWait {
		wait = 0
	}
	return stored.Add(wait)
}
