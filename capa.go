package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Capabilities is what a server said that it can do (CAPA, RFC 2449): the names in upper case, with their
// arguments as they were sent. Nothing is known if it is nil: the server refused the command, and may be able to
// do anything of RFC 1939.
type Capabilities map[string][]string

// Has reports whether name was announced. Case does not matter.
func (c Capabilities) Has(name string) bool {
	_, ok := c[strings.ToUpper(name)]
	return ok
}

// SASL gives the mechanisms that were announced, in upper case.
func (c Capabilities) SASL() []string {
	var mechs []string
	for _, mech := range c["SASL"] {
		mechs = append(mechs, strings.ToUpper(mech))
	}
	return mechs
}

// LoginDelay gives the time that the server wants between two logins (RFC 2449 section 6.5); ok is false if it was
// not announced, or not with a usable number.
func (c Capabilities) LoginDelay() (d time.Duration, ok bool) {
	seconds, ok := c.number("LOGIN-DELAY", math.MaxInt64/int64(time.Second))
	return time.Duration(seconds) * time.Second, ok
}

// Expire gives the days for which the server keeps a message after it was retrieved, -1 for ever (RFC 2449 section
// 6.7). 0 means that [Client.Quit] may remove whatever was retrieved, marked or not. ok is false if nothing was
// announced, or nothing usable.
func (c Capabilities) Expire() (days int, ok bool) {
	if args := c["EXPIRE"]; len(args) > 0 && strings.EqualFold(args[0], "NEVER") {
		return -1, true
	}
	n, ok := c.number("EXPIRE", math.MaxInt32)
	return int(n), ok
}

// Implementation gives the name and version of the server, "" if it keeps them to itself. They are for people:
// nothing in this package depends on them.
func (c Capabilities) Implementation() string {
	return strings.Join(c["IMPLEMENTATION"], " ")
}

// takesUTF8User reports whether USER and PASS may be other than ASCII (RFC 6856 section 2.2).
func (c Capabilities) takesUTF8User() bool {
	return slices.ContainsFunc(c["UTF8"], func(arg string) bool { return strings.EqualFold(arg, "USER") })
}

func (c Capabilities) number(name string, limit int64) (n int64, ok bool) {
	args := c[name]
	if len(args) == 0 {
		return 0, false
	}
	n, rest, ok := parseNumber([]byte(args[0]), limit)
	if !ok || len(rest) > 0 {
		return 0, false
	}
	return n, true
}

// add takes a line of the CAPA reply. Lines with the same name are joined; what is no name is skipped.
func (c Capabilities) add(line []byte) {
	if len(line) == 0 || isBlank(line[0]) {
		return
	}
	words := bytes.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	name := strings.ToUpper(clean(words[0], maxReplyLine))
	if name == "" {
		return
	}
	args := c[name]
	for _, word := range words[1:] {
		if arg := clean(word, maxReplyLine); arg != "" {
			args = append(args, arg)
		}
	}
	c[name] = args
}

func (c Capabilities) clone() Capabilities {
	clone := maps.Clone(c)
	for name, args := range clone {
		clone[name] = slices.Clone(args)
	}
	return clone
}

// capaCommand is CAPA (RFC 2449 section 5).
var capaCommand = command{verb: "CAPA"}

// Capa gives the capabilities of the server (CAPA, RFC 2449 section 5). The command is sent when its answer is
// first needed, and anew after STLS and after the login, since the answer changes; in between the last answer is
// given again. If the server refuses the command, the capabilities are nil and the error is too.
func (c *Client) Capa(ctx context.Context) (Capabilities, error) {
	if err := c.start(ctx, capaCommand, StateAuthorization, StateTransaction); err != nil {
		return nil, err
	}
	defer c.conn.end()
	if err := c.needCaps(ctx); err != nil {
		return nil, err
	}
	return c.caps.clone(), nil
}

// needCaps asks for the capabilities, within a call, unless the answer is there.
func (c *Client) needCaps(ctx context.Context) error {
	if c.capsKnown {
		return nil
	}
	_, err := c.ask(ctx, capaCommand)
	return c.readCaps(ctx, err)
}

// readCaps takes the reply to CAPA; err is what its status line gave.
func (c *Client) readCaps(ctx context.Context, err error) error {
	var caps Capabilities
	if err == nil {
		caps = Capabilities{}
		err = c.lines(capaCommand, maxCapaLines, func(line []byte) error {
			caps.add(line)
			return nil
		})
	}
	c.trace.done(ctx, capaCommand, 0, err)
	if err != nil && !isRefusal(err) {
		return err
	}
	c.caps, c.capsKnown = caps, true
	c.pipelining = caps.Has("PIPELINING")
	return nil
}

// forgetCaps is for the moments at which capabilities change. PIPELINING stays what it was, since it is announced
// for the whole session (RFC 2449 section 6.6).
func (c *Client) forgetCaps() {
	c.caps, c.capsKnown = nil, false
}

// Utf8 asks for UTF-8 in what the server says and in the headers of messages (UTF8, RFC 6856 section 2), which is
// possible before the login only. If the server does not announce it, it is not sent, and the error wraps
// [errors.ErrUnsupported].
func (c *Client) Utf8(ctx context.Context) error {
	k := command{verb: "UTF8"}
	if err := c.start(ctx, k, StateAuthorization); err != nil {
		return err
	}
	defer c.conn.end()
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	if !c.caps.Has("UTF8") {
		return fmt.Errorf("pop3: UTF8: not announced by the server: %w", errors.ErrUnsupported)
	}
	return c.exchange(ctx, k, nil)
}

// A Language is one in which the server can speak (RFC 6856 section 3).
type Language struct {
	Tag         string // as in RFC 5646, "de" or "pt-BR"
	Description string // in the language itself
}

// Lang asks the server to speak the language with this tag in its replies, "*" for one of its choice (LANG, RFC
// 6856 section 3). It returns the tag that the server answered with; a positive answer without one means the one
// asked for.
func (c *Client) Lang(ctx context.Context, tag string) (active string, err error) {
	if tag != "*" && !isLanguageTag([]byte(tag)) {
		return "", fmt.Errorf("pop3: LANG: %w: not a language tag: %q", ErrArgument, clean([]byte(tag), maxLine))
	}
	err = c.run(ctx, command{verb: "LANG", arg: tag}, func(text []byte) error {
		active = tag
		first, _, _ := bytes.Cut(text, []byte(" "))
		// The language in a tag has two or three letters (or is i or x), which few first words of a sentence have.
		if language, _, _ := bytes.Cut(first, []byte("-")); isLanguageTag(first) && len(language) <= 3 {
			active = string(first)
		}
		return nil
	}, StateAuthorization, StateTransaction)
	return active, err
}

// LangAll asks for the languages that the server can speak (LANG, RFC 6856 section 3).
func (c *Client) LangAll(ctx context.Context) ([]Language, error) {
	k := command{verb: "LANG"}
	var all []Language
	add := func(line []byte) error {
		language, err := parseLanguage(line)
		all = append(all, language)
		return err
	}
	read := func() error { return c.lines(k, maxLangLines, add) }
	if err := c.list(ctx, k, read, StateAuthorization, StateTransaction); err != nil {
		return nil, err
	}
	return all, nil
}
