package sasl

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
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
func masked(text, secret string) string {
	forms := []string{
		secret,
		hex.EncodeToString([]byte(secret)),
		strings.ToUpper(hex.EncodeToString([]byte(secret))),
		url.QueryEscape(secret),
		url.PathEscape(secret),
	}
	for before := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			forms = append(forms, inBase64(enc, secret, before))
		}
	}
	var pairs []string
	for _, form := range forms {
		if form != "" {
			pairs = append(pairs, form, "[secret]")
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// inBase64 is the part of the base64 of a text that depends on nothing but the secret, which stands
// in the text with so many octets before it, modulo 3. It is empty where so little is left that it
// would be found everywhere.
func inBase64(enc *base64.Encoding, secret string, before int) string {
	octets := make([]byte, before, before+len(secret))
	encoded := enc.EncodeToString(append(octets, secret...))
	from := (before*8 + 5) / 6
	to := (before + len(secret)) * 8 / 6
	if to-from < 4 {
		return ""
	}
	return encoded[from:to]
}
