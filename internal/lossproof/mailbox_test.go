package lossproof

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A message is one message of a mailbox, with its faults. The faults last for the whole sequence.
type message struct {
	serial int // identifies the message, even if its unique-id or number changes
	text   string

	refused     bool // RETR is answered -ERR
	cut         bool // RETR sends half of it, and then the terminator
	complains   bool // after the half and the terminator RETR sends a second reply, -ERR
	hangsUp     bool // RETR sends a part of it, and the server hangs up
	stalls      bool // RETR sends half of it, and the server sends nothing more
	slow        bool // RETR is answered after a pause that the time limit allows
	grows       bool // it is larger than the Fetcher accepts, and LIST does not say so
	large       bool // it is larger than the Fetcher accepts
	changes     bool // its content differs each time
	resized     bool // the size in LIST differs in each session
	undeletable bool // DELE is answered -ERR
	oddSize     bool // the line in LIST makes no sense
	oddUID      bool // the line in UIDL makes no sense
	unnamed     bool // UIDL leaves out the message
	unwanted    int  // the last run in which the sink refuses it
	impossible  bool // the sink refuses it for ever, with ErrPermanent
	skipped     bool // Select returns Skip
	left        bool // Select returns Leave

	sent      map[string]bool // versions that were sent completely
	retrieved int             // how often it was sent, completely or in part
	shown     bool            // it was retrieved in an earlier session
	visible   int             // the latest run in which the server has listed it
	removed   bool            // another program deleted it
	resizes   bool            // its size differed in each session until the faults were removed
	expired   bool            // QUIT removed it because it was retrieved, without a DELE

	arrived   time.Time
	delivered time.Time // when a complete version was first stored
	latest    time.Time // when it was last delivered
	stored    int       // deliveries, complete or not
	halved    bool      // a delivery was not complete
	confirmed bool      // the server confirmed its deletion in an earlier run
	patience  int       // number of runs within which it must be stored; 0 before the first run
	fairRuns  int       // runs in which it was there and could be retrieved, and nothing prevented that
	dueRuns   int       // runs in which it was there and could be deleted, and nothing prevented that
}

// content returns what RETR sends. It counts as a version of the message if it is complete.
func (m *message) content() (text string, whole bool) {
	text = m.text
	switch {
	case m.changes:
		text += fmt.Sprintf("--boundary-%04d\r\n", m.retrieved)
	case m.grows:
		text += strings.Repeat("more and more\r\n", maxSize/10)
	case m.large:
		text += strings.Repeat("large\r\n", maxSize/5)
	case m.cut:
		return text[:len(text)/2] + "\r\n", false
	}
	return text, true
}

// maxSize is the size limit of the Fetcher, if it has one. Other messages are smaller.
const maxSize = 1000

// retrievable reports whether a correct client can get the complete message.
func (m *message) retrievable() bool {
	return !m.refused && !m.cut && !m.hangsUp && !m.stalls && !m.grows && !m.large
}

// wanted reports whether the caller wants the message and the sink does not refuse it for ever.
func (m *message) wanted() bool { return !m.impossible && !m.skipped && !m.left }

// fatal reports whether RETR of this message ends the session.
func (m *message) fatal() bool { return m.hangsUp || m.stalls || m.grows || m.complains }

// A uidMode says how unique-ids are chosen.
type uidMode int

const (
	uidUnique   uidMode = iota
	uidNone             // there is no UIDL
	uidEqual            // all are equal
	uidTwins            // pairs of messages have the same one
	uidPosition         // they are the message numbers, so they are used again for other messages
	uidMigrated         // they change once, at the third run
	uidRenewed          // they are different in each session
)

// A closing is what the server does at QUIT.
type closing int

const (
	closeWell     closing = iota
	closeSilent           // removes the marked messages and never replies
	closeDeaf             // removes nothing and never replies
	closeHangup           // removes the marked messages and hangs up
	closeReadOnly         // replies +OK and removes nothing
	closeRefused          // replies -ERR and removes nothing
	closeHalf             // replies -ERR and removes every other marked message
)

// deletes reports whether marked messages are gone after QUIT.
func (c closing) deletes() bool { return c == closeWell || c == closeSilent || c == closeHangup }

