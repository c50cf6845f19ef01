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

// A tlsMode is how a connection is encrypted.
type tlsMode string

const (
	tlsImplicit tlsMode = "implicit" // from the first octet
	tlsStart    tlsMode = "starttls"
	tlsNone     tlsMode = "none"
)

func (m *tlsMode) UnmarshalText(text []byte) error {
	return oneOf((*string)(m), text, string(tlsImplicit), string(tlsStart), string(tlsNone))
}

// A lineEnd is what lines are stored with.
type lineEnd string

const (
	lineEndLF   lineEnd = "lf"
	lineEndCRLF lineEnd = "crlf"
)

func (e *lineEnd) UnmarshalText(text []byte) error {
	return oneOf((*string)(e), text, string(lineEndLF), string(lineEndCRLF))
}

// A pipelineMode is a pop3.Pipelining.
type pipelineMode string

func (m *pipelineMode) UnmarshalText(text []byte) error {
	return oneOf((*string)(m), text, "auto", "never", "always")
}

// oneOf sets a string to text, if that is one of words.
func oneOf(to *string, text []byte, words ...string) error {
	if !slices.Contains(words, string(text)) {
		return fmt.Errorf("it is one of %q", words)
	}
	*to = string(text)
	return nil
}

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
