package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// These are limits on replies. A message has no limit.
const (
	maxReplyLine   = 8192 // octets of a status line or of a line in a list, with CRLF
	maxCapaLines   = 256
	maxLangLines   = 1024
	maxListEntries = 1_000_000
	maxListOctets  = 64 << 20 // octets of any list; CAPA and LANG reach their limit on lines first

	listTimeouts = 10 // the time limit of a whole list, as a multiple of Options.Timeout
)

// start begins a call with k as its first command. It fails if the session is in none of the given states. If it
// returns nil, the caller must call conn.end.
func (c *Client) start(ctx context.Context, k command, allowed ...State) error {
	if err := k.check(); err != nil {
		return err
	}
	if err := c.conn.begin(ctx); err != nil {
		return fmt.Errorf("pop3: %s: %w", k, err)
	}
	if err := c.checkState(allowed); err != nil {
		c.conn.end()
		return fmt.Errorf("pop3: %s: %w", k, err)
	}
	return nil
}

// checkState returns an error if a command must not be sent in the current state (RFC 1939 section 3).
func (c *Client) checkState(allowed []State) error {
	if err := c.conn.closed(); err != nil { // another goroutine may have closed the connection after begin
		return err
	}
	current := State(c.state.Load())
	if slices.Contains(allowed, current) {
		return nil
	}
	return fmt.Errorf("%w, which is %v", ErrState, current)
}

// call runs f as one call whose first command is k. It fails if the session is in none of the given states.
func (c *Client) call(ctx context.Context, k command, f func() error, allowed ...State) error {
	if err := c.start(ctx, k, allowed...); err != nil {
		return err
	}
	defer c.conn.end()
	return f()
}

// run runs exchange as a call of its own. If k opens a message, the call lasts until the message ends.
func (c *Client) run(ctx context.Context, k command, read func(text []byte) error, allowed ...State) error {
	if err := c.start(ctx, k, allowed...); err != nil {
		return err
	}
	open := false
	defer func() { // deferred, so that the call ends even if a hook panics
		if !open {
			c.conn.end()
		}
	}()
	err := c.exchange(ctx, k, read)
	open = err == nil && k.opensMessage
	return err
}

// exchange sends k and reads its reply, within a call. If the reply is positive, it calls read with the text of the
// status line. The function read reads the rest of the reply; it may be nil.
func (c *Client) exchange(ctx context.Context, k command, read func(text []byte) error) error {
	err := c.send(ctx, k)
	if err == nil {
		err = c.reply(ctx, k, read)
	}
	c.traceDone(ctx, k, err)
	return err
}

// traceDone calls the hook Done for k. If k has opened a message, Done is called when the message ends.
func (c *Client) traceDone(ctx context.Context, k command, err error) {
	if err != nil || !k.opensMessage {
		c.trace.done(ctx, k, 0, err)
	}
}

// send writes a command that is not sent ahead. The server must not have sent anything since its last reply.
func (c *Client) send(ctx context.Context, k command) error {
	if err := c.checkUnsolicited(k); err != nil {
		return err
	}
	_, err := c.write(ctx, k)
	return err
}

// write writes a command. sent is false if it is certain that nothing was sent.
func (c *Client) write(ctx context.Context, k command) (sent bool, err error) {
	c.userAccepted = false
	c.trace.wroteCommand(ctx, k)
	sent, err = c.conn.write(k.append(c.conn.out[:0]))
	if k.secret != "" {
		clear(c.conn.out[:])
	}
	if err != nil {
		err = c.closeWithError(k, err)
	}
	return sent, err
}

// checkUnsolicited fails if the peer sent something before k was sent.
func (c *Client) checkUnsolicited(k command) error {
	early, err := c.conn.checkUnsolicited()
	switch {
	case err != nil:
		return c.closeWithError(k, fmt.Errorf("not sent, because the server had closed the connection: %w", err))
	case len(early) > 0:
		return c.protocolError(k, "not sent, because the server had sent something that was not asked for", early)
	}
	return nil
}

// reply reads the reply to k, as exchange does.
func (c *Client) reply(ctx context.Context, k command, read func(text []byte) error) error {
	text, err := c.status(ctx, k)
	switch {
	case err != nil && k.ahead:
		return explainPipelining(err)
	case err != nil || read == nil:
		return err
	}
	err = read(text)
	if parseErr, ok := err.(malformed); ok {
		return c.malformedReply(k, text, parseErr)
	}
	return err
}

// status reads the status line of the reply to k. The text is valid until more is read.
func (c *Client) status(ctx context.Context, k command) (text []byte, err error) {
	line, err := c.replyLine(ctx, k, maxReplyLine)
	if err != nil {
		return nil, err
	}
	ok, text, valid := parseStatus(line)
	switch {
	case !valid:
		return nil, c.protocolError(k, "neither +OK nor -ERR", line)
	case !ok:
		return nil, c.refusal(k, text)
	}
	return text, nil
}

