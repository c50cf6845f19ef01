package printable_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"mime/quotedprintable"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

func TestClean(t *testing.T) {
	x := strings.Repeat("x", printable.MaxText)
	for _, tt := range []struct{ name, in, want string }{
		{"ASCII", "ready.", "ready."},
		{"nothing", "", ""},
		{"UTF-8", "bereit \u00e4\u20ac\U0001f4ec", "bereit \u00e4\u20ac\U0001f4ec"},
		{"H-021 colours", "\x1b[31;1;4mPOP3\x1b[0m", "[31;1;4mPOP3[0m"},
		{"H-039 title of the window", "\x1b]0;owned\x07\x1b[2J", "]0;owned[2J"},
		{"H-039 backspaces", "a" + strings.Repeat("\b", 20) + "b", "ab"},
		{"H-039 C0", "a\x00\x01\x02\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x1a\x1b\x1c\x1d\x1e\x1fb", "ab"},
		{"H-039 DEL", "a\x7fb", "ab"},
		{"H-039 C1 in UTF-8", "a\u0080\u009bb\u0085\u009f", "ab"},
		{"H-039 C1 as one octet", "a\x9b31m", "a\ufffd31m"},
		{"H-039 right to left", "a\u202eb\u202d\u202a\u202b\u202c", "ab"},
		{"H-039 isolates", "a\u2066b\u2067\u2068\u2069", "ab"},
		{"H-039 marks of direction", "a\u200eb\u200f\u061c", "ab"},
		{"H-039 zero width", "a\u200bb\u200c\u200d\u2060\ufeff\u00ad", "ab"},
		{"H-039 tags", "a\U000e0041b\U000e0001\U000e007f", "ab"},
		{"C-108 line and paragraph separators", "a\u2028b\u2029", "ab"},
		{"C-101 variation selectors", "a\ufe00b\ufe0f\U000e0100\U000e01ef\u180b", "ab"},
		{"C-101 Hangul fillers", "a\u115fb\u1160\u3164\uffa0", "ab"},
		{"C-101 other fillers", "a\u034fb\u17b4\u17b5\u2800\U00016fe4\U0001d159\ufffc", "ab"},
		{"C-101 no characters", "a\u0378b\ufdd0\U0010ffff\ue000", "ab"},
		{"H-038 invalid UTF-8", "a\xff\xfe\xc0\xafb", "a\ufffd\ufffd\ufffd\ufffdb"},
		{"H-038 half a rune", "a\xe2\x82", "a\ufffd\ufffd"},
		{"H-038 surrogates", "a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"},
		{"blanks stay", "  a  b\u00a0 ", "  a  b\u00a0 "},
		{"a mark on a letter stays", "a\u0308", "a\u0308"},
		{"H-037 of the greatest length", x, x},
		{"H-037 longer", x + "x", x[3:] + "…"},
		{"what is left out takes no room", x + "\x1b", x},
		{"cut before a character", x[4:] + "\u20acxx", x[4:] + "…"},
		{"cut after a character", x[6:] + "\u20acxxxx", x[6:] + "\u20ac…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := printable.Clean(tt.in)
			assert.Equal(t, tt.want, got)
			assert.LessOrEqual(t, len(got), printable.MaxText)
			assert.Equal(t, got, printable.Clean(got), "a clean text is not changed")
		})
	}
}

// FuzzClean compares Clean with a simple implementation.
func FuzzClean(f *testing.F) {
	for _, s := range []string{
		"\x1b[31;1;4mPOP3\x1b[0m", "\x9b31m", "a\u202eb", "\xff\xfe", "\u20ac\U0001f4ec", "\xed\xa0\x80", "a\u2028b",
		"\U000e0041", "\ufe0f\u3164\u2800", strings.Repeat("\u00e4", 300), "\xf0\x9f\x93",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var visible []rune
		for _, r := range bytes.Runes(b) {
			if !unicode.In(r, unicode.C, unicode.Zl, unicode.Zp, unicode.Variation_Selector) && unicode.IsPrint(r) ||
				unicode.Is(unicode.Zs, r) {
				visible = append(visible, r)
			}
		}
		s := printable.Clean(string(b))
		require.LessOrEqual(t, len(s), 512)
		start, cut := strings.CutSuffix(s, "…")
		// Clean also removes some printable characters that show nothing.
		for r := range strings.SplitSeq(start, "") {
			for len(visible) > 0 && string(visible[0]) != r {
				require.True(t, unicode.In(visible[0], unicode.M, unicode.Lo, unicode.So), "%q is left out", visible[0])
				visible = visible[1:]
			}
			require.NotEmpty(t, visible, "%q was not there", r)
			visible = visible[1:]
		}
		require.True(t, cut || len(string(visible)) < 512, "cut without a mark")
	})
}

