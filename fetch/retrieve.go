package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// A budget is how much of MaxMessages and MaxOctets was used.
type budget struct {
	messages int
	octets   int64
}

// retrieve brings messages to the sink, within a budget. An error ends the run.
func (s *session) retrieve(ctx context.Context, list []*message, b *budget) error {
	if len(list) > 0 {
		if err := s.checkRecord(ctx, list[0]); err != nil {
			return err
		}
	}
	for len(list) > 0 && s.goesOn() {
		part := s.affordable(list, b)
		if len(part) == 0 {
			for _, m := range list {
				m.fate = overLimit
			}
			return nil
		}
		begin := time.Now()
		done, err := s.retrieveAtOnce(ctx, part, b)
		if err != nil {
			return err
		}
		s.pace = time.Since(begin) / time.Duration(max(1, done))
		list = list[done:]
		for ; len(s.again) > 0 && s.goesOn(); s.again = s.again[1:] {
			s.single = true
			if err := s.retrieveOne(ctx, s.again[0], b); err != nil {
				return err
			}
		}
	}
	return nil
}

// goesOn reports whether further messages can be retrieved in this session.
func (s *session) goesOn() bool { return s.end == open && !s.stopped }

// checkRecord makes sure, once in a run, that something can be saved: a message that is delivered and cannot be
// remembered would be delivered again in each run.
func (s *session) checkRecord(ctx context.Context, m *message) error {
	if s.recordWorks {
		return nil
	}
	s.recordWorks = true
	isNew := m.entry == nil
	e := s.entryOf(m)
	if err := s.record.save(ctx, e); err != nil || !isNew || m.group.isSingle() {
		return err
	}
	m.entry = nil // a message without a unique-id of its own gets an entry when its content is known
	return s.record.forget(ctx, e)
}

// How many messages are asked for at once: a few at first, then as many as are dealt with in a second, so that a
// server that measures the time between commands does not think that nobody is there.
const (
	firstAhead  = 1
	aheadPeriod = time.Second
)

// affordable returns the messages at the front of the list that are to be asked for at once, and are within the
// budget.
func (s *session) affordable(list []*message, b *budget) []*message {
	n := firstAhead
	if s.pace > 0 {
		n = int(min(aheadPeriod/s.pace, 1<<20))
	} else if s.asked > 0 {
		n = len(list)
	}
	n = max(1, min(n, len(list)))
	octets := b.octets
	for i, m := range list[:n] {
		messages := b.messages + i
		if s.MaxMessages > 0 && messages >= s.MaxMessages ||
			s.MaxOctets > 0 && messages > 0 && m.Size > s.MaxOctets-octets ||
			i > 0 && (s.oneByOne || m.alone || list[0].alone) {
			return list[:i]
		}
		octets += max(0, m.Size)
	}
	return list[:n]
}

// retrieveAtOnce asks for messages ahead of replies, if the server pipelines, and returns how many of them it has dealt
// with. After a refusal the others are asked for again, one by one: it may be a reply too many, and then all that
// follow belong to other messages.
func (s *session) retrieveAtOnce(ctx context.Context, part []*message, b *budget) (done int, err error) {
	s.asked, s.single = max(s.asked, len(part)), len(part) == 1
	if s.single {
		return 1, s.retrieveOne(ctx, part[0], b)
	}
	nums := make([]int, len(part))
	for i, m := range part {
		nums[i] = m.Num
	}
	defer s.dropStaged()
	cut := false
	for m, refusal := range s.c.Messages(ctx, nums...) {
		if m == nil {
			if err = s.place(ctx); err == nil {
				err = s.lose(ctx, part, done, cut, refusal)
			}
			return done, err
		}
		if refusal != nil {
			s.oneByOne = true
			break
		}
		if cut, err = s.take(ctx, part[done], m, b); err != nil {
			return done, err
		}
		if !cut {
			done++
		}
		if !s.goesOn() {
			break
		}
	}
	for _, m := range part[done:] {
		m.asked = true // it may be on its way already
	}
	if err = s.place(ctx); err == nil && s.oneByOne && s.goesOn() {
		_, err = s.inStep(ctx)
	}
	return done, err
}

