package pop3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// Stat returns the number of messages and their total size (STAT, RFC 1939 section 5). Messages that are marked as
// deleted do not count. A reply without a usable count is a [*ProtocolError] that is not fatal.
func (c *Client) Stat(ctx context.Context) (drop DropListing, err error) {
	err = c.run(ctx, command{verb: "STAT"}, func(text []byte) error {
		drop, err = parseStat(string(text))
		return err
	}, StateTransaction)
	return drop, err
}

var (
	listCommand = command{verb: "LIST"}
	uidlCommand = command{verb: "UIDL"}
)

// List returns the size of message num (LIST n, RFC 1939 section 5). If there is no such message, or it is marked
// as deleted, the error is an [*Error]. A reply that makes no sense is a [*ProtocolError] that is not fatal.
func (c *Client) List(ctx context.Context, num int) (MessageInfo, error) {
	return c.listOne(ctx, "LIST", num, parseScan)
}

// ListAll returns the sizes of all messages that are not marked as deleted (LIST, RFC 1939 section 5), in the server's
// order. The numbers may have gaps. If a line makes no sense or a number occurs twice, ListAll returns no result and a
// [*ProtocolError] that is not fatal. In that case [Client.Listing] returns the lines that it could read. Call ListAll
// before the first [Client.Dele], which explains why.
func (c *Client) ListAll(ctx context.Context) ([]MessageInfo, error) {
	infos, err := c.listAll(ctx, listCommand)
	if err == nil {
		c.sizes.learn(infos)
	}
	return infos, err
}

// Uidl returns the unique-id of message num (UIDL n, RFC 1939 section 7). If there is no such message, it is
// marked as deleted, or the server does not have UIDL, the error is an [*Error]. A reply that makes no sense is a
// [*ProtocolError] that is not fatal.
func (c *Client) Uidl(ctx context.Context, num int) (MessageInfo, error) {
	return c.listOne(ctx, "UIDL", num, parseUnique)
}

// UidlAll returns the unique-ids of all messages that are not marked as deleted (UIDL, RFC 1939 section 7). Two
// messages may have the same unique-id. The errors are the same as those of [Client.ListAll]. A server that does not
// have UIDL replies with an [*Error]; [Client.Listing] recognizes that case.
func (c *Client) UidlAll(ctx context.Context) ([]MessageInfo, error) {
	return c.listAll(ctx, uidlCommand)
}

func (c *Client) listOne(
	ctx context.Context, verb string, num int, parse func(string) (MessageInfo, error),
) (info MessageInfo, err error) {
	if err := checkNum(num); err != nil {
		return MessageInfo{}, err
	}
	err = c.run(ctx, numbered(verb, num), func(text []byte) error {
		if info, err = parse(string(text)); err == nil && info.Num != num {
			err = malformed("the reply is about another message")
		}
		return err
	}, StateTransaction)
	if err != nil {
		return MessageInfo{}, err
	}
	return info, nil
}

// Retr retrieves message num (RETR, RFC 1939 section 5). The caller must read the message to its end or close it;
// until then every other call fails with [ErrBusy], and ctx applies. If there is no such message, or it is marked as
// deleted, the error is an [*Error].
//
// Retrieving deletes nothing. But a server that announces EXPIRE 0 may delete at [Client.Quit] whatever was
// retrieved (RFC 2449 section 6.7); see [Capabilities.Expire].
func (c *Client) Retr(ctx context.Context, num int) (*Message, error) {
	if err := checkNum(num); err != nil {
		return nil, err
	}
	return c.openMessage(ctx, retrCommand(num), StateTransaction)
}

func retrCommand(num int) command {
	return command{verb: "RETR", nums: [2]int{num}, count: 1, opensMessage: true}
}

// Top retrieves the header of message num and the first lines of its body (TOP, RFC 1939 section 7); with lines =
// 0, the header alone. The caller must read the message to its end or close it, as with [Client.Retr]. TOP is
// optional: a server without it replies with an [*Error]. Some servers send more or fewer lines than were asked
// for.
func (c *Client) Top(ctx context.Context, num, lines int) (*Message, error) {
	if err := checkTop(lines, num); err != nil {
		return nil, err
	}
	return c.openMessage(ctx, topCommand(num, lines), StateTransaction)
}

