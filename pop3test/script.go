package pop3test

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Script returns the client's end of a connection whose other end plays the script, and a function that
// says how it went. A script is a dialogue as the RFCs print it:
//
//	S: +OK POP3 server ready
//	C: NOOP
//	S: -ERR not in this state
//
// Each line of it is one of these. White space before it is dropped, blank lines and lines that begin
// with "#" count for nothing.
//
//	S: text      the server sends text and CRLF; in a message, with the dots stuffed
//	C: text      the client must send exactly text and CRLF
//	C~ pattern   the client must send a line, without its CRLF, that matches; * stands for any octets
//	s: "text"    the server sends these octets, with no CRLF; the quotes and escapes are those of Go
//	c: "text"    the client must send exactly these octets
//	ANY          whatever the client sends from here on is welcome; no C line may follow
//	PAUSE 2s     the server waits
//	CHUNK 3 1 0  the client's next Read gets at most 3 octets, the one after it 1, all others what there
//	             is: the last number holds on, and 0 is no limit. So CHUNK 1 is one octet at a time
//	CHUNK ~7 42  each Read gets from 1 to 7 octets, by chance but the same in each run, with 42 as the seed
//	HOLD         the server says no more but keeps the connection open; nothing may follow
//	EOF          the server hangs up; C lines may follow, since it still reads
//	RESET        the connection breaks: Read and Write fail with ECONNRESET; nothing may follow
//	DEAF         the server reads no more: Write blocks; no C line may follow
//
// The client's end behaves as a network connection does. What the server says is there to be read up to the
// next C line, and then Read waits until the client has said that. Write takes what it gets and never waits
// for the server (but see DEAF), so that commands may be sent ahead of their turn. At the end of the script
// the server hangs up, and it does so at the first thing the client says that is not in the script, so that
// no client waits for a reply that can't come. Deadlines, Close from another goroutine, and
// testing/synctest work as with a net.Conn. No goroutine stands behind it.
//
// done ends the script, if it has not come to its end, and returns an error that names the line of the
// script where the client said something else or nothing, or what it said beyond the script. A client that
// does not read what the server says, or does not close the connection, does nothing wrong. An error in the
// script itself comes from done too.
func Script(script string) (conn net.Conn, done func() error) {
	steps, err := parseScript(script)
	c := &scriptConn{steps: steps, err: err}
	return c, c.finish
}

// A step is one line of a script.
type step struct {
	line int    // in the script, from 1
	kind string // the first word
	text string // what the server or the client says, or the pattern

	pause  time.Duration
	chunks []int
	seed   uint64
}

// isClient reports whether a step waits for the client.
func (s step) isClient() bool { return s.kind == "C:" || s.kind == "c:" || s.kind == "C~" }

func parseScript(script string) ([]step, error) {
	var steps []step
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSuffix(strings.TrimLeft(line, " \t"), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		st := step{line: i + 1}
		if err := st.parse(line); err != nil {
			return nil, fmt.Errorf("pop3test: line %d of the script: %w", i+1, err)
		}
		if err := st.follows(steps); err != nil {
			return nil, fmt.Errorf("pop3test: line %d of the script: %w", i+1, err)
		}
		steps = append(steps, st)
	}
	return steps, nil
}

func (s *step) parse(line string) (err error) {
	word, rest, _ := strings.Cut(line, " ")
	s.kind = word
	switch word {
	case "S:", "C:":
		s.text = rest + crlf
	case "C~":
		s.text = rest
	case "s:", "c:":
		s.text, err = strconv.Unquote(strings.TrimSpace(rest))
	case "PAUSE":
		s.pause, err = time.ParseDuration(strings.TrimSpace(rest))
	case "CHUNK":
		err = s.parseChunk(strings.Fields(rest))
	case "ANY", "HOLD", "EOF", "RESET", "DEAF":
		if strings.TrimSpace(rest) != "" {
			err = fmt.Errorf("%s stands alone", word)
		}
	default:
		err = fmt.Errorf("%q is no beginning of a line", word)
	}
	return err
}

// parseChunk reads "3 1 0" or "~7 42".
func (s *step) parseChunk(args []string) (err error) {
	if len(args) == 2 && strings.HasPrefix(args[0], "~") {
		args[0] = args[0][1:]
		if s.seed, err = strconv.ParseUint(args[1], 10, 64); err != nil {
			return err
		}
		s.kind, args = "CHUNK~", args[:1]
	}
	for _, a := range args {
		n, err := strconv.ParseUint(a, 10, 31)
		if err != nil {
			return err
		}
		s.chunks = append(s.chunks, int(n))
	}
	if len(s.chunks) == 0 || s.kind == "CHUNK~" && s.chunks[0] == 0 {
		return fmt.Errorf("CHUNK needs a number of octets")
	}
	return nil
}

// follows reports what is wrong with s behind the steps before it.
func (s *step) follows(before []step) error {
	for _, b := range before {
		if b.kind == "HOLD" || b.kind == "RESET" {
			return fmt.Errorf("nothing may follow %s", b.kind)
		}
		if s.isClient() && (b.kind == "ANY" || b.kind == "DEAF") {
			return fmt.Errorf("the client has no more lines after %s", b.kind)
		}
	}
	says := s.kind == "S:" || s.kind == "s:"
	if says && slices.ContainsFunc(before, func(b step) bool { return b.kind == "EOF" }) {
		return fmt.Errorf("the server has no more lines after EOF")
	}
	return nil
}
