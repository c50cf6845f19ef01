package fetch

import (
	"bytes"
	"context"
	"io"
	"net/mail"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/mailheader"
)

// A Decision is the result of Fetcher.Select for a message.
type Decision int

const (
	Fetch      Decision = iota // retrieve and store it
	Skip                       // never fetch the message, never delete it, and do not ask again
	Leave                      // do not fetch the message in this run, and ask again in the next one
	WantHeader                 // ask again with the header of the message
)

// NotBefore returns a function for Fetcher.Select that skips messages older than t. It takes the date from the topmost
// Received field, which the server itself has written. If there is no Received field, it uses the Date field. A
// message without a valid date is fetched.
func NotBefore(t time.Time) func(context.Context, Item, []byte) Decision {
	return func(_ context.Context, _ Item, header []byte) Decision {
		if header == nil {
			return WantHeader
		}
		if date, err := dateOf(header); err == nil && date.Before(t) {
			return Skip
		}
		return Fetch
	}
}

// dateOf returns the date when a message was received. If the header does not contain it, dateOf returns the date when
// the message was written.
func dateOf(header []byte) (time.Time, error) {
	fields := mailheader.Parse(header)
	if received := fields["Received"]; len(received) > 0 {
		at := strings.LastIndex(received[0], ";")
		if date, err := mail.ParseDate(strings.TrimSpace(received[0][at+1:])); err == nil {
			return date, nil
		}
	}
	return fields.Date()
}

// callSelect calls Select for the new messages.
func (s *session) callSelect(ctx context.Context, caps pop3.Capabilities) error {
	if s.Select == nil {
		return nil
	}
	all, wantHeader := s.plan.toStore, []*message(nil)
	s.plan.toStore = nil
	for _, m := range all {
		if d := s.Select(ctx, m.Item, nil); d == WantHeader {
			wantHeader = append(wantHeader, m)
		} else {
			s.applyDecision(m, d)
		}
	}
	headers, err := s.headers(ctx, caps, wantHeader)
	if err != nil {
		return err
	}
	for _, m := range wantHeader {
		if header := headers[m]; header != nil {
			s.applyDecision(m, s.Select(ctx, m.Item, header))
		} else {
			m.selectAtRetr = true
			s.plan.toStore = append(s.plan.toStore, m)
		}
	}
	return s.saveDecisions(ctx, all)
}

// applyDecision carries out a decision. If the message must be fetched, applyDecision adds it to the plan.
func (s *session) applyDecision(m *message, d Decision) {
	switch {
	case d == Skip && m.group.isSingle():
		m.fate = knownBefore
		if !s.DryRun {
			e := s.entryOf(m)
			e.Skipped = time.Now()
			s.counted[e] = true
		}
		s.yieldResult(Result{Item: m.Item, Outcome: Skipped, Err: ErrNotSelected})
	case d == Skip || d == Leave:
		m.skip(ErrNotSelected)
		if !s.DryRun {
			s.entryOf(m)
		}
	default:
		s.plan.toStore = append(s.plan.toStore, m)
	}
}

// saveDecisions saves which messages Select has skipped or left.
func (s *session) saveDecisions(ctx context.Context, messages []*message) error {
	var entries []*Entry
	for _, m := range messages {
		if (m.fate == knownBefore || m.fate == unselected) && m.entry != nil {
			entries = append(entries, m.entry)
		}
	}
	return s.record.save(ctx, entries...)
}

// maxHeader is the size of the longest header that Select gets; a longer one is cut off.
const maxHeader = 256 << 10

// headers requests headers with TOP and returns them by message. If the server does not have TOP, headers returns none.
func (s *session) headers(
	ctx context.Context, caps pop3.Capabilities, messages []*message,
) (headers map[*message][]byte, err error) {
	headers = make(map[*message][]byte)
	if s.noTop || caps != nil && !caps.Has("TOP") {
		return headers, nil
	}
	nums := make([]int, len(messages))
	for i, m := range messages {
		nums[i] = m.Num
	}
	next := 0
	for top, err := range s.c.Tops(ctx, 0, nums...) {
		if top == nil {
			s.noTop = true
			return headers, s.recordLoss(ctx, err)
		}
		if err == nil {
			header, _ := io.ReadAll(io.LimitReader(top, maxHeader)) // the loop yields the error
			s.report.Octets += int64(len(header))
			headers[messages[next]] = header[:endOfHeader(header)]
		}
		next++
	}
	return headers, nil
}

// endOfHeader returns the length of the header, with the blank line after it.
func endOfHeader(text []byte) int {
	for _, blank := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(text, []byte(blank)); i >= 0 {
			return i + len(blank)
		}
	}
	return len(text)
}

// selectAtRetr calls Select with the beginning of a message that is being retrieved, if the server has no TOP. It does
// the same for a message without a unique-id of its own, which may be stored already.
func (s *session) selectAtRetr(ctx context.Context, m *message, b *body) Decision {
	if !m.selectAtRetr && (s.Select == nil || !m.compare || m.group.isSingle()) {
		return Fetch
	}
	header, err := b.readHeader()
	if err != nil && err != io.EOF {
		return Fetch // the message was stored before, or is incomplete
	}
	if d := s.Select(ctx, m.Item, header); d == Skip || d == Leave {
		return d
	}
	return Fetch
}

// readHeader reads the header before the sink reads the message.
func (b *body) readHeader() ([]byte, error) {
	var beginning []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := b.Read(buf)
		beginning = append(beginning, buf[:n]...)
		if end := endOfHeader(beginning); end < len(beginning) || err != nil || len(beginning) >= maxHeader {
			b.unread = beginning
			return beginning[:end], err
		}
	}
}
