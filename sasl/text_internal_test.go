package sasl

import (
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestShown(t *testing.T) {
	const secret = "p ä+/"
	for _, tc := range []struct{ name, text, want string }{
		{"plain text", "all right", "all right"},
		{"H-039 escape sequences", "\x1b]0;owned\x07\x1b[2J", "]0;owned[2J"},
		{"H-039 C1, DEL, backspace", "a\u009b31m\x7f\b\bb", "a31mb"},
		{"H-039 bidirectional controls", "a\u202e\u2066\u200f\u061cb", "ab"},
		{"line ends of Unicode", "a\u2028b\u2029c\u0085d", "abcd"},
		{"H-038 not UTF-8", "a\xff\xfeb\xc3", "a\uFFFDb\uFFFD"},
		{"secret", "a" + secret + secret + "b", "a[secret][secret]b"},
		{"secret, parted by controls", "p \x00ä\x1b+\r/", "[secret]"},
		{"secret, part of it", "p ä+", "p ä+"},
		{"secret in hex", hex.EncodeToString([]byte(secret)), "[secret]"},
		{"secret in hex, upper case", strings.ToUpper(hex.EncodeToString([]byte(secret))), "[secret]"},
		{"secret in a URL", url.QueryEscape(secret) + "&" + url.PathEscape(secret), "[secret]&[secret]"},
		{"cut", strings.Repeat("x", 513), strings.Repeat("x", 512)},
		{"not cut", strings.Repeat("x", 512), strings.Repeat("x", 512)},
		{"cut before a character", strings.Repeat("x", 510) + "€", strings.Repeat("x", 510)},
		{"secret before the cut", strings.Repeat("x", 500) + secret, strings.Repeat("x", 500) + "[secret]"},
		{"secret over the cut", strings.Repeat("x", 509) + secret, strings.Repeat("x", 509) + "[se"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := shown(tc.text, secret)
			assert.Equal(t, tc.want, got)
			assert.True(t, utf8.ValidString(got))
		})
	}
}
