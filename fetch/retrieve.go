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

// A budget counts messages and octets, to compare them with MaxMessages and MaxOctets.
type budget struct {
	messages int
	octets   int64
}

// retrieve retrieves messages and stores them, within a budget. An error ends the run.
func (s *session) retrieve(ctx context.Context, list []*message, b *budget) error {
	if len(list) > 0 {
		if err := s.checkRecord(ctx, list[0]); err != nil {
			return err
		}
	}
	for len(list) > 0 && s.canRetrieve() {
		next := s.withinBudget(list, b)
		if len(next) == 0 {
			for _, m := range list {
				m.fate = overLimit
			}
			return nil
		}
		begin := time.Now()
		done, err := s.retrieveAtOnce(ctx, next, b)
		if err != nil {
			return err
		}
		s.timePerMessage = time.Since(begin) / time.Duration(max(1, done))
		list = list[done:]
		for ; len(s.retrieveAgain) > 0 && s.canRetrieve(); s.retrieveAgain = s.retrieveAgain[1:] {
			s.requestedAlone = true
			if err := s.retrieveOne(ctx, s.retrieveAgain[0], b); err != nil {
				return err
			}
		}
	}
	return nil
}

// canRetrieve reports whether more messages can be retrieved in this session.
func (s *session) canRetrieve() bool { return s.state == stateOpen && !s.callerStopped }

// checkRecord checks, once in a run, that entries can be saved. If they could not be saved, each run would deliver the
// same messages again.
func (s *session) checkRecord(ctx context.Context, m *message) error {
	if s.recordChecked {
		return nil
	}
	s.recordChecked = true
	isNew := m.entry == nil
	e := s.entryOf(m)
	if err := s.record.save(ctx, e); err != nil || !isNew || m.group.isSingle() {
		return err
	}
	m.entry = nil // a message without a unique-id of its own gets an entry when its content is known
	return s.record.forget(ctx, e)
}

// A session first requests firstAhead messages at once. Later it requests as many as it can handle in aheadPeriod. So
// it sends a command about once in each aheadPeriod, and the server does not close the session as idle.
const (
	firstAhead  = 1
	aheadPeriod = time.Second
)

// withinBudget returns the first messages of the list that are within the budget and are to be requested at once.
func (s *session) withinBudget(list []*message, b *budget) []*message {
	n := firstAhead
	if s.timePerMessage > 0 {
		n = int(aheadPeriod / s.timePerMessage)
	} else if s.maxAhead > 0 {
		n = len(list)
	}
	n = min(max(1, n), len(list))
	octets := b.octets
	for i, m := range list[:n] {
		messages := b.messages + i
		if s.MaxMessages > 0 && messages >= s.MaxMessages ||
			s.MaxOctets > 0 && messages > 0 && m.Size > s.MaxOctets-octets ||
			i > 0 && (s.oneByOne || m.requestAlone || list[0].requestAlone) {
			return list[:i]
		}
		octets += max(0, m.Size)
	}
	return list[:n]
}

// retrieveAtOnce requests messages without waiting for each reply, if the server supports PIPELINING. It returns the
// number of messages that it has handled. After a refusal the remaining messages are requested again, one by one. The
// refusal may be a surplus reply, and then each later reply would belong to another message.
func (s *session) retrieveAtOnce(ctx context.Context, messages []*message, b *budget) (done int, err error) {
	s.maxAhead, s.requestedAlone = max(s.maxAhead, len(messages)), len(messages) == 1
	if s.requestedAlone {
		return 1, s.retrieveOne(ctx, messages[0], b)
	}
	nums := make([]int, len(messages))
	for i, m := range messages {
		nums[i] = m.Num
	}
	defer s.removeStaged()
	cut := false
	for m, refusal := range s.c.Messages(ctx, nums...) {
		if m == nil {
			if err = s.storeStaged(ctx); err == nil {
				err = s.handleLoss(ctx, messages, done, cut, refusal)
			}
			return done, err
		}
		if refusal != nil {
			s.oneByOne = true
			break
		}
		if cut, err = s.receive(ctx, messages[done], m, b); err != nil {
			return done, err
		}
		if !cut {
			done++
		}
		if !s.canRetrieve() {
			break
		}
	}
	for _, m := range messages[done:] {
		m.requested = true // the server may have sent the message already
	}
	if err = s.storeStaged(ctx); err == nil && s.oneByOne && s.canRetrieve() {
		_, err = s.verifyReplyOrder(ctx)
	}
	return done, err
}

