package pop3

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// A DropListing is the reply to STAT: the number of messages in the maildrop, and their total size.
type DropListing struct {
	Count int   // number of messages that are not marked as deleted
	Size  int64 // total size of these messages in bytes, as the server counts; -1 if it sent no usable number
}

// MessageInfo is what LIST and UIDL return about a message.
type MessageInfo struct {
	// Num is the message number, from 1. It is valid in this session only.
	Num int

	// Size is the size in bytes. It is set by List, ListAll and Listing. The server announces it, and it is only
	// approximate.
	Size int64

	// UID is the unique-id. It is set by Uidl, UidlAll and Listing. It is opaque and chosen by
	// the server: do not use it as a file name.
	UID string
}

// Capabilities are what a server announced (CAPA, RFC 2449): names in upper case, with their arguments
// unchanged. A nil Capabilities means that the server rejected CAPA, so nothing is known. The server may still
// support optional commands such as UIDL and TOP.
type Capabilities map[string][]string

// Has reports whether name was announced. Case does not matter.
func (c Capabilities) Has(name string) bool {
	_, ok := c[strings.ToUpper(name)]
	return ok
}

// SASL returns the announced SASL mechanisms, in upper case.
func (c Capabilities) SASL() []string {
	var mechs []string
	for _, mech := range c["SASL"] {
		mechs = append(mechs, strings.ToUpper(mech))
	}
	return mechs
}

// maxLoginDelay is the longest delay that is accepted.
const maxLoginDelay = 24 * time.Hour

// LoginDelay returns the time that the server asks clients to wait between two logins (RFC 2449 section 6.5).
// It is at most a day, because a longer one is a mistake of the server. ok is false if LOGIN-DELAY was not
// announced, or has no valid number.
func (c Capabilities) LoginDelay() (d time.Duration, ok bool) {
	seconds, ok := c.number("LOGIN-DELAY", math.MaxInt64)
	return time.Duration(min(seconds, int64(maxLoginDelay/time.Second))) * time.Second, ok
}

// Expire returns the number of days for which the server keeps a message after it was retrieved, -1 for ever
// (RFC 2449 section 6.7). 0 means that [Client.Quit] may delete whatever was retrieved, marked or not. ok is
// false if EXPIRE was not announced, or has no valid value. EXPIRENEVER, as some servers write it, is EXPIRE
// NEVER.
func (c Capabilities) Expire() (days int, ok bool) {
	args := c["EXPIRE"]
	if len(args) > 0 && strings.EqualFold(args[0], "NEVER") || len(args) == 0 && c.Has("EXPIRENEVER") {
		return -1, true
	}
	n, ok := c.number("EXPIRE", math.MaxInt32)
	return int(n), ok
}

// Implementation returns the name and version of the server, "" if it does not announce them. For display only.
func (c Capabilities) Implementation() string {
	return strings.Join(c["IMPLEMENTATION"], " ")
}

// takesUTF8User reports whether the arguments of USER and PASS need not be ASCII (RFC 6856 section 2.2).
func (c Capabilities) takesUTF8User() bool {
	return slices.ContainsFunc(c["UTF8"], func(arg string) bool { return strings.EqualFold(arg, "USER") })
}

func (c Capabilities) number(name string, limit int64) (n int64, ok bool) {
	args := c[name]
	if len(args) == 0 {
		return 0, false
	}
	n, rest, ok := parseNumber(args[0], limit)
	if !ok || len(rest) > 0 {
		return 0, false
	}
	return n, true
}

// add adds a line of the reply to CAPA. Lines with the same name are joined. A line without a valid name is skipped
// without an error.
func (c Capabilities) add(line []byte) error {
	if len(line) == 0 || isBlank(line[0]) {
		return nil
	}
	words := bytes.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	name := strings.ToUpper(printable.Visible(string(words[0])))
	if name == "" {
		return nil
	}
	args := c[name]
	for _, word := range words[1:] {
		if arg := printable.Visible(string(word)); arg != "" {
			args = append(args, arg)
		}
	}
	c[name] = args
	return nil
}

func (c Capabilities) clone() Capabilities {
	clone := maps.Clone(c)
	for name, args := range clone {
		clone[name] = slices.Clone(args)
	}
	return clone
}

// A Language is a language that the server supports (RFC 6856 section 3).
type Language struct {
	Tag         string // language tag as in RFC 5646, such as "de" or "pt-BR"
	Description string // name of the language, in the language itself
}