// replyLine reads a status line of at most max octets, or a challenge of a SASL exchange.
func (c *Client) replyLine(ctx context.Context, k command, max int) ([]byte, error) {
	c.conn.clock.startLine()
	line, err := c.conn.line(max)
	if err != nil {
		return nil, c.noLine(k, max, line, err)
	}
	c.guard(func() { c.trace.gotReply(ctx, k, line, c.shown) })
	c.capaRefusal = nil
	if bytes.IndexByte(line, 0) >= 0 {
		return nil, c.protocolError(k, "the reply contains NUL", line)
	}
	return line, nil
}

// noLine closes the connection because a line could not be read.
func (c *Client) noLine(k command, max int, line []byte, err error) error {
	switch err {
	case errBareLF:
		return c.protocolError(k, "a line that ends in LF without CR", line)
	case errLineTooLong:
		return c.protocolError(k, fmt.Sprintf("a line longer than %d octets", max), c.conn.buf.unread())
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		phase := "instead of replying"
		if c.conn.clock.bulk || len(c.conn.buf.unread()) > 0 {
			phase = "in the middle of the reply"
		}
		err = fmt.Errorf("the server closed the connection %s: %w", phase, err)
	}
	return c.closeWithError(k, err)
}

// lines reads the lines after the status line of a multi-line reply, at most maxLines. It calls handle for each line.
// It always reads to the end of the reply, and then returns the first error of handle.
func (c *Client) lines(k command, maxLines int, handle func(line []byte) error) (err error) {
	c.conn.clock.startBody()
	c.conn.buf.reserve()
	var limit time.Time
	if c.opts.Timeout >= 0 {
		limit = time.Now().Add(listTimeouts * c.opts.Timeout)
	}
	c.conn.withDeadline(limit, func() { err = c.readLines(k, maxLines, handle) })
	return err
}

func (c *Client) readLines(k command, maxLines int, handle func(line []byte) error) error {
	var failed error
	octets := 0
	for n := 0; ; n++ {
		line, err := c.conn.line(maxReplyLine)
		if err != nil {
			return c.noLine(k, maxReplyLine, line, err)
		}
		if len(line) > 0 && line[0] == '.' {
			if len(line) == 1 {
				return failed
			}
			if line[1] == '.' {
				line = line[1:]
			}
		}
		if octets += len(line) + 2; n >= maxLines || octets > maxListOctets {
			return c.protocolError(k, fmt.Sprintf("more than %d lines or %d octets", maxLines, maxListOctets), nil)
		}
		if err := handle(line); err != nil && failed == nil {
			failed = c.malformedReply(k, line, err)
		}
	}
}

// malformedReply returns the error for a complete reply that a parser rejected with err.
func (c *Client) malformedReply(k command, line []byte, err error) error {
	return &ProtocolError{Cmd: k.String(), Detail: err.Error(), Line: printable.Cut(c.shown(line), maxLine)}
}

// protocolError closes the connection because of a reply that breaks the protocol.
func (c *Client) protocolError(k command, detail string, line []byte) error {
	shown := printable.Cut(c.shown(line), maxLine)
	return c.closeWithError(k, &ProtocolError{Fatal: true, Cmd: k.String(), Detail: detail, Line: shown})
}

// closeWithError closes the connection because of err, unless it is closed already. It returns the reason why the
// connection was closed.
func (c *Client) closeWithError(k command, err error) error {
	if c.capaRefusal != nil && errors.Is(err, io.ErrUnexpectedEOF) { // CAPA may be the reason
		err = fmt.Errorf("%w (after %w)", err, c.capaRefusal)
	}
	if _, ok := errors.AsType[*ProtocolError](err); ok { // the text of a *ProtocolError already contains the command
		return c.conn.closeWithError(err)
	}
	named := fmt.Errorf("%s: %w", k, err) // the errors of later calls contain the command too
	cause := c.conn.closeWithError(named)
	if _, ok := errors.AsType[*ProtocolError](cause); ok {
		return cause
	}
	if cause != named {
		return fmt.Errorf("pop3: %s: %w", k, cause)
	}
	return fmt.Errorf("pop3: %w", cause)
}

var errPanicked = errors.New("a mechanism or a hook panicked")

// guard closes the connection if f panics, because it is then unknown how much of a reply was read.
func (c *Client) guard(f func()) {
	panicked := true
	defer func() {
		if panicked {
			c.conn.closeWithError(errPanicked)
		}
	}()
	f()
	panicked = false
}

