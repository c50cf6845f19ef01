package fetch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A message is a message that the server lists in the current session.
type message struct {
	Item
	group        *group
	entry        *Entry // entry in the record; nil if it is not known yet
	compare      bool   // retrieve the message to compare it with what was stored
	selectAtRetr bool   // call Select while the message is retrieved, because the server has no TOP
	requestAlone bool   // no other message may be requested together with it
	similar      *Entry // entry of another message that was cut or failed, with the same unique-id and size
	arrivedInRun bool   // the message was not listed in an earlier session of the run

	likelyStored bool // the message has the size of a stored one, so it is probably stored
	fate         fate
	skipResult   Result // the result to report, if the message is skipped
	handled      bool   // no other session of the run has to handle the message
	requested    bool   // RETR was sent for the message, and the message may not be stored
	digest       string // digest of the retrieved content, even if it was not stored
	sizeDiffers  bool   // the received size differs from the listed size
	secondRetr   bool   // a message with the same header has another content, so this message is retrieved once more
}

// A fate is what happened to a message in a session.
type fate int

const (
	untried       fate = iota // not retrieved yet
	handledBefore             // an earlier session of the run has handled it
	knownBefore               // stored or skipped in an earlier run, and not to be retrieved
	skipped                   // not to be retrieved in this run
	unselected                // not to be retrieved in this run, because of Select
	overLimit                 // left for another run because of MaxMessages or MaxOctets
	delivered                 // retrieved and stored
	recognized                // retrieved, and recognized as stored before
	failed                    // not retrieved completely, or not stored
	committed                 // stored, and QUIT was sent with the message marked as deleted
)

// isStored reports whether the message was retrieved in this session and is stored.
func (m *message) isStored() bool { return m.fate == delivered || m.fate == recognized }

// A key identifies a message in all sessions of a run. It consists of the unique-id, and of the size if several
// messages have the same unique-id.
type key struct {
	uid  string
	size int64
}

func (m *message) key() key {
	if m.group.isSingle() {
		return key{uid: m.UID, size: -1}
	}
	return key{m.UID, m.Size}
}

// A group contains the messages with one unique-id. On a correct server that is one message. Some servers give several
// messages the same unique-id. Without unique-ids all messages are in one group.
type group struct {
	uid         string
	listed      []*message
	known       []*Entry            // entries of stored or skipped messages with this unique-id
	unmatched   map[string][]*Entry // entries that were not matched with a message yet, by digest
	undelivered map[int64][]*Entry  // entries of messages that were not delivered yet, by size
	sizeCounts  map[int64]int       // number of listed messages by size, for the sizes in undelivered
	deleted     []*Entry            // entries of messages that were deleted and are not listed any more
}

// A plan says what to do with each message in a session. Its message numbers are valid in this session only.
type plan struct {
	madeAt           time.Time
	all              []*message
	groups           map[string]*group
	toStore          []*message          // to be stored
	toCompare        []*message          // to be compared with what was stored
	suspects         []*message          // retrieved last, because retrieving them might harm the session
	missing          []*Entry            // entries of messages that are not listed
	unlistedByDigest map[string][]*Entry // missing entries of stored messages that may not be deleted, by digest
	markedByDigest   map[string][]*Entry // missing entries of messages that were marked in this run, by digest
	storedByDigest   map[string]*Entry   // the entry of a stored message, by digest
	storedByHeader   map[string]*Entry   // the entry of a stored message, by the digest of its header
}

