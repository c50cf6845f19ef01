package sasl

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// A secret is a value that nothing can print. The methods of hidden are not enough: fmt does not
// call them on a mechanism in an unexported field of somebody's struct, and prints the fields of
// the mechanism if the verb does not fit. Nor do the programs that show what differs between two
// values. Into a func, none of them can look.
type secret[T any] func() T

func keep[T any](v T) secret[T] {
	return func() T { return v }
}

// hidden is embedded in every mechanism and answers for it when it is printed, logged or
// marshalled.
type hidden struct {
	mech string // as it goes on the wire: "SCRAM-SHA-256"
}

// String names the mechanism, as in "sasl.Client(PLAIN)".
func (h hidden) String() string { return "sasl.Client(" + h.mech + ")" }

// GoString is String: %#v would otherwise print the fields.
func (h hidden) GoString() string { return h.String() }

// Format is String for every verb: %d and %x would otherwise reach the fields.
func (h hidden) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, h.String()) }

// LogValue is String, for log/slog.
func (h hidden) LogValue() slog.Value { return slog.StringValue(h.String()) }

// MarshalJSON is String, as a JSON string.
func (h hidden) MarshalJSON() ([]byte, error) { return json.Marshal(h.String()) }
