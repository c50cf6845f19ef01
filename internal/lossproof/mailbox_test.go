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

	refused          bool // RETR is refused
	cut              bool // RETR sends half of the message, and then the terminator
	extraRefusal     bool // after the terminator, RETR sends an extra reply, -ERR
	hangsUp          bool // RETR sends half of the message, and then the server hangs up
	stalls           bool // RETR sends half of the message, and then nothing more
	slow             bool // RETR is answered after a pause that every time limit allows
	largerThanListed bool // the message is larger than maxSize, and LIST claims a smaller size
	large            bool // the message is larger than maxSize
	contentVaries    bool // the content differs each time
	sizeVaries       bool // the size in LIST differs in each session
	undeletable      bool // DELE is refused
	badListLine      bool // the line in LIST is malformed
	badUidlLine      bool // the line in UIDL is malformed
	noUID            bool // UIDL leaves out the message
	refusedUntil     int  // the last run in which the sink refuses the message
	neverStored      bool // the sink refuses the message for ever, with ErrPermanent
	skippedBySelect  bool // Select returns Skip
	leftBySelect     bool // Select returns Leave

	sent            map[string]bool // versions that were sent completely
	retrieved       int             // how often the message was sent, completely or in part
	retrievedBefore bool            // the message was retrieved in an earlier session
	lastListed      int             // the latest run in which the server has listed the message
	removed         bool            // another program has deleted the message
	sizeVaried      bool            // the size in LIST differed in each session until the faults were removed
	expired         bool            // QUIT removed the message because it was retrieved, without DELE

	arrived       time.Time
	delivered     time.Time // when a complete version was first stored
	lastDelivered time.Time // when any version was last stored
	stored        int       // number of deliveries, complete or not
	deliveredCut  bool      // an incomplete version was stored
	confirmed     bool      // the server confirmed the deletion in an earlier run
	maxRuns       int       // number of runs within which the message must be stored; 0 before the first run
	fairRuns      int       // number of runs in which the message could be retrieved and stored
	dueRuns       int       // number of runs in which the message could be deleted
}

// content returns the text that RETR sends, and reports whether it is a complete version of the message.
func (m *message) content() (text string, complete bool) {
	text = m.text
	switch {
	case m.contentVaries:
		text += fmt.Sprintf("--boundary-%04d\r\n", m.retrieved)
	case m.largerThanListed:
		text += strings.Repeat("more and more\r\n", maxSize/10)
	case m.large:
		text += strings.Repeat("large\r\n", maxSize/5)
	case m.cut:
		return text[:len(text)/2] + "\r\n", false
	}
	return text, true
}

// maxSize is the size limit of the Fetcher. Messages without a fault are smaller.
const maxSize = 1000

// isRetrievable reports whether a correct client can get the complete message.
func (m *message) isRetrievable() bool {
	return !m.refused && !m.cut && !m.hangsUp && !m.stalls && !m.largerThanListed && !m.large
}

// isWanted reports whether the caller wants the message and the sink does not refuse it for ever.
func (m *message) isWanted() bool { return !m.neverStored && !m.skippedBySelect && !m.leftBySelect }

// endsSession reports whether RETR of this message ends the session.
func (m *message) endsSession() bool {
	return m.hangsUp || m.stalls || m.largerThanListed || m.extraRefusal
}

// A uidMode says how unique-ids are chosen.
type uidMode int

const (
	uidUnique   uidMode = iota
	uidNone             // UIDL is refused
	uidEqual            // all messages have the same one
	uidTwins            // pairs of messages have the same one
	uidPosition         // each is the message number, so it is used again for other messages
	uidMigrated         // all change once, at the third run
	uidRenewed          // all change in each session
)

// A quitMode is what the server does at QUIT.
type quitMode int

const (
	quitNormal  quitMode = iota
	quitNoReply          // removes the marked messages and never replies
	quitIgnored          // removes nothing and never replies
	quitHangup           // removes the marked messages and hangs up
	quitFalseOK          // replies +OK and removes nothing
	quitRefused          // replies -ERR and removes nothing
	quitHalf             // replies -ERR and removes every other marked message
)