func topCommand(num, lines int) command {
	return command{verb: "TOP", nums: [2]int{num, lines}, count: 2, opensMessage: true}
}

func checkTop(lines int, nums ...int) error {
	if lines < 0 {
		return fmt.Errorf("pop3: TOP: %w: the number of lines is below 0", ErrArgument)
	}
	return checkNum(nums...)
}

// Dele marks messages as deleted (DELE, RFC 1939 section 5). The server deletes them at [Client.Quit];
// [Client.Rset] removes the marks. Without numbers Dele does nothing.
//
// If the server refuses to mark some messages, it still marks the others. The error then joins one [*Error] for
// each refusal, whose Num is the message number. If the error is [ErrArgument], [ErrState], [ErrBusy] or an [*Error]
// whose Num is 0 (for CAPA), or ctx was already done, nothing was marked. After any other error the connection is
// closed and nothing will be deleted.
//
// If the server supports pipelining, all commands are sent at once, in one round trip. WildDuck 1.46.1 crashes, for
// all its users, when it gets more than about 2,000 commands at once. With such a server, call Dele with at most
// 1,000 numbers at a time, as package [github.com/seed-2d50cddb/pop3/fetch] does.
//
// Call [Client.Listing], [Client.ListAll] and [Client.UidlAll] before the first Dele. After the first Dele some
// servers renumber the remaining messages in their lists, against RFC 1939. Their other commands still use the old
// numbers. So a number from such a list may refer to a different message.
func (c *Client) Dele(ctx context.Context, nums ...int) error {
	if len(nums) == 0 {
		return nil
	}
	if err := checkNum(nums...); err != nil {
		return err
	}
	nums = slices.Clone(nums)
	dele := func(i int) command { return numbered("DELE", nums[i]) }
	return c.call(ctx, dele(0), func() error {
		b, err := c.newBatch(ctx, commands{
			n:        len(nums),
			at:       dele,
			size:     func(int) int64 { return deleReply },
			maxAhead: len(nums), // no limit, so that even 10,000 messages are marked in one round trip
		})
		if err != nil {
			return err
		}
		defer b.close()
		c.guard(func() { err = b.dele() })
		return err
	}, StateTransaction)
}

// deleReply is the approximate number of octets in a reply to DELE.
const deleReply = 64

func (b *batch) dele() error {
	var refusals []error
	for b.done < b.n {
		err := b.next(nil)
		switch {
		case err == nil:
			b.c.marked++
		case isRefusal(err):
			refusals = append(refusals, err)
		default:
			if b.w != nil && b.n > maxMessagesAhead {
				err = explainParts(err)
			}
			return errors.Join(append(refusals, b.explainLost(err))...)
		}
		b.answered()
	}
	if len(refusals) == 1 {
		return refusals[0]
	}
	return errors.Join(refusals...)
}

// Noop sends NOOP, which does nothing but reset the server's autologout timer (RFC 1939 section 5). A server may
// end a session after ten minutes without a command; some do after one. See also [Client.KeepAlive].
func (c *Client) Noop(ctx context.Context) error {
	return c.run(ctx, command{verb: "NOOP"}, nil, StateTransaction)
}

// Rset removes all marks of [Client.Dele] (RSET, RFC 1939 section 5).
func (c *Client) Rset(ctx context.Context) error {
	return c.run(ctx, command{verb: "RSET"}, func([]byte) error {
		c.marked = 0
		return nil
	}, StateTransaction)
}

// ownVerbs are the commands that Cmd rejects, because they change what the client knows about the session.
var ownVerbs = []string{"QUIT", "STLS", "USER", "PASS", "APOP", "AUTH", "DELE", "RSET", "UTF8"}

// Cmd sends a command that the package does not know (XTND, XCLIENT ...) and returns the text of its one-line
// reply. line is one command without CRLF. Traces and errors show it unchanged.
//
// Cmd fails with [ErrArgument], and sends nothing, if line contains control characters, has a space too many, is not
// ASCII, is longer than 255 bytes, or is a command whose reply is known to have several lines. Cmd also rejects the
// commands that have their own methods because they change what the client knows: QUIT, STLS, USER, PASS, APOP, AUTH,
// DELE, RSET and UTF8. A -ERR reply is an [*Error].
func (c *Client) Cmd(ctx context.Context, line string) (text string, err error) {
	k, err := freeCommand(line, false)
	if err != nil {
		return "", err
	}
	err = c.run(ctx, k, func(reply []byte) error {
		text = printable.Visible(string(reply))
		return nil
	}, StateAuthorization, StateTransaction)
	return text, err
}