// Sentinel errors. Errors wrap them with the command and the reason; test for them with [errors.Is].
var (
	// ErrBusy means that a [Message] is still open, a loop over [Client.Messages] is running, or another goroutine is
	// inside a call. Nothing was sent. The session can continue, except after [Client.Quit], which closes the
	// connection.
	ErrBusy = errors.New("client is busy: read or close the open message, leave the loop over messages, " +
		"and do not call it from two goroutines")

	// ErrState means that the command does not belong to the session's [State] (RFC 1939
	// section 3), such as Stat before Login. Nothing was sent and the session can continue.
	ErrState = errors.New("the command is not allowed in this state of the session")

	// ErrArgument means that an argument cannot be sent. It may contain control characters, or
	// a space where none is allowed, or make the line longer than 255 bytes, or be a message
	// number below 1. Nothing was sent, except CAPA if the capabilities decide, and the session
	// can continue.
	ErrArgument = errors.New("argument can't be sent")

	// ErrInsecureAuth means that a password or token would have been sent in clear, or over
	// TLS without a verified certificate. Nothing was sent, except CAPA by [Client.Login],
	// and the session can continue. Connect with [DialTLS] or [DialStartTLS], or set
	// [Options].InsecureAuth.
	ErrInsecureAuth = errors.New("refusing to send a secret over a connection that is not verified TLS: " +
		"use DialTLS or DialStartTLS, or set Options.InsecureAuth")

	// ErrTLSRequired means that [DialStartTLS] could not encrypt, because the server does not
	// offer STLS or refused it. No secret was sent and the connection is closed.
	ErrTLSRequired = errors.New("TLS is required, but the server did not start it")

	// ErrCommitUnknown means that messages were marked as deleted and the server did not
	// confirm [Client.Quit]. Each marked message may be deleted or not. Compare unique-ids in
	// the next session.
	ErrCommitUnknown = errors.New("deletions not confirmed: each marked message may be deleted or not")
)

// A Code is a response code (RFC 2449 section 8), in upper case and without the brackets: "IN-USE", "SYS/TEMP".
// Its levels are separated by slashes, the most general one first.
type Code string

// The response codes that are registered for POP3.
const (
	CodeInUse      Code = "IN-USE"      // another session has locked the maildrop (RFC 2449)
	CodeLoginDelay Code = "LOGIN-DELAY" // the last login was too recent (RFC 2449)
	CodeAuth       Code = "AUTH"        // the credentials are wrong (RFC 3206)
	CodeSysTemp    Code = "SYS/TEMP"    // a temporary problem of the server (RFC 3206)
	CodeSysPerm    Code = "SYS/PERM"    // a problem that an operator must solve (RFC 3206)
	CodeUTF8       Code = "UTF8"        // the message needs [Client.Utf8] (RFC 6856)
)

// Is reports whether c is class or a special case of it: "SYS/TEMP/DISK" is a special case of "SYS/TEMP". Case does
// not matter. The empty code has no special cases.
func (c Code) Is(class Code) bool {
	if len(c) > len(class) && len(class) > 0 && c[len(class)] == '/' {
		c = c[:len(class)]
	}
	return strings.EqualFold(string(c), string(class))
}

// registered returns the registered code for which c.Is returns true, or "" if there is none.
func (c Code) registered() Code {
	for _, code := range []Code{CodeInUse, CodeLoginDelay, CodeAuth, CodeSysTemp, CodeSysPerm, CodeUTF8} {
		if c.Is(code) {
			return code
		}
	}
	return ""
}

// An Error is a -ERR reply: the server understood the command and refused it. The session can continue, unless the
// server closes the connection next.
type Error struct {
	Cmd  string // the command with no secret in it, as in "RETR 3"; or "greeting"
	Num  int    // the number of the message that the command was about, or 0
	Code Code   // response code, or ""

	// Text is the server's text after the code: valid UTF-8 without invisible characters, at
	// most 512 bytes. If it contains a secret of the session, Text is "(the server's words
	// repeat the secret)".
	Text string

	login         bool // Cmd was part of a login
	saysTemporary bool // Cmd was part of a login, and the text without a code says that it may succeed later
	authCodes     bool // the server had announced AUTH-RESP-CODE
	otherMethods  bool // Cmd was AUTH with SCRAM, and the server also offers other methods to log in
}

// Error returns the command and the server's text.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("pop3: " + e.Cmd + ": -ERR")
	if e.Code != "" {
		b.WriteString(" [" + string(e.Code) + "]")
	}
	if e.Text != "" {
		b.WriteString(" " + e.Text)
	}
	return b.String()
}

