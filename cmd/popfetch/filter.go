package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/mailheader"
)

// A filter decides about the messages that match all of its conditions.
type filter struct {
	Do      string      `toml:"do" oneof:"fetch skip leave"`
	From    string      `toml:"from"` // a text that the From field contains; case is ignored
	To      string      `toml:"to"`   // a text that the To or Cc field contains
	Subject string      `toml:"subject"`
	Header  headerField `toml:"header"`
	Larger  amount      `toml:"larger"`
	Older   span        `toml:"older"`
}

var decisions = map[string]fetch.Decision{"fetch": fetch.Fetch, "skip": fetch.Skip, "leave": fetch.Leave}

// A headerField is the name of a header field and a text that the field must contain, as in "List-Id: golang-nuts".
type headerField struct{ name, text string }

func (h *headerField) read(v any) error {
	text, _ := v.(string)
	name, contained, ok := strings.Cut(text, ":")
	if !ok || strings.TrimSpace(name) == "" {
		return errors.New(`a field and what it contains, as in "List-Id: golang-nuts"`)
	}
	*h = headerField{strings.TrimSpace(name), strings.TrimSpace(contained)}
	return nil
}

// filters are the filters of an account. The first filter that matches a message decides about it.
type filters []filter

// fill reads the tables [[account.filter]].
func (f *filters) fill(r *reader, t table, v any) {
	tables, ok := v.([]any)
	for i, element := range tables {
		values, isTable := element.(map[string]any)
		ok = ok && isTable
		filterTable := table{values, fmt.Sprintf("%s.filter[%d]", t.path, i),
			fmt.Sprintf("%sfilter number %d: ", t.title, i+1)}
		var next filter
		r.fill(&next, filterTable)
		if _, isSet := values["do"]; !isSet {
			r.mistake(filterTable, "", `add do = "fetch", "skip" or "leave"`)
		}
		*f = append(*f, next)
	}
	if !ok {
		r.mistake(t, "filter", "a filter is a table that begins with [[account.filter]]")
	}
}

// selector returns a function for fetch.Fetcher.Select. For each message that the function decides about, it stores the
// sender and the subject in descriptions.
func (f filters) selector(descriptions map[fetch.Item]string) func(context.Context, fetch.Item, []byte) fetch.Decision {
	return func(_ context.Context, item fetch.Item, header []byte) fetch.Decision {
		if header == nil {
			return fetch.WantHeader
		}
		fields := mailheader.Parse(header)
		sender, subject := clean(decoded(fields.Get("From"))), clean(decoded(fields.Get("Subject")))
		descriptions[item] = fmt.Sprintf(" from %s, %q", cmp.Or(sender, "nobody"), subject)
		return f.decide(fields, item.Size, time.Now())
	}
}

// decide returns the decision about a message.
func (f filters) decide(header mail.Header, size int64, now time.Time) fetch.Decision {
	for _, candidate := range f {
		if candidate.matches(header, size, now) {
			return decisions[candidate.Do]
		}
	}
	return fetch.Fetch
}

func (f filter) matches(header mail.Header, size int64, now time.Time) bool {
	date, err := header.Date()
	switch {
	case f.From != "" && !contains(header, f.From, "From"),
		f.To != "" && !contains(header, f.To, "To", "Cc"),
		f.Subject != "" && !contains(header, f.Subject, "Subject"),
		f.Header.name != "" && !contains(header, f.Header.text, f.Header.name),
		f.Larger > 0 && size <= int64(f.Larger),
		f.Older.Duration > 0 && (err != nil || now.Sub(date) <= f.Older.Duration):
		return false
	}
	return true
}

// contains reports whether one of the header fields with these names contains text. It ignores case.
func contains(header mail.Header, text string, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return slices.ContainsFunc(header[textproto.CanonicalMIMEHeaderKey(name)], func(value string) bool {
			return strings.Contains(strings.ToLower(decoded(value)), strings.ToLower(text))
		})
	})
}

// decoded returns a header field with its encoded words decoded (RFC 2047).
func decoded(value string) string {
	if text, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
		return text
	}
	return value
}