// retrieveOne retrieves one message in such a way that the session can be kept alive while the sink works.
func (s *session) retrieveOne(ctx context.Context, m *message, b *budget) error {
	r, err := s.c.Retr(ctx, m.Num)
	refusal, refused := errors.AsType[*pop3.Error](err)
	switch {
	case refused && s.c.State() == pop3.StateTransaction:
		if ok, err := s.inStep(ctx); !ok {
			return err
		}
		s.advance(m, 0)
		return s.fail(ctx, m, 0, refusal)
	case err != nil:
		return s.lose(ctx, []*message{m}, 0, false, err)
	}
	cut, err := s.take(ctx, m, r, b)
	r.Close() // what is left of one that was refused; after an error the state tells
	switch {
	case err != nil:
		return err
	case cut:
		return s.lose(ctx, []*message{m}, 0, true, s.cut)
	case m.isOdd && s.goesOn():
		_, err = s.inStep(ctx)
	}
	return err
}

// maxLost is how many sessions in a row may be lost without a message that came.
const maxLost = 10

// lose ends a session whose connection was lost at part[next]; cut says that a part of the message came. If messages
// were asked for ahead, another one of them may have been the reason: they are tried again one by one. A server that
// hangs up after the same number of messages twice limits a session to them.
func (s *session) lose(ctx context.Context, part []*message, next int, cut bool, err error) error {
	certain := s.oneByOne || len(part) == 1
	limited := !cut && s.answered > 0 && s.answered == s.lostAfter
	if s.lostAfter = s.answered; limited {
		s.sessionLimit = s.answered
	}
	if !cut {
		if doubt := s.doubt(ctx); doubt != nil {
			return errors.Join(err, doubt)
		}
	}
	ended := s.hangUp(ctx, err)
	if _, mixedUp := errors.AsType[*pop3.ProtocolError](err); mixedUp {
		if some, failed := s.suspectOdd(ctx); some {
			return errors.Join(ended, failed)
		}
	}
	switch {
	case next == len(part) || limited || ctx.Err() != nil:
		return ended
	case certain:
		s.lost = nil // the error of the message says it
		return errors.Join(ended, s.fail(ctx, part[next], 0, err))
	}
	return errors.Join(ended, s.suspect(ctx, part[next]))
}

// hangUp takes note that the connection was lost because of err. It returns an error if no other session may follow.
func (s *session) hangUp(ctx context.Context, err error) error {
	s.end = lost
	s.oneByOne = true
	s.lost = fmt.Errorf("fetch: %w", err)
	if s.lostInRow++; ctx.Err() != nil || s.lostInRow == maxLost || s.delay > 0 {
		s.lost, err = nil, s.lost
		return err
	}
	return nil
}

// doubt marks what was delivered in this session, to be looked at again: what came may be other messages than those
// that were asked for. A server that leaves out a reply, or gives one twice, shifts all that follow, and then comes a
// wait in vain or a reply too many.
func (s *session) doubt(ctx context.Context) error {
	var entries []*Entry
	for _, m := range s.plan.all {
		if m.fate == delivered {
			m.entry.Unsure = true
			entries = append(entries, m.entry)
		}
	}
	return s.record.save(context.WithoutCancel(ctx), entries...)
}

// take deals with one message that was asked for. cut says that it was not whole because the connection was lost.
func (s *session) take(ctx context.Context, m *message, r io.Reader, b *budget) (cut bool, err error) {
	if len(s.staged) > 0 && (m.Size > maxStagedSize || time.Since(s.stagedSince) >= maxStagedTime) {
		if err := s.place(ctx); err != nil || s.stopped {
			s.unstored = true
			return false, err
		}
	}
	body := s.newBody(m, r)
	body.progress(0)
	var file *stagedFile
	d := s.choose(ctx, m, body)
	if d == Fetch {
		file, err = s.deliver(ctx, m, body)
	} else {
		s.cut = body.drop()
	}
	s.report.Octets += body.octets
	m.isOdd = body.octets != m.Size && m.Size >= 0
	if d != Fetch && body.known == nil {
		s.apply(m, d)
		m.asked = true
		return body.isCut(), s.rememberChoice(ctx, []*message{m})
	}
	if m.digest = body.digest; body.isCut() {
		s.cut = body.err
		return true, nil
	}
	if file != nil {
		err = s.hold(ctx, stagedMessage{file, m, body, b})
	} else if failure := s.place(ctx); failure != nil {
		err = failure
	} else {
		err = s.taken(ctx, m, body, b, err)
	}
	s.advance(m, body.octets)
	return false, err
}

// taken takes note of a message that came as a whole. err is that of the sink.
func (s *session) taken(ctx context.Context, m *message, body *body, b *budget, err error) error {
	switch {
	case body.known != nil:
		err = s.recognize(ctx, m, body)
	case body.err == errAgain:
		s.again, m.asked, err = append(s.again, m), true, nil
	case err == nil:
		b.messages++
		err = s.delivered(ctx, m, body)
	default:
		err = s.refused(ctx, m, body, err)
	}
	if m.isStored() {
		b.octets += body.octets
	}
	return err
}