// plan decides what to do with each listed message.
func (r *run) plan(infos []pop3.MessageInfo, now time.Time) *plan {
	p := &plan{madeAt: now, groups: make(map[string]*group),
		unlistedByDigest: make(map[string][]*Entry), markedByDigest: make(map[string][]*Entry),
		storedByDigest: make(map[string]*Entry), storedByHeader: make(map[string]*Entry)}
	for _, info := range infos {
		p.addMessage(r, info)
	}
	for uid, entries := range r.record.byUID {
		g := p.groups[uid]
		if g != nil {
			g.addEntries(r.withoutDeleted(g, entries))
		} else {
			p.missing = append(p.missing, entries...)
		}
		for _, e := range entries {
			p.index(e, g == nil && !e.isSurelyDeleted())
			if g != nil {
				continue
			}
			delete(r.undeleted, e)
			if r.marked[e] {
				p.markedByDigest[e.Digest] = append(p.markedByDigest[e.Digest], e)
			}
		}
	}
	for _, m := range p.all {
		if m.FirstSeen = now; m.entry != nil && !m.entry.Listed.IsZero() {
			m.FirstSeen = m.entry.Listed
		}
	}
	r.skipHandled(p, now)
	for _, m := range p.all {
		if g := m.group; g.listed[0] == m {
			r.planGroup(p, g, now)
		}
	}
	p.markLikelyStored()
	return p
}

// followFailed finds failed messages that now have another unique-id. It compares only sizes, so it may find other
// messages. Therefore each message that it finds is tried at least once before it is set aside.
func (s *session) followFailed(ctx context.Context) error {
	failed := make(map[int64][]*Entry)
	for _, e := range s.plan.missing {
		if !e.isKnown() && e.Failures > 0 && e.Size >= 0 {
			failed[e.Size] = append(failed[e.Size], e)
		}
	}
	for _, m := range s.plan.toStore {
		entries := failed[m.Size]
		if m.entry != nil || !m.group.isSingle() || len(entries) == 0 {
			continue
		}
		m.entry, failed[m.Size] = entries[0], entries[1:]
		m.entry.Failures, m.entry.Permanent = min(m.entry.Failures, maxFailures-1), false
		if s.DryRun {
			continue
		}
		if err := s.record.rename(ctx, m.entry, m.UID); err != nil {
			return err
		}
	}
	return nil
}

// markLikelyStored marks messages that are probably stored already. For each size, it marks as many messages as there
// are entries of stored messages with that size. Only the content of a message can show whether the guess is right.
func (p *plan) markLikelyStored() {
	stored := make(map[key]int)
	for _, e := range p.missing {
		if e.isKnown() && !e.isSurelyDeleted() {
			stored[key{"", e.Size}]++
		}
	}
	for _, g := range p.groups {
		for _, e := range g.known {
			if !g.isSingle() && !e.isSurelyDeleted() {
				stored[key{g.uid, e.Size}]++
			}
		}
	}
	for _, m := range p.all {
		k := m.key()
		if m.group.isSingle() {
			k = key{"", m.Size}
		}
		if m.fate == untried && m.entry == nil && stored[k] > 0 {
			stored[k]--
			m.likelyStored = true
		}
	}
}

// skipHandled finds messages that earlier sessions of the run have listed, and skips those that were handled. It
// assumes that messages with the same key have the same order as before, if none of them is gone.
func (r *run) skipHandled(p *plan, now time.Time) {
	listed := make(map[key][]*message)
	for _, m := range p.all {
		k := m.key()
		if listed[k] = append(listed[k], m); len(listed[k]) > len(r.listed[k]) {
			m.arrivedInRun = r.report.Sessions > 1
			r.report.Listed++
		}
	}
	for k, messages := range listed {
		before := slices.DeleteFunc(slices.Clone(r.listed[k]), r.isDeleted)
		for i := 0; i < len(before) && len(before) <= len(messages); i++ {
			m, e := messages[i], messages[i].entry
			switch {
			case before[i].fate == unselected || before[i].skipResult.Err == ErrNotReached:
				m.skip(before[i].skipResult.Err)
			case before[i].handled && (e == nil || !e.isKnown() || m.group.sizesFit(now)):
				m.fate = handledBefore
			}
		}
		r.listed[k] = messages
	}
}

// isDeleted reports whether the server has confirmed that it deleted the message.
func (r *run) isDeleted(m *message) bool {
	return m.fate == committed && r.marked[m.entry] && m.entry.Confirmed
}