// Temporary reports whether the same command may succeed later. It returns true for the response codes IN-USE,
// LOGIN-DELAY and SYS/TEMP. It also returns true if a login was refused without a code, and servers use the
// text for a locked maildrop or for a temporary problem.
func (e *Error) Temporary() bool {
	return e.Code.Is(CodeInUse) || e.Code.Is(CodeLoginDelay) || e.Code.Is(CodeSysTemp) || e.saysTemporary
}

// RejectsCredentials reports whether the server rejects the name or the password, and whether that is certain. If
// that is not certain, do not delete a stored password, and do not ask the user for another one.
//
// A server that announces AUTH-RESP-CODE marks such a refusal with [CodeAuth] (RFC 3206 section 6). With such a
// server, any other refusal of a login is not about the password. Without AUTH-RESP-CODE, a refusal without a code
// counts as wrong credentials, unless the text is one for a locked maildrop or a temporary problem. In both cases
// certain is false. If SCRAM is refused in [Client.Login] and the server offers other methods, certain is false too,
// because the account may have no keys for SCRAM.
func (e *Error) RejectsCredentials() (rejects, certain bool) {
	switch {
	case !e.login:
		return false, true
	case e.Code.Is(CodeAuth):
		return true, !e.otherMethods
	case e.Code != "" || e.authCodes:
		return false, true
	}
	return !e.saysTemporary, false
}

// saysTemporary reports whether a login was refused with a text about a temporary problem. Such a problem may be a
// maildrop that another session has locked.
func saysTemporary(text string) bool {
	text = strings.ToLower(text)
	contains := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
	}
	switch {
	case contains("too many", "failed attempt", "failures", "disabled", "suspend", "blocked", "locked out"),
		contains("account") && contains("lock"):
		return false // the text is about a locked account, not a locked maildrop
	case contains("temporary", "temporarily", "service unavailable", "wait a few minutes"):
		return true
	case contains("lock busy", "can't get lock", "another session", "another pop", "already logged in"):
		return true
	}
	return contains("mailbox", "maildrop", "mail drop", "mail box", "mail file", "spool", "popdrop", "folder") &&
		contains("lock", "in use", "busy", "being used", "already open", "already accessed")
}

// A ProtocolError is a reply that breaks the protocol or a limit.
type ProtocolError struct {
	// Fatal reports whether the connection was closed, because the client lost track of the
	// reply boundaries or can no longer trust the server. If false, only the value in the
	// reply was invalid, and the session can continue.
	Fatal  bool
	Cmd    string // the command, as in [Error]
	Detail string // what is wrong with the reply

	// Line is the received line, cut to 128 bytes, without invisible characters. A challenge of SASL is shown as "+
	// ***".
	Line string
}

// Error returns the command, what is wrong, and what was received.
func (e *ProtocolError) Error() string {
	s := "pop3: " + e.Cmd + ": " + e.Detail
	if e.Line != "" {
		s += ": " + e.Line
	}
	return s
}

// malformed returns the error of a parser for a reply that is framed correctly but has a wrong value.
type malformed string

func (m malformed) Error() string { return string(m) }

const (
	maxLine = 128 // number of octets of a line that a ProtocolError shows
	maxCode = 64  // longest response code in octets; a longer one is treated as text
)

// parseStatus parses a status line. "+OK" or "-ERR" is accepted in any case, if no letter or digit follows.
// valid is false for everything else, including a bare "+".
func parseStatus(line []byte) (ok bool, text []byte, valid bool) {
	switch {
	case hasToken(line, "+OK"):
		return true, trimBlanks(line[len("+OK"):]), true
	case hasToken(line, "-ERR"):
		return false, trimBlanks(line[len("-ERR"):]), true
	}
	return false, nil, false
}

func hasToken(line []byte, token string) bool {
	if len(line) < len(token) || !bytes.EqualFold(line[:len(token)], []byte(token)) {
		return false
	}
	return len(line) == len(token) || !isAlnum(line[len(token)])
}