// retrieveOne retrieves one message. No other command is waiting for its reply, so NOOP can keep the session alive
// while the sink works.
func (s *session) retrieveOne(ctx context.Context, m *message, b *budget) error {
	r, err := s.c.Retr(ctx, m.Num)
	refusal, refused := errors.AsType[*pop3.Error](err)
	switch {
	case refused && s.c.State() == pop3.StateTransaction:
		if ok, err := s.verifyReplyOrder(ctx); !ok {
			return err
		}
		s.countFinished(m, 0)
		return s.recordFailed(ctx, m, 0, refusal)
	case err != nil:
		return s.handleLoss(ctx, []*message{m}, 0, false, err)
	}
	cut, err := s.receive(ctx, m, r, b)
	r.Close() // discards the rest of the message; after an error the connection is closed
	switch {
	case err != nil:
		return err
	case cut:
		return s.handleLoss(ctx, []*message{m}, 0, true, s.cutErr)
	case m.sizeDiffers && s.canRetrieve():
		_, err = s.verifyReplyOrder(ctx)
	}
	return err
}

// maxLost is the number of sessions in a row that may be lost before a message is stored or QUIT succeeds.
const maxLost = 10

// handleLoss ends a session whose connection was lost at messages[next]. The parameter cut reports whether a part of
// that message was received. If several messages were requested, any of them may be the cause, so they are tried again
// one by one. If a server closes the connection twice after the same number of messages, later sessions retrieve at
// most that number. If the session has only compared messages, later sessions compare fewer of them, so that they reach
// QUIT.
func (s *session) handleLoss(ctx context.Context, messages []*message, next int, cut bool, err error) error {
	alone := s.oneByOne || len(messages) == 1
	limitReached := !cut && s.answered > 0 && s.answered == s.lostAfter
	if s.lostAfter = s.answered; limitReached {
		s.sessionLimit = s.answered
	} else if s.Delete && s.deliveredCount == 0 && s.answered > 0 {
		s.commitAfter = max(1, s.answered/2)
	}
	if !cut {
		if saveErr := s.markUnsure(ctx); saveErr != nil {
			return errors.Join(err, saveErr)
		}
	}
	runErr := s.recordLoss(ctx, err)
	if _, mixedUp := errors.AsType[*pop3.ProtocolError](err); mixedUp {
		if found, saveErr := s.markSuspects(ctx); found {
			return errors.Join(runErr, saveErr)
		}
	}
	switch {
	case next == len(messages) || limitReached || ctx.Err() != nil:
		return runErr
	case alone:
		s.lostErr = nil // the result of the message contains the reason
		return errors.Join(runErr, s.recordFailed(ctx, messages[next], 0, err))
	}
	return errors.Join(runErr, s.markSuspect(ctx, messages[next]))
}

// recordLoss records that the connection was lost because of err. It returns an error if the run must end.
func (s *session) recordLoss(ctx context.Context, err error) error {
	s.state = stateLost
	s.oneByOne = true
	s.lostErr = fmt.Errorf("fetch: %w", err)
	if s.lostInRow++; ctx.Err() != nil || s.lostInRow == maxLost || s.loginDelay > 0 {
		s.lostErr, err = nil, s.lostErr
		return err
	}
	return nil
}

// markUnsure marks the messages that were delivered in this session, so that they are compared again. The server may
// have sent other messages than those requested: if it omits a reply, or sends one twice, each later reply belongs to
// another command. Such a session ends with a timeout or a surplus reply.
func (s *session) markUnsure(ctx context.Context) error {
	var entries []*Entry
	for _, m := range s.plan.all {
		if m.fate == delivered {
			m.entry.Unsure = true
			entries = append(entries, m.entry)
		}
	}
	return s.record.save(context.WithoutCancel(ctx), entries...)
}

