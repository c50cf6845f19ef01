package pop3test

import (
	"errors"
	"slices"
	"strings"
)

// maxCommand is the longest command, with its CRLF (RFC 2449 section 4).
const maxCommand = 255

// A command is the parsed line of a client.
type command struct {
	verb string // first word of the line, in upper case
	args []string
}

var (
	errLineEnd  = errors.New("a command must end in CRLF")
	errTooLong  = errors.New("a command must not be longer than 255 octets")
	errControls = errors.New("a command must not contain control characters")
	errSpaces   = errors.New("there must be one space before each argument, and no other")
)

// parseCommand parses a line with its line end. It is as strict as the grammar of RFC 2449 section 3, so that a test
// finds the mistakes of a client.
func parseCommand(raw string) (command, error) {
	line, ok := strings.CutSuffix(raw, crlf)
	switch {
	case !ok:
		return command{}, errLineEnd
	case len(raw) > maxCommand:
		return command{}, errTooLong
	case strings.ContainsFunc(line, isControl):
		return command{}, errControls
	}
	verb, args, hasArgs := strings.Cut(line, " ")
	c := command{verb: strings.ToUpper(verb)}
	if hasArgs && c.verb == "PASS" {
		c.args = []string{args} // PASS has only one argument, which may contain spaces (RFC 1939 section 7)
	} else if hasArgs {
		c.args = strings.Split(args, " ")
	}
	if c.verb != "PASS" && slices.Contains(c.args, "") || verb == "" {
		return command{}, errSpaces
	}
	return c, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// words returns the words of a line in upper case.
func words(line string) []string { return strings.Fields(strings.ToUpper(line)) }

// hasWords reports whether line begins with the words of prefix. It ignores case.
func hasWords(line, prefix string) bool {
	have, want := words(line), words(prefix)
	return len(have) >= len(want) && slices.Equal(have[:len(want)], want)
}
