package main

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// eventsVersion must be increased when a field is removed or changes its meaning. It stays the same when a field is
// added.
const eventsVersion = 1

// events is a display for programs. It writes a JSON object on a line of its own for each event. README.md explains
// the fields.
type events struct {
	mu  sync.Mutex
	out output
}

// An event is the "begin" or "end" of a run, a "message", a "wait" for the next run, or a "note" or "warning" about
// popfetch itself.
type event struct {
	Version int           `json:"v"`
	Time    time.Time     `json:"time"`
	Account string        `json:"account,omitempty"`
	Event   string        `json:"event"`
	Text    string        `json:"text,omitempty"`
	Error   string        `json:"error,omitempty"`
	Until   time.Time     `json:"until,omitzero"`
	Message *messageEvent `json:"message,omitempty"`
	Report  *reportEvent  `json:"report,omitempty"`
}

type messageEvent struct {
	Num     int    `json:"num"`
	UID     string `json:"uid"`
	Size    int64  `json:"size"`
	Octets  int64  `json:"octets"`
	Outcome string `json:"outcome"`
	About   string `json:"about,omitempty"`
}

type reportEvent struct {
	Listed      int       `json:"listed"`
	Known       int       `json:"known"`
	Delivered   int       `json:"delivered"`
	Octets      int64     `json:"octets"`
	Deleted     int       `json:"deleted"`
	Unconfirmed int       `json:"unconfirmed"`
	Kept        keptEvent `json:"kept"`
	Skipped     int       `json:"skipped"`
	Problems    int       `json:"problems"`
	TryAgain    time.Time `json:"try_again,omitzero"`
}

type keptEvent struct {
	DeleteOff  int `json:"delete_off"`
	KeepFor    int `json:"keep_for"`
	PassedOver int `json:"passed_over"`
	Short      int `json:"short"`
	NotDeleted int `json:"not_deleted"`
	Ambiguous  int `json:"ambiguous"`
}

func (e *events) emit(account string, v event) {
	v.Version, v.Time, v.Account = eventsVersion, time.Now(), account
	e.mu.Lock()
	defer e.mu.Unlock()
	encoder := json.NewEncoder(&e.out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // the output keeps the error of the write
}

func (e *events) begin(a *account)                  { e.emit(a.Name, event{Event: "begin"}) }
func (e *events) progress(*account, fetch.Progress) {}

func (e *events) message(a *account, r fetch.Result, about string) {
	m := &messageEvent{About: about, Num: r.Num, UID: r.UID, Size: r.Size, Octets: r.Octets,
		Outcome: r.Outcome.String()}
	e.emit(a.Name, event{Event: "message", Error: errorText(r.Err), Message: m})
}

func (e *events) end(a *account, r fetch.Report) {
	e.emit(a.Name, event{Event: "end", Error: errorText(r.Err), Report: &reportEvent{
		Listed: r.Listed, Known: r.Known, Delivered: r.Delivered, Octets: r.Octets, Deleted: r.Deleted,
		Unconfirmed: r.Unconfirmed, Kept: keptEvent(r.Kept), Skipped: len(r.Skipped),
		Problems: len(r.Problems), TryAgain: r.TryAgain,
	}})
}

func (e *events) wait(a *account, until time.Time) {
	e.emit(a.Name, event{Event: "wait", Until: until})
}
func (e *events) note(text string) { e.emit("", event{Event: "note", Text: text}) }
func (e *events) warn(text string) { e.emit("", event{Event: "warning", Text: text}) }
func (e *events) close() error     { return e.out.err }

func errorText(err error) string { return strings.Join(errorLines(err), "; ") }
