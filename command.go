package pop3

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxCommand is the longest command in octets, with CRLF (RFC 2449 section 4).
const maxCommand = 255

// A command is one command: the verb, up to two numbers, or up to two words. What must not be shown is kept
// apart here, where the command is built, so that no trace and no error has to know.
type command struct {
	verb   string
	nums   [2]int
	count  int    // of nums
	arg    string // a word that may be shown
	secret string // a last word that may not
}

// append writes the command as it goes over the wire.
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

// String is the command as it may be shown: three stars for the secret.
func (k command) String() string {
	s := string(k.appendShown(nil))
	if k.secret != "" {
		s += " ***"
	}
	return s
}

// tooLong reports whether the command breaks the limit on a command line.
func (k command) tooLong() bool {
	n := len(k.verb) + len(k.arg) + len(k.secret) + len("  \r\n")
	return n > maxCommand && len(k.append(nil)) > maxCommand
}

// numbered is a command on one message.
func numbered(verb string, num int) command {
	return command{verb: verb, nums: [2]int{num}, count: 1}
}

// checkNum refuses message numbers below 1 (RFC 1939 section 4).
func checkNum(nums ...int) error {
	for _, n := range nums {
		if n < 1 {
			return fmt.Errorf("pop3: message number %d: %w: numbers run from 1", n, ErrArgument)
		}
	}
	return nil
}

// checkWord refuses what is no argument of a command: nothing, controls, spaces, broken UTF-8. what names the
// argument; the argument itself stays out of the error, since it may be a secret.
func checkWord(what, s string) error {
	if strings.ContainsRune(s, ' ') {
		return fmt.Errorf("pop3: %s: %w: it holds a space", what, ErrArgument)
	}
	return checkText(what, s)
}

// checkText is checkWord for the arguments in which spaces may stand.
func checkText(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("pop3: %s: %w: it is empty", what, ErrArgument)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("pop3: %s: %w: it holds a control character", what, ErrArgument)
	case !utf8.ValidString(s):
		return fmt.Errorf("pop3: %s: %w: it is not valid UTF-8", what, ErrArgument)
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

// check refuses a command that is too long to be sent.
func (k command) check() error {
	if k.tooLong() {
		return fmt.Errorf("pop3: %s: %w: the command is longer than %d octets",
			clean([]byte(k.verb), maxLine), ErrArgument, maxCommand)
	}
	return nil
}