// index adds an entry to the indexes by digest. unlisted reports whether the message of the entry may now be listed
// under another unique-id.
func (p *plan) index(e *Entry, unlisted bool) {
	if e.Stored.IsZero() || e.Digest == "" {
		return
	}
	if !e.Unsure {
		p.storedByDigest[e.Digest] = e
	}
	if h := p.storedByHeader[e.Header]; h == nil || !h.Varies {
		p.storedByHeader[e.Header] = e
	}
	if unlisted {
		p.unlistedByDigest[e.Digest] = append(p.unlistedByDigest[e.Digest], e)
	}
}

// addMessage adds a listed message to the plan.
func (p *plan) addMessage(r *run, info pop3.MessageInfo) {
	g := p.groups[info.UID]
	if g == nil {
		g = &group{uid: info.UID}
		p.groups[info.UID] = g
	}
	m := &message{Item: Item{Account: r.Account, Num: info.Num, UID: info.UID, Size: info.Size}, group: g}
	g.listed = append(g.listed, m)
	p.all = append(p.all, m)
}

// withoutDeleted returns the entries of messages that were not deleted, if they are enough for all listed messages.
// Otherwise a deleted message may be listed again, and withoutDeleted returns all entries.
func (r *run) withoutDeleted(g *group, entries []*Entry) []*Entry {
	var deleted, others []*Entry
	for _, e := range entries {
		if e.isSurelyDeleted() {
			deleted = append(deleted, e)
		} else {
			others = append(others, e)
		}
	}
	if len(others) < len(g.listed) || r.lastPlan != nil && len(g.listed) > r.lastPlan.countRemaining(r, g.uid) {
		return entries
	}
	g.deleted = deleted
	return others
}

// countRemaining returns the number of messages with this unique-id that remain on the server after a session.
func (p *plan) countRemaining(r *run, uid string) (n int) {
	if g := p.groups[uid]; g != nil {
		for _, m := range g.listed {
			if !r.isDeleted(m) {
				n++
			}
		}
	}
	return n
}

// addEntries adds the entries in the record to a group.
func (g *group) addEntries(entries []*Entry) {
	if len(entries) == 0 {
		return
	}
	g.unmatched, g.undelivered = make(map[string][]*Entry), make(map[int64][]*Entry)
	for _, e := range entries {
		if !e.Skipped.IsZero() && e.Size != 0 && !(g.isSingle() && sizeMatches(g.listed[0], e)) {
			// Select has skipped another message, or it is not known which message it has skipped
			e.Skipped = time.Time{}
		}
		if !e.isKnown() {
			g.undelivered[e.Size] = append(g.undelivered[e.Size], e)
			continue
		}
		g.known = append(g.known, e)
		if e.Digest != "" {
			g.unmatched[e.Digest] = append(g.unmatched[e.Digest], e)
		}
	}
	if g.isSingle() {
		m := g.listed[0]
		slices.SortStableFunc(g.known, func(a, b *Entry) int { return sizeRank(m, a) - sizeRank(m, b) })
		if m.entry = entries[0]; len(g.known) > 0 {
			m.entry = g.known[0]
		}
		return
	}
	count := make(map[int64]int)
	for _, m := range g.listed {
		if undelivered := g.undelivered[m.Size]; len(undelivered) > 0 {
			m.entry = undelivered[min(count[m.Size], len(undelivered)-1)]
			count[m.Size]++
		}
	}
	g.sizeCounts = count
}

// isSingle reports whether no other message has this unique-id.
func (g *group) isSingle() bool { return len(g.listed) == 1 && g.uid != "" }

// findStored returns the entry of a stored message that has the content of b, or nil. Usually that entry has the
// unique-id of m and belongs to no other message yet, or its unique-id is no longer listed. If shared is true, another
// message with the same content may also need the entry, because the server gave a unique-id to another message.
func (p *plan) findStored(m *message, b *body) (e *Entry, shared bool) {
	if m.compare {
		if e := pop(m.group.unmatched, b.digest); e != nil {
			return e, false
		}
	}
	if e := pop(p.unlistedByDigest, b.digest); e != nil {
		return e, false
	}
	if m.arrivedInRun {
		if e := pop(p.markedByDigest, b.digest); e != nil {
			return e, false
		}
	}
	e = p.storedByDigest[b.digest]
	if e != nil && m.group.isSingle() && (m.compare && !m.requestAlone || p.hasMoved(e)) {
		return e, true
	}
	e = p.storedByHeader[b.header]
	if b.header == "" || e == nil || e.Short && e.Octets != b.octets {
		return nil, false
	}
	b.varies = m.secondRetr && m.digest != b.digest
	if e.Varies || b.varies {
		return e, e.UID != m.UID && p.groups[e.UID] != nil
	}
	if !m.secondRetr && e.Digest != b.digest && e.Short == (b.octets < b.claimed) {
		m.secondRetr, b.err = true, errAgain
	}
	return nil, false
}