// CmdMulti is like [Client.Cmd], for a command whose reply has several lines. The caller must read the message,
// whose Num is 0, to its end or close it.
func (c *Client) CmdMulti(ctx context.Context, line string) (*Message, error) {
	k, err := freeCommand(line, true)
	if err != nil {
		return nil, err
	}
	return c.openMessage(ctx, k, StateAuthorization, StateTransaction)
}

func freeCommand(line string, multi bool) (command, error) {
	if err := checkText("command", line); err != nil {
		return command{}, err
	}
	verb, args, _ := strings.Cut(strings.ToUpper(line), " ")
	switch {
	case verb == "" || strings.HasSuffix(line, " ") || strings.Contains(line, "  "):
		return command{}, fmt.Errorf("pop3: command: %w: words are separated by exactly one space", ErrArgument)
	case !isASCII(line):
		return command{}, fmt.Errorf("pop3: command: %w: it is not ASCII", ErrArgument)
	case slices.Contains(ownVerbs, verb):
		return command{}, fmt.Errorf("pop3: command: %w: %s has a method of its own", ErrArgument, verb)
	}
	if known, several := hasSeveralLines(verb, args); known && several != multi {
		form := map[bool]string{false: "one line: use Cmd", true: "several lines: use CmdMulti"}[several]
		return command{}, fmt.Errorf("pop3: command: %w: the reply to %s has %s", ErrArgument, line, form)
	}
	return command{verb: line}, nil
}

// hasSeveralLines reports whether the positive reply to a command has several lines. known is false if the command is
// not known.
func hasSeveralLines(verb, args string) (known, several bool) {
	switch verb {
	case "RETR", "TOP", "CAPA":
		return true, true
	case "LIST", "UIDL", "LANG":
		return true, args == ""
	}
	return verb == "STAT" || verb == "NOOP", false
}

// Listing asks for the sizes and the unique-ids of all messages that are not marked as deleted (LIST and UIDL). If the
// server supports pipelining, this takes one round trip. The result is in the order of the scan listing. A message that
// arrived between the two lists may have no UID or be left out. Call Listing before the first [Client.Dele], which
// explains why.
//
// UIDL is sent whether or not it is announced. If the server does not have it, Listing returns the sizes together
// with an error that wraps [errors.ErrUnsupported]. Without that error, a program that recognizes new messages by
// their UID could lose mail.
//
// A line that makes no sense affects only its own message. That message has a Size of -1 or no UID, and the error
// is a [*ProtocolError] that is not fatal. After any other error the result is nil.
func (c *Client) Listing(ctx context.Context) (infos []MessageInfo, err error) {
	err = c.call(ctx, listCommand, func() error {
		infos, err = c.readListings(ctx)
		return err
	}, StateTransaction)
	return infos, err
}

// readListings carries out LIST and UIDL. It reads both replies, even if the first one is -ERR.
func (c *Client) readListings(ctx context.Context) ([]MessageInfo, error) {
	cmds := []command{listCommand, uidlCommand}
	b, err := c.newBatch(ctx, commands{
		n:        len(cmds),
		at:       func(i int) command { return cmds[i] },
		size:     func(int) int64 { return 0 },
		maxAhead: len(cmds),
	})
	if err != nil {
		return nil, err
	}
	defer b.close()
	var sizes, uids listing
	sizesErr := b.list(&sizes)
	if sizesErr != nil && c.conn.closed() != nil {
		return nil, sizesErr
	}
	uidsErr := b.list(&uids)
	switch {
	case uidsErr != nil && c.conn.closed() != nil:
		return nil, uidsErr
	case isRefusal(sizesErr):
		return nil, sizesErr
	case isRefusal(uidsErr):
		uidsErr = c.explainNoUIDL(ctx, uidsErr, len(sizes.infos))
		if uidsErr != nil && !errors.Is(uidsErr, errors.ErrUnsupported) {
			return nil, uidsErr
		}
	}
	c.sizes.learn(sizes.infos)
	sizes.join(&uids)
	if sizesErr != nil && uidsErr != nil {
		return sizes.infos, errors.Join(sizesErr, uidsErr)
	}
	return sizes.infos, cmp.Or(sizesErr, uidsErr)
}