func isAlnum(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// trimBlanks returns text without the blanks at its start.
func trimBlanks[T string | []byte](text T) T {
	for len(text) > 0 && isBlank(text[0]) {
		text = text[1:]
	}
	return text
}

// cutCode splits the response code from the text of a status line. Anything that is not exactly a code is text.
func cutCode(text []byte) (Code, []byte) {
	if len(text) == 0 || text[0] != '[' {
		return "", text
	}
	end := bytes.IndexByte(text, ']')
	if end < 0 || end > maxCode || !isCode(text[1:end]) {
		return "", text
	}
	return Code(bytes.ToUpper(text[1:end])), trimBlanks(text[end+1:])
}

// isCode reports whether b has the form of a code: parts of printable ASCII, none of them empty, separated by
// slashes.
func isCode(b []byte) bool {
	for level := range bytes.SplitSeq(b, []byte("/")) {
		if len(level) == 0 {
			return false
		}
		for _, c := range level {
			if c <= ' ' || c >= 0x7f || c == '[' {
				return false
			}
		}
	}
	return true
}

// parseNumber parses decimal digits without a sign. ok is false if there are none, or the number is above limit.
func parseNumber(text string, limit int64) (n int64, rest string, ok bool) {
	var sum uint64
	i := 0
	for ; i < len(text) && isDigit(text[i]); i++ {
		if sum > math.MaxUint64/10-1 {
			return 0, text, false
		}
		sum = sum*10 + uint64(text[i]-'0')
	}
	if i == 0 || sum > uint64(limit) {
		return 0, text, false
	}
	return int64(sum), text[i:], true
}

// parseMessageNumber parses a message number and returns what follows it, without the blanks between them. If it
// fails, it returns 0 and no text.
func parseMessageNumber(line string) (num int, rest string) {
	n, rest, ok := parseNumber(line, math.MaxInt32)
	if !ok || n < 1 || len(rest) > 0 && !isBlank(rest[0]) {
		return 0, ""
	}
	return int(n), trimBlanks(rest)
}

// parseStat parses a drop listing. The count is required; the size is used if it is valid (RFC 1939 section 5).
func parseStat(text string) (DropListing, error) {
	count, rest, ok := parseNumber(text, math.MaxInt32)
	if !ok || len(rest) > 0 && !isBlank(rest[0]) {
		return DropListing{}, malformed("no count of messages in the drop listing")
	}
	size, rest, ok := parseNumber(trimBlanks(rest), math.MaxInt64)
	if !ok || len(rest) > 0 && !isBlank(rest[0]) {
		size = -1
	}
	return DropListing{Count: int(count), Size: size}, nil
}

// parseScan parses a scan listing, as in "1 120", and ignores what follows the size (RFC 1939 section 5). If it fails,
// Size is -1. Num is then 0 if it could not be parsed either.
func parseScan(line string) (MessageInfo, error) {
	num, rest := parseMessageNumber(line)
	info := MessageInfo{Num: num, Size: -1}
	size, rest, ok := parseNumber(rest, math.MaxInt64)
	if !ok || len(rest) > 0 && !isBlank(rest[0]) {
		return info, errNoScan
	}
	info.Size = size
	return info, nil
}

// These are the errors of the parsers for lines of LIST and UIDL.
var (
	errNoScan   error = malformed("not a scan listing (number, size)")
	errNoUnique error = malformed("not a unique-id listing (number, id of printable ASCII)")
)

// maxUID is the longest unique-id that is accepted. RFC 1939 allows 70 octets; servers have sent more.
const maxUID = 1024

// parseUnique parses a unique-id listing, as in "1 whqtswO00WBw418f9t5JxYwZ". The id is the rest of the line without
// the blanks at its end. If it fails, UID is "". Num is then 0 if it could not be parsed either.
func parseUnique(line string) (MessageInfo, error) {
	num, uid := parseMessageNumber(line)
	for len(uid) > 0 && isBlank(uid[len(uid)-1]) {
		uid = uid[:len(uid)-1]
	}
	if len(uid) == 0 || len(uid) > maxUID || !isGraphic(uid) {
		return MessageInfo{Num: num}, errNoUnique
	}
	return MessageInfo{Num: num, UID: uid}, nil
}

// isGraphic reports whether all octets of text are in the range from 0x21 to 0x7E.
func isGraphic(text string) bool {
	for ; len(text) >= 8; text = text[8:] {
		// x holds eight octets. If all are in the range, the highest bit of each octet of the result is 0. Otherwise
		// the highest bit is 1 for the first octet outside the range. The subtraction sets it for an octet below the
		// range. The addition, or x itself, sets it for an octet above.
		x := uint64(text[0]) | uint64(text[1])<<8 | uint64(text[2])<<16 | uint64(text[3])<<24 |
			uint64(text[4])<<32 | uint64(text[5])<<40 | uint64(text[6])<<48 | uint64(text[7])<<56
		if ((x-0x21*ones)|(x+ones)|x)&highs != 0 {
			return false
		}
	}
	for i := range len(text) {
		if text[i]-0x21 > 0x7e-0x21 {
			return false
		}
	}
	return true
}

// parseLanguage parses a line of the LANG listing: a tag, and optionally a description (RFC 6856 section 3.2).
func parseLanguage(line []byte) (Language, error) {
	tag, description := line, []byte(nil)
	if end := bytes.IndexAny(line, " \t"); end >= 0 {
		tag, description = line[:end], trimBlanks(line[end:])
	}
	if !isLanguageTag(tag) {
		return Language{}, malformed("not a language listing (tag, description)")
	}
	return Language{Tag: string(tag), Description: printable.Clean(string(description))}, nil
}

// isLanguageTag reports whether b has the form of a language tag (RFC 5646): words of at most eight letters and
// digits with hyphens between them.
func isLanguageTag(b []byte) bool {
	for word := range bytes.SplitSeq(b, []byte("-")) {
		if len(word) < 1 || len(word) > 8 {
			return false
		}
		for _, c := range word {
			if !isAlnum(c) {
				return false
			}
		}
	}
	return true
}

// A listing is the reply to LIST or UIDL. It keeps the lines until the last one has arrived, because the number of
// entries is not known earlier.
type listing struct {
	parts      []string // complete parts of the reply; each line ends in LF
	open       []byte   // the part to which lines are added
	lines      int
	infos      []MessageInfo
	unordered  bool // a number is not greater than the previous one
	unreadable bool // a line has no valid message number
}

// listingPart is the size of a part. The unique-ids of a part share its memory.
const listingPart = 8 << 10

// addLine adds a line. It never returns an error.
func (l *listing) addLine(line []byte) error {
	if l.open == nil {
		l.open = make([]byte, 0, listingPart)
	}
	if len(l.open)+len(line) >= listingPart {
		l.closePart()
	}
	l.open = append(append(l.open, line...), '\n')
	l.lines++
	return nil
}

func (l *listing) closePart() {
	l.parts = append(l.parts, string(l.open))
	l.open = l.open[:0]
}

// parse parses the lines into entries. If lines make no sense, it returns the first of them and its error. An entry is
// made for such a line if its message number is known.
func (l *listing) parse(parse func(line string) (MessageInfo, error)) (badLine string, err error) {
	l.infos = slices.Grow(l.infos, l.lines) // infos stays nil if there are no lines
	l.closePart()
	last := 0
	for _, rest := range l.parts {
		for rest != "" {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			info, lineErr := parse(line)
			if lineErr != nil && err == nil {
				badLine, err = line, lineErr
			}
			if info.Num == 0 {
				l.unreadable = true
				continue
			}
			l.unordered = l.unordered || info.Num <= last
			last = info.Num
			l.infos = append(l.infos, info)
		}
	}
	return badLine, err
}

// dropRepeats keeps one entry for each message number, and reports whether a number was repeated. If the
// repeated entries differ, the size or unique-id is dropped.
func (l *listing) dropRepeats() bool {
	index := make(map[int]int, len(l.infos))
	unique := l.infos[:0]
	for _, info := range l.infos {
		i, repeated := index[info.Num]
		switch {
		case !repeated:
			index[info.Num] = len(unique)
			unique = append(unique, info)
		case unique[i] != info:
			unique[i] = MessageInfo{Num: info.Num, Size: -1}
		}
	}
	dropped := len(unique) < len(l.infos)
	l.infos = unique
	return dropped
}

// join copies the unique-ids of uids into l, by message number. The two lists nearly always have the same
// order. A message may be only in uids because it arrived between the two lists; then join skips it. If its
// line in l could not be parsed, join adds it.
func (l *listing) join(uids *listing) {
	matched := 0
	for matched < len(l.infos) && matched < len(uids.infos) && l.infos[matched].Num == uids.infos[matched].Num {
		l.infos[matched].UID = uids.infos[matched].UID
		matched++
	}
	unmatched := make(map[int]string, len(uids.infos)-matched)
	for _, info := range uids.infos[matched:] {
		unmatched[info.Num] = info.UID
	}
	for i := matched; i < len(l.infos); i++ {
		num := l.infos[i].Num
		l.infos[i].UID = unmatched[num]
		delete(unmatched, num)
	}
	if !l.unreadable {
		return
	}
	for _, info := range uids.infos[matched:] {
		if uid, ok := unmatched[info.Num]; ok {
			l.infos = append(l.infos, MessageInfo{Num: info.Num, Size: -1, UID: uid})
		}
	}
}