// hasMoved reports whether another message now has the unique-id of a stored message.
func (p *plan) hasMoved(e *Entry) bool {
	g := p.groups[e.UID]
	return g != nil && g.isSingle() && !sizeMatches(g.listed[0], e)
}

// pop removes and returns an entry with this digest.
func pop(digests map[string][]*Entry, digest string) *Entry {
	entries := digests[digest]
	if len(entries) == 0 {
		return nil
	}
	digests[digest] = entries[1:]
	return entries[0]
}

// planGroup plans the messages of a group.
func (r *run) planGroup(p *plan, g *group, now time.Time) {
	due := slices.ContainsFunc(g.known, func(e *Entry) bool { return r.due(e, now) })
	switch {
	case r.hasUIDs && g.uid == "":
		// The messages have just arrived and will get unique-ids later. If they were stored now, they
		// would be stored again under their unique-ids.
		for _, m := range g.untried() {
			m.skip(ErrNoUID)
		}
	case len(g.known) == 0:
		for _, m := range g.untried() {
			if r.isTooLarge(m) {
				m.skip(ErrTooLarge)
				continue
			}
			p.toStore = append(p.toStore, m)
		}
	case g.canWait(now) || !due && !r.isDoubtful(g, now):
		for i, m := range g.untried() {
			m.fate, m.entry = knownBefore, g.known[min(i, len(g.known)-1)]
			r.countKnown(m.entry)
		}
	default:
		r.planComparison(p, g)
	}
}

// planComparison plans to compare the messages of a group with what was stored. If replies may have been mixed up when
// one of the messages was stored, each is requested alone. One server mixes up replies if several messages are
// requested at once: it sends a reply before the end of the previous message.
func (r *run) planComparison(p *plan, g *group) {
	unsure := slices.ContainsFunc(g.known, func(e *Entry) bool { return e.Unsure })
	known, failedOrShort := make(map[int64]bool), make(map[int64]*Entry) // by size
	for _, e := range g.known {
		known[e.Size], known[e.Octets] = true, true
		if r.isShort(e) || !e.Failed.IsZero() {
			failedOrShort[e.Size] = e
		}
	}
	for _, m := range g.untried() {
		if !known[m.Size] && !g.isSingle() && r.isTooLarge(m) {
			m.skip(ErrTooLarge)
			continue
		}
		m.compare, m.requestAlone, m.similar = true, unsure, failedOrShort[m.Size]
		p.toCompare = append(p.toCompare, m)
	}
}

func (r *run) isTooLarge(m *message) bool { return r.MaxSize > 0 && m.Size > r.MaxSize }

func (g *group) untried() []*message {
	return slices.DeleteFunc(slices.Clone(g.listed), func(m *message) bool { return m.fate != untried })
}

func (m *message) skip(reason error) {
	if m.fate = skipped; reason == ErrNotSelected {
		m.fate = unselected
	}
	m.skipResult = Result{Item: m.Item, Outcome: Skipped, Err: reason}
}

// unusedEntries returns the entries that certainly belong to no listed message. The result complete reports whether
// the entry of each listed message is known. In that case all other entries are unused.
func (g *group) unusedEntries() (unused []*Entry, complete bool) {
	used, sizes := make(map[*Entry]bool), make(map[int64]bool)
	for _, m := range g.listed {
		used[m.entry] = true
		if !m.isStored() && m.fate != committed {
			sizes[m.Size] = true
		}
	}
	complete = len(sizes) == 0
	for _, e := range g.known {
		deleted := !g.isSingle() && !e.Deleted.IsZero() && !sizes[e.Size] && !sizes[e.Octets]
		if e.UID == g.uid && !used[e] && (complete || deleted) {
			unused = append(unused, e)
		}
	}
	for size, entries := range g.undelivered {
		for _, e := range entries {
			if !used[e] && !sizes[size] || complete && !e.isKnown() {
				unused = append(unused, e)
			}
		}
	}
	return unused, complete
}