type temporary struct{ text string }

func (e temporary) Error() string { return e.text }

func TestError(t *testing.T) {
	raw := fmt.Errorf("dial \x1b[2J: %w", temporary{"raw\u202e"})
	err := printable.Error(raw)
	assert.EqualError(t, err, "dial [2J: raw")
	assert.ErrorIs(t, err, raw)
	_, ok := errors.AsType[temporary](err)
	assert.True(t, ok)
	assert.NoError(t, printable.Error(nil))
	for _, format := range []string{"%v", "%+v", "%#v", "%q", "%x"} {
		assert.NotContains(t, fmt.Sprintf(format, fmt.Errorf("x: %w", err)), "\u202e", format)
	}
	assert.NoError(t, errors.Unwrap(err), "the original text is not in the chain of errors")
}

func hide(text string, secrets ...string) string {
	var s printable.Secrets
	for _, secret := range secrets {
		s.Add(secret)
	}
	return s.Hide(text)
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func quotedPrintable(s string) string {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

func latin1(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

func everyOctet(format, s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// interleave returns s with the text sep between its characters.
func interleave(s, sep string) string { return strings.Join(strings.Split(s, ""), sep) }

func TestHide(t *testing.T) {
	const (
		secret = `Open "5esame'-now & <ü>`
		umlaut = "Zauberlöffel"
		euro   = "süß"
	)
	for _, tt := range []struct{ name, secret, text string }{
		{"as it is", secret, secret},
		{"C-101 one octet short", secret, secret[1:]},
		{"C-101 upper case", secret, strings.ToUpper(secret)},
		{"C-101 blanks collapsed", "open   5 esame  now", "open 5 esame now"},
		{"C-101 JSON", secret, quoted(secret)},
		{"C-101 quoted-printable", umlaut + "=", quotedPrintable(umlaut + "=")},
		{"C-101 HTML", secret, html.EscapeString(secret)},
		{"C-101 HTML by number", secret, everyOctet("&#%d;", secret)},
		{"C-101 hex with colons", secret, strings.TrimSuffix(everyOctet("%02x:", secret), ":")},
		{"C-101 Latin-1", umlaut, latin1(umlaut)},
		{"C-101 SQL quotes", "''''''", strings.Repeat("''", 6)},
		{"C-101 a reply that came half", secret, secret[:len(secret)/2]},
		{"C-101 zero width space in the echo", secret, interleave(secret, "\u200b")},
		{"C-101 zero width space in the secret", interleave(secret, "\u200b"), secret},
		{"C-101 soft hyphen in the echo", secret, interleave(secret, "\u00ad")},
		{"C-101 soft hyphen in the secret", interleave(secret, "\u00ad"), secret},
		{"C-101 zero width joiner in the echo", secret, interleave(secret, "\u200d")},
		{"C-101 zero width joiner in the secret", interleave(secret, "\u200d"), secret},
		{"C-101 variation selector in the echo", secret, interleave(secret, "\ufe0f")},
		{"C-101 Hangul filler in the echo", secret, interleave(secret, "\u3164")},

		{"controls in the echo", secret, interleave(secret, "\x1b")},
		{"a hyphen in the echo", secret, interleave(secret, "-")},
		{"shouted and in Latin-1", umlaut, latin1(strings.ToUpper(umlaut))},
		{"octets that a charset does not have", "Zauberpökel", "Zauberp??kel"},
		{"UTF-8 taken for Latin-1", "Zauberlßffel", "ZauberlÃ\u009fffel"},
		{"digits only", "0123456789", "pin 012345 is wrong"},
		{"symbols only", "$%&/()=?", "$%&/()=? is wrong"},
		{"part of symbols only", "$%&/()=?", "%&/()="},
		{"symbols in a URL", "$%&/()=?", url.QueryEscape("$%&/()=?")},
		{"symbols between letters", "a!b@c#d$", "no a!b@c#"},
		{"after a backslash", `'"'"'"`, `\'\"\'\"\'\"`},
		{"hex", secret, hex.EncodeToString([]byte(secret))},
		{"hex in upper case", secret, strings.ToUpper(hex.EncodeToString([]byte(secret)))},
		{"hex after a hex digit", secret, "f" + hex.EncodeToString([]byte(secret))},
		{"hex with 0x", secret, everyOctet("0x%02x, ", secret)},
		{"hex as in C", secret, everyOctet(`\x%02x`, secret)},
		{"octal as in C", umlaut, strings.ReplaceAll(umlaut, "ö", `\303\266`)},
		{"JSON by number", secret, everyOctet(`\u00%02x`, "5esame-now")},
		{"Go's quotes", secret, strconv.QuoteToASCII(secret)},
		{"percent", secret, everyOctet("%%%02X", secret)},
		{"query", secret, url.QueryEscape(secret)},
		{"path", secret, url.PathEscape(secret)},
		{"part of base64", secret, b64(secret)[:14]},
		{"base64 of base64", secret, b64(b64(secret))},
		{"hex of base64", secret, hex.EncodeToString([]byte(b64(secret)))},
		{"base64 with a zero width space in it", secret, interleave(b64(secret), "\u200b")},
		{"a response of PLAIN", secret, b64("\x00user\x00" + secret)},
		{"a response of OAUTHBEARER", "ya29.a0Af_H6-SM", b64("n,,\x01auth=Bearer ya29.a0Af_H6-SM\x01\x01")},

		{"short, as a word", "abc", `no abc.`},
		{"short, alone", "abc", "abc"},
		{"short, in upper case", "abc", "no ABC"},
		{"short, parted by controls", "abc", "a\x1bb\u200bc"},
		{"short, controls around it", "abc", "user\x01abc\x02"},
		{"short, the second place is a word", "abc", "xabc abc"},
		{"short, not ASCII", euro, "das ist süß."},
		{"short, Latin-1", euro, latin1("das ist süß.")},
		{"short, symbols", "!?", "what!?"},
		{"short, a symbol at its end", "abc!", "'abc!'"},
		{"short, base64", "abc", b64("abc")},
		{"short, padded base64", "ab", b64("ab")},
		{"short, a response of PLAIN", "abc", b64("\x00user\x00abc")},
		{"short, hex", "abc", "616263"},
		{"short, percent", "a/c", "a%2Fc"},
		{"five characters", "abcde", "is abcde right?"},
		{"one character", "a", "b a c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, text := range []string{tt.text, "no: " + tt.text, tt.text + " is wrong", "<" + tt.text + ">"} {
				assert.Equal(t, printable.Hidden, hide(text, "something else", tt.secret), "%q", text)
				assert.Equal(t, printable.Hidden, hide(text, tt.secret, "something else"), "%q", text)
			}
		})
	}
	for skip := range 7 { // the secret may begin at any octet of the encoded text
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding} {
			for _, secret := range []string{"secret", "secret78", "ÿþ~~?>ÿ secret", "tanstaaftanstaaf"} {
				text := enc.EncodeToString([]byte(strings.Repeat("\xfb", skip) + secret + "zz"))
				assert.Equal(t, printable.Hidden, hide("got "+text, secret), "%q after %d", secret, skip)
			}
		}
	}
}

// A text that contains no secret is returned unchanged.
func TestHideNothing(t *testing.T) {
	for _, tt := range []struct{ name, secret, text string }{
		{"no secret", "", "no"},
		{"blanks", "   ", "a   b"},
		{"nothing that can be seen", "\u200b\x1b", "a\x1bb"},
		{"five characters of a longer one", "secret", "a secre is not enough"},
		{"short, in a word", "abc", "abcd xabc dabce"},
		{"short, before a digit", "abc", "abc1"},
		{"short, in a word of another script", "süß", "süßer"},
		{"a letter", "a", "Authentication failed for a1"},
		{"short words by chance in base64", "6", "No POP3 for you, or them"},
		{"the letters of symbols", "a!b@c#d$", "abcd"},
		{"other words", "correct horse", "battery staple"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, printable.Clean(tt.text), hide(tt.text, tt.secret))
		})
	}
	assert.Equal(t, "[2Jno", new(printable.Secrets).Hide("\x1b[2Jno"))
	assert.Empty(t, hide("", "secret"))
}