// refusal returns the error for a -ERR reply. It interprets the text before secrets are removed from it, because a
// password may be equal to a word of the text.
func (c *Client) refusal(k command, text []byte) *Error {
	code, words := c.shownText(text)
	anyCode, original := cutCode(text)
	return &Error{
		Cmd:           k.String(),
		Num:           k.num(),
		Code:          code,
		Text:          words,
		login:         c.loggingIn,
		saysTemporary: c.loggingIn && anyCode == "" && saysTemporary(printable.Clean(string(original))),
		authCodes:     c.caps.Has("AUTH-RESP-CODE"),
	}
}

// shown returns a line of the server with secrets removed. The status and a registered code are not changed.
func (c *Client) shown(line []byte) string {
	_, text, valid := parseStatus(line)
	switch {
	case !valid && c.loggingIn && bytes.HasPrefix(line, []byte("+")):
		return "+ ***" // a challenge in a trace could be used to guess passwords offline
	case !valid:
		return c.secrets.Hide(string(line))
	}
	code, words := c.shownText(text)
	if words != printable.Hidden {
		return printable.Clean(string(line))
	}
	status := strings.TrimRight(string(line[:len(line)-len(text)]), " \t")
	if code != "" {
		status += " [" + string(code) + "]"
	}
	return status + " " + words
}

// shownText returns the code and the text of a reply without secrets. A registered code is never hidden, so
// that a password cannot change its meaning. Any other code may be a secret that the server repeats.
func (c *Client) shownText(text []byte) (Code, string) {
	code, words := cutCode(text)
	if known := code.registered(); known != code && c.secrets.ShownIn(string(text)) {
		return known, printable.Hidden
	}
	return code, c.secrets.Hide(string(words))
}

// isRefusal reports whether err is a -ERR reply, after which the session can continue.
func isRefusal(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// maxCommand is the longest command in octets, with CRLF (RFC 2449 section 4).
const maxCommand = 255

// A command is one command: a verb, with up to two numbers or up to two words. The secret word is a field of its own,
// so that no trace and no error can show it by mistake.
type command struct {
	verb   string
	nums   [2]int
	count  int    // number of values in nums
	arg    string // a word that may be shown
	secret string // a last word that must not be shown

	opensMessage bool // a positive reply is followed by a message
	ahead        bool // sent before the replies to earlier commands were received
}

// append appends the command as it is sent.
func (k command) append(b []byte) []byte {
	b = k.appendShown(b)
	if k.secret != "" {
		b = append(append(b, ' '), k.secret...)
	}
	return append(b, '\r', '\n')
}

func (k command) appendShown(b []byte) []byte {
	b = append(b, k.verb...)
	for _, n := range k.nums[:k.count] {
		b = strconv.AppendInt(append(b, ' '), int64(n), 10)
	}
	if k.arg != "" {
		b = append(append(b, ' '), k.arg...)
	}
	return b
}

// String returns the command with *** in place of the secret.
func (k command) String() string {
	s := string(k.appendShown(nil))
	if k.secret != "" {
		s += " ***"
	}
	return s
}

// tooLong reports whether the command is longer than the limit.
func (k command) tooLong() bool {
	n := len(k.verb) + len(k.arg) + len(k.secret) + len("  \r\n")
	return n > maxCommand && len(k.append(nil)) > maxCommand
}

// num returns the number of the message that the command is about, 0 if it is about none.
func (k command) num() int {
	if k.count == 0 {
		return 0
	}
	return k.nums[0]
}

// numbered returns a command about one message.
func numbered(verb string, num int) command {
	return command{verb: verb, nums: [2]int{num}, count: 1}
}

// checkNum rejects message numbers below 1 (RFC 1939 section 4).
func checkNum(nums ...int) error {
	for _, n := range nums {
		if n < 1 {
			return fmt.Errorf("pop3: message number %d: %w: numbers start at 1", n, ErrArgument)
		}
	}
	return nil
}

// checkWord returns an error if s cannot be an argument of a command: it is empty, or contains control characters,
// spaces or invalid UTF-8. The error contains the name of the argument, but not s, which may be a secret.
func checkWord(argument, s string) error {
	if strings.ContainsRune(s, ' ') {
		return fmt.Errorf("pop3: %s: %w: it contains a space", argument, ErrArgument)
	}
	return checkText(argument, s)
}

// checkText is like checkWord, for arguments that may contain spaces.
func checkText(argument, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("pop3: %s: %w: it is empty", argument, ErrArgument)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("pop3: %s: %w: it contains a control character", argument, ErrArgument)
	case !utf8.ValidString(s):
		return fmt.Errorf("pop3: %s: %w: it is not valid UTF-8", argument, ErrArgument)
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// check returns an error if a command is too long.
func (k command) check() error {
	if k.tooLong() {
		return fmt.Errorf("pop3: %s: %w: the command is longer than %d octets",
			printable.Clean(k.verb), ErrArgument, maxCommand)
	}
	return nil
}
