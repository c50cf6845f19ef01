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
	look         bool   // retrieve the message to compare it with what was stored
	ask          bool   // call Select while the message is retrieved, because the server has no TOP
	requestAlone bool   // no other message may be requested together with it
	like         *Entry // entry of another message that was cut or failed, with the same unique-id and size
	came         bool   // the message was not listed in an earlier session of the run

	likely bool // the message has the size of a stored one, so it is probably stored
	fate   fate
	left   Result // the result to report, if the message is skipped
	dealt  bool   // no other session of the run has to handle the message
	asked  bool   // RETR was sent for the message, and the message may not be stored
	digest string // digest of the retrieved content, even if it was not stored
	isOdd  bool   // the received size differs from the listed size
	again  bool   // a message with the same header has another content, so this message is retrieved once more
}

// A fate is what happened to a message in a session.
type fate int

const (
	untried    fate = iota // not retrieved yet
	settled                // an earlier session of the run has handled it
	known                  // stored or skipped in an earlier run, and not to be retrieved
	skipped                // not to be retrieved in this run
	unselected             // not to be retrieved in this run, because of Select
	overLimit              // left for another run because of MaxMessages or MaxOctets
	delivered              // retrieved and stored
	recognized             // retrieved, and recognized as stored before
	failed                 // not retrieved completely, or not stored
	committed              // stored, and QUIT was sent with the message marked as deleted
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
	uid     string
	listed  []*message
	entries []*Entry            // entries with this unique-id; it is not known yet which entry belongs to which message
	digests map[string][]*Entry // entries that were not matched with a message yet, by digest
	notes   map[int64][]*Entry  // entries of messages that were not delivered yet, by size
	sizes   map[int64]int       // number of messages with a size that is in notes
	gone    []*Entry            // entries of messages that were deleted and are not listed any more
}

// A plan is a list of what to do in a session. Its message numbers are valid in this session only.
type plan struct {
	made     time.Time
	all      []*message
	groups   map[string]*group
	fresh    []*message          // to be stored
	looks    []*message          // to be compared with what was stored
	suspects []*message          // retrieved last, because retrieving them might harm the session
	missing  []*Entry            // entries of messages that are not listed
	strays   map[string][]*Entry // missing entries that were stored and are not certainly deleted, by digest
	marked   map[string][]*Entry // missing entries that were marked in this run, by digest
	stored   map[string]*Entry   // an entry of a message that was stored, by digest
	headers  map[string]*Entry   // an entry of a message that was stored, by the digest of its header
}

// plan decides what to do with each listed message.
func (r *run) plan(infos []pop3.MessageInfo, now time.Time) *plan {
	p := &plan{made: now, groups: make(map[string]*group), strays: make(map[string][]*Entry),
		marked: make(map[string][]*Entry), stored: make(map[string]*Entry), headers: make(map[string]*Entry)}
	for _, info := range infos {
		p.list(r, info)
	}
	for uid, entries := range r.record.byUID {
		g := p.groups[uid]
		if g != nil {
			g.remember(r.takeOutGone(g, entries))
		} else {
			p.missing = append(p.missing, entries...)
		}
		for _, e := range entries {
			p.index(e, g == nil && !e.isGone())
			if g != nil {
				continue
			}
			delete(r.undeleted, e)
			if r.marked[e] {
				p.marked[e.Digest] = append(p.marked[e.Digest], e)
			}
		}
	}
	for _, m := range p.all {
		if m.FirstSeen = now; m.entry != nil && !m.entry.Listed.IsZero() {
			m.FirstSeen = m.entry.Listed
		}
	}
	r.recall(p, now)
	for _, m := range p.all {
		if g := m.group; g.listed[0] == m {
			r.decide(p, g, now)
		}
	}
	p.guess()
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
	for _, m := range s.plan.fresh {
		entries := failed[m.Size]
		if m.entry != nil || !m.group.isSingle() || len(entries) == 0 {
			continue
		}
		m.entry, failed[m.Size] = entries[0], entries[1:]
		m.entry.Failures, m.entry.Permanent = min(m.entry.Failures, maxFailures-1), false
		if err := s.record.rename(ctx, m.entry, m.UID); err != nil {
			return err
		}
	}
	return nil
}

