// Package mask takes secrets out of texts before they are shown: out of the words of a server that quotes what it was
// sent.
package mask

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"sync"
)

// New gives a function that replaces secret by as in a text: as it is, and encoded in the ways in which servers quote
// what they got, which are hex, the encodings of URLs and base64, there also in the middle of something longer. The
// text has to be clean already, since taking out characters can put the pieces of a secret together. The function
// keeps the secret where nothing can print it.
func New(secret, as string) func(text string) string {
	replacer := sync.OnceValue(func() *strings.Replacer { return newReplacer(secret, as) })
	return func(text string) string { return replacer().Replace(text) }
}

func newReplacer(secret, as string) *strings.Replacer {
	var pairs []string
	for _, form := range forms(secret) {
		if form != "" {
			pairs = append(pairs, form, as)
		}
	}
	return strings.NewReplacer(pairs...)
}

func forms(secret string) []string {
	octets := hex.EncodeToString([]byte(secret))
	all := []string{
		secret,
		octets, strings.ToUpper(octets),
		url.QueryEscape(secret), url.PathEscape(secret),
		percent("%%%02X", secret), percent("%%%02x", secret),
	}
	for before := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			all = append(all, inBase64(enc, secret, before))
		}
	}
	return all
}

// percent encodes every octet.
func percent(format, secret string) string {
	var b strings.Builder
	for _, c := range []byte(secret) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

// inBase64 is the part of the base64 of a text that depends on nothing but the secret, which stands in the text with
// so many octets before it, modulo 3. It is empty where so little is left that it would be found everywhere.
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