func TestHideError(t *testing.T) {
	var s printable.Secrets
	s.Add("opensesame")
	raw := temporary{"opensesame is wrong"}
	err := s.HideError(fmt.Errorf("x: %w", raw))
	assert.EqualError(t, err, printable.Hidden)
	assert.ErrorIs(t, err, raw)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "opensesame")
	assert.EqualError(t, s.HideError(errors.New("\x1bno")), "no")
	assert.NoError(t, s.HideError(nil))
}

// The function that was passed to AddFunc searches for its secret. It gets the original text.
func TestAddFunc(t *testing.T) {
	var s printable.Secrets
	s.AddFunc(func(text string) bool { return text == "\x1bx" })
	assert.True(t, s.ShownIn("\x1bx"))
	assert.False(t, s.ShownIn("x"))
}

func TestManySecrets(t *testing.T) {
	var s printable.Secrets
	for i := range 33 {
		s.Add(fmt.Sprintf("secret-%08d", i))
	}
	assert.True(t, s.ShownIn("00000001"))
	assert.True(t, s.ShownIn("00000032"))
	assert.False(t, s.ShownIn("no 99999999"))
}

func TestSecretsPrintNothing(t *testing.T) {
	var s printable.Secrets
	s.Add("tanstaaf")
	s.ShownIn("x")
	holder := struct{ s printable.Secrets }{s}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		assert.NotContains(t, fmt.Sprintf(format, holder), "tanstaaf", format)
	}
}

