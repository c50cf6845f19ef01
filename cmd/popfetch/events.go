package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// events is a display for machines: a JSON object on a line for each event. Keys are only ever added.
type events struct {
	nothing
	mu  sync.Mutex
	out *json.Encoder
}

func newEvents(w io.Writer) *events {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	return &events{out: out}
}

// An event is something that happened: "begin" and "end" of a run, a "message", a "wait" for the next run.
type event struct {
	Time    time.Time     `json:"time"`
	Account string        `json:"account"`
	Event   string        `json:"event"`
	Error   string        `json:"error,omitempty"`
	Until   time.Time     `json:"until,omitzero"` // of a wait
	Message *messageEvent `json:"message,omitempty"`
	Report  *reportEvent  `json:"report,omitempty"`
}

type messageEvent struct {
	Num     int    `json:"num"`
	UID     string `json:"uid"`
	Size    int64  `json:"size"`   // as the server claims
	Octets  int64  `json:"octets"` // that came
	Outcome string `json:"outcome"`
}

type reportEvent struct {
	Listed      int       `json:"listed"`
	Known       int       `json:"known"`
	Delivered   int       `json:"delivered"`
	Octets      int64     `json:"octets"`
	Deleted     int       `json:"deleted"`
	Unconfirmed int       `json:"unconfirmed"`
	Skipped     int       `json:"skipped"`
	Problems    int       `json:"problems"`
	TryAgain    time.Time `json:"try_again,omitzero"`
}

// emit writes an event. There is nobody to tell if it can't be written.
func (e *events) emit(a *account, v event) {
	v.Time, v.Account = time.Now(), a.Name
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.out.Encode(v)
}

func (e *events) begin(a *account) { e.emit(a, event{Event: "begin"}) }

func (e *events) message(a *account, r fetch.Result) {
	m := &messageEvent{Num: r.Num, UID: r.UID, Size: r.Size, Octets: r.Octets, Outcome: r.Outcome.String()}
	e.emit(a, event{Event: "message", Error: errorText(r.Err), Message: m})
}

func (e *events) end(a *account, r fetch.Report) {
	e.emit(a, event{Event: "end", Error: errorText(r.Err), Report: &reportEvent{
		Listed: r.Listed, Known: r.Known, Delivered: r.Delivered, Octets: r.Octets, Deleted: r.Deleted,
		Unconfirmed: r.Unconfirmed, Skipped: len(r.Skipped), Problems: len(r.Problems), TryAgain: r.TryAgain,
	}})
}

func (e *events) wait(a *account, until time.Time) { e.emit(a, event{Event: "wait", Until: until}) }

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