// A stagingSink stores many small messages in a fraction of the time, since they are synced at the same time.
type stagingSink interface {
	UnsyncedSink
	stage(r io.Reader) (*stagedFile, error)
}

// A stagedMessage was retrieved, and is neither synced nor placed yet.
type stagedMessage struct {
	file   *stagedFile
	m      *message
	body   *body
	budget *budget
}

// How many messages are staged, for how long while others come, and how large they are, at most.
const (
	maxStaged     = 32
	maxStagedTime = 100 * time.Millisecond
	maxStagedSize = 64 << 10
)

// hold keeps a message until there are others to be placed with it.
func (s *session) hold(ctx context.Context, staged stagedMessage) error {
	if s.staged = append(s.staged, staged); len(s.staged) == 1 {
		s.stagedSince = time.Now()
	}
	if len(s.staged) < maxStaged && time.Since(s.stagedSince) < maxStagedTime {
		return nil
	}
	return s.place(ctx)
}

// place syncs all messages that are staged, and then stores one after the other for good.
func (s *session) place(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var syncs sync.WaitGroup
	for _, staged := range s.staged {
		syncs.Go(staged.file.sync)
	}
	syncs.Wait()
	for len(s.staged) > 0 && !s.stopped {
		next := s.staged[0]
		s.staged = s.staged[1:]
		if err := s.taken(ctx, next.m, next.body, next.budget, next.file.place()); err != nil {
			return err
		}
	}
	s.dropStaged()
	return nil
}

// dropStaged leaves what is staged to another run.
func (s *session) dropStaged() {
	for _, staged := range s.staged {
		staged.file.drop()
		s.unstored = true
	}
	s.staged = nil
}

const (
	readAhead = 256 << 10        // octets of a message that are read before the sink works, at most
	keepAlive = 10 * time.Second // between two NOOP while the sink works
)

// deliver gives a message to the sink, and reads what the sink has left of it. Where nothing else is on its way from
// the server, the session is kept alive meanwhile: a sink may take longer than the server waits for a command. A file
// is one that is still to be placed.
func (s *session) deliver(ctx context.Context, m *message, b *body) (file *stagedFile, err error) {
	if b.alone {
		if s.buffer = b.readAhead(s.buffer); b.known != nil {
			return nil, nil
		}
		if b.err == io.EOF {
			alive, cancel := context.WithCancel(ctx)
			var over sync.WaitGroup
			over.Go(func() { s.c.KeepAlive(alive, keepAlive) })
			defer over.Wait()
			defer cancel()
		}
	}
	_, lasts := s.record.history.(UnsyncedHistory) // a power cut that takes the message takes its entry too
	sink, ok := s.Sink.(UnsyncedSink)
	staging, stages := s.Sink.(stagingSink)
	s.unsynced = s.unsynced || ok && lasts
	switch {
	case stages && lasts && !b.alone && m.Size <= maxStagedSize:
		file, err = staging.stage(b)
	case ok && lasts:
		err = sink.DeliverUnsynced(ctx, m.Item, b)
	default:
		err = s.Sink.Deliver(ctx, m.Item, b)
	}
	if b.err != ErrTooLarge {
		if left := b.drop(); err == nil || b.known != nil {
			err = left
		}
	}
	if err != nil && file != nil {
		file.drop()
		file = nil
	}
	return file, err
}

// advance tells how far the run is after a message.
func (s *session) advance(m *message, octets int64) {
	s.answered++
	if s.dealtWith++; s.Progress != nil {
		s.Progress(Progress{Item: m.Item, Received: octets, Messages: s.dealtWith, AllMessages: s.allMessages,
			Octets: s.report.Octets, AllOctets: s.allOctets})
	}
}

// refused takes note of a message that came and was not stored.
func (s *session) refused(ctx context.Context, m *message, b *body, err error) error {
	s.unstored = true
	err = s.fail(ctx, m, b.octets, err)
	switch b.err {
	case ErrTooLarge: // it may go on for ever
		s.end, s.oneByOne = paused, true
	case errShifted:
		s.end, s.oneByOne = paused, true
		err = errors.Join(err, s.doubt(ctx))
	}
	return err
}

