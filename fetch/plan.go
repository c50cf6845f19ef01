package fetch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A message is one that the server lists in the session under way.
type message struct {
	Item
	group *group
	entry *Entry // of it in the record, nil as long as it is not known which one that is
	look  bool   // to be retrieved to see whether it is what was stored before
	ask   bool   // Select wants its header, and the server has no TOP
	alone bool   // no other message is to be asked for with it
	like  *Entry // of a message with its unique-id and size that was cut, or ended a session
	came  bool   // no earlier session of the run has listed it

	likely bool // it is probably stored, by its size
	fate   fate
	left   Result // what the report says of it, if it is skipped
	dealt  bool   // no other session of the run has to deal with it
	asked  bool   // RETR was sent for it, and it may not be stored
	digest string // of what was retrieved, whatever became of it
	isOdd  bool   // what was retrieved has another size than listed
	again  bool   // its content differs from that of a message with its header, so it is retrieved once more
}

// A fate is what became of a message in a session.
type fate int

const (
	untried    fate = iota // not retrieved yet
	settled                // an earlier session of the run has dealt with it
	known                  // stored or passed over before, and not to be retrieved
	skipped                // not to be retrieved in this run
	unselected             // the same, by Select
	overLimit              // left for another run by MaxMessages or MaxOctets
	delivered              // retrieved, and stored
	recognized             // retrieved, and stored before
	failed                 // not retrieved whole, or not stored
	committed              // stored, and QUIT was sent with the message marked as deleted
)

// isStored reports whether the message was retrieved in this session and is stored.
func (m *message) isStored() bool { return m.fate == delivered || m.fate == recognized }

// A key tells messages apart across the sessions of a run: by unique-id, and by size where several share it.
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

// A group is the messages with one unique-id: a single one on a server that does its job, several where it gives
// the same one to like messages, all of them where it gives none.
type group struct {
	uid     string
	listed  []*message
	entries []*Entry            // of these messages that are known, as yet of none of them in particular
	digests map[string][]*Entry // of the entries, those that were not found to be of a message yet
	notes   map[int64][]*Entry  // of messages that were not delivered so far, by size
	sizes   map[int64]int       // how many messages have a size that is among those of notes
	gone    []*Entry            // of messages that were deleted, and certainly are not among those that are listed
}

// A plan is what to do in a session, by message numbers that mean nothing in any other.
type plan struct {
	all      []*message
	groups   map[string]*group
	fresh    []*message          // to be stored
	looks    []*message          // to be compared with what was stored
	suspects []*message          // whose retrieval might harm the session: after all else is committed
	missing  []*Entry            // of messages that are not listed
	strays   map[string][]*Entry // those of them that were stored and should be listed, by digest
	marked   map[string][]*Entry // those of them that were marked in this run, by digest
	stored   map[string]*Entry   // some entry of a message that was stored, by digest
	headers  map[string]*Entry   // the same, by the digest of its header
}