// removesAll reports whether marked messages are gone after QUIT.
func (c quitMode) removesAll() bool {
	return c == quitNormal || c == quitNoReply || c == quitHangup
}

// habits are the faults of a server, which last for the whole sequence.
type habits struct {
	uids        uidMode
	hidesUIDL   bool // CAPA does not announce UIDL
	noCapa      bool
	sequential  bool   // CAPA does not announce PIPELINING
	expire      string // the line of CAPA that announces EXPIRE
	expires     bool   // QUIT removes the messages that were retrieved
	quit        quitMode
	listedSize  func(text string) int // returns the size in LIST; nil for the correct size
	loginDelay  time.Duration         // time that must pass between two logins
	announced   bool                  // CAPA announces loginDelay
	lockTime    time.Duration         // a session that ends without QUIT locks the maildrop for this long
	noCode      bool                  // refusals of a login have no response code
	window      int                   // number of not yet retrieved messages that a session lists; 0 for all
	quota       int                   // number of messages that a session retrieves before the server hangs up
	idle        time.Duration         // idle time after which the server hangs up
	emptyErr    bool                  // LIST and UIDL of an empty maildrop are refused
	noListOne   bool                  // LIST with a number is refused
	endlessCapa bool                  // the reply to CAPA has endless lines, which arrive slowly
	delayArg    string                // argument of LOGIN-DELAY in CAPA, if it is not loginDelay
	unopened    int                   // last run in which the server refuses the first command and hangs up
}

// A mailbox is a server with one maildrop. It exists longer than a session.
type mailbox struct {
	habits
	messages []*message // messages on the server
	removed  []*message // messages that QUIT has removed
	run      int        // the current run, from 1

	mu           sync.Mutex // guards all fields, including the messages
	sessions     int
	lastLogin    time.Time
	lockedUntil  time.Time
	listed       []*message // the messages of the current session, by number
	paused       time.Duration
	onDele       func(m *message)
	logf         func(format string, args ...any) // writes the log
	addViolation func(rule, format string, args ...any)
}

// loginRefusal returns the refusal of a login at this time, or "".
func (b *mailbox) loginRefusal() string {
	switch now := time.Now(); {
	case b.loginDelay > 0 && now.Sub(b.lastLogin) < b.loginDelay && b.noCode:
		return "-ERR You must wait before you log in again\r\n"
	case b.loginDelay > 0 && now.Sub(b.lastLogin) < b.loginDelay:
		return "-ERR [LOGIN-DELAY] wait\r\n"
	case now.Before(b.lockedUntil) && b.noCode:
		return "-ERR Unable to lock maildrop\r\n"
	case now.Before(b.lockedUntil):
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
	if !m.largerThanListed && !m.cut {
		text, _ = m.content()
	}
	size := len(text)
	if b.listedSize != nil {
		size = b.listedSize(text)
	}
	if m.sizeVaries {
		size -= 3 * (b.sessions % 3)
	}
	return size
}

// beginSession begins a session in the TRANSACTION state.
func (b *mailbox) beginSession() {
	b.sessions++
	b.lastLogin = time.Now()
	b.listed = nil
	for _, m := range b.messages {
		if b.window == 0 || !m.retrievedBefore && len(b.listed) < b.window {
			b.listed = append(b.listed, m)
			m.lastListed = b.run
		}
	}
	b.logf("session %d of %d messages:", b.sessions, len(b.listed))
}

// A mailboxSession is the server's side of one session with a mailbox.
type mailboxSession struct {
	box          *mailbox
	w            *wire
	input        []byte
	user         bool
	loggedIn     bool
	silent       bool       // the server does not answer commands any more
	quitReceived bool       // QUIT was received
	listed       []*message // messages of the session, by number
	retrs        int        // number of RETR commands
	marked       []int
	retrieved    []int
}

// serve serves one session over a wire. It returns when the connection ends.
func (t *mailboxSession) serve() {
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
		if t.quitReceived {
			t.box.addViolation("I4", "after QUIT came %q", buf[:n])
		}
		t.input = append(t.input, buf[:n]...)
		if !t.answerAll(conn) {
			return
		}
	}
}

