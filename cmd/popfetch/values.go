package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agnivade/levenshtein"
)

// A value is a field of the configuration that can be set from a TOML value. A TOML value is a string, an int64, a
// float64, a bool, a []any or a map[string]any. If the TOML value is wrong, read returns an error that says what the
// value must be. The text of the error follows the words "key is".
type value interface{ read(v any) error }

// assign sets a field of the configuration to v. If words is not empty, v must be one of them. The error says what the
// value must be. Its text follows the words "key is".
func assign(field, v any, words []string) (err error) {
	text, ok := v.(string)
	if _, isScript := field.(*script); !isScript && strings.ContainsFunc(text, unicode.IsControl) {
		return errors.New("text without control characters, such as a tab or a line break")
	}
	switch field := field.(type) {
	case value:
		return field.read(v)
	case *string:
		if len(words) > 0 {
			*field, err = oneOf(words, v)
			return err
		}
		if !ok || text == "" {
			return errTextExpected
		}
		*field = text
	case *bool:
		if *field, ok = v.(bool); !ok {
			return errors.New("true or false, without quotes")
		}
	case *int:
		n, err := strconv.ParseInt(fmt.Sprint(v), 10, 32)
		if err != nil || n < 0 {
			return errors.New("a number, 0 or more")
		}
		*field = int(n)
	default:
		panic(fmt.Sprintf("a field of type %T", field))
	}
	return nil
}

var errTextExpected = errors.New(`text in quotes, as in key = "text"`)

// A script is a command for a shell. It may contain line breaks and tabs.
type script string

func (s *script) read(v any) error {
	text, ok := v.(string)
	switch {
	case !ok || text == "":
		return errTextExpected
	case strings.Contains(text, "\x00"):
		return errNUL
	}
	*s = script(text)
	return nil
}

var errNUL = errors.New("a command, which cannot contain NUL")

// A list is a command with its arguments, or a list of names. Each element may begin with "~/", as in a shell.
type list []string

func (l *list) read(v any) error {
	elements, _ := v.([]any)
	for _, element := range elements {
		text, ok := element.(string)
		if !ok {
			elements = nil
			break
		}
		if strings.Contains(text, "\x00") {
			return errNUL
		}
		expanded, err := expandHome(text)
		if err != nil {
			return err
		}
		*l = append(*l, expanded)
	}
	if len(elements) == 0 {
		return errors.New(`a list, as in ["pass", "show", "x"]`)
	}
	return nil
}

// A path is an absolute path, so that it does not depend on the folder in which popfetch is started. In the
// configuration it may begin with "~/".
type path string

func (p *path) read(v any) error {
	text, ok := v.(string)
	expanded, err := expandHome(text)
	switch {
	case err != nil:
		return err
	case !ok || !filepath.IsAbs(expanded):
		return errors.New("a path that begins with / or ~/, in quotes")
	}
	*p = path(filepath.Clean(expanded))
	return nil
}

// expandHome replaces "~/" at the beginning of a path by the home folder.
func expandHome(text string) (string, error) {
	rest, ok := strings.CutPrefix(text, "~/")
	if !ok {
		return text, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("a path in the home folder, which is not known: %w", err)
	}
	return filepath.Join(home, rest), nil
}

// oneOf returns the element of words that is equal to v. It ignores case.
func oneOf(words []string, v any) (string, error) {
	text := fmt.Sprint(v)
	for _, word := range words {
		if strings.EqualFold(text, word) {
			return word, nil
		}
	}
	wanted := fmt.Errorf(`one of "%s"`, strings.Join(words, `", "`))
	if near := nearest(text, words); near != "" {
		wanted = fmt.Errorf("%w; did you mean %q?", wanted, near)
	}
	return "", wanted
}

