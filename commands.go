package pop3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A DropListing is what STAT tells: how many messages the maildrop has, and their size.
type DropListing struct {
	Count int   // messages that are not marked as deleted
	Size  int64 // octets of all of them, as the server counts; -1 if it did not give a usable number
}

// MessageInfo is what LIST and UIDL tell about a message.
type MessageInfo struct {
	Num  int    // message number, valid in this session only
	Size int64  // octets, set by List, ListAll and Listing; what the server claims: a hint, never exact
	UID  string // unique-id, set by Uidl, UidlAll and Listing; opaque, chosen by the server, not fit for a file name
}

// Stat asks for the number of messages and their total size (STAT, RFC 1939 section 5). A reply without a count is
// a [ProtocolError] that is not fatal.
func (c *Client) Stat(ctx context.Context) (drop DropListing, err error) {
	err = c.run(ctx, command{verb: "STAT"}, func(text []byte) error {
		drop, err = parseStat(text)
		return err
	}, StateTransaction)
	return drop, err
}

// List asks for the size of one message (LIST n, RFC 1939 section 5).
func (c *Client) List(ctx context.Context, num int) (MessageInfo, error) {
	return c.listOne(ctx, "LIST", num, (*MessageInfo).scan)
}

// ListAll asks for the sizes of all messages that are not marked as deleted (LIST, RFC 1939 section 5), in the
// server's order; numbers may be missing. A list with a malformed line or with a number that comes twice fails
// whole, with a [ProtocolError] that is not fatal.
func (c *Client) ListAll(ctx context.Context) ([]MessageInfo, error) {
	infos, err := c.listAll(ctx, "LIST", addScan)
	if err == nil {
		c.sizes.learn(infos)
	}
	return infos, err
}

// Uidl asks for the unique-id of one message (UIDL n, RFC 1939 section 7).
func (c *Client) Uidl(ctx context.Context, num int) (MessageInfo, error) {
	return c.listOne(ctx, "UIDL", num, (*MessageInfo).unique)
}

// UidlAll asks for the unique-ids of all messages that are not marked as deleted (UIDL, RFC 1939 section 7). Two
// messages may have the same unique-id. It fails whole, as [Client.ListAll] does. A server that lacks the command
// answers with an [Error]; [Client.Listing] tells that case apart.
func (c *Client) UidlAll(ctx context.Context) ([]MessageInfo, error) {
	return c.listAll(ctx, "UIDL", addUnique)
}

func (c *Client) listOne(
	ctx context.Context, verb string, num int, parse func(*MessageInfo, []byte) error,
) (MessageInfo, error) {
	if err := checkNum(num); err != nil {
		return MessageInfo{}, err
	}
	var info MessageInfo
	err := c.run(ctx, numbered(verb, num), func(text []byte) error {
		if err := parse(&info, text); err != nil {
			return err
		}
		if info.Num != num {
			return malformed("the reply is about another message")
		}
		return nil
	}, StateTransaction)
	if err != nil {
		return MessageInfo{}, err
	}
	return info, nil
}

func (m *MessageInfo) scan(text []byte) (err error) {
	m.Num, m.Size, err = parseScan(text)
	return err
}

func (m *MessageInfo) unique(text []byte) (err error) {
	var uid []byte
	m.Num, uid, err = parseUnique(text)
	m.UID = string(uid)
	return err
}

// Retr retrieves a message (RETR, RFC 1939 section 5). The caller reads it to its end or closes it; ctx holds
// until then. Reading does not delete anything, though with EXPIRE 0 a server may remove at [Client.Quit] what
// was retrieved (RFC 2449 section 6.7, see [Capabilities.Expire]).
func (c *Client) Retr(ctx context.Context, num int) (*Message, error) {
	if err := checkNum(num); err != nil {
		return nil, err
	}
	return c.openMessage(ctx, numbered("RETR", num), StateTransaction)
}

// Top retrieves the header of a message and the first lines of its body (TOP, RFC 1939 section 7): no lines for
// the header alone. The caller reads it to its end or closes it. The command is optional, and some servers send
// more or less than was asked for.
func (c *Client) Top(ctx context.Context, num, lines int) (*Message, error) {
	if err := checkTop(lines, num); err != nil {
		return nil, err
	}
	return c.openMessage(ctx, topCommand(num, lines), StateTransaction)
}

func topCommand(num, lines int) command {
	return command{verb: "TOP", nums: [2]int{num, lines}, count: 2}
}

func checkTop(lines int, nums ...int) error {
	if lines < 0 {
		return fmt.Errorf("pop3: TOP: %w: the number of lines is below 0", ErrArgument)
	}
	return checkNum(nums...)
}