// list reads the next reply, to LIST or UIDL.
func (b *batch) list(l *listing) error {
	k := b.at(b.done)
	err := b.next(func([]byte) error { return b.c.readListing(k, l) })
	b.answered()
	return err
}

// explainNoUIDL returns the error of Listing if UIDL was refused. If the server does not announce UIDL and the refusal
// has no code, the server does not have UIDL. A refusal without a code is no error if the maildrop is empty.
func (c *Client) explainNoUIDL(ctx context.Context, err error, messages int) error {
	if refusal, ok := errors.AsType[*Error](err); !ok || refusal.Code != "" {
		return err
	}
	if messages == 0 {
		return nil
	}
	if capaErr := c.needCaps(ctx); capaErr != nil {
		return capaErr
	}
	if c.caps.Has("UIDL") {
		return err
	}
	return fmt.Errorf("pop3: UIDL: the server has no unique-ids: %w (%w)", errors.ErrUnsupported, err)
}

// listAll carries out LIST or UIDL.
func (c *Client) listAll(ctx context.Context, k command) ([]MessageInfo, error) {
	var l listing
	err := c.run(ctx, k, func([]byte) error { return c.readListing(k, &l) }, StateTransaction)
	if err != nil {
		return nil, err
	}
	return l.infos, nil
}

// readListing reads the lines of LIST or UIDL. If the error is not fatal, l contains the lines that could be
// read.
func (c *Client) readListing(k command, l *listing) error {
	if err := c.lines(k, maxListEntries, l.addLine); err != nil {
		return err
	}
	parse := parseScan
	if k.verb == uidlCommand.verb {
		parse = parseUnique
	}
	badLine, err := l.parse(parse)
	if l.unordered && l.dropRepeats() && err == nil {
		err = malformed("a message number occurs twice")
	}
	if err != nil {
		return c.malformedReply(k, []byte(badLine), err)
	}
	return nil
}

// capaCommand is CAPA (RFC 2449 section 5).
var capaCommand = command{verb: "CAPA"}

// Capa returns the server's capabilities (CAPA, RFC 2449 section 5). CAPA is sent when the capabilities are first
// needed. It is sent again after STLS and after the login, because they may change. Otherwise Capa returns the
// last answer.
//
// If the server rejects the command, or Options.Compat.NoCapa is set, Capa returns nil and no error. Then nothing is
// known, and the server may still support optional commands such as UIDL and TOP. A refusal with a response code is
// returned as an [*Error], because it does not mean that the server lacks CAPA.
func (c *Client) Capa(ctx context.Context) (caps Capabilities, err error) {
	err = c.call(ctx, capaCommand, func() error {
		err := c.needCaps(ctx)
		caps = c.caps.clone()
		return err
	}, StateAuthorization, StateTransaction)
	return caps, err
}

// needCaps requests the capabilities within a call, unless they are known.
func (c *Client) needCaps(ctx context.Context) error {
	if c.capsKnown || c.opts.Compat.NoCapa {
		return nil
	}
	var caps Capabilities
	err := c.exchange(ctx, capaCommand, func([]byte) error {
		caps = Capabilities{}
		return c.lines(capaCommand, maxCapaLines, caps.add)
	})
	refusal, refused := errors.AsType[*Error](err)
	switch {
	case refused && refusal.Code == "":
		c.capaRefusal = refusal
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w (if the server always closes the connection at CAPA, set Options.Compat.NoCapa)", err)
	case err != nil:
		return err
	}
	c.caps, c.capsKnown = caps, true
	c.pipelining = caps.Has("PIPELINING")
	return nil
}

// forgetCaps is called when the capabilities may have changed. It keeps pipelining, because PIPELINING is announced for
// the whole session (RFC 2449 section 6.6).
func (c *Client) forgetCaps() {
	c.caps, c.capsKnown = nil, false
}

