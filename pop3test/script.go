package pop3test

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Script returns the client's end of a connection whose other end plays the script, and a function that reports
// the result. A script is a dialogue as the RFCs print it:
//
//	S: +OK POP3 server ready
//	C: NOOP
//	S: -ERR not in this state
//
// Each line has one of these forms. White space at its beginning is ignored, and so are blank lines and lines
// that begin with "#".
//
//	S: text      the server sends text and CRLF; dots in a message have to be stuffed
//	C: text      the client must send exactly text and CRLF
//	C~ pattern   the client must send a line that matches the pattern, in which * stands
//	             for any octets; the CRLF is not part of the pattern
//	s: "text"    the server sends these octets, without CRLF; the text is quoted as in Go
//	c: "text"    the client must send exactly these octets
//	ANY          the client may send anything from here on; no C line may follow
//	PAUSE 2s     the server waits for two seconds
//	CHUNK 3 1 0  the client's next Read returns at most 3 octets, the one after it 1, and all
//	             later ones as many as there are: 0 means no limit, and the last number
//	             applies to all later Reads. So CHUNK 1 means one octet at a time
//	CHUNK ~7 42  each Read returns from 1 to 7 octets, a pseudo-random number with seed 42
//	HOLD         the server sends nothing more and keeps the connection open; it must be last
//	EOF          the server closes its half of the connection; C lines may follow
//	RESET        the connection breaks: Read and Write fail with ECONNRESET; it must be last
//	DEAF         the server stops reading, so that Write blocks; no C line may follow
//
// The client's end behaves as a network connection does. The client can read what the server sends up to the
// next C line. Then Read waits until the client has sent that line. Write never waits for the server, except
// after DEAF. So the client can send commands before it has read the replies to earlier ones. The server hangs
// up at the end of the script. It also hangs up when the client sends something that is not in the script, so
// that no client waits for a reply that is never sent. Deadlines, Close from another goroutine, and
// testing/synctest work as with other connections. Script starts no goroutine.
//
// The function done ends the script if it is still running. It returns an error if the client did not send
// exactly what the script says. The error names the line of the script. It is not an error if the client does
// not read what the server sends, or does not close the connection. An error in the script itself is also
// returned by done.
func Script(script string) (conn net.Conn, done func() error) {
	steps, err := parseScript(script)
	c := &scriptConn{steps: steps, err: err}
	return c, c.finish
}

// A step is one line of a script.
type step struct {
	line int    // number of the line, from 1
	kind string // the first word
	text string // what the server or the client sends, or the pattern

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
		if err := st.checkOrder(steps); err != nil {
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
			err = fmt.Errorf("%s takes no argument", word)
		}
	default:
		err = fmt.Errorf("%q is not a word that begins a line", word)
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

// checkOrder returns an error if s is not allowed after the earlier steps.
func (s *step) checkOrder(earlier []step) error {
	for _, b := range earlier {
		if b.kind == "HOLD" || b.kind == "RESET" {
			return fmt.Errorf("nothing may follow %s", b.kind)
		}
		if s.isClient() && (b.kind == "ANY" || b.kind == "DEAF") {
			return fmt.Errorf("no C line may follow %s", b.kind)
		}
	}
	isServer := s.kind == "S:" || s.kind == "s:"
	if isServer && slices.ContainsFunc(earlier, func(b step) bool { return b.kind == "EOF" }) {
		return fmt.Errorf("no S line may follow EOF")
	}
	return nil
}