// newBody prepares a message to be read by the sink.
func (s *session) newBody(m *message, r io.Reader) *body {
	b := &body{from: r, claimed: m.Size, alone: s.single, identity: newIdentity()}
	if s.MaxSize > 0 {
		b.max = s.MaxSize
		if m.look {
			b.max = max(b.max, m.Size)
		}
	}
	b.find = func() (*Entry, bool) { return s.plan.find(m, b) }
	p := Progress{Item: m.Item, Messages: s.dealtWith, AllMessages: s.allMessages, AllOctets: s.allOctets}
	received := s.report.Octets
	b.progress = func(octets int64) {
		if s.Progress != nil {
			p.Received, p.Octets = octets, received+octets
			s.Progress(p)
		}
	}
	return b
}

// checkpoint is after how many messages the record is synced.
const checkpoint = 100

// delivered takes note of a message that the sink has stored.
func (s *session) delivered(ctx context.Context, m *message, b *body) error {
	e := m.entry
	if m.look && m.group.isSingle() && e.Header != "" && e.Header != b.header {
		s.reused = true
	}
	if e == nil || e.isKnown() || !m.group.isSingle() {
		e = &Entry{UID: m.UID}
		s.record.add(e)
	}
	*e = Entry{UID: e.UID, Copy: e.Copy, Listed: e.Listed, Size: m.Size, Octets: b.octets, Lines: b.lines,
		Digest: b.digest, Header: b.header, Stored: time.Now(), Short: b.octets < m.Size,
		Unsure: m.isOdd}
	m.entry, m.fate = e, delivered
	s.counted[e] = true
	err := s.record.save(ctx, e)
	s.emit(Result{Item: m.Item, Outcome: Delivered, Octets: b.octets})
	s.lostInRow = 0
	if s.brought++; err == nil && s.brought%checkpoint == 0 {
		err = s.sync(ctx)
	}
	return err
}

// recognize takes note of a message that was stored before and still is on the server.
func (s *session) recognize(ctx context.Context, m *message, b *body) error {
	e := b.known
	switch {
	case b.shared:
		same := *e
		e = &same
		e.UID, e.Copy, e.Deleted, e.Quits, e.Confirmed = m.UID, 0, time.Time{}, 0, false
		s.record.add(e)
		if err := s.record.save(ctx, e); err != nil {
			return err
		}
	case e.UID != m.UID:
		if err := s.record.rename(ctx, e, m.UID); err != nil {
			return err
		}
	}
	m.entry, m.fate = e, recognized
	before := *e
	if e.Confirmed || s.marked[e] {
		s.undeleted[e] = true
	}
	e.Missing, e.Unsure, e.Varies = time.Time{}, false, e.Varies || b.varies
	e.Failures, e.Failed, e.Reason, e.Alone, e.Permanent, e.Owed = 0, time.Time{}, "", false, false, false
	if e.Size != m.Size || e.Confirmed || e.Short && !s.counted[e] { // it was stored in another run
		e.Checked = time.Now()
	}
	e.Size, e.Octets, e.Lines = m.Size, b.octets, b.lines
	e.Short = e.Short && e.Octets < e.Size
	if !s.due(e, time.Now()) {
		e.Deleted, e.Confirmed = time.Time{}, false
	}
	s.know(e)
	if *e == before {
		return nil
	}
	return s.record.save(ctx, e)
}

// entryOf returns the entry of a message, which it makes if there is none.
func (s *session) entryOf(m *message) *Entry {
	if m.entry == nil {
		m.entry = &Entry{UID: m.UID, Size: m.Size, Listed: m.FirstSeen}
		s.record.add(m.entry)
	}
	return m.entry
}

// suspect takes note of a message that may have been the reason why a session was lost.
func (s *session) suspect(ctx context.Context, m *message) error {
	e := s.entryOf(m)
	e.Failed = time.Now()
	return s.record.save(context.WithoutCancel(ctx), e)
}

// fail takes note of a message that was not retrieved or not stored.
func (s *session) fail(ctx context.Context, m *message, octets int64, err error) error {
	m.fate = failed
	e := s.entryOf(m)
	if !e.isKnown() {
		e.Size = m.Size
	}
	if s.failures[e]++; s.failures[e] == 1 {
		e.Failures++
		if !m.came {
			s.firstFailures++
		}
	}
	if !e.isKnown() && m.digest != "" {
		e.Digest = m.digest
	}
	e.Failed, e.Reason, e.Owed = time.Now(), printable.Clean(err.Error()), false
	e.Alone, e.Permanent = s.report.Delivered == 0, errors.Is(err, ErrPermanent)
	s.wait(waitAfter(err, s.delay))
	s.trouble(Result{Item: m.Item, Outcome: Failed, Octets: octets, Err: err})
	return s.record.save(context.WithoutCancel(ctx), e)
}

