package sasl

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// hidden is embedded in every mechanism and answers for it when it is printed, logged or marshalled, so that the
// secret beside it stays where it is. A mechanism is handed out as a pointer: fmt calls no methods on the unexported
// fields of a stranger's struct, and there it prints no more than the address.
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
