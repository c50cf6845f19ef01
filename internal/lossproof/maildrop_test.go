package lossproof

import "slices"

// A mail is one message of the model.
type mail struct{ uid, data string }

// mails are the messages at the beginning of an experiment; the message number is the index plus one. They contain
// dots, and lines that look like replies, as a hostile sender would write them. The line before such a line becomes a
// terminator when one octet is lost. No change of one octet makes one unique-id or message into another.
var mails = []mail{
	{"aa1", "S: 1\r\n\r\n.\r\n+OK 5\r\nforged\r\n..x\r\n/\r\n"},
	{"bb2", "S: 2\r\n\r\na\rb\n.\nc\r.\r\nd\x00\xff +OK\r\n.e\r\n"},
	{"cc3", ""},
	{"dd4", "+OK\r\n-ERR\r\n+OK\r\n+OK\r\n"},
}

// A maildrop contains the messages on the server. It exists longer than a session.
type maildrop struct{ mails []mail }

func newMaildrop() *maildrop { return &maildrop{mails: slices.Clone(mails)} }

func (d *maildrop) has(m mail) bool { return slices.Contains(d.mails, m) }

func (d *maildrop) remove(gone []mail) {
	d.mails = slices.DeleteFunc(d.mails, func(m mail) bool { return slices.Contains(gone, m) })
}

// An update is what a server does at QUIT in the TRANSACTION state (RFC 1939 section 6).
type update int

const (
	confirmAll  update = iota
	refuseNone         // -ERR, and nothing was removed
	refuseHalf         // -ERR, and every other marked message was removed
	refuseAll          // -ERR, and all marked messages were removed
	silentAll          // all marked messages are removed, and the connection ends before the reply
	confirmNone        // +OK, and nothing was removed
)

// commit removes the messages from the maildrop as the update says. It returns the reply, or "" for none.
func (u update) commit(d *maildrop, due []mail) string {
	switch u {
	case refuseNone, confirmNone:
		due = nil
	case refuseHalf:
		due = due[:len(due)/2]
	}
	d.remove(due)
	switch u {
	case confirmAll, confirmNone:
		return "+OK bye\r\n"
	case silentAll:
		return ""
	}
	return "-ERR [SYS/TEMP] some deleted messages not removed\r\n"
}

// fails reports whether the client cannot get a confirmation.
func (u update) fails() bool { return u != confirmAll && u != confirmNone }

// A server is one variant of the model.
type server struct {
	name           string
	update         update
	caps           string // lines of CAPA beyond USER, UIDL and PIPELINING; "-" if the command is refused
	expires        bool   // retrieved messages are removed like marked ones (RFC 2449 section 6.7)
	cutMessage     int    // number of the message that is cut and ended normally, as after a read error
	noRetr         int    // number of the message whose RETR is refused
	noDele         int    // number of the message whose DELE is refused; below 0 for all
	lfSizes        bool   // LIST counts a line end as one octet
	unstuffed      bool   // dots are not stuffed, so that the sender of a mail can forge replies
	sequential     bool   // PIPELINING is not announced
	joinsReplies   bool   // replies that are ready at the same time are sent in one segment
	staysConnected bool   // the server does not hang up after QUIT
	onlyMessage    int    // number of the only message in the maildrop, 0 for all
}

// body returns the octets of a message that the server sends.
func (s server) body(m mail, num int) string {
	if num == s.cutMessage {
		return m.data[:len(m.data)/2] + "\r\n"
	}
	return m.data
}

// servers are the variants, each with and without pipelining.
func servers() (all []server) {
	for _, s := range []server{
		{name: "RFC 1939"},
		{name: "-ERR to QUIT, none removed", update: refuseNone},
		{name: "-ERR to QUIT, half removed", update: refuseHalf},
		{name: "-ERR to QUIT, all removed", update: refuseAll},
		{name: "no reply to QUIT, all removed", update: silentAll},
		{name: "+OK to QUIT, none removed", update: confirmNone},
		{name: "EXPIRE 0", caps: "EXPIRE 0\r\n", expires: true},
		{name: "EXPIRE 0 not announced", expires: true},
		{name: "EXPIRE 0 and -ERR to DELE", caps: "EXPIRE 0\r\n", expires: true, noDele: -1},
		{name: "EXPIRE 0 and a short body", caps: "EXPIRE 0\r\n", expires: true, cutMessage: 2},
		{name: "EXPIRE 0 not announced and a short body", expires: true, cutMessage: 2},
		{name: "a short body", cutMessage: 2},
		{name: "EXPIRE NEVER", caps: "EXPIRE NEVER\r\n"},
		{name: "EXPIRE NEVER and a short body", caps: "EXPIRE NEVER\r\n", cutMessage: 2},
		{name: "-ERR to RETR", noRetr: 2},
		{name: "-ERR to DELE", noDele: 2},
		{name: "LIST counts LF", lfSizes: true},
		{name: "no CAPA", caps: "-"},
		{name: "dots not stuffed", unstuffed: true},
		{name: "one message", onlyMessage: 4},
		{name: "stays connected", staysConnected: true},
	} {
		for _, sequential := range []bool{false, true} {
			for _, gathers := range []bool{true, false} {
				s.sequential, s.joinsReplies = sequential, gathers
				all = append(all, s)
			}
		}
	}
	return all
}

// healthy returns the server of a second session: the same software without the faults.
func (s server) healthy() server {
	return server{name: "RFC 1939", caps: s.caps, expires: s.expires,
		sequential: s.sequential, joinsReplies: s.joinsReplies}
}

func (s server) String() string {
	name := s.name
	if s.sequential {
		name += ", no pipelining"
	}
	if !s.joinsReplies {
		name += ", a segment a reply"
	}
	return name
}