// receive handles one message that was requested. The result cut reports whether the message is incomplete because the
// connection was lost.
func (s *session) receive(ctx context.Context, m *message, r io.Reader, b *budget) (cut bool, err error) {
	if len(s.staged) > 0 && (m.Size > maxStagedSize || time.Since(s.stagedSince) >= maxStagedTime) {
		if err := s.storeStaged(ctx); err != nil || s.callerStopped {
			s.hasUnstored = true
			return false, err
		}
	}
	body := s.newBody(m, r)
	body.progress(0)
	var file *stagedFile
	d := s.selectAtRetr(ctx, m, body)
	if d == Fetch {
		file, err = s.deliver(ctx, m, body)
	} else {
		s.cutErr = body.discardRest()
	}
	s.report.Octets += body.octets
	m.sizeDiffers = body.octets != m.Size && m.Size >= 0
	if d != Fetch && body.storedBefore == nil {
		s.applyDecision(m, d)
		m.requested = true
		return body.isCut(), s.saveDecisions(ctx, []*message{m})
	}
	if m.digest = body.digest; body.isCut() {
		s.cutErr = body.err
		return true, nil
	}
	if file != nil {
		err = s.addStaged(ctx, stagedMessage{file, m, body, b})
	} else if failure := s.storeStaged(ctx); failure != nil {
		err = failure
	} else {
		err = s.recordReceived(ctx, m, body, b, err)
	}
	s.countFinished(m, body.octets)
	return false, err
}

// recordReceived records a message that was received completely. err is the error of the sink.
func (s *session) recordReceived(ctx context.Context, m *message, body *body, b *budget, err error) error {
	switch {
	case body.storedBefore != nil:
		err = s.recordRecognized(ctx, m, body)
	case body.err == errAgain:
		s.retrieveAgain, m.requested, err = append(s.retrieveAgain, m), true, nil
	case err == nil:
		b.messages++
		err = s.recordDelivered(ctx, m, body)
	default:
		err = s.recordRefused(ctx, m, body, err)
	}
	if m.isStored() {
		b.octets += body.octets
	}
	return err
}

// A stagingSink stores many small messages faster, because it syncs them at the same time.
type stagingSink interface {
	UnsyncedSink
	stage(r io.Reader) (*stagedFile, error)
}

// A stagedMessage is a message that was retrieved, but was not synced and stored yet.
type stagedMessage struct {
	file   *stagedFile
	m      *message
	body   *body
	budget *budget
}

// These are the limits for staged messages: their number, the time for which they wait for others, and their size.
const (
	maxStaged     = 32
	maxStagedTime = 100 * time.Millisecond
	maxStagedSize = 64 << 10
)

// addStaged keeps a message until others can be stored together with it.
func (s *session) addStaged(ctx context.Context, staged stagedMessage) error {
	if s.staged = append(s.staged, staged); len(s.staged) == 1 {
		s.stagedSince = time.Now()
	}
	if len(s.staged) < maxStaged && time.Since(s.stagedSince) < maxStagedTime {
		return nil
	}
	return s.storeStaged(ctx)
}

// storeStaged syncs all staged messages, and then stores them one by one.
func (s *session) storeStaged(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var syncs sync.WaitGroup
	for _, staged := range s.staged {
		syncs.Go(staged.file.sync)
	}
	syncs.Wait()
	for len(s.staged) > 0 && !s.callerStopped {
		next := s.staged[0]
		s.staged = s.staged[1:]
		if err := s.recordReceived(ctx, next.m, next.body, next.budget, next.file.moveToNew()); err != nil {
			return err
		}
	}
	s.removeStaged()
	return nil
}

// removeStaged removes the staged messages, which another run will retrieve again.
func (s *session) removeStaged() {
	for _, staged := range s.staged {
		staged.file.remove()
		s.hasUnstored = true
	}
	s.staged = nil
}

const (
	readAhead    = 256 << 10        // limit for the octets of a message that are read before the sink gets it
	noopInterval = 10 * time.Second // time between two NOOPs while the sink works
)

