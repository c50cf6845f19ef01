package pop3test

import (
	"cmp"
	"time"
)

// AtGreeting selects the greeting in [Fault.At].
const AtGreeting = "GREETING"

// A Fault is something that the server does wrong. Session, User, At, Skip and Times say when it happens. The other
// fields say what the server does. Their zero values have no effect. Pass faults to [Server.SetFaults].
//
// If several faults match the same command, each field has the value of the first fault that sets it. (Drop, Short,
// Octets and By count as one field.) So a fault that sends everything one octet at a time can be combined with one that
// refuses the second RETR.
//
// Faults happen only at the greeting and at commands. They do not happen at a response in an AUTH exchange or in a TLS
// handshake. But AfterSent and AfterReceived count the octets of all lines.
type Fault struct {
	// Session is the number of the only session in which the fault happens, from 1 in the
	// order in which sessions began. Zero means every session.
	Session int

	// User is the only user in whose sessions the fault happens. A session has a user once its
	// login has succeeded, so a fault with a User cannot happen at the greeting, at the login
	// or before it. Empty means every session.
	User string

	// At is the command at which the fault happens: its first word or words, as in "RETR" or
	// "RETR 2", or AtGreeting. Empty means every command and the greeting. Login of package
	// pop3 sends AUTH unless Caps has no SASL line. For a fault at such a login use "AUTH", not
	// "PASS". Message numbers are those of the session.
	At string

	// Skip is the number of matching commands before the fault happens for the first time.
	// Times is the number of times that it happens; zero means always. The matching
	// commands of all sessions that Session allows are counted together.
	Skip, Times int

	// Delay is how long the server waits before it carries out the command.
	Delay time.Duration

	// Chunk is the highest number of octets that the server writes at once. With 1 it sends one octet at a time. If
	// Seed is not zero, the length of each chunk is a pseudo-random number from 1 to Chunk, the same in each run. Pace
	// is how long the server waits before each chunk.
	Chunk int
	Seed  uint64
	Pace  time.Duration

	// LF makes the server end the lines of the reply in a bare LF, also in a message.
	LF bool

	// Deaf makes the server discard the data that the client has sent after the command. Servers that announce
	// PIPELINING without supporting it behave like this. Over TCP, data that has not arrived yet is not discarded.
	Deaf bool

	// Reply is sent in place of the correct reply, and the command is not carried out. CRLF is
	// added. It may have several lines, as in "+OK\r\n1 120\r\n.". The session continues,
	// except after QUIT and after a greeting that begins with "-ERR".
	Reply string

	// Extra is sent after the reply, with CRLF. The client then reads Extra as the reply to its next command, and each
	// later reply as the reply to the command after it.
	Extra string

	// Commit says which messages QUIT removes.
	Commit Commit

	// Lie is added to each size in a reply to STAT, LIST or RETR.
	Lie int64

	// Short makes the server end a message properly after Octets octets, as if it were complete. Stuffed dots are not
	// counted. Dovecot does this when it cannot read its own file.
	Short bool

	// Drop says when the connection ends, and By says how. Octets is used by Short and by the
	// moments InReply, InBody, AfterSent and AfterReceived.
	Drop   Moment
	Octets int64
	By     Ending
}

// A Moment says when a connection is lost.
type Moment int

const (
	// Never means that the connection is not lost. This is the default.
	Never Moment = iota

	// BeforeCommand is the moment after the complete command was received and before it is carried out.
	BeforeCommand

	// BeforeReply is the moment after the command was carried out and before the first octet of the reply is sent.
	BeforeReply

	// InReply is the moment after the first Octets octets of the reply, or at the end of a shorter reply.
	InReply

	// InBody is the moment after the first Octets octets that follow the first line of a
	// multi-line reply, or at the end of a shorter reply. Stuffed dots are counted. A reply
	// of one line is sent as a whole, and the connection stays open.
	InBody

	// AfterReply is the moment after the complete reply was sent.
	AfterReply

	// AfterSent is the moment when the server has sent Octets octets in the session, in the
	// reply to any command. At, Skip, Times and User are ignored. With TLS, the decrypted
	// octets are counted.
	AfterSent

	// AfterReceived is the moment when the server has received Octets octets in the session. They are counted as in
	// AfterSent. The complete commands among them are carried out and answered.
	AfterReceived
)

// An Ending says how a connection is lost.
type Ending int

const (
	// Hangup closes the connection. Over TCP the client receives what was sent before, and
	// then a FIN. With TLS there is no close_notify, as when a middlebox cuts a connection.
	Hangup Ending = iota

	// Reset ends a TCP connection with RST, so that the client may not receive the last data. On other connections it
	// is the same as Hangup.
	Reset

	// CloseNotify ends TLS properly. Without TLS it is the same as Hangup.
	CloseNotify

	// Silence keeps the connection open. The server reads what the client sends and never
	// replies again.
	Silence
)

// A Commit says which of the messages that are marked as deleted QUIT removes.
type Commit int

const (
	// CommitDefault removes all marked messages, or none of them if the fault has a Reply.
	CommitDefault Commit = iota

	// CommitNone removes no message.
	CommitNone

	// CommitHalf removes the first marked message, the third, and so on.
	CommitHalf

	// CommitAll removes all marked messages.
	CommitAll
)

// SetFaults replaces the faults of the server; without arguments it removes them all. In a running session the new
// faults apply from the next command on. Faults with AfterSent or AfterReceived affect only sessions that begin later.
func (s *Server) SetFaults(faults ...Fault) {
	armed := make([]*armedFault, len(faults))
	for i, f := range faults {
		armed[i] = &armedFault{Fault: f}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = armed
}

// PendingFaults returns the faults that have not happened yet. If PendingFaults returns any at the end of a test, the
// test did not test what it was written for: the program under test ended too early, or did not send the command that
// At names. A fault with AfterSent or AfterReceived counts as happened when a session begins to which it applies.
func (s *Server) PendingFaults() (pending []Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if !f.happened {
			pending = append(pending, f.Fault)
		}
	}
	return pending
}

// An armedFault counts the commands that match a fault. Server.mu guards it.
type armedFault struct {
	Fault
	matches  int // number of matching commands so far
	happened bool
}

// happensAt counts a matching command and reports whether the fault happens at it.
func (f *armedFault) happensAt(s *session, line string) bool {
	if f.Session != 0 && f.Session != s.number || f.User != "" && f.User != s.loggedIn || !hasWords(line, f.At) {
		return false
	}
	f.matches++
	happens := f.matches > f.Skip && (f.Times == 0 || f.matches <= f.Skip+f.Times)
	f.happened = f.happened || happens && !f.Drop.countsOctets()
	return happens
}

// faultAt returns the faults at a command of a session, combined into one.
func (s *Server) faultAt(session *session, line string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var combined Fault
	for _, f := range s.faults {
		if f.happensAt(session, line) {
			combined.add(f.Fault)
		}
	}
	return combined
}

// countsOctets reports whether a moment depends only on the number of octets in the session.
func (m Moment) countsOctets() bool { return m == AfterSent || m == AfterReceived }

// octetFault returns the first fault that ends the session at the moment m, which must be AfterSent or AfterReceived.
func (s *Server) octetFault(session *session, m Moment) (f Fault, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Drop == m && (f.Session == 0 || f.Session == session.number) {
			f.happened = true
			return f.Fault, true
		}
	}
	return Fault{}, false
}

// add copies the fields of g that f does not set.
func (f *Fault) add(g Fault) {
	if f.Drop == Never && !f.Short && !g.Drop.countsOctets() {
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