// guess marks messages that are probably stored already. For each size, it marks as many messages as there are entries
// of stored messages with that size. Only the content of a message can show whether the guess is right.
func (p *plan) guess() {
	stored := make(map[key]int)
	for _, e := range p.missing {
		if e.isKnown() && !e.isGone() {
			stored[key{"", e.Size}]++
		}
	}
	for _, g := range p.groups {
		for _, e := range g.entries {
			if !g.isSingle() && !e.isGone() {
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
			m.likely = true
		}
	}
}

// recall finds messages that earlier sessions of the run have listed, and skips those that were handled. It assumes
// that messages with the same key have the same order as before, if none of them is gone.
func (r *run) recall(p *plan, now time.Time) {
	listed := make(map[key][]*message)
	for _, m := range p.all {
		k := m.key()
		if listed[k] = append(listed[k], m); len(listed[k]) > len(r.listed[k]) {
			m.came = r.report.Sessions > 1
			r.report.Listed++
		}
	}
	for k, messages := range listed {
		before := slices.DeleteFunc(slices.Clone(r.listed[k]), r.isDeleted)
		for i := 0; i < len(before) && len(before) <= len(messages); i++ {
			m, e := messages[i], messages[i].entry
			switch {
			case before[i].fate == unselected || before[i].left.Err == ErrNotReached:
				m.skip(before[i].left.Err)
			case before[i].dealt && (e == nil || !e.isKnown() || m.group.sizesFit(now)):
				m.fate = settled
			}
		}
		r.listed[k] = messages
	}
}

// isDeleted reports whether the server has confirmed that it deleted the message.
func (r *run) isDeleted(m *message) bool {
	return m.fate == committed && r.marked[m.entry] && m.entry.Confirmed
}

// index adds an entry to the indexes by digest. stray reports whether the message of the entry may now be listed under
// another unique-id.
func (p *plan) index(e *Entry, stray bool) {
	if e.Stored.IsZero() || e.Digest == "" {
		return
	}
	if !e.Unsure {
		p.stored[e.Digest] = e
	}
	if h := p.headers[e.Header]; h == nil || !h.Varies {
		p.headers[e.Header] = e
	}
	if stray {
		p.strays[e.Digest] = append(p.strays[e.Digest], e)
	}
}

// list adds a listed message to the plan.
func (p *plan) list(r *run, info pop3.MessageInfo) {
	g := p.groups[info.UID]
	if g == nil {
		g = &group{uid: info.UID}
		p.groups[info.UID] = g
	}
	m := &message{Item: Item{Account: r.Account, Num: info.Num, UID: info.UID, Size: info.Size}, group: g}
	g.listed = append(g.listed, m)
	p.all = append(p.all, m)
}

// takeOutGone returns the entries without those of deleted messages, if the other entries are enough for all listed
// messages. Otherwise a deleted message may be listed again, and takeOutGone returns all entries.
func (r *run) takeOutGone(g *group, entries []*Entry) []*Entry {
	var gone, others []*Entry
	for _, e := range entries {
		if e.isGone() {
			gone = append(gone, e)
		} else {
			others = append(others, e)
		}
	}
	if len(others) < len(g.listed) || r.latest != nil && len(g.listed) > r.latest.left(r, g.uid) {
		return entries
	}
	g.gone = gone
	return others
}

// left returns the number of messages with this unique-id that remain on the server after a session.
func (p *plan) left(r *run, uid string) (n int) {
	if g := p.groups[uid]; g != nil {
		for _, m := range g.listed {
			if !r.isDeleted(m) {
				n++
			}
		}
	}
	return n
}

// remember adds the entries in the record to a group.
func (g *group) remember(entries []*Entry) {
	if len(entries) == 0 {
		return
	}
	g.digests, g.notes = make(map[string][]*Entry), make(map[int64][]*Entry)
	for _, e := range entries {
		if !e.Skipped.IsZero() && e.Size != 0 && !(g.isSingle() && fits(g.listed[0], e)) {
			// Select has skipped another message, or it is not known which message it has skipped
			e.Skipped = time.Time{}
		}
		if !e.isKnown() {
			g.notes[e.Size] = append(g.notes[e.Size], e)
			continue
		}
		g.entries = append(g.entries, e)
		if e.Digest != "" {
			g.digests[e.Digest] = append(g.digests[e.Digest], e)
		}
	}
	if g.isSingle() {
		m := g.listed[0]
		slices.SortStableFunc(g.entries, func(a, b *Entry) int { return rank(m, a) - rank(m, b) })
		if m.entry = entries[0]; len(g.entries) > 0 {
			m.entry = g.entries[0]
		}
		return
	}
	count := make(map[int64]int)
	for _, m := range g.listed {
		if notes := g.notes[m.Size]; len(notes) > 0 {
			m.entry = notes[min(count[m.Size], len(notes)-1)]
			count[m.Size]++
		}
	}
	g.sizes = count
}

// isSingle reports whether no other message has this unique-id.
func (g *group) isSingle() bool { return len(g.listed) == 1 && g.uid != "" }

// find returns the entry of a stored message that has the content of b, or nil. Usually that entry has the unique-id
// of m and belongs to no other message yet, or its unique-id is no longer listed. If shared is true, another message
// with the same content may also need the entry, because the server gave a unique-id to another message.
func (p *plan) find(m *message, b *body) (e *Entry, shared bool) {
	if m.look {
		if e := pop(m.group.digests, b.digest); e != nil {
			return e, false
		}
	}
	if e := pop(p.strays, b.digest); e != nil {
		return e, false
	}
	if m.came {
		if e := pop(p.marked, b.digest); e != nil {
			return e, false
		}
	}
	e = p.stored[b.digest]
	if e != nil && m.group.isSingle() && (m.look && !m.requestAlone || p.hasMoved(e)) {
		return e, true
	}
	e = p.headers[b.header]
	if b.header == "" || e == nil || e.Short && e.Octets != b.octets {
		return nil, false
	}
	b.varies = m.again && m.digest != b.digest
	if e.Varies || b.varies {
		return e, e.UID != m.UID && p.groups[e.UID] != nil
	}
	if !m.again && e.Digest != b.digest && e.Short == (b.octets < b.claimed) {
		m.again, b.err = true, errAgain
	}
	return nil, false
}

// hasMoved reports whether another message now has the unique-id of a stored message.
func (p *plan) hasMoved(e *Entry) bool {
	g := p.groups[e.UID]
	return g != nil && g.isSingle() && !fits(g.listed[0], e)
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

// decide plans the messages of a group.
func (r *run) decide(p *plan, g *group, now time.Time) {
	due := slices.ContainsFunc(g.entries, func(e *Entry) bool { return r.due(e, now) })
	switch {
	case r.hasUIDs && g.uid == "":
		// The message has just arrived. Later it will have a unique-id, and would then be taken for a
		// new message.
		for _, m := range g.untried() {
			m.skip(ErrNoUID)
		}
	case len(g.entries) == 0:
		for _, m := range g.untried() {
			if r.isTooLarge(m) {
				m.skip(ErrTooLarge)
				continue
			}
			p.fresh = append(p.fresh, m)
		}
	case g.rest(now) || !due && !r.isDoubtful(g, now):
		for i, m := range g.untried() {
			m.fate, m.entry = known, g.entries[min(i, len(g.entries)-1)]
			r.know(m.entry)
		}
	default:
		r.lookAt(p, g)
	}
}

// lookAt plans to compare the messages of a group with what was stored. If replies may have been mixed up when one of
// the messages was stored, each is requested alone. One server mixes up replies if several messages are requested at
// once: it sends a reply before the end of the previous message.
func (r *run) lookAt(p *plan, g *group) {
	unsure := slices.ContainsFunc(g.entries, func(e *Entry) bool { return e.Unsure })
	known, bad := make(map[int64]bool), make(map[int64]*Entry) // by size
	for _, e := range g.entries {
		known[e.Size], known[e.Octets] = true, true
		if r.isShort(e) || !e.Failed.IsZero() {
			bad[e.Size] = e
		}
	}
	for _, m := range g.untried() {
		if !known[m.Size] && !g.isSingle() && r.isTooLarge(m) {
			m.skip(ErrTooLarge)
			continue
		}
		m.look, m.requestAlone, m.like = true, unsure, bad[m.Size]
		p.looks = append(p.looks, m)
	}
}

func (r *run) isTooLarge(m *message) bool { return r.MaxSize > 0 && m.Size > r.MaxSize }

func (g *group) untried() []*message {
	return slices.DeleteFunc(slices.Clone(g.listed), func(m *message) bool { return m.fate != untried })
}

func (m *message) skip(why error) {
	if m.fate = skipped; why == ErrNotSelected {
		m.fate = unselected
	}
	m.left = Result{Item: m.Item, Outcome: Skipped, Err: why}
}

// leftovers returns the entries that certainly belong to no listed message. The result whole reports whether the entry
// of each listed message is known. In that case all other entries are left over.
func (g *group) leftovers() (left []*Entry, whole bool) {
	used, sizes := make(map[*Entry]bool), make(map[int64]bool)
	for _, m := range g.listed {
		used[m.entry] = true
		if !m.isStored() && m.fate != committed {
			sizes[m.Size] = true
		}
	}
	whole = len(sizes) == 0
	for _, e := range g.entries {
		gone := !g.isSingle() && !e.Deleted.IsZero() && !sizes[e.Size] && !sizes[e.Octets]
		if e.UID == g.uid && !used[e] && (whole || gone) {
			left = append(left, e)
		}
	}
	for size, notes := range g.notes {
		for _, e := range notes {
			if !used[e] && !sizes[size] || whole && !e.isKnown() {
				left = append(left, e)
			}
		}
	}
	return left, whole
}

// isDoubtful reports whether the record may be wrong about the group. Then its messages must be compared before they
// count as stored.
func (r *run) isDoubtful(g *group, now time.Time) bool {
	if g.isPassedOver() {
		return false
	}
	if g.uid == "" || len(g.listed) != len(g.entries) {
		return true
	}
	if !g.sizesFit(now) {
		return true
	}
	return slices.ContainsFunc(g.entries, func(e *Entry) bool {
		return !e.Deleted.IsZero() || !e.Missing.IsZero() || e.Unsure || r.isShort(e) && now.Sub(e.Checked) >= restTime
	})
}

func (g *group) isPassedOver() bool {
	return slices.ContainsFunc(g.entries, func(e *Entry) bool { return !e.Skipped.IsZero() })
}

// sizesFit reports whether the listed sizes are the sizes in the entries. After a message was retrieved, some servers
// list its real size instead of the size that they listed before.
func (g *group) sizesFit(now time.Time) bool {
	if len(g.listed) == 1 {
		e := g.entries[0]
		return fits(g.listed[0], e) || e.Copy == 0 && now.Sub(e.Checked) < restTime
	}
	claimed, octets := make(map[int64]int), make(map[int64]int)
	for _, e := range g.entries {
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

// rank makes entries that fit the size of the message come before the others.
func rank(m *message, e *Entry) int {
	if fits(m, e) {
		return 0
	}
	return 1
}

func fits(m *message, e *Entry) bool { return m.Size == e.Size || m.Size == e.Octets || m.Size < 0 }

// If a message is still listed after the QUIT that should have deleted it, it is compared again, because the server may
// have given its unique-id to another message. After maxQuits such attempts, the server seems to delete nothing, and
// the comparison is done once a day. A message that failed maxFailures times is also tried only once a day.
const (
	maxQuits    = 2
	maxFailures = 5
	maxTries    = 2 // how often a message is tried in one run
	restTime    = 24 * time.Hour
)

// rest reports whether nothing has to be done with the group in this run.
func (g *group) rest(now time.Time) bool {
	if g.isPassedOver() {
		return true
	}
	if len(g.listed) != len(g.entries) || !g.sizesFit(now) {
		return false
	}
	return !slices.ContainsFunc(g.entries, func(e *Entry) bool {
		return e.Quits < maxQuits || e.Deleted.IsZero() || now.Sub(e.Deleted) >= restTime
	})
}

// isSetAside reports whether a failed message must not be tried in this run.
func (r *run) isSetAside(e *Entry, now time.Time) bool {
	if e.Permanent {
		return true
	}
	works := e.NoneStored && r.report.Delivered > 0 // messages can be stored again, so the cause of the failure is gone
	return e.Failures >= maxFailures && now.Sub(e.Failed) < restTime && !works
}

// due reports whether a stored message is to be deleted.
func (r *run) due(e *Entry, now time.Time) bool {
	return r.Delete && !e.Stored.IsZero() && !r.isShort(e) && now.Sub(e.Stored) >= r.KeepFor
}

// isShort reports whether a message may have been cut when it was stored.
func (r *run) isShort(e *Entry) bool { return e.Short && !r.AcceptShort && !r.record.explains(e) }

// divide takes failed messages out of fresh and looks. It skips those that are set aside, and moves those that may harm
// the session to suspects. A message with Owed set is tried before anything is committed; otherwise it might never be
// tried.
func (r *run) divide(p *plan, now time.Time) {
	for _, list := range []*[]*message{&p.fresh, &p.looks} {
		var first, rest []*message
		for _, m := range *list {
			switch e := cmp.Or(m.entry, m.like); {
			case m.group.isSingle() && r.failures[e] >= maxTries && m.came:
				m.skip(ErrNotReached) // the message failed in this run under another unique-id
			case m.group.isSingle() && r.failures[e] >= maxTries:
				m.fate = settled
			case m.entry != nil && e.Failures > 0 && m.group.tells(m) && r.isSetAside(e, now):
				m.fate = skipped
				m.left = Result{Item: m.Item, Outcome: Failed, Err: setAside(e)}
			case e != nil && e.Owed:
				m.requestAlone = m.requestAlone || !e.Failed.IsZero()
				first = append(first, m)
			case e != nil && (!e.Failed.IsZero() || r.isShort(e) && m.look) || m.ask || r.asksAgain(m):
				m.requestAlone = true
				p.suspects = append(p.suspects, m)
			default:
				rest = append(rest, m)
			}
		}
		r.order(first)
		r.order(rest)
		if *list = append(rest, first...); r.MaxMessages > 0 || r.MaxOctets > 0 {
			*list = append(first, rest...) // otherwise the limits might be reached before the owed messages
		}
	}
	r.order(p.suspects)
}

// asksAgain reports whether Select may have left the message in an earlier run. Only the content can show that.
func (r *run) asksAgain(m *message) bool {
	return r.Select != nil && m.entry != nil && !m.group.isSingle()
}

// tells reports whether the message is certainly one that failed before. A unique-id identifies the message even if its
// size has changed, because some servers (Mailutils) count the notes that they add to a message.
func (g *group) tells(m *message) bool {
	return g.isSingle() || g.sizes[m.Size] <= len(g.notes[m.Size])
}

// failed returns the time when the message, or a similar one, last failed. It returns the zero time if there is none.
func (m *message) failed() time.Time {
	if e := cmp.Or(m.entry, m.like); e != nil {
		return e.Failed
	}
	return time.Time{}
}

// order moves failed messages to the end. The message that failed last comes last, so that each message gets its turn.
// Some messages only have the unique-id and size of a failed one. Of these the newest come first, because they are
// probably other messages.
func (r *run) order(messages []*message) {
	slices.SortStableFunc(messages, func(a, b *message) int {
		if n := a.failed().Compare(b.failed()); n != 0 {
			return n
		}
		switch {
		case a.group == b.group && cmp.Or(a.entry, a.like) != nil && cmp.Or(a.entry, a.like) == cmp.Or(b.entry, b.like):
			return b.Num - a.Num
		case a.likely != b.likely && b.likely:
			return -1
		case a.likely != b.likely:
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
		e.Failed.Add(restTime).Format(time.DateTime), e.Failures, e.Reason)
}

// A setAsideForGood is the error for a message that the sink will never store. It contains the text of the sink's
// error, which wrapped ErrPermanent.
type setAsideForGood string

func (e setAsideForGood) Error() string { return ErrSetAside.Error() + " for good: " + string(e) }

func (e setAsideForGood) Is(target error) bool {
	return target == ErrSetAside || target == ErrPermanent
}