// isDoubtful reports whether the record may be wrong about the group. Then its messages must be compared before they
// count as stored.
func (r *run) isDoubtful(g *group, now time.Time) bool {
	if g.isPassedOver() {
		return false
	}
	if g.uid == "" || len(g.listed) != len(g.known) {
		return true
	}
	if !g.sizesFit(now) {
		return true
	}
	return slices.ContainsFunc(g.known, func(e *Entry) bool {
		return !e.Deleted.IsZero() || !e.Missing.IsZero() || e.Unsure ||
			r.isShort(e) && now.Sub(e.Checked) >= retryInterval
	})
}

func (g *group) isPassedOver() bool {
	return slices.ContainsFunc(g.known, func(e *Entry) bool { return !e.Skipped.IsZero() })
}

// sizesFit reports whether the listed sizes are the sizes in the entries. After a message was retrieved, some servers
// list its real size instead of the size that they listed before.
func (g *group) sizesFit(now time.Time) bool {
	if len(g.listed) == 1 {
		e := g.known[0]
		return sizeMatches(g.listed[0], e) || e.Copy == 0 && now.Sub(e.Checked) < retryInterval
	}
	claimed, octets := make(map[int64]int), make(map[int64]int)
	for _, e := range g.known {
		claimed[e.Size]++
		octets[e.Octets]++
	}
	for _, m := range g.listed {
		claimed[m.Size]--
		octets[m.Size]--
	}
	none := func(counts map[int64]int) bool {
		for _, n := range counts {
			if n != 0 {
				return false
			}
		}
		return true
	}
	return none(claimed) || none(octets)
}

// sizeRank is for sorting: entries that match the size of the message come before the others.
func sizeRank(m *message, e *Entry) int {
	if sizeMatches(m, e) {
		return 0
	}
	return 1
}

func sizeMatches(m *message, e *Entry) bool {
	return m.Size == e.Size || m.Size == e.Octets || m.Size < 0
}

// If a message is still listed after the QUIT that should have deleted it, it is compared again, because the server may
// have given its unique-id to another message. After maxQuits such attempts, the server seems to delete nothing, and
// the comparison is done once a day. A message that failed maxFailures times is also tried only once a day.
const (
	maxQuits      = 2
	maxFailures   = 5
	maxTries      = 2 // how often a message is tried in one run
	retryInterval = 24 * time.Hour
)

// canWait reports whether nothing has to be done with the group in this run.
func (g *group) canWait(now time.Time) bool {
	if g.isPassedOver() {
		return true
	}
	if len(g.listed) != len(g.known) || !g.sizesFit(now) {
		return false
	}
	return !slices.ContainsFunc(g.known, func(e *Entry) bool {
		return e.Quits < maxQuits || e.Deleted.IsZero() || now.Sub(e.Deleted) >= retryInterval
	})
}

// isSetAside reports whether a failed message must not be tried in this run.
func (r *run) isSetAside(e *Entry, now time.Time) bool {
	if e.Permanent {
		return true
	}
	sinkWorks := e.NoneStored && r.report.Delivered > 0 // the last failed run stored nothing, but this run does
	return e.Failures >= maxFailures && now.Sub(e.Failed) < retryInterval && !sinkWorks
}

// due reports whether a stored message is to be deleted.
func (r *run) due(e *Entry, now time.Time) bool {
	return r.Delete && !e.Stored.IsZero() && !r.isShort(e) && now.Sub(e.Stored) >= r.KeepFor
}

// isShort reports whether a message may have been cut when it was stored.
func (r *run) isShort(e *Entry) bool { return e.Short && !r.AcceptShort && !r.record.hasSurplus(e) }

