package fetch

import (
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A message is one that the server lists in the session under way.
type message struct {
	Item
	group *group
	look  bool   // to be retrieved to see whether it was stored before
	entry *Entry // of it in the record, once it is known which one that is
}

// A group is the messages with one unique-id: a single one on a server that does its job, several where it gives
// the same one to like messages, all of them where it gives none.
type group struct {
	uid     string
	listed  []*message
	entries []*Entry      // which belong to these messages, as yet to none of them in particular
	left    int           // messages that were not retrieved yet
	waiting map[int64]int // how many of the messages, by size, are not known to be stored yet
}

// A plan is what to do in a session, by message numbers that mean nothing in any other.
type plan struct {
	retrieve []*message // in this order
	due      []*message // to be deleted without being retrieved
	skipped  []Result
	missing  []*Entry // of messages that are not listed
	known    int      // messages that need not be retrieved
}

// plan decides about each message that is listed; hasUIDs tells that the server announces unique-ids.
func (r *run) plan(infos []pop3.MessageInfo, hasUIDs bool, now time.Time) *plan {
	p := new(plan)
	groups, order := r.group(infos)
	if hasUIDs || len(groups) > 1 {
		p.skipUnnamed(groups[""])
		delete(groups, "")
	}
	for uid, copies := range r.record.byUID {
		if groups[uid] == nil {
			p.missing = append(p.missing, copies...)
		}
	}
	for _, m := range order {
		if g := groups[m.UID]; g == m.group && g.listed[0] == m && !r.settled[m.UID] {
			r.decide(p, g, now)
		}
	}
	r.limit(p)
	return p
}

// group sorts what is listed by unique-id.
func (r *run) group(infos []pop3.MessageInfo) (groups map[string]*group, order []*message) {
	groups = make(map[string]*group)
	for _, info := range infos {
		g := groups[info.UID]
		if g == nil {
			entries := slices.Clone(r.record.byUID[info.UID])
			g = &group{uid: info.UID, entries: entries, waiting: make(map[int64]int)}
			groups[info.UID] = g
		}
		m := &message{Item: Item{Account: r.Account, Num: info.Num, UID: info.UID, Size: info.Size}, group: g}
		g.listed = append(g.listed, m)
		g.left++
		g.waiting[m.Size]++
		order = append(order, m)
	}
	return groups, order
}

// skipUnnamed leaves alone what has no unique-id on a server that gives them to others: it has just come, and would
// be taken for another message when it has its own.
func (p *plan) skipUnnamed(g *group) {
	if g == nil {
		return
	}
	for _, m := range g.listed {
		p.skipped = append(p.skipped, Result{Item: m.Item, Outcome: Skipped, Err: ErrNoUID})
	}
}

// decide plans for the messages of a group.
func (r *run) decide(p *plan, g *group, now time.Time) {
	switch {
	case len(g.entries) == 0:
		p.retrieve = append(p.retrieve, g.listed...)
	case g.rests(now):
		p.known += len(g.listed)
	case g.doubtful(r.anyDue(g.entries, now)):
		for _, m := range g.listed {
			m.look = true
		}
		p.retrieve = append(p.retrieve, g.listed...)
	default:
		p.known += len(g.listed)
		if m := g.listed[0]; r.anyDue(g.entries, now) { // it is the only one
			m.entry = g.entries[0]
			g.stored(m)
			p.due = append(p.due, m)
		}
	}
}

// stored takes note that a message of the group is stored whole.
func (g *group) stored(m *message) { g.waiting[m.Size]-- }

// mayGo reports whether a stored message can be deleted. It can't while there is another one with its unique-id and
// size that is not stored, which later could not be told from it if they are alike.
func (m *message) mayGo() bool { return m.group.waiting[m.Size] == 0 }

// doubtful reports whether the record may be wrong about the group: its messages have to be looked at before any
// of them is taken for stored, or deleted if one is due.
func (g *group) doubtful(due bool) bool {
	if g.uid == "" || len(g.listed) != len(g.entries) || due && len(g.listed) > 1 || !g.sizesFit() {
		return true
	}
	return slices.ContainsFunc(g.entries, func(e *Entry) bool {
		return !e.Deleted.IsZero() || !e.Missing.IsZero() || e.Unsure || e.Short && !e.Looked
	})
}

// unsure reports whether a message of the group may have been another one when it was stored.
func (g *group) unsure() bool {
	return slices.ContainsFunc(g.entries, func(e *Entry) bool { return e.Unsure })
}

// sizesFit reports whether the sizes that are listed are those of the entries. Some servers claim other sizes after
// a message was retrieved than before, which are then what came.
func (g *group) sizesFit() bool {
	rest := slices.Clone(g.entries)
	for _, m := range g.listed {
		i := slices.IndexFunc(rest, func(e *Entry) bool { return m.Size == e.Size || m.Size == e.Octets })
		if i < 0 {
			return false
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return true
}

// A message that is still there after a commit is looked at again, since the server may have given its unique-id to
// another one. Where that happens again and again the server just does not delete, and it is done once a day.
const (
	answersInDoubt = 2
	restTime       = 24 * time.Hour
)

// rests reports whether the group is to be left alone for now.
func (g *group) rests(now time.Time) bool {
	if len(g.listed) != len(g.entries) || !g.sizesFit() {
		return false
	}
	return !slices.ContainsFunc(g.entries, func(e *Entry) bool {
		return e.Answers < answersInDoubt || e.Deleted.IsZero() || now.Sub(e.Deleted) >= restTime
	})
}

// due reports whether a stored message is to be deleted.
func (r *run) due(e *Entry, now time.Time) bool {
	return r.Delete && (!e.Short || r.AcceptShort) && now.Sub(e.Stored) >= r.KeepFor
}

func (r *run) anyDue(entries []*Entry, now time.Time) bool {
	return slices.ContainsFunc(entries, func(e *Entry) bool { return r.due(e, now) })
}

// limit takes out what is too large, orders the rest, and cuts it where the run has fetched enough.
func (r *run) limit(p *plan) {
	all := p.retrieve
	p.retrieve = nil
	slices.SortStableFunc(all, func(a, b *message) int {
		if r.NewestFirst {
			return b.Num - a.Num
		}
		return a.Num - b.Num
	})
	if r.enough {
		return
	}
	count, octets, full := r.count, r.report.Octets, false
	for _, m := range all {
		full = full || r.MaxMessages > 0 && count >= r.MaxMessages ||
			r.MaxOctets > 0 && count > 0 && m.Size > r.MaxOctets-octets
		switch {
		case r.MaxSize > 0 && m.Size > r.MaxSize:
			p.skipped = append(p.skipped, Result{Item: m.Item, Outcome: Skipped, Err: ErrTooLarge})
			continue
		case full:
			p.skipped = append(p.skipped, Result{Item: m.Item, Outcome: Skipped, Err: ErrLimit})
			continue
		}
		p.retrieve = append(p.retrieve, m)
		count++
		octets += m.Size
	}
}
