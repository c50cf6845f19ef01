package main

import (
	"strings"
	"time"
)

// A Policy says when a maildrop is polled next.
type Policy struct {
	Min, Max time.Duration // the interval of a busy maildrop, and that of an idle one
	Backoff  time.Duration // the longest wait after failures
	Refusals int           // logins refused in a row, after which the account goes aside
	Failures int           // failures of any kind in a row, after which it does
}

// DefaultPolicy suits most servers.
var DefaultPolicy = Policy{
	Min: time.Minute, Max: 10 * time.Minute, Backoff: 6 * time.Hour, Refusals: 5, Failures: 50,
}

// An Outcome is what a poll came to.
type Outcome struct {
	Delivered int
	More      bool      // left for the next poll by a limit of ours
	TryAgain  time.Time // not before, says the server
	Locked    bool      // another worker is at it, which will report
	Away      bool      // NATS was, so that something could not be stored or noted
	Failed    bool      // nothing could be done
	Refused   bool      // the login was, and it is about the account
	Code      string    // of the error
	Err       error
}

// First spreads the first polls over an interval. spread is at random from 0 to 1, here and below.
func (p Policy) First(r Record, now time.Time, spread float64) Record {
	r.Every = p.Max
	r.Next = now.Add(scale(p.Max, spread))
	return r
}

// Next gives the record after a poll that ended now.
func (p Policy) Next(r Record, now time.Time, o Outcome, spread float64) Record {
	r.Total += int64(o.Delivered)
	if o.Locked || o.Away {
		r.Next = o.TryAgain
		return r
	}
	r.Polled = now
	r.Code, r.Error = o.Code, words(o.Err)
	if o.Failed {
		r = p.fail(r, now, o, spread)
	} else {
		r.Fails = 0
		r.Every = p.every(r.Every, o)
		r.Next = now.Add(scale(r.Every, 0.9+spread/5))
		if o.More {
			r.Next = now
		}
	}
	if r.Next.Before(o.TryAgain) { // LOGIN-DELAY and the like bind, whatever we want
		r.Next = o.TryAgain
	}
	return r
}

// every is the interval that follows from activity: short at once where there is mail, then slowly longer.
func (p Policy) every(last time.Duration, o Outcome) time.Duration {
	if o.Delivered > 0 {
		return p.Min
	}
	return min(max(last+last/2, p.Min), p.Max)
}

// fail waits twice as long after each failure, with the most of it at random: all accounts of a host fail together.
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

// words are what is kept of an error: enough for people, not a log.
func words(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\n", "; "), "")
	if len(text) > 500 {
		return strings.ToValidUTF8(text[:500], "")
	}
	return text
}
