package main

import (
	"strings"
	"time"
)

// A Policy decides when an account is polled next.
type Policy struct {
	Min, Max time.Duration // interval of a busy account, and of an idle one
	Backoff  time.Duration // longest wait after failures
	Refusals int           // refused logins in a row after which an account is set aside
	Failures int           // failures of any kind in a row after which an account is set aside
}

// DefaultPolicy suits most servers.
var DefaultPolicy = Policy{
	Min: time.Minute, Max: 10 * time.Minute, Backoff: 6 * time.Hour, Refusals: 5, Failures: 50,
}

// An Outcome is the result of a poll.
type Outcome struct {
	Delivered int
	More      bool      // a limit of ours left messages for the next poll
	TryAgain  time.Time // earliest next poll, says the server
	Failed    bool      // nothing could be done
	Refused   bool      // the server refused the credentials
	Crashed   bool      // workers died again and again in this poll
	Code      string    // short name of the error
	Err       error
}

// First spreads the first polls of new accounts over an interval. spread is random, from 0 to 1, here and below.
func (p Policy) First(r Record, now time.Time, spread float64) Record {
	r.Every, r.Written = p.Max, now
	r.Next = now.Add(scale(p.Max, spread))
	return r
}

// Again makes an account due now, with its failures forgotten.
func (p Policy) Again(r Record, now time.Time) Record {
	r.Aside, r.Fails, r.Next, r.Written = false, 0, now, now
	return r
}

// Next returns the record after a poll that ended now.
func (p Policy) Next(r Record, now time.Time, o Outcome, spread float64) Record {
	r.Total += int64(o.Delivered)
	r.Polled, r.Written = now, now
	r.Code, r.Error = o.Code, shorten(o.Err)
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
	r.Aside = o.Crashed || o.Refused && r.Fails >= p.Refusals || r.Fails >= p.Failures
	return r
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

// shorten returns the text of an error as a record keeps it: one line of at most 500 bytes.
func shorten(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\n", "; "), "")
	if len(text) > 500 {
		return strings.ToValidUTF8(text[:500], "")
	}
	return text
}
