package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types of values in the configuration, which the parser fills through UnmarshalText, so that a mistake is
// reported with its line.

// A word is one of a few strings. It is a struct because the parser sets a string without UnmarshalText.
type word[T words] struct{ is T }

type words interface {
	~string
	all() []string
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (w *word[T]) UnmarshalText(text []byte) error {
	if all := w.is.all(); !slices.Contains(all, string(text)) {
		return fmt.Errorf("it is one of %q", all)
	}
	w.is = T(text)
	return nil
}

// A tlsMode is how a connection is encrypted.
type tlsMode string

const (
	tlsImplicit tlsMode = "implicit" // from the first octet
	tlsStart    tlsMode = "starttls"
	tlsNone     tlsMode = "none"
)

func (tlsMode) all() []string {
	return []string{string(tlsImplicit), string(tlsStart), string(tlsNone)}
}

// A lineEnd is what lines are stored with.
type lineEnd string

const (
	lineEndLF   lineEnd = "lf"
	lineEndCRLF lineEnd = "crlf"
)

func (lineEnd) all() []string { return []string{string(lineEndLF), string(lineEndCRLF)} }

// A pipelineMode is a [pop3.Pipelining].
type pipelineMode string

func (pipelineMode) all() []string { return []string{"auto", "never", "always"} }

// A deletePolicy is when messages are deleted from the server: never, or some time after they were stored.
type deletePolicy struct {
	delete bool
	after  time.Duration
}

func (p *deletePolicy) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "never":
		*p = deletePolicy{}
	case "after delivery":
		*p = deletePolicy{delete: true}
	default:
		number, unit, _ := strings.Cut(s, " ")
		days, err := strconv.ParseUint(number, 10, 15)
		if err != nil || days == 0 || unit != "days" && unit != "day" {
			return fmt.Errorf(`it is "never", "after delivery" or as in "14 days"`)
		}
		*p = deletePolicy{delete: true, after: time.Duration(days) * 24 * time.Hour}
	}
	return nil
}

// A span is a time, as in "90s" or "1h30m".
type span struct{ time.Duration }

func (d *span) UnmarshalText(text []byte) (err error) {
	if d.Duration, err = time.ParseDuration(string(text)); err != nil || d.Duration <= 0 {
		return fmt.Errorf(`it is a time above zero, as in "30s", "10m" or "1h30m"`)
	}
	return nil
}

// An amount is a number of octets, as in 100000 or "25 MB".
type amount int64

var amountUnits = map[string]int64{"": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}

func (n *amount) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "kKMGB ")
	unit, known := amountUnits[strings.TrimSpace(string(text)[len(digits):])]
	value, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || !known || value < 1 {
		return fmt.Errorf(`it is a number of octets, as in 100000 or "25 MB"`)
	}
	*n = amount(value * unit)
	return nil
}
