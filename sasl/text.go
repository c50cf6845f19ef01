package sasl

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-2d50cddb/pop3/internal/mask"
)

// maxText is the longest text of a server that goes into an error, in octets.
const maxText = 512

// shown makes a server's words fit to be shown: UTF-8, without control and bidirectional
// characters, without the secret, and short. The order matters: dropping characters can put the
// pieces of a secret together, and a cut would hide one from the search.
func shown(text, secret string) string {
	text = strings.Map(dropUnprintable, strings.ToValidUTF8(text, "\uFFFD"))
	text = masked(text, secret)
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

func dropUnprintable(r rune) rune {
	if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
		return -1
	}
	return r
}

// masked replaces the secret by "[secret]", as it is or encoded as servers do when they quote what
// they were sent.
func masked(text, secret string) string { return mask.New(secret, "[secret]")(text) }