// encoders encode a text as servers do.
var encoders = []func(string) string{
	func(s string) string { return s },
	b64,
	func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	func(s string) string { return hex.EncodeToString([]byte(s)) },
	func(s string) string { return everyOctet("%02X:", s) },
	func(s string) string { return everyOctet("%%%02x", s) },
	url.QueryEscape,
	url.PathEscape,
	quoted,
	html.EscapeString,
	strconv.Quote,
	func(s string) string { return interleave(s, "\u200b") },
	func(s string) string { return interleave(s, "\x1b") },
	func(s string) string { return b64("\x00user\x00" + s) },
}

// FuzzHide encodes a part of a secret, with one or two encoders. The part has at least six letters and digits. Hide
// must find it.
func FuzzHide(f *testing.F) {
	for i := range encoders {
		f.Add("Canary~9f3b+5d1e/7a==", "no ", " is wrong", uint8(i), uint8(2*i), uint8(i))
	}
	f.Add("pässwörd=123456", "100% \\", "=4", uint8(9), uint8(3), uint8(0))
	f.Fuzz(func(t *testing.T, secret, before, after string, from, inner, outer uint8) {
		secret = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return -1 // passwords cannot contain these characters
			}
			return r
		}, strings.ToValidUTF8(secret, ""))
		part := secret[min(int(from), len(secret)):]
		if count(part) < 6 || !utf8.ValidString(part) || len(before)+len(part)+len(after) > 2000 {
			return
		}
		if from%2 == 1 {
			part = strings.ToUpper(part)
		}
		text := encoders[int(inner)%len(encoders)](part)
		text = before + " " + encoders[int(outer)%len(encoders)](text) + " " + after
		require.Equal(t, printable.Hidden, hide(text, secret), "%q", text)
	})
}

// count returns the number of ASCII letters and digits in s.
func count(s string) (n int) {
	for _, r := range s {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r) {
			n++
		}
	}
	return n
}

// FuzzShown checks that the returned text contains no six successive letters or digits of the secret.
func FuzzShown(f *testing.F) {
	f.Add("secret", "the S\u200be-c\x1bret")
	f.Add("abc", "a b abc")
	f.Add("\xff", "\xff\ufffd")
	f.Fuzz(func(t *testing.T, secret, text string) {
		shown := hide(text, secret)
		require.True(t, utf8.ValidString(shown))
		require.LessOrEqual(t, len(shown), 512)
		for _, r := range shown {
			require.False(t, unicode.In(r, unicode.C, unicode.Zl, unicode.Zp, unicode.Variation_Selector), "%q", shown)
		}
		if shown == printable.Hidden {
			return
		}
		require.False(t, count(secret) > 0 && shown == secret, "shown as it is")
		shown = onlyASCII(shown)
		for secret := onlyASCII(secret); len(secret) >= 6; secret = secret[1:] {
			require.NotContains(t, shown, secret[:6])
		}
	})
}

// onlyASCII returns the ASCII letters and digits of s, in lower case.
func onlyASCII(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if count(s[i:i+1]) == 1 {
			b.WriteByte(s[i] | 0x20)
		}
	}
	return b.String()
}

// C-103: checking a reply takes only microseconds, even if a token is long.
func BenchmarkHide(b *testing.B) {
	token := strings.Repeat("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.", 450)
	for _, row := range []struct{ name, secret, text string }{
		{"password", "correct horse battery staple", "2 messages (320 octets)"},
		{"token of 16 kB", token, "2 messages (320 octets)"},
		{"token of 16 kB, long reply", token, strings.Repeat("not what I expected ", 25)},
		{"no secret", "", "2 messages (320 octets)"},
	} {
		b.Run(row.name, func(b *testing.B) {
			var s printable.Secrets
			if row.secret != "" {
				s.Add(row.secret)
			}
			s.ShownIn("x")
			for b.Loop() {
				s.Hide(row.text)
			}
		})
	}
}
