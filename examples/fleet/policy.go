package main

import (
	"fmt"
	"strings"
	"time"
)

// A Policy decides when an account is polled next.
type Policy struct {
	First    time.Duration `default:"10m" help:"New accounts are polled within this time."`
	Min      time.Duration `default:"1m" help:"Interval of busy accounts."`
	Max      time.Duration `default:"10m" help:"Interval of idle accounts."`
	Backoff  time.Duration `default:"6h" help:"Longest wait after failures."`
	Refusals int           `default:"5" help:"Refused logins in a row after which an account is set aside."`
	Failures int           `default:"50" help:"Failures in a row after which an account is set aside."`
}

// maxCrashes is how many workers may die in a poll before the account is set aside as the cause.
const maxCrashes = 5

// An Outcome is the result of a poll.
type Outcome struct {
	Delivered int
	More      bool      // a limit of ours left messages for the next poll
	TryAgain  time.Time // earliest next poll, says the server
	Failed    bool      // nothing could be done
	Refused   bool      // the server refused the credentials
	Code      string    // short name of the error
	Error     string
}

// New returns the record of a new account. spread is random, from 0 to 1, here and below: it spreads polls over time.
func (p Policy) New(a Account, now time.Time, spread float64) Record {
	return Record{Account: a.Name, Host: a.Host(), Fingerprint: a.print, Every: p.Max,
		Next: now.Add(scale(p.First, spread))}
}

// Again returns the record of an account that is due now, with its failures forgotten.
func (p Policy) Again(r Record, now time.Time) Record {
	r.Aside, r.Fails, r.Crashes, r.Next = false, 0, 0, now
	return r
}

// Next returns the record after a poll that ended now.
func (p Policy) Next(r Record, now time.Time, o Outcome, spread float64) Record {
	r.Total += int64(o.Delivered)
	r.Polled, r.Crashes, r.Code, r.Error = now, 0, o.Code, o.Error
	switch {
	case o.Failed:
		r = p.fail(r, now, o, spread)
	case o.More:
		r.Fails, r.Every, r.Next = 0, p.interval(r.Every, o), now
	default:
		r.Fails, r.Every = 0, p.interval(r.Every, o)
		r.Next = now.Add(scale(r.Every, 0.9+spread/5))
	}
	if r.Next.Before(o.TryAgain) { // LOGIN-DELAY takes precedence over our intervals
		r.Next = o.TryAgain
	}
	return r
}

// Crashed returns the record after a worker has died in a poll.
func (p Policy) Crashed(r Record, now time.Time) Record {
	r.Crashes++
	r.Next = now
	if r.Crashes >= maxCrashes {
		r.Aside, r.Code = true, "crashed"
		r.Error = fmt.Sprintf("%d workers died in this poll; the error before: %q", r.Crashes, r.Error)
	}
	return r
}

// interval returns the shortest interval after new mail, and a longer one after each poll without.
func (p Policy) interval(last time.Duration, o Outcome) time.Duration {
	if o.Delivered > 0 {
		return p.Min
	}
	return min(max(last+last/2, p.Min), p.Max)
}

// fail doubles the wait after each failure. Half of it is random, because all accounts of a host fail together.
func (p Policy) fail(r Record, now time.Time, o Outcome, spread float64) Record {
	r.Fails++
	wait := p.Min
	for n := 1; n < r.Fails && wait < p.Backoff; n++ {
		wait *= 2
	}
	r.Next = now.Add(scale(min(wait, p.Backoff), 0.5+spread/2))
	r.Aside = o.Refused && r.Fails >= p.Refusals || r.Fails >= p.Failures
	return r
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

// shorten returns the text of an error as a record keeps it: one line of at most 500 bytes.
func shorten(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}