// habits are the faults of a server, which last for the whole sequence.
type habits struct {
	uids       uidMode
	hidesUIDL  bool // CAPA does not announce it
	noCapa     bool
	sequential bool   // no PIPELINING
	expire     string // a line of CAPA
	expires    bool   // QUIT removes the messages that were retrieved
	close      closing
	size       func(text string) int // returns the size in LIST; nil for the correct size
	delay      time.Duration         // time that must pass between two logins
	announced  bool                  // the delay is announced as LOGIN-DELAY
	locks      time.Duration         // a session that ends without QUIT locks the maildrop for this long
	inWords    bool                  // refusals of a login have no response code
	window     int                   // how many messages that were never retrieved a session shows; 0 for all
	quota      int                   // number of messages that a session retrieves before the server hangs up
	idle       time.Duration         // idle time after which the server hangs up
	emptyErr   bool                  // LIST and UIDL of an empty maildrop are answered -ERR
	noListOne  bool                  // LIST with a number is answered -ERR
	drips      bool                  // the reply to CAPA has endless lines, which arrive slowly
	loginDelay string                // argument of LOGIN-DELAY, if it is not the delay
	unopened   int                   // runs in which the server refuses the first command and hangs up
}

// A mailbox is a server with one maildrop. It exists longer than a session.
type mailbox struct {
	habits
	messages []*message // messages on the server
	gone     []*message // messages that QUIT has removed
	run      int        // the current run, from 1

	mu        sync.Mutex // guards all fields, including the messages
	sessions  int
	lastLogin time.Time
	lockedTo  time.Time
	view      []*message // the messages of the current session, by number
	paused    time.Duration
	onDele    func(m *message)
	note      func(format string, args ...any) // writes the log
	broke     func(rule, format string, args ...any)
}

// refusesLogin returns the refusal of a login at this time, or "".
func (b *mailbox) refusesLogin() string {
	switch now := time.Now(); {
	case b.delay > 0 && now.Sub(b.lastLogin) < b.delay && b.inWords:
		return "-ERR You must wait before you log in again\r\n"
	case b.delay > 0 && now.Sub(b.lastLogin) < b.delay:
		return "-ERR [LOGIN-DELAY] wait\r\n"
	case now.Before(b.lockedTo) && b.inWords:
		return "-ERR Unable to lock maildrop\r\n"
	case now.Before(b.lockedTo):
		return "-ERR [IN-USE] locked\r\n"
	}
	return ""
}

// uid returns the unique-id of a message that has this number in the session.
func (b *mailbox) uid(num int, m *message) string {
	switch b.uids {
	case uidEqual:
		return "same"
	case uidTwins:
		return fmt.Sprintf("twin%d", m.serial/2)
	case uidPosition:
		return strconv.Itoa(num)
	case uidMigrated:
		if b.run >= 3 {
			return fmt.Sprintf("moved%d", m.serial)
		}
	case uidRenewed:
		return fmt.Sprintf("s%d-%d", b.sessions, m.serial)
	}
	return fmt.Sprintf("uid%d", m.serial)
}

// claimed returns the size of a message in LIST.
func (b *mailbox) claimed(m *message) int {
	text := m.text
	if !m.grows && !m.cut {
		text, _ = m.content()
	}
	size := len(text)
	if b.size != nil {
		size = b.size(text)
	}
	if m.resized {
		size -= 3 * (b.sessions % 3)
	}
	return size
}

// open begins a session in the TRANSACTION state.
func (b *mailbox) open() {
	b.sessions++
	b.lastLogin = time.Now()
	b.view = nil
	for _, m := range b.messages {
		if b.window == 0 || !m.shown && len(b.view) < b.window {
			b.view = append(b.view, m)
			m.visible = b.run
		}
	}
	b.note("session %d of %d messages:", b.sessions, len(b.view))
}

// A talk is the server's side of one session with a mailbox.
type talk struct {
	box       *mailbox
	w         *wire
	in        []byte
	user      bool
	loggedIn  bool
	deaf      bool       // the server does not answer commands any more
	quits     bool       // QUIT was received
	view      []*message // messages of the session, by number
	asked     int        // number of RETR commands
	marked    []int
	retrieved []int
}

// serve serves one session over a wire. It returns when the connection ends.
func (t *talk) serve() {
	conn := serverEnd{w: t.w}
	defer conn.Close()
	defer t.leave()
	conn.Write([]byte("+OK ready\r\n"))
	buf := make([]byte, 4096)
	for {
		idle := t.limitIdle(conn)
		n, err := conn.Read(buf)
		if idle != nil && !idle.Stop() || err != nil {
			return
		}
		if t.quits {
			t.box.broke("I4", "after QUIT came %q", buf[:n])
		}
		t.in = append(t.in, buf[:n]...)
		if !t.answerAll(conn) {
			return
		}
	}
}