// nearest returns the known word that is most similar to text. It returns "" if none is similar enough.
func nearest(text string, known []string) (best string) {
	limit := 1 + len(text)/4
	for _, k := range known {
		distance := levenshtein.ComputeDistance(strings.ToLower(text), strings.ToLower(k))
		if distance <= limit && (best == "" || distance < limit) {
			best, limit = k, distance
		}
	}
	return best
}

// A deletePolicy says whether messages are deleted from the server, and how long after they were stored.
type deletePolicy struct {
	delete bool
	after  time.Duration
}

func (p *deletePolicy) read(v any) error {
	text, _ := v.(string)
	switch after, err := parseTime(strings.TrimPrefix(text, "after ")); {
	case text == "never":
		*p = deletePolicy{}
	case text == "after delivery":
		*p = deletePolicy{delete: true}
	case err == nil:
		*p = deletePolicy{delete: true, after: after}
	default:
		return errors.New(`"never", "after delivery" or a time in quotes, as in "14 days" or "2 weeks"`)
	}
	return nil
}

// A span is a duration, as in "90s", "1h30m" or "14 days".
type span struct{ time.Duration }

func (d *span) read(v any) error {
	text, ok := v.(string)
	if !ok {
		return errors.New(`text, as in "30s" or "5m"`)
	}
	var err error
	if d.Duration, err = parseTime(text); err != nil {
		return errors.New(`a time above zero, as in "30s", "5m", "1h30m" or "2 days"`)
	}
	return nil
}

var timeUnits = map[string]time.Duration{
	"s": time.Second, "second": time.Second, "m": time.Minute, "min": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hour": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour,
}

// parseTime parses numbers with units, as in "1h30m", "14d" or "2 weeks". The sum must be above zero.
func parseTime(text string) (sum time.Duration, err error) {
	for rest := strings.TrimSpace(text); rest != ""; {
		digits := prefixOf(rest, "0123456789")
		rest = strings.TrimLeft(rest[len(digits):], " ")
		name := prefixOf(strings.ToLower(rest), "abcdefghijklmnopqrstuvwxyz")
		rest = strings.TrimLeft(rest[len(name):], " ")
		unit, known := timeUnits[name]
		if !known {
			unit, known = timeUnits[strings.TrimSuffix(name, "s")]
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || !known || n > uint64((math.MaxInt64-sum)/unit) {
			return 0, fmt.Errorf("%q is no time", text)
		}
		sum += time.Duration(n) * unit
	}
	if sum == 0 {
		return 0, fmt.Errorf("%q is no time above zero", text)
	}
	return sum, nil
}

// prefixOf returns the longest prefix of text that consists only of the given characters.
func prefixOf(text, characters string) string {
	return text[:len(text)-len(strings.TrimLeft(text, characters))]
}

// An amount is a number of bytes, as in 100000, "25 MB" or "25 MiB".
type amount int64

var amountUnits = map[string]int64{
	"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

func (n *amount) read(v any) error {
	text := strings.ToLower(strings.ReplaceAll(fmt.Sprint(v), "_", ""))
	digits := prefixOf(text, "0123456789")
	unit, known := amountUnits[strings.TrimSpace(text[len(digits):])]
	size, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || size > math.MaxInt64/unit {
		return errors.New(`a number of bytes, as in 100000, "25 MB" or "25 MiB"`)
	}
	*n = amount(size * unit)
	return nil
}

// A fingerprint is the SHA-256 digest of a certificate. In the configuration it is hexadecimal, with or without colons.
type fingerprint []byte

func (f *fingerprint) read(v any) error {
	text := strings.TrimPrefix(strings.ToLower(fmt.Sprint(v)), "sha256:")
	sum, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(sum) != 32 {
		return errors.New("the SHA-256 of a certificate in hexadecimal, as popfetch --diagnose shows it")
	}
	*f = sum
	return nil
}

func (f fingerprint) String() string {
	return strings.ReplaceAll(fmt.Sprintf("% X", []byte(f)), " ", ":")
}
