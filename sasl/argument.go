package sasl

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// unusable wraps [ErrArgument]. Neither what nor why is ever the argument itself, which may be a
// secret, or a secret given in the wrong place.
func unusable(what, why string) error {
	return fmt.Errorf("%w: the %s %s", ErrArgument, what, why)
}

// present refuses an empty string.
func present(what, s string) error {
	if s == "" {
		return unusable(what, "is empty")
	}
	return nil
}

// noNUL refuses what RFC 4616 and RFC 4422 have no room for: NUL, and what is not UTF-8.
func noNUL(what, s string) error {
	switch {
	case !utf8.ValidString(s):
		return unusable(what, "is not UTF-8")
	case strings.ContainsRune(s, 0):
		return unusable(what, "contains NUL")
	}
	return nil
}

// noControls refuses control characters, some of which (^A in the OAuth mechanisms) would begin a
// new field.
func noControls(what, s string) error {
	switch {
	case !utf8.ValidString(s):
		return unusable(what, "is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return unusable(what, "contains control characters")
	}
	return nil
}

// visible refuses all but printable ASCII without space, which is more than the b64token of RFC
// 6750 section 2.1.
func visible(what, s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return unusable(what, "contains a space, a control or a non-ASCII character")
	}
	return nil
}