// limitIdle makes the server hang up when it has received nothing for some time.
func (t *talk) limitIdle(conn serverEnd) *time.Timer {
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	if t.box.idle == 0 {
		return nil
	}
	return time.AfterFunc(t.box.idle, func() { conn.Close() })
}

// leave ends a session, with or without QUIT.
func (t *talk) leave() {
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	for _, num := range t.retrieved {
		t.view[num-1].shown = true
	}
	if t.loggedIn {
		t.box.lockedTo = time.Now().Add(t.box.locks)
	}
}

// answerAll answers the commands that have arrived. It reports whether the session continues.
func (t *talk) answerAll(conn serverEnd) bool {
	for {
		line, rest, complete := strings.Cut(string(t.in), "\r\n")
		if !complete || t.deaf {
			return true
		}
		if t.in = []byte(rest); !t.answer(conn, line) {
			return false
		}
	}
}

// answer answers one command. It reports whether the session continues.
func (t *talk) answer(conn serverEnd, line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	first, _, _ := strings.Cut(arg, " ") // TOP has two arguments
	num, _ := strconv.Atoi(first)
	reply := "-ERR\r\n"
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	switch {
	case t.loggedIn && t.box.run <= t.box.unopened:
		conn.Write([]byte("-ERR [SYS/TEMP] Internal error occurred\r\n"))
		return false
	case verb == "CAPA" && t.box.drips:
		return t.drip(conn)
	case verb == "CAPA":
		reply = t.capa()
	case verb == "QUIT":
		return t.quit(conn)
	case !t.loggedIn:
		return t.login(conn, verb)
	case verb == "NOOP":
		reply = "+OK\r\n"
	case verb == "STAT":
		reply = fmt.Sprintf("+OK %d 1000\r\n", len(t.view))
	case verb == "LIST" || verb == "UIDL":
		reply = t.list(verb, num)
	case num < 1 || num > len(t.view) || slices.Contains(t.marked, num):
	case verb == "RETR":
		return t.retr(conn, num)
	case verb == "TOP":
		reply = t.top(num)
	case verb == "DELE":
		reply = t.dele(num)
	}
	conn.Write([]byte(reply))
	return true
}

func (t *talk) capa() string {
	b := t.box
	if b.noCapa {
		return "-ERR\r\n"
	}
	caps := "+OK\r\nUSER\r\nTOP\r\n" + b.expire
	if !b.hidesUIDL && b.uids != uidNone {
		caps += "UIDL\r\n"
	}
	if !b.sequential {
		caps += "PIPELINING\r\n"
	}
	switch {
	case b.loginDelay != "":
		caps += "LOGIN-DELAY " + b.loginDelay + "\r\n"
	case b.announced && b.delay > 0:
		caps += fmt.Sprintf("LOGIN-DELAY %d\r\n", int(b.delay.Seconds()))
	}
	return caps + ".\r\n"
}

// drip sends an endless reply to CAPA at 150 octets a second, which is faster than the client's limit.
func (t *talk) drip(conn serverEnd) bool {
	conn.Write([]byte("+OK\r\n"))
	for {
		t.sleep(10 * time.Second)
		if _, err := conn.Write([]byte(strings.Repeat("x", 1498) + "\r\n")); err != nil || t.closed() {
			return false
		}
	}
}

// sleep waits. It releases the mailbox, so that others can use it meanwhile.
func (t *talk) sleep(d time.Duration) {
	t.box.mu.Unlock()
	time.Sleep(d)
	t.box.mu.Lock()
}

// closed reports whether the client has closed the connection.
func (t *talk) closed() bool {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	return t.w.closed || t.w.up.end != nil
}

func (t *talk) login(conn serverEnd, verb string) bool {
	reply := "-ERR\r\n"
	switch refusal := t.box.refusesLogin(); {
	case verb == "USER":
		t.user, reply = true, "+OK\r\n"
	case verb == "PASS" && t.user && refusal != "":
		t.box.note("the login is refused.")
		reply = refusal
	case verb == "PASS" && t.user:
		t.loggedIn, reply = true, "+OK\r\n"
		t.box.open()
		t.view = t.box.view
	}
	conn.Write([]byte(reply))
	return true
}

