package main

import (
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Record is what is remembered of an account from poll to poll, but for its messages. The revision under which it
// is stored names a poll: it is the number of the due message, and changes when the poll was reported.
type Record struct {
	Account string        `json:"account"`
	Host    string        `json:"host"`
	Next    time.Time     `json:"next"`            // when it is due
	Every   time.Duration `json:"every"`           // the present interval, which follows the activity
	Polled  time.Time     `json:"polled,omitzero"` // last
	Total   int64         `json:"total,omitzero"`  // messages delivered

	Fails int    `json:"fails,omitzero"` // polls in a row that failed
	Code  string `json:"code,omitzero"`  // of the last error
	Error string `json:"error,omitzero"` // the last one, for people
	Aside bool   `json:"aside,omitzero"` // not polled until somebody has looked at it
}

// recordOf reads the value of a bucket. A damaged one counts as due, and is written anew by its poll.
func recordOf(kve jetstream.KeyValueEntry) Record {
	var r Record
	if json.Unmarshal(kve.Value(), &r) != nil {
		return Record{}
	}
	return r
}

func (r Record) value() []byte {
	value, _ := json.Marshal(r) // of strings, numbers and times: it can't fail
	return value
}