// deliver passes a message to the sink, and then reads what the sink has not read. If no other message was requested,
// and the whole message fits in the buffer, deliver keeps the session alive meanwhile, because a sink may take longer
// than the server waits for a command. If file is not nil, it contains the message, and storeStaged must store it.
func (s *session) deliver(ctx context.Context, m *message, b *body) (file *stagedFile, err error) {
	if b.requestedAlone {
		if s.buffer = b.readAhead(s.buffer); b.storedBefore != nil {
			return nil, nil
		}
		if b.err == io.EOF {
			keepAliveCtx, cancel := context.WithCancel(ctx)
			var keepAlives sync.WaitGroup
			keepAlives.Go(func() { s.c.KeepAlive(keepAliveCtx, noopInterval) })
			defer keepAlives.Wait()
			defer cancel()
		}
	}
	// If a power cut loses a message, its entry must be lost too. Only an UnsyncedHistory ensures that.
	_, historyIsUnsynced := s.record.history.(UnsyncedHistory)
	sink, sinkIsUnsynced := s.Sink.(UnsyncedSink)
	staging, sinkStages := s.Sink.(stagingSink)
	s.unsynced = s.unsynced || sinkIsUnsynced && historyIsUnsynced
	switch {
	case sinkStages && historyIsUnsynced && !b.requestedAlone && m.Size <= maxStagedSize:
		file, err = staging.stage(b)
	case sinkIsUnsynced && historyIsUnsynced:
		err = sink.DeliverUnsynced(ctx, m.Item, b)
	default:
		err = s.Sink.Deliver(ctx, m.Item, b)
	}
	if readErr := b.discardRest(); err == nil {
		err = readErr
	}
	if err != nil && file != nil {
		file.remove()
		file = nil
	}
	return file, err
}

// countFinished counts a message for Progress.
func (s *session) countFinished(m *message, octets int64) {
	s.answered++
	if s.finishedMessages++; s.Progress != nil {
		s.Progress(Progress{Item: m.Item, Received: octets, Messages: s.finishedMessages, AllMessages: s.allMessages,
			Octets: s.report.Octets, AllOctets: s.allOctets})
	}
}

// recordRefused records a message that was received and not stored.
func (s *session) recordRefused(ctx context.Context, m *message, b *body, err error) error {
	s.hasUnstored = true
	err = s.recordFailed(ctx, m, b.octets, err)
	switch b.err {
	case ErrTooLarge: // the rest of the message may be endless, so it is not read
		s.state, s.oneByOne = statePaused, true
	case errShifted:
		s.state, s.oneByOne = statePaused, true
		err = errors.Join(err, s.markUnsure(ctx))
	}
	return err
}

// newBody prepares a message to be read by the sink.
func (s *session) newBody(m *message, r io.Reader) *body {
	b := &body{source: r, claimed: m.Size, requestedAlone: s.requestedAlone, identity: newIdentity()}
	if s.MaxSize > 0 {
		b.max = s.MaxSize
		if m.compare {
			b.max = max(b.max, m.Size)
		}
	}
	b.findStored = func() (*Entry, bool) { return s.plan.findStored(m, b) }
	p := Progress{Item: m.Item, Messages: s.finishedMessages, AllMessages: s.allMessages, AllOctets: s.allOctets}
	received := s.report.Octets
	b.progress = func(octets int64) {
		if s.Progress != nil {
			p.Received, p.Octets = octets, received+octets
			s.Progress(p)
		}
	}
	return b
}

// checkpoint is the number of delivered messages after which the messages and the history are synced.
const checkpoint = 100