// errKnown ends a message that turns out to have been stored before, in the place of io.EOF.
var errKnown = errors.New("this message was stored before, so it is not stored again")

// errAgain ends a message that is not stored before it was retrieved once more. Some servers send another content each
// time, and then the header has to tell that the message is known.
var errAgain = errors.New("not stored yet: its header is known and its content differs, so it is retrieved once more")

// errShifted ends a message that is not what was asked for.
var errShifted = errors.New("a reply of the server in the place of a message: its replies are mixed up")

// A body is a message on its way to the sink: its octets are counted, and compared with what was stored before.
type body struct {
	from     io.Reader
	claimed  int64                          // octets
	max      int64                          // octets, 0 for no limit
	alone    bool                           // no other message was asked for with it
	find     func() (e *Entry, shared bool) // sets err to errAgain if it has to see the message once more
	progress func(octets int64)

	octets   int64
	lines    int64
	start    []byte // the first octets
	seam     []byte // the octets around the claimed end
	unread   []byte // what was read ahead of the sink, and is still to be given to it
	identity *identity
	err      error // sticky; io.EOF, errKnown or errAgain if the whole message came
	digest   string
	header   string // its digest
	known    *Entry
	shared   bool // the entry is that of another message with the same content
	varies   bool // the content differs each time
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	if len(b.unread) > 0 {
		n := copy(p, b.unread)
		b.unread = b.unread[n:]
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.from.Read(p)
	b.take(p[:n])
	if b.max > 0 && b.octets > b.max {
		b.err = ErrTooLarge
		return 0, b.err
	}
	b.progress(b.octets)
	b.err = err
	if err == io.EOF {
		b.compare()
	}
	return n, b.err
}

// take looks at octets of the message.
func (b *body) take(p []byte) {
	b.start = append(b.start, p[:min(len(p), statusLen-len(b.start))]...)
	b.lines += int64(bytes.Count(p, []byte("\n")))
	b.identity.Write(p)
	from, to := b.claimed-seamBefore-b.octets, b.claimed+seamAfter-b.octets
	if b.claimed >= 0 && from < int64(len(p)) && to > 0 {
		b.seam = append(b.seam, p[max(0, from):min(int64(len(p)), to)]...)
	}
	b.octets += int64(len(p))
}

const (
	statusLen  = len("-ERR ") // of the longer of the two status indicators, with the blank after it
	seamBefore = 5            // octets before the claimed end of a message that are looked at for a reply
	seamAfter  = 8            // octets after it
)

// isReply reports whether the message is the reply to another command: it begins with a status line, and it has
// not the size of the message. Or the reply to the next command is in it: a server that lost the last line end of a
// message, and with it the end of the message.
func (b *body) isReply() bool {
	if b.octets == b.claimed {
		return false
	}
	return bytes.HasPrefix(b.start, []byte("+OK")) || bytes.HasPrefix(b.start, []byte("-ERR")) ||
		!b.alone && b.octets > b.claimed &&
			(bytes.Contains(b.seam, []byte(".\r\n+OK")) || bytes.Contains(b.seam, []byte(".\r\n-ERR")))
}

// compare looks for the whole message in what was stored.
func (b *body) compare() {
	if b.isReply() {
		b.err = errShifted
		return
	}
	b.digest = b.identity.sum()
	b.header = b.identity.headerSum()
	if e, shared := b.find(); e != nil {
		b.known, b.shared, b.err = e, shared, errKnown
	}
}

// isCut reports whether reading the message failed.
func (b *body) isCut() bool {
	return b.err != nil && !slices.Contains([]error{io.EOF, errKnown, errAgain, ErrTooLarge, errShifted}, b.err)
}

// drop reads what is left. It returns nil if the whole message came, and it was not stored before.
func (b *body) drop() error {
	b.unread = nil
	_, err := io.Copy(io.Discard, b)
	return err
}

// readAhead reads all of the message before the sink does, or what fits in the buffer, which it may replace.
func (b *body) readAhead(buffer []byte) []byte {
	size := len(b.unread) + int(min(readAhead, max(0, b.claimed)*5/4+4<<10))
	if size > cap(buffer) {
		buffer = make([]byte, size)
	}
	n := copy(buffer[:size], b.unread)
	b.unread = nil
	rest, _ := io.ReadFull(b, buffer[n:size]) // the error is in b
	b.unread = buffer[:n+rest]
	return buffer
}