// limitIdle makes the server hang up when it has received nothing for some time.
func (t *mailboxSession) limitIdle(conn serverEnd) *time.Timer {
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	if t.box.idle == 0 {
		return nil
	}
	return time.AfterFunc(t.box.idle, func() { conn.Close() })
}

// leave records the end of a session, with or without QUIT.
func (t *mailboxSession) leave() {
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	for _, num := range t.retrieved {
		t.listed[num-1].retrievedBefore = true
	}
	if t.loggedIn {
		t.box.lockedUntil = time.Now().Add(t.box.lockTime)
	}
}

// answerAll answers the commands that have arrived. It reports whether the session continues.
func (t *mailboxSession) answerAll(conn serverEnd) bool {
	for {
		line, rest, complete := strings.Cut(string(t.input), "\r\n")
		if !complete || t.silent {
			return true
		}
		if t.input = []byte(rest); !t.answer(conn, line) {
			return false
		}
	}
}

// answer answers one command. It reports whether the session continues.
func (t *mailboxSession) answer(conn serverEnd, line string) bool {
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
	case verb == "CAPA" && t.box.endlessCapa:
		return t.sendEndlessCapa(conn)
	case verb == "CAPA":
		reply = t.capa()
	case verb == "QUIT":
		return t.quit(conn)
	case !t.loggedIn:
		return t.login(conn, verb)
	case verb == "NOOP":
		reply = "+OK\r\n"
	case verb == "STAT":
		reply = fmt.Sprintf("+OK %d 1000\r\n", len(t.listed))
	case verb == "LIST" || verb == "UIDL":
		reply = t.list(verb, num)
	case num < 1 || num > len(t.listed) || slices.Contains(t.marked, num):
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

func (t *mailboxSession) capa() string {
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
	case b.delayArg != "":
		caps += "LOGIN-DELAY " + b.delayArg + "\r\n"
	case b.announced && b.loginDelay > 0:
		caps += fmt.Sprintf("LOGIN-DELAY %d\r\n", int(b.loginDelay.Seconds()))
	}
	return caps + ".\r\n"
}

// sendEndlessCapa sends an endless reply to CAPA at 150 octets a second. That is just above the lowest rate that the
// client accepts.
func (t *mailboxSession) sendEndlessCapa(conn serverEnd) bool {
	conn.Write([]byte("+OK\r\n"))
	for {
		t.sleep(10 * time.Second)
		if _, err := conn.Write([]byte(strings.Repeat("x", 1498) + "\r\n")); err != nil || t.closed() {
			return false
		}
	}
}

// sleep waits. It releases the mailbox, so that others can use it meanwhile.
func (t *mailboxSession) sleep(d time.Duration) {
	t.box.mu.Unlock()
	time.Sleep(d)
	t.box.mu.Lock()
}

// closed reports whether the client has closed the connection.
func (t *mailboxSession) closed() bool {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	return t.w.closed || t.w.up.endErr != nil
}

func (t *mailboxSession) login(conn serverEnd, verb string) bool {
	reply := "-ERR\r\n"
	switch refusal := t.box.loginRefusal(); {
	case verb == "USER":
		t.user, reply = true, "+OK\r\n"
	case verb == "PASS" && t.user && refusal != "":
		t.box.logf("the login is refused.")
		reply = refusal
	case verb == "PASS" && t.user:
		t.loggedIn, reply = true, "+OK\r\n"
		t.box.beginSession()
		t.listed = t.box.listed
	}
	conn.Write([]byte(reply))
	return true
}

// list answers LIST and UIDL for message num, or for all messages if num is 0.
func (t *mailboxSession) list(verb string, num int) string {
	b := t.box
	switch {
	case verb == "UIDL" && b.uids == uidNone, num > 0 && b.noListOne, num > len(t.listed):
		return "-ERR unknown command\r\n"
	case num == 0 && b.emptyErr && len(t.listed) == 0:
		return "-ERR no messages\r\n"
	case num > 0 && verb == "LIST":
		return fmt.Sprintf("+OK %d %d\r\n", num, b.claimed(t.listed[num-1]))
	case num > 0:
		return fmt.Sprintf("+OK %d %s\r\n", num, b.uid(num, t.listed[num-1]))
	}
	var lines strings.Builder
	lines.WriteString("+OK\r\n")
	for i, m := range t.listed {
		if num := i + 1; !slices.Contains(t.marked, num) {
			lines.WriteString(t.line(verb, num, m))
		}
	}
	return lines.String() + ".\r\n"
}