// recordDelivered records a message that the sink has stored.
func (s *session) recordDelivered(ctx context.Context, m *message, b *body) error {
	e := m.entry
	if m.compare && m.group.isSingle() && e.Header != "" && e.Header != b.header {
		s.uidReused = true
	}
	if e == nil || e.isKnown() || !m.group.isSingle() {
		e = &Entry{UID: m.UID}
		s.record.add(e)
	}
	*e = Entry{UID: e.UID, Copy: e.Copy, Listed: e.Listed, Size: m.Size, Octets: b.octets, Lines: b.lines,
		Digest: b.digest, Header: b.header, Stored: time.Now(), Short: b.octets < m.Size,
		Unsure: m.sizeDiffers}
	m.entry, m.fate = e, delivered
	s.counted[e] = true
	err := s.record.save(ctx, e)
	s.yieldResult(Result{Item: m.Item, Outcome: Delivered, Octets: b.octets})
	s.lostInRow = 0
	if s.deliveredCount++; err == nil && s.deliveredCount%checkpoint == 0 {
		err = s.sync(ctx)
	}
	return err
}

// recordRecognized records a message that was stored before and is still on the server.
func (s *session) recordRecognized(ctx context.Context, m *message, b *body) error {
	e := b.storedBefore
	switch {
	case b.shared:
		copied := *e
		e = &copied
		e.UID, e.Copy, e.Deleted, e.Quits, e.Confirmed = m.UID, 0, time.Time{}, 0, false
		s.record.add(e)
		if err := s.record.save(ctx, e); err != nil {
			return err
		}
	case e.UID != m.UID:
		if undelivered := m.entry; undelivered != nil && m.group.isSingle() && !undelivered.isKnown() {
			if err := s.record.forget(ctx, undelivered); err != nil {
				return err
			}
			m.group.undelivered = nil
		}
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
	e.Failures, e.Failed, e.Reason, e.NoneStored, e.Permanent, e.Owed = 0, time.Time{}, "", false, false, false
	// A message that is not in counted was stored by an earlier run.
	if e.Size != m.Size || e.Confirmed || e.Short && !s.counted[e] {
		e.Checked = time.Now()
	}
	e.Size, e.Octets, e.Lines = m.Size, b.octets, b.lines
	e.Short = e.Short && e.Octets < e.Size
	if !s.due(e, time.Now()) {
		e.Deleted, e.Confirmed = time.Time{}, false
	}
	s.countKnown(e)
	if *e == before {
		return nil
	}
	return s.record.save(ctx, e)
}

// entryOf returns the entry of a message, and makes one if there is none.
func (s *session) entryOf(m *message) *Entry {
	if m.entry == nil {
		m.entry = &Entry{UID: m.UID, Size: m.Size, Listed: m.FirstSeen}
		s.record.add(m.entry)
	}
	return m.entry
}

// markSuspect records a message that may be the cause of a lost session.
func (s *session) markSuspect(ctx context.Context, m *message) error {
	e := s.entryOf(m)
	e.Failed = time.Now()
	return s.record.save(context.WithoutCancel(ctx), e)
}

// recordFailed records a message that was not retrieved or not stored.
func (s *session) recordFailed(ctx context.Context, m *message, octets int64, err error) error {
	m.fate = failed
	e := s.entryOf(m)
	if s.owedHasFailed = s.owedHasFailed || e.Owed; !e.isKnown() {
		e.Size, e.Missing = m.Size, time.Time{}
	}
	if s.failures[e]++; s.failures[e] == 1 {
		e.Failures++
		if !m.arrivedInRun {
			s.firstFailures++
		}
	}
	if !e.isKnown() && m.digest != "" {
		e.Digest = m.digest
	}
	e.Failed, e.Reason, e.Owed = time.Now(), printable.Clean(err.Error()), false
	e.NoneStored, e.Permanent = s.report.Delivered == 0, errors.Is(err, ErrPermanent)
	s.delayNextRun(waitAfter(err, s.loginDelay))
	s.yieldFailure(Result{Item: m.Item, Outcome: Failed, Octets: octets, Err: err})
	return s.record.save(context.WithoutCancel(ctx), e)
}

// errKnown replaces io.EOF at the end of a message that was stored before.
var errKnown = errors.New("this message was stored before, so it is not stored again")

// errAgain replaces io.EOF at the end of a message that must be retrieved once more before it is stored. The reason is
// that some servers send different content each time; such a message is recognized by its header.
var errAgain = errors.New("not stored yet: a message with the same header and other content was stored before, " +
	"so this one is retrieved once more to compare")

// errShifted replaces io.EOF at the end of a message that contains a reply to another command.
var errShifted = errors.New("the server sent a reply in place of the message: its replies are shifted")

// A body is a message that the sink reads. It counts the octets, and compares the content with what was stored before.
type body struct {
	source         io.Reader
	claimed        int64                          // number of octets that the server claims
	max            int64                          // greatest number of octets; 0 means no limit
	requestedAlone bool                           // no other message was requested with it
	findStored     func() (e *Entry, shared bool) // sets err to errAgain to have the message retrieved once more
	progress       func(octets int64)

	octets       int64
	lines        int64
	beginning    []byte // the first octets
	nearEnd      []byte // the octets around the claimed end
	unread       []byte // octets that were read before the sink asks for them
	identity     *identity
	err          error // result of all later reads; io.EOF, errKnown or errAgain if the message is complete
	digest       string
	header       string // digest of the header
	storedBefore *Entry
	shared       bool // storedBefore is the entry of another message with the same content
	varies       bool // the content differs each time
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
	n, err := b.source.Read(p)
	b.addOctets(p[:n])
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

// addOctets counts and hashes octets of the message.
func (b *body) addOctets(p []byte) {
	b.beginning = append(b.beginning, p[:min(len(p), statusLen-len(b.beginning))]...)
	b.lines += int64(bytes.Count(p, []byte("\n")))
	b.identity.Write(p)
	begin, end := b.claimed-bytesBeforeEnd-b.octets, b.claimed+bytesAfterEnd-b.octets
	if b.claimed >= 0 && begin < int64(len(p)) && end > 0 {
		b.nearEnd = append(b.nearEnd, p[max(0, begin):min(int64(len(p)), end)]...)
	}
	b.octets += int64(len(p))
}

const (
	statusLen      = len("-ERR ") // length of the longer status indicator, with the space after it
	bytesBeforeEnd = 5            // number of octets before the claimed end of a message that are searched for a reply
	bytesAfterEnd  = 8            // number of octets after the claimed end that are searched
)

// isReply reports whether the message contains a reply to another command. Such a message does not have the listed
// size. There are two cases. The message may begin with a status line. Or the server omitted the last line end of the
// message, and the client took the reply to the next command for a part of it.
func (b *body) isReply() bool {
	if b.octets == b.claimed {
		return false
	}
	return bytes.HasPrefix(b.beginning, []byte("+OK")) || bytes.HasPrefix(b.beginning, []byte("-ERR")) ||
		!b.requestedAlone && b.octets > b.claimed &&
			(bytes.Contains(b.nearEnd, []byte(".\r\n+OK")) || bytes.Contains(b.nearEnd, []byte(".\r\n-ERR")))
}

// compare checks whether the message was stored before. The message is complete now.
func (b *body) compare() {
	if b.isReply() {
		b.err = errShifted
		return
	}
	b.digest = b.identity.sum()
	b.header = b.identity.headerSum()
	if e, shared := b.findStored(); e != nil {
		b.storedBefore, b.shared, b.err = e, shared, errKnown
	}
}

// isCut reports whether reading the message failed.
func (b *body) isCut() bool {
	return b.err != nil && !slices.Contains([]error{io.EOF, errKnown, errAgain, ErrTooLarge, errShifted}, b.err)
}

// discardRest reads and discards the rest of the message. It returns nil if the message is complete and was not stored
// before.
func (b *body) discardRest() error {
	b.unread = nil
	_, err := io.Copy(io.Discard, b)
	return err
}

// readAhead reads the message before the sink does: the whole message, or as much as fits in the buffer. It returns the
// buffer, which may have become larger.
func (b *body) readAhead(buffer []byte) []byte {
	size := len(b.unread) + int(min(readAhead, max(0, b.claimed)*5/4+4<<10))
	if size > cap(buffer) {
		buffer = make([]byte, size)
	}
	n := copy(buffer[:size], b.unread)
	b.unread = nil
	added, _ := io.ReadFull(b, buffer[n:size]) // b.err has the error
	b.unread = buffer[:n+added]
	return buffer
}
