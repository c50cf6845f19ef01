package pop3test

import (
	"cmp"
	"time"
)

// AtGreeting is the word for the greeting in [Fault.At].
const AtGreeting = "GREETING"

// A Fault is something that goes wrong. Session, At, Skip and Times say when, the other fields what; the
// zero value of each does nothing. A Fault is given to the server with [Server.SetFaults].
//
// If several faults strike the same command, the first of them that sets a field decides about that field
// (and with Drop and Short about Octets and By). So a fault that sends everything one octet at a time may
// stand beside one that refuses the second RETR.
type Fault struct {
	// Session is the only session that is struck, counted from 1 in the order in which they began. Zero
	// means every session.
	Session int

	// At is the command that is struck: its first word or words, as in "RETR" or "RETR 2", or AtGreeting.
	// If it is empty, every command is struck, and the greeting. Login of package pop3 uses AUTH unless
	// Caps leaves SASL out, so strike AUTH, not PASS. Message numbers are those of the session.
	At string

	// Skip lets so many of them pass first, and Times is how many are struck after that; zero means all.
	// Both count over all sessions that Session allows.
	Skip, Times int

	// Delay is how long the server waits before it does what the command says.
	Delay time.Duration

	// Chunk is the most octets that the server hands to the connection at once; 1 makes it send one octet
	// at a time. With a Seed that is not zero, each chunk has a length from 1 to Chunk that follows from
	// Seed and is the same in each run. Pace is the wait before each chunk.
	Chunk int
	Seed  uint64
	Pace  time.Duration

	// LF makes the lines of the reply end in LF alone, those of a message too.
	LF bool

	// Deaf makes the server throw away what the client has sent after the command, as a server does that
	// announces PIPELINING and cannot. Over TCP what is still on its way then is not thrown away.
	Deaf bool

	// Reply is sent in place of the reply, and the command is not carried out. A CRLF is added. It may be
	// several lines, as in "+OK\r\n1 120\r\n.". The session goes on, except after QUIT and after a greeting
	// that begins with "-ERR".
	Reply string

	// Extra is sent after the reply, with a CRLF: a second status line, which shifts all that follow.
	Extra string

	// Commit is what QUIT removes.
	Commit Commit

	// Lie is added to each size that the reply gives, in STAT, LIST or RETR.
	Lie int64

	// Short makes a message end after Octets octets, dots that are stuffed not counted, and then end
	// properly, as if that were all. Dovecot does so when it can't read its own file.
	Short bool

	// Drop says when the connection ends, and By says how. Octets belongs to Short and to those moments
	// that count.
	Drop   Moment
	Octets int64
	By     Ending
}

// A Moment is when a connection is lost.
type Moment int

const (
	// Never: the connection is kept. This is the default.
	Never Moment = iota

	// BeforeCommand is when the command has come whole but was not carried out.
	BeforeCommand

	// BeforeReply is when the command was carried out, and no octet of the reply was sent.
	BeforeReply

	// InReply is after so many Octets of the reply, or at its end if it has fewer.
	InReply

	// InBody is after so many Octets after the first line of a multi-line reply, as they are on the wire,
	// dots stuffed, or at its end if it has fewer. A reply of one line is left alone.
	InBody

	// AfterReply is when the whole reply was sent.
	AfterReply

	// AfterSent is when the server has sent so many Octets in the session, whatever the command: it is not
	// a matter of At, Skip and Times. Octets are those of POP3: with TLS, those inside it.
	AfterSent

	// AfterReceived is the same for octets that came from the client. The commands that are whole in them
	// are carried out and answered.
	AfterReceived
)

// An Ending is how a connection is lost.
type Ending int

const (
	// Hangup closes the connection. Over TCP the client gets what was sent before, and then a FIN; with
	// TLS there is no close_notify, as when a middlebox cuts a connection.
	Hangup Ending = iota

	// Reset makes a TCP connection end with RST, so that the client may lose what was sent last. On other
	// connections it is Hangup.
	Reset

	// CloseNotify ends TLS properly. Without TLS it is Hangup.
	CloseNotify

	// Silence leaves the connection open: the server reads what comes and never answers again.
	Silence
)

// A Commit is what QUIT removes of the messages that are marked as deleted.
type Commit int

const (
	// CommitDefault removes all of them, or none of them if the fault has a Reply.
	CommitDefault Commit = iota

	// CommitNone removes none.
	CommitNone

	// CommitHalf removes the first, the third, and so on.
	CommitHalf

	// CommitAll removes all of them.
	CommitAll
)

// SetFaults replaces the faults of the server by the given ones; with none it is sound again. Sessions
// under way are struck from their next command on; those faults that count the octets of a session are
// for sessions that begin later.
func (s *Server) SetFaults(faults ...Fault) {
	armed := make([]*armedFault, len(faults))
	for i, f := range faults {
		armed[i] = &armedFault{Fault: f}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = armed
}

// An armedFault is a fault that counts. Server.mu guards it.
type armedFault struct {
	Fault
	met int // matching commands so far
}

// strikes counts a command that matches and reports whether it is one of those to be struck.
func (f *armedFault) strikes(session int, line string) bool {
	if f.Session != 0 && f.Session != session || !hasWords(line, f.At) {
		return false
	}
	f.met++
	return f.met > f.Skip && (f.Times == 0 || f.met <= f.Skip+f.Times)
}

// faultAt returns what is to go wrong at a command.
func (s *Server) faultAt(session int, line string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum Fault
	for _, f := range s.faults {
		if f.strikes(session, line) {
			sum.add(f.Fault)
		}
	}
	return sum
}

// counted reports whether a moment has to do with octets of the session only.
func (m Moment) counted() bool { return m == AfterSent || m == AfterReceived }

// countdown returns the first fault that ends the session at the given counted moment.
func (s *Server) countdown(session int, m Moment) (f Fault, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Drop == m && (f.Session == 0 || f.Session == session) {
			return f.Fault, true
		}
	}
	return Fault{}, false
}

// add takes from g what f does not say.
func (f *Fault) add(g Fault) {
	if f.Drop == Never && !f.Short && !g.Drop.counted() {
		f.Drop, f.Short, f.Octets, f.By = g.Drop, g.Short, g.Octets, g.By
	}
	f.Delay = cmp.Or(f.Delay, g.Delay)
	f.Chunk = cmp.Or(f.Chunk, g.Chunk)
	f.Seed = cmp.Or(f.Seed, g.Seed)
	f.Pace = cmp.Or(f.Pace, g.Pace)
	f.LF = f.LF || g.LF
	f.Deaf = f.Deaf || g.Deaf
	f.Reply = cmp.Or(f.Reply, g.Reply)
	f.Extra = cmp.Or(f.Extra, g.Extra)
	f.Commit = cmp.Or(f.Commit, g.Commit)
	f.Lie = cmp.Or(f.Lie, g.Lie)
}