// Utf8 asks for UTF-8 in the server's texts and in the headers of messages (UTF8, RFC 6856 section 2). It must be
// called before the login. If the server does not announce UTF8, nothing is sent and the error wraps
// [errors.ErrUnsupported].
func (c *Client) Utf8(ctx context.Context) error {
	k := command{verb: "UTF8"}
	return c.call(ctx, k, func() error {
		if err := c.needCaps(ctx); err != nil {
			return err
		}
		if !c.caps.Has("UTF8") {
			return fmt.Errorf("pop3: UTF8: not announced by the server: %w", errors.ErrUnsupported)
		}
		return c.exchange(ctx, k, nil)
	}, StateAuthorization)
}

// Lang asks the server to use the language with this tag in its replies (LANG, RFC 6856 section 3). With "*" the server
// chooses the language. Lang returns the tag in the server's reply. If the reply has no tag, Lang returns its argument.
// It fails with [ErrArgument] if tag is not a language tag. A server that does not have the language, or LANG, replies
// with an [*Error].
func (c *Client) Lang(ctx context.Context, tag string) (active string, err error) {
	if tag != "*" && !isLanguageTag([]byte(tag)) {
		return "", fmt.Errorf("pop3: LANG: %w: not a language tag: %q", ErrArgument, printable.Clean(tag))
	}
	err = c.run(ctx, command{verb: "LANG", arg: tag}, func(text []byte) error {
		active = tag
		first, _, _ := bytes.Cut(text, []byte(" "))
		// The text may be a sentence without a tag. The first part of a tag has at most three letters. Few sentences
		// begin with such a word.
		if language, _, _ := bytes.Cut(first, []byte("-")); isLanguageTag(first) && len(language) <= 3 {
			active = string(first)
		}
		return nil
	}, StateAuthorization, StateTransaction)
	return active, err
}

// LangAll returns the languages that the server supports (LANG, RFC 6856 section 3). A server without LANG
// replies with an [*Error].
func (c *Client) LangAll(ctx context.Context) ([]Language, error) {
	k := command{verb: "LANG"}
	var all []Language
	err := c.run(ctx, k, func([]byte) error {
		return c.lines(k, maxLangLines, func(line []byte) error {
			language, err := parseLanguage(line)
			all = append(all, language)
			return err
		})
	}, StateAuthorization, StateTransaction)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// KeepAlive sends NOOP whenever the session has been idle for the given time, so that the server does not end it
// while the program is busy elsewhere. Servers may end a session after ten minutes (RFC 1939 section 3), and some
// do after one. KeepAlive blocks, so call it on a goroutine of your own:
//
//	go c.KeepAlive(ctx, 30*time.Second)
//
// Other calls are not disturbed: a call that is made during a NOOP waits for the reply to NOOP. Nothing is sent while a
// message is open or a loop over [Client.Messages] runs, because the server is then in the middle of a reply. KeepAlive
// ignores whether the reply to NOOP is positive.
//
// KeepAlive returns nil after [Client.Quit] or [Client.Close]. When ctx ends it returns an error that wraps
// ctx.Err(), and the session can continue. If the connection is lost it returns the reason. It fails at once
// with [ErrState] before the login, and with [ErrArgument] if the given time is not above 0.
func (c *Client) KeepAlive(ctx context.Context, every time.Duration) error {
	if every <= 0 {
		return fmt.Errorf("pop3: KeepAlive: %w: the interval must be above 0", ErrArgument)
	}
	if c.State() == StateAuthorization {
		return fmt.Errorf("pop3: KeepAlive: %w, which is %v", ErrState, StateAuthorization)
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("pop3: KeepAlive: %w", ctx.Err())
		case <-c.conn.done:
			return c.conn.closeReason()
		case <-timer.C:
			err := c.keepAliveOnce(context.WithoutCancel(ctx), every)
			switch {
			case err != nil && c.conn.closed() != nil:
				return c.conn.closeReason()
			case err != nil:
				return err
			}
			timer.Reset(every - c.conn.turn.idle())
		}
	}
}

// keepAliveOnce sends NOOP if the session has been idle for long enough.
func (c *Client) keepAliveOnce(ctx context.Context, every time.Duration) error {
	if c.conn.turn.idle() < every || !c.conn.beginNoop(ctx) {
		return nil
	}
	defer c.conn.end()
	if c.conn.closed() != nil {
		return nil // KeepAlive sees the error in c.conn.done
	}
	if err := c.exchange(ctx, command{verb: "NOOP"}, nil); err != nil && !isRefusal(err) {
		return err
	}
	return nil
}
