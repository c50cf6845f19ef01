// Package printable makes text that comes from outside fit to be shown in an error, a trace or on a terminal: the
// words of a server, the names in a certificate, the errors of a dialer or of a helper program.
//
// [Clean] removes what a reader cannot see and limits the length. [Secrets] leaves out a text in which a secret of the
// session shows. Text of this project's own never goes through [Secrets]: a password may be one of its words.
package printable

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText is the limit on a text that Clean returns, in octets.
const MaxText = 512

// Clean returns text as [Visible] does, at most MaxText octets of it. A cut is marked as by [Cut].
func Clean(text string) string { return Cut(Visible(text), MaxText) }

// Visible returns text as valid UTF-8 without the characters that cannot be seen: controls, format characters, line
// and paragraph separators, variation selectors, fillers, and code points without a character. Each octet that is not
// UTF-8 becomes U+FFFD.
func Visible(text string) string {
	if isPlain(text) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isVisible(r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isPlain reports whether text is printable ASCII.
func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// blanks are the characters that are graphic by their category and have no glyph: braille blank, Khitan filler, musical
// null notehead, object replacement.
const blanks = "\u2800\U00016fe4\U0001d159\ufffc"

func isVisible(r rune) bool {
	if r <= '~' {
		return r >= ' '
	}
	return unicode.IsGraphic(r) && !strings.ContainsRune(blanks, r) &&
		!unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// cutMark is the end of a text that was cut.
const cutMark = "…"

// Cut returns text if it has at most limit octets. Else it returns the beginning of text with an ellipsis after it,
// together at most limit octets. limit is at least 3.
func Cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit - len(cutMark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + cutMark
}

// Error returns an error whose text is that of err, cleaned. [errors.Is] and [errors.As] look into err. Nothing that
// prints the error can reach the text of err. A nil err stays nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	return shownError{text: Clean(err.Error()), cause: func() error { return err }}
}

// A shownError has no Unwrap: whoever unwraps an error to print it would print the text as it came.
type shownError struct {
	text  string
	cause func() error // a func, into which no printer looks
}

func (e shownError) Error() string        { return e.text }
func (e shownError) Is(target error) bool { return errors.Is(e.cause(), target) }
func (e shownError) As(target any) bool   { return errors.As(e.cause(), target) }
