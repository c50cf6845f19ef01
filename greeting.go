package pop3

import (
	"bytes"
	"context"
	"fmt"
)

// greetingCommand stands for the greeting where a command is named.
var greetingCommand = command{verb: "greeting"}

// readGreeting reads the first line (RFC 1939 section 4). On failure the connection is closed.
func (c *Client) readGreeting(ctx context.Context) error {
	if err := c.conn.begin(ctx); err != nil {
		return c.fatal(greetingCommand, err)
	}
	defer c.conn.end()
	c.conn.clock.line()
	line, err := c.conn.line(maxReplyLine)
	switch {
	case err == errLineTooLong:
		return c.noLine(greetingCommand, maxReplyLine, nil, err)
	case err != nil:
		return c.cutGreeting(err)
	}
	ok, text, valid := parseStatus(line)
	switch {
	case !valid || bytes.IndexByte(line, 0) >= 0:
		return c.broken(greetingCommand, "no POP3 greeting"+guessService(line), line)
	case !ok:
		refusal := c.refusal(greetingCommand, text)
		c.conn.fail(refusal)
		return refusal
	}
	c.greeting, c.timestamp = clean(text, maxText), findTimestamp(text)
	return nil
}

// cutGreeting closes the connection because no greeting could be read. What came instead may be TLS.
func (c *Client) cutGreeting(err error) error {
	if isTLS(c.conn.buf.unread()) {
		err = fmt.Errorf("%s: %w", speaksTLS, err)
	}
	return c.fatal(greetingCommand, err)
}

// findTimestamp gives the timestamp for APOP (RFC 1939 section 7): the first word of the greeting that has the form
// of a message id, <local@domain> of printable ASCII; "" if there is none. What is no message id may be chosen
// to attack the digest (CVE-2007-1558).
func findTimestamp(text []byte) string {
	for {
		open := bytes.IndexByte(text, '<')
		if open < 0 {
			return ""
		}
		text = text[open:]
		end := bytes.IndexAny(text[1:], "<>") + 1
		if end > 0 && text[end] == '>' && isMessageID(text[1:end]) {
			return string(text[:end+1])
		}
		if end == 0 {
			return ""
		}
		text = text[end:]
	}
}

func isMessageID(b []byte) bool {
	local, domain, ok := bytes.Cut(b, []byte("@"))
	return ok && len(local) > 0 && len(domain) > 0 && isGraphic(b) && bytes.IndexByte(domain, '@') < 0
}