// plan decides about each message that is listed.
func (r *run) plan(infos []pop3.MessageInfo, now time.Time) *plan {
	p := &plan{groups: make(map[string]*group), strays: make(map[string][]*Entry), marked: make(map[string][]*Entry),
		stored: make(map[string]*Entry), headers: make(map[string]*Entry)}
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
			if g == nil && r.marked[e] {
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

// followFailed finds messages that failed and have another unique-id now, by their sizes. They are tried before they
// are set aside, since they may be other messages.
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

// guess finds messages that are probably stored, and will not be known before they are retrieved: as many of each size
// as there are entries of stored messages.
func (p *plan) guess() {
	stored := make(map[key]int)
	for _, e := range p.missing {
		if !e.isGone() {
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

// recall finds the messages again that earlier sessions of the run have listed, and leaves alone what is dealt with.
// Those with the same key are taken to be listed in the same order as before, if none of them has gone.
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
			case before[i].fate == unselected:
				m.skip(ErrNotSelected)
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

// index makes an entry be found by its digest, for a message with another unique-id too if it is a stray.
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

// list adds a message.
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

// takeOutGone takes out the entries of messages that were deleted if there are enough others for all that are listed.
// Otherwise one of the deleted may be there again.
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

// left returns how many messages with a unique-id a session has left on the server.
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

// remember takes in what the record has of the messages of a group.
func (g *group) remember(entries []*Entry) {
	if len(entries) == 0 {
		return
	}
	g.digests, g.notes = make(map[string][]*Entry), make(map[int64][]*Entry)
	for _, e := range entries {
		if !e.Skipped.IsZero() && e.Size > 0 && !(g.isSingle() && fits(g.listed[0], e)) {
			e.Skipped = time.Time{} // Select chose another message, or one of these
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

// isSingle reports whether the unique-id tells the message from all others.
func (g *group) isSingle() bool { return len(g.listed) == 1 && g.uid != "" }

// find returns the entry of a message with this content, or nil: an entry that has its unique-id and belongs to no
// other message yet, or that of a message that is not listed under its old unique-id any more. With shared the entry is
// that of another message, and the content is the same: the server gave a unique-id to another message.
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
	if e != nil && m.group.isSingle() && (m.look && !m.alone || p.hasMoved(e)) {
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

// hasMoved reports whether the unique-id of a stored message is that of another one now.
func (p *plan) hasMoved(e *Entry) bool {
	g := p.groups[e.UID]
	return g != nil && g.isSingle() && !fits(g.listed[0], e)
}

// pop takes an entry out of those with a digest.
func pop(digests map[string][]*Entry, digest string) *Entry {
	entries := digests[digest]
	if len(entries) == 0 {
		return nil
	}
	digests[digest] = entries[1:]
	return entries[0]
}

// decide plans for the messages of a group.
func (r *run) decide(p *plan, g *group, now time.Time) {
	due := slices.ContainsFunc(g.entries, func(e *Entry) bool { return r.due(e, now) })
	switch {
	case r.hasUIDs && g.uid == "":
		// It has just come, and would be taken for another message when it has its own unique-id.
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
		// Replies that were mixed up when the message was stored must not be so again: there is a server whose reply
		// overtakes the end of the message before it, if it was asked for ahead.
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
			m.look, m.alone, m.like = true, unsure, bad[m.Size]
			p.looks = append(p.looks, m)
		}
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

// leftovers returns the entries that belong to none of the messages, so far as that can be known; whole says that each
// message of the group is known, so that all the other entries are left over.
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

// isDoubtful reports whether the record may be wrong about the group: its messages have to be looked at before any
// of them is taken for stored.
func (r *run) isDoubtful(g *group, now time.Time) bool {
	if g.isPassedOver() {
		return false
	}
	if g.uid == "" || len(g.listed) != len(g.entries) {
		return true
	}
	fit := g.sizesFit(now)
	return slices.ContainsFunc(g.entries, func(e *Entry) bool {
		return !e.Deleted.IsZero() || !e.Missing.IsZero() || e.Unsure ||
			(r.isShort(e) || !fit) && now.Sub(e.Checked) >= restTime
	})
}

func (g *group) isPassedOver() bool {
	return slices.ContainsFunc(g.entries, func(e *Entry) bool { return !e.Skipped.IsZero() })
}

// sizesFit reports whether the sizes that are listed are those of the entries. Some servers claim other sizes after
// a message was retrieved than before, which are then what came.
func (g *group) sizesFit(now time.Time) bool {
	if len(g.listed) == 1 {
		return fits(g.listed[0], g.entries[0]) || now.Sub(g.entries[0].Checked) < restTime
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

func fits(m *message, e *Entry) bool { return m.Size == e.Size || m.Size == e.Octets || m.Size < 0 }

// A message that is still there after a commit is looked at again, since the server may have given its unique-id to
// another one. Where that happens again and again the server just does not delete, and it is done once a day. A
// message that failed so often is tried again once a day too.
const (
	maxQuits    = 2
	maxFailures = 5
	maxTries    = 2 // of a message in a run
	restTime    = 24 * time.Hour
)

// rest reports whether the group is to be left alone for now.
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

// isSetAside reports whether a message that failed before is not to be tried in this run.
func (r *run) isSetAside(e *Entry, now time.Time) bool {
	if e.Permanent {
		return true
	}
	works := e.Alone && r.report.Delivered > 0 // whatever was the trouble then
	return e.Failures >= maxFailures && now.Sub(e.Failed) < restTime && !works
}

// due reports whether a stored message is to be deleted.
func (r *run) due(e *Entry, now time.Time) bool {
	return r.Delete && !e.Stored.IsZero() && !r.isShort(e) && now.Sub(e.Stored) >= r.KeepFor
}

// isShort reports whether a message may have been cut when it was stored.
func (r *run) isShort(e *Entry) bool { return e.Short && !r.AcceptShort && !r.record.explains(e) }

// divide takes out of the plan what failed before: what is set aside, and what may harm the session. Messages that
// the last run owes are tried before anything is committed, or they might never be.
func (r *run) divide(p *plan, now time.Time) {
	for _, list := range []*[]*message{&p.fresh, &p.looks} {
		var first, rest []*message
		for _, m := range *list {
			switch e := cmp.Or(m.entry, m.like); {
			case m.group.isSingle() && r.failures[e] >= maxTries && m.came:
				m.skip(ErrNotReached) // it failed under another unique-id
			case m.group.isSingle() && r.failures[e] >= maxTries:
				m.fate = settled
			case m.entry != nil && e.Failures > 0 && m.group.tells(m) && r.isSetAside(e, now):
				m.fate = skipped
				m.left = Result{Item: m.Item, Outcome: Failed, Err: setAside(e)}
			case e != nil && e.Owed:
				m.alone = m.alone || !e.Failed.IsZero()
				first = append(first, m)
			case e != nil && (!e.Failed.IsZero() || r.isShort(e) && m.look) || m.ask || r.asksAgain(m):
				m.alone = true
				p.suspects = append(p.suspects, m)
			default:
				rest = append(rest, m)
			}
		}
		r.order(first)
		r.order(rest)
		if *list = append(rest, first...); r.MaxMessages > 0 || r.MaxOctets > 0 {
			*list = append(first, rest...) // or there would never be room for them
		}
	}
	r.order(p.suspects)
}

// asksAgain reports whether Select may have left the message, and nothing but the message itself can tell.
func (r *run) asksAgain(m *message) bool {
	return r.Select != nil && m.entry != nil && !m.group.isSingle()
}

// tells reports whether the message is certain to be one that failed before.
func (g *group) tells(m *message) bool {
	if g.isSingle() {
		return m.entry.Size == m.Size
	}
	return g.sizes[m.Size] <= len(g.notes[m.Size])
}

// failed is when the message, or one like it, failed last, or zero.
func (m *message) failed() time.Time {
	if e := cmp.Or(m.entry, m.like); e != nil {
		return e.Failed
	}
	return time.Time{}
}

// order puts what failed behind what did not, and what failed last at the end: so each has its turn. Of messages that
// only look like one that failed, the newest come first, since they are not the one.
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

// A setAsideForGood is the reason that a sink once gave in an error that wrapped ErrPermanent.
type setAsideForGood string

func (e setAsideForGood) Error() string { return ErrSetAside.Error() + " for good: " + string(e) }

func (e setAsideForGood) Is(target error) bool {
	return target == ErrSetAside || target == ErrPermanent
}