// Dele marks messages as deleted (DELE, RFC 1939 section 5), with commands sent ahead of replies where the server
// pipelines. Nothing is deleted before [Client.Quit] has committed it; [Client.Rset] takes the marks back. No
// numbers mark nothing. A refusal touches its own message only: the others are marked all the same, and the error
// joins one [*Error] for each refusal. After any other error the session is over and nothing will be deleted.
//
// All of them go ahead at once, so that they take one round trip. More than about 2,000 commands at once kill WildDuck
// (seen with 1.46.1 in clear, and for everybody): mark in parts there, as package fetch always does.
//
// Ask for lists before the first mark. In a list behind it some servers number anew what is left, against RFC 1939
// and their own other commands, so that a number taken from it is that of another message.
func (c *Client) Dele(ctx context.Context, nums ...int) error {
	if len(nums) == 0 {
		return nil
	}
	if err := checkNum(nums...); err != nil {
		return err
	}
	nums = slices.Clone(nums)
	dele := func(i int) command { return numbered("DELE", nums[i]) }
	if err := c.start(ctx, dele(0), StateTransaction); err != nil {
		return err
	}
	defer c.conn.end()
	b, err := c.newBatch(ctx, commands{
		n:    len(nums),
		at:   dele,
		size: func(int) int64 { return deleReply },
		most: len(nums), // 10,000 marks over a long link are one round trip, and not five
	})
	if err != nil {
		return err
	}
	defer b.close()
	c.guard(func() { err = b.dele() })
	return err
}

// deleReply is about what a reply to DELE takes.
const deleReply = 64

func (b *batch) dele() error {
	var refusals []error
	for b.done < b.n {
		_, err := b.status()
		b.c.trace.done(b.ctx, b.at(b.done), 0, err)
		switch {
		case err == nil:
			b.c.marked++
		case isRefusal(err):
			refusals = append(refusals, err)
		default:
			if b.w != nil && b.n > maxMessagesAhead {
				err = hintAtParts(err)
			}
			return errors.Join(append(refusals, b.lost(err))...)
		}
		b.answered()
	}
	if len(refusals) == 1 {
		return refusals[0]
	}
	return errors.Join(refusals...)
}

// Noop does nothing but tell the server that somebody is there (NOOP, RFC 1939 section 5). Servers may end a
// session after ten minutes without a command.
func (c *Client) Noop(ctx context.Context) error {
	return c.run(ctx, command{verb: "NOOP"}, nil, StateTransaction)
}

// Rset takes back all marks of [Client.Dele] (RSET, RFC 1939 section 5).
func (c *Client) Rset(ctx context.Context) error {
	return c.run(ctx, command{verb: "RSET"}, func([]byte) error {
		c.marked = 0
		return nil
	}, StateTransaction)
}

// ownVerbs are the commands that change what the client knows about the session.
var ownVerbs = []string{"QUIT", "STLS", "USER", "PASS", "APOP", "AUTH", "DELE", "RSET", "UTF8"}

// Cmd sends a command that the package does not know (XTND, XCLIENT ...) and reads a reply of one line, whose text
// it returns. The line is one command without CRLF, checked like every argument. Commands that change what the
// client knows have methods of their own and are refused with [ErrArgument]: QUIT, STLS, USER, PASS, APOP, AUTH,
// DELE, RSET and UTF8. Traces and errors show the line as it is.
func (c *Client) Cmd(ctx context.Context, line string) (text string, err error) {
	k, err := freeCommand(line)
	if err != nil {
		return "", err
	}
	err = c.run(ctx, k, func(reply []byte) error {
		text = clean(reply, maxReplyLine)
		return nil
	}, StateAuthorization, StateTransaction)
	return text, err
}

// CmdMulti is [Client.Cmd] for a command whose reply has several lines. The caller reads the message, whose Num is
// 0, to its end or closes it.
func (c *Client) CmdMulti(ctx context.Context, line string) (*Message, error) {
	k, err := freeCommand(line)
	if err != nil {
		return nil, err
	}
	return c.openMessage(ctx, k, StateAuthorization, StateTransaction)
}

func freeCommand(line string) (command, error) {
	if err := checkText("command", line); err != nil {
		return command{}, err
	}
	verb, _, _ := strings.Cut(line, " ")
	switch {
	case verb == "" || strings.HasSuffix(line, " ") || strings.Contains(line, "  "):
		return command{}, fmt.Errorf("pop3: command: %w: one space goes between words, none elsewhere", ErrArgument)
	case !isASCII(line):
		return command{}, fmt.Errorf("pop3: command: %w: it is not ASCII", ErrArgument)
	case slices.Contains(ownVerbs, strings.ToUpper(verb)):
		return command{}, fmt.Errorf("pop3: command: %w: %s has a method of its own", ErrArgument, strings.ToUpper(verb))
	}
	return command{verb: line}, nil
}
