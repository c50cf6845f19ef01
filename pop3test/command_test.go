package pop3test

import (
	"regexp"
	"strings"
	"testing"
)

// wellFormed is the grammar of RFC 2449 section 3. It also allows UTF-8 (RFC 6856), and spaces in the argument
// of PASS.
var wellFormed = regexp.MustCompile(`^(?s:(?i:PASS) (?-s:[ -~\x80-\x{10ffff}]*)|` +
	`[!-~\x80-\x{10ffff}]+( [!-~\x80-\x{10ffff}]+)*)\r\n$`)

// FuzzCommand compares what the parser accepts with the grammar, and the parsed command with the line.
func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		"QUIT\r\n", "top 1 10\r\n", "PASS a  b \r\n", "PASS \r\n", "pass\r\n", "PASS\n", "\r\n", " NOOP\r\n",
		"NOOP \r\n",
		"RETR  1\r\n", "USER \x00\r\n", "USER \x7f\r\n", "USER \xc3\xa4\r\n", "USER \xff\r\n", "a\rb\r\n", "a\nb\r\n",
		"USER " + strings.Repeat("x", 248) + "\r\n", "USER " + strings.Repeat("x", 249) + "\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := parseCommand(raw)
		if want := len(raw) <= 255 && wellFormed.MatchString(raw); want != (err == nil) {
			t.Fatalf("%q: %v", raw, err)
		}
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSuffix(raw, "\r\n"), " ")
		if c.verb != strings.ToUpper(verb) {
			t.Fatalf("%q has the verb %q", raw, c.verb)
		}
		if again := strings.Join(append([]string{verb}, c.args...), " ") + "\r\n"; again != raw {
			t.Fatalf("%q became %q", raw, again)
		}
	})
}