func (t *mailboxSession) line(verb string, num int, m *message) string {
	switch {
	case verb == "LIST" && m.badListLine:
		return fmt.Sprintf("%d -1\r\n", num)
	case verb == "LIST":
		return fmt.Sprintf("%d %d\r\n", num, t.box.claimed(m))
	case m.noUID:
		return ""
	case m.badUidlLine:
		return fmt.Sprintf("%d \r\n", num)
	}
	return fmt.Sprintf("%d %s\r\n", num, t.box.uid(num, m))
}

// retr sends a message, or the part that its faults allow. It reports whether the session continues.
func (t *mailboxSession) retr(conn serverEnd, num int) bool {
	m := t.listed[num-1]
	if t.retrs++; t.box.quota > 0 && t.retrs > t.box.quota {
		t.box.logf("RETR %d: hangs up, which it does after %d messages.", m.serial, t.box.quota)
		return false
	}
	if m.refused {
		t.box.logf("RETR %d: -ERR.", m.serial)
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
		t.silent = m.stalls
		t.box.logf("RETR %d: stops in the middle.", m.serial)
		conn.Write([]byte(sent[:len(sent)/2]))
		return m.stalls
	}
	if m.extraRefusal {
		sent += "-ERR failed to retrieve that message\r\n"
	}
	if whole {
		m.sent[text] = true
	}
	t.retrieved = append(t.retrieved, num)
	t.box.logf("RETR %d.", m.serial)
	conn.Write([]byte(sent))
	return true
}

// top sends the header of a message.
func (t *mailboxSession) top(num int) string {
	m := t.listed[num-1]
	header, _, _ := strings.Cut(m.text, "\r\n\r\n")
	return "+OK\r\n" + stuff(header) + "\r\n\r\n.\r\n"
}

func (t *mailboxSession) dele(num int) string {
	m := t.listed[num-1]
	if m.undeletable {
		t.box.logf("DELE %d: -ERR.", m.serial)
		return "-ERR\r\n"
	}
	t.box.logf("DELE %d.", m.serial)
	t.box.onDele(m)
	t.marked = append(t.marked, num)
	return "+OK\r\n"
}

// quit enters the UPDATE state if there was a login. It reports whether the session continues. The session continues
// only if QUIT is never answered.
func (t *mailboxSession) quit(conn serverEnd) bool {
	t.quitReceived = true
	if !t.loggedIn {
		conn.Write([]byte("+OK bye\r\n"))
		return false
	}
	t.loggedIn = false
	removed := t.toRemove()
	switch t.box.quit {
	case quitIgnored, quitFalseOK, quitRefused:
		removed = nil
	case quitHalf:
		removed = removed[:len(removed)/2]
	}
	t.box.remove(removed)
	t.box.logf("QUIT removes %d.", len(removed))
	switch t.box.quit {
	case quitNormal, quitFalseOK:
		conn.Write([]byte("+OK bye\r\n"))
	case quitRefused, quitHalf:
		conn.Write([]byte("-ERR [SYS/TEMP] some deleted messages not removed\r\n"))
	case quitNoReply, quitIgnored:
		t.silent = true
	}
	return t.silent
}

// toRemove returns the messages that QUIT must remove.
func (t *mailboxSession) toRemove() (messages []*message) {
	for i, m := range t.listed {
		marked := slices.Contains(t.marked, i+1)
		if m.expired = !marked && t.box.expires && slices.Contains(t.retrieved, i+1); marked || m.expired {
			messages = append(messages, m)
		}
	}
	return messages
}

// remove removes messages from the server.
func (b *mailbox) remove(messages []*message) {
	b.messages = slices.DeleteFunc(b.messages, func(m *message) bool { return slices.Contains(messages, m) })
	b.removed = append(b.removed, messages...)
}