// list answers LIST and UIDL, of one message or of all.
func (t *talk) list(verb string, one int) string {
	b := t.box
	switch {
	case verb == "UIDL" && b.uids == uidNone, one > 0 && b.noListOne, one > len(t.view):
		return "-ERR unknown command\r\n"
	case one == 0 && b.emptyErr && len(t.view) == 0:
		return "-ERR no messages\r\n"
	case one > 0 && verb == "LIST":
		return fmt.Sprintf("+OK %d %d\r\n", one, b.claimed(t.view[one-1]))
	case one > 0:
		return fmt.Sprintf("+OK %d %s\r\n", one, b.uid(one, t.view[one-1]))
	}
	var lines strings.Builder
	lines.WriteString("+OK\r\n")
	for i, m := range t.view {
		if num := i + 1; !slices.Contains(t.marked, num) {
			lines.WriteString(t.line(verb, num, m))
		}
	}
	return lines.String() + ".\r\n"
}

func (t *talk) line(verb string, num int, m *message) string {
	switch {
	case verb == "LIST" && m.oddSize:
		return fmt.Sprintf("%d -1\r\n", num)
	case verb == "LIST":
		return fmt.Sprintf("%d %d\r\n", num, t.box.claimed(m))
	case m.unnamed:
		return ""
	case m.oddUID:
		return fmt.Sprintf("%d \r\n", num)
	}
	return fmt.Sprintf("%d %s\r\n", num, t.box.uid(num, m))
}

// retr sends a message, or the part that its faults allow. It reports whether the session continues.
func (t *talk) retr(conn serverEnd, num int) bool {
	m := t.view[num-1]
	if t.asked++; t.box.quota > 0 && t.asked > t.box.quota {
		t.box.note("RETR %d: hangs up, which it does after %d messages.", m.serial, t.box.quota)
		return false
	}
	if m.refused {
		t.box.note("RETR %d: -ERR.", m.serial)
		conn.Write([]byte("-ERR cannot read that message\r\n"))
		return true
	}
	if m.slow {
		t.box.paused += pause
		t.sleep(pause)
	}
	text, whole := m.content()
	m.retrieved++
	sent := "+OK\r\n" + stuff(text) + ".\r\n"
	if m.hangsUp || m.stalls {
		t.deaf = m.stalls
		t.box.note("RETR %d: stops in the middle.", m.serial)
		conn.Write([]byte(sent[:len(sent)/2]))
		return m.stalls
	}
	if m.complains {
		sent += "-ERR failed to retrieve that message\r\n"
	}
	if whole {
		m.sent[text] = true
	}
	t.retrieved = append(t.retrieved, num)
	t.box.note("RETR %d.", m.serial)
	conn.Write([]byte(sent))
	return true
}

// top sends the header of a message.
func (t *talk) top(num int) string {
	m := t.view[num-1]
	header, _, _ := strings.Cut(m.text, "\r\n\r\n")
	return "+OK\r\n" + stuff(header) + "\r\n\r\n.\r\n"
}

func (t *talk) dele(num int) string {
	m := t.view[num-1]
	if m.undeletable {
		t.box.note("DELE %d: -ERR.", m.serial)
		return "-ERR\r\n"
	}
	t.box.note("DELE %d.", m.serial)
	t.box.onDele(m)
	t.marked = append(t.marked, num)
	return "+OK\r\n"
}

// quit enters the UPDATE state if there was a login. It reports whether the session continues, which is only so if QUIT
// is never answered.
func (t *talk) quit(conn serverEnd) bool {
	t.quits = true
	if !t.loggedIn {
		conn.Write([]byte("+OK bye\r\n"))
		return false
	}
	t.loggedIn = false
	due := t.due()
	switch t.box.close {
	case closeDeaf, closeReadOnly, closeRefused:
		due = nil
	case closeHalf:
		due = due[:len(due)/2]
	}
	t.box.remove(due)
	t.box.note("QUIT removes %d.", len(due))
	switch t.box.close {
	case closeWell, closeReadOnly:
		conn.Write([]byte("+OK bye\r\n"))
	case closeRefused, closeHalf:
		conn.Write([]byte("-ERR [SYS/TEMP] some deleted messages not removed\r\n"))
	case closeSilent, closeDeaf:
		t.deaf = true
	}
	return t.deaf
}

// due returns the messages that QUIT must remove.
func (t *talk) due() (due []*message) {
	for i, m := range t.view {
		marked := slices.Contains(t.marked, i+1)
		if m.expired = !marked && t.box.expires && slices.Contains(t.retrieved, i+1); marked || m.expired {
			due = append(due, m)
		}
	}
	return due
}

// remove removes messages from the server.
func (b *mailbox) remove(due []*message) {
	b.messages = slices.DeleteFunc(b.messages, func(m *message) bool { return slices.Contains(due, m) })
	b.gone = append(b.gone, due...)
}