// separateFailed takes failed messages out of toStore and toCompare. It skips those that are set aside, and moves those
// that may harm the session to suspects. A message with Owed set is tried before anything is committed; otherwise it
// might never be tried.
func (r *run) separateFailed(p *plan, now time.Time) {
	for _, list := range []*[]*message{&p.toStore, &p.toCompare} {
		var first, others []*message
		for _, m := range *list {
			switch e := cmp.Or(m.entry, m.similar); {
			case m.group.isSingle() && r.failures[e] >= maxTries && m.arrivedInRun:
				m.skip(ErrNotReached) // the message failed in this run under another unique-id
			case m.group.isSingle() && r.failures[e] >= maxTries:
				m.fate = handledBefore
			case m.entry != nil && e.Failures > 0 && m.group.hasFailedBefore(m) && r.isSetAside(e, now):
				m.fate = skipped
				m.skipResult = Result{Item: m.Item, Outcome: Failed, Err: setAside(e)}
			case e != nil && e.Owed:
				m.requestAlone = m.requestAlone || !e.Failed.IsZero()
				first = append(first, m)
			case e != nil && (!e.Failed.IsZero() || r.isShort(e) && m.compare),
				m.selectAtRetr, r.mayBeUnselected(m):
				m.requestAlone = true
				p.suspects = append(p.suspects, m)
			default:
				others = append(others, m)
			}
		}
		r.sortMessages(first)
		r.sortMessages(others)
		if *list = append(others, first...); r.MaxMessages > 0 || r.MaxOctets > 0 {
			*list = append(first, others...) // otherwise the limits might be reached before the owed messages
		}
	}
	r.sortMessages(p.suspects)
}

// mayBeUnselected reports whether Select may have left the message in an earlier run. Only the content can show that.
func (r *run) mayBeUnselected(m *message) bool {
	return r.Select != nil && m.entry != nil && !m.group.isSingle()
}

// hasFailedBefore reports whether the message is certainly one that failed before. A unique-id identifies the message
// even if its size has changed, because some servers (Mailutils) count the notes that they add to a message.
func (g *group) hasFailedBefore(m *message) bool {
	return g.isSingle() || g.sizeCounts[m.Size] <= len(g.undelivered[m.Size])
}

// lastFailure returns the time when the message, or a similar one, last failed. It returns the zero time if there is
// none.
func (m *message) lastFailure() time.Time {
	if e := cmp.Or(m.entry, m.similar); e != nil {
		return e.Failed
	}
	return time.Time{}
}

// sortMessages moves failed messages to the end. The message that failed last comes last, so that each message gets its
// turn. Some messages only have the unique-id and size of a failed one. Of these the newest come first, because they
// are probably other messages.
func (r *run) sortMessages(messages []*message) {
	slices.SortStableFunc(messages, func(a, b *message) int {
		if n := a.lastFailure().Compare(b.lastFailure()); n != 0 {
			return n
		}
		entry := cmp.Or(a.entry, a.similar)
		switch {
		case a.group == b.group && entry != nil && entry == cmp.Or(b.entry, b.similar):
			return b.Num - a.Num
		case a.likelyStored != b.likelyStored && b.likelyStored:
			return -1
		case a.likelyStored != b.likelyStored:
			return 1
		case r.NewestFirst:
			return b.Num - a.Num
		}
		return a.Num - b.Num
	})
}

// setAside returns the error for a message that is not tried now.
func setAside(e *Entry) error {
	if e.Permanent {
		return setAsideForGood(e.Reason)
	}
	return fmt.Errorf("%w until %s: it failed in %d runs, the last time with: %s", ErrSetAside,
		e.Failed.Add(retryInterval).Format(time.DateTime), e.Failures, e.Reason)
}

// A setAsideForGood is the error for a message that the sink will never store. It contains the text of the sink's
// error, which wrapped ErrPermanent.
type setAsideForGood string

func (e setAsideForGood) Error() string { return ErrSetAside.Error() + " for good: " + string(e) }

func (e setAsideForGood) Is(target error) bool {
	return target == ErrSetAside || target == ErrPermanent
}
