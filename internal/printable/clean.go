// Package printable makes text from outside the program safe to show in an error, in a trace or on a terminal. Such
// text comes from a server, from a certificate, from a dialer, or from another program.
//
// [Clean] removes invisible characters and limits the length. [Secrets] replaces a text that contains a secret of the
// session. The library's own texts are not passed to [Secrets], because a password may be equal to one of their words.
package printable

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText is the longest text that Clean returns, in bytes.
const MaxText = 512

// Clean returns text as [Visible] does, cut to MaxText bytes. It marks a cut as [Cut] does.
func Clean(text string) string { return Cut(Visible(text), MaxText) }

// Visible returns text as valid UTF-8 without invisible characters: controls, format characters, line and
// paragraph separators, variation selectors, fillers, and unassigned code points. Each byte that is not UTF-8
// becomes U+FFFD.
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

// blanks are characters that package unicode counts as graphic but that are invisible: Braille blank, Khitan filler,
// musical null notehead, object replacement.
const blanks = "\u2800\U00016fe4\U0001d159\ufffc"

func isVisible(r rune) bool {
	if r <= '~' {
		return r >= ' '
	}
	return unicode.IsGraphic(r) && !strings.ContainsRune(blanks, r) &&
		!unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// cutMark is appended to a text that was cut.
const cutMark = "…"

// Cut returns text if it has at most limit bytes. Otherwise it returns the beginning of text and an ellipsis, together
// at most limit bytes. limit must be at least 3.
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

// Error returns an error whose text is the cleaned text of err. [errors.Is] and [errors.As] find the errors that err
// wraps. No verb of package fmt shows the text of err itself. If err is nil, Error returns nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	return shownError{text: Clean(err.Error()), cause: func() error { return err }}
}

// A shownError has no method Unwrap, because a program may print each error of a chain, and would then print the
// original text.
type shownError struct {
	text  string
	cause func() error // returns the original error; package fmt cannot print it, because it is in a func
}

func (e shownError) Error() string        { return e.text }
func (e shownError) Is(target error) bool { return errors.Is(e.cause(), target) }
func (e shownError) As(target any) bool   { return errors.As(e.cause(), target) }
