package printable

import (
	"encoding/hex"
	"hash/maphash"
	"html"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Hidden replaces a text that contains a secret.
const Hidden = "(the server's words repeat the secret)"

// maxSecrets limits the number of secrets. If one more is added, the oldest one is dropped.
const maxSecrets = 32

// Secrets contains the secrets of a session. The zero value contains none. Secrets cannot be printed.
type Secrets struct {
	matchers []func(all []textForm) bool // each reports whether one of the forms contains its secret
}

// Add adds a secret. The data for the search is built when the first text is checked.
func (s *Secrets) Add(secret string) {
	match := sync.OnceValue(func() func([]textForm) bool { return matcher(secret) })
	s.add(func(all []textForm) bool { return match()(all) })
}

// AddFunc adds a secret that only the caller knows. The function contains must report whether a text contains that
// secret.
func (s *Secrets) AddFunc(contains func(text string) bool) {
	s.add(func(all []textForm) bool { return contains(all[0].text) })
}

func (s *Secrets) add(contains func([]textForm) bool) {
	if len(s.matchers) == maxSecrets {
		s.matchers = slices.Delete(s.matchers, 0, 1)
	}
	s.matchers = append(s.matchers, contains)
}

// ShownIn reports whether text contains a part of a secret, in clear or encoded. A part is six successive characters; a
// shorter secret must be in text as a whole word. Only letters and digits are compared, without regard to case. If a
// secret has fewer than six letters and digits, all its visible characters are compared. ShownIn also decodes text from
// base64, hex, percent encoding, quoted-printable, HTML, and the strings of JSON, C and SQL.
func (s *Secrets) ShownIn(text string) bool {
	if len(s.matchers) == 0 || text == "" {
		return false
	}
	all := textForms(text)
	return slices.ContainsFunc(s.matchers, func(shows func([]textForm) bool) bool { return shows(all) })
}

// Hide returns Hidden if text contains a secret. Otherwise it returns text as [Clean] does. text must be complete,
// because a secret that is cut off may not be recognized.
func (s *Secrets) Hide(text string) string {
	if s.ShownIn(text) {
		return Hidden
	}
	return Clean(text)
}

// HideError returns err as [Error] does, but with the text Hidden if the text of err contains a secret.
func (s *Secrets) HideError(err error) error {
	if err == nil {
		return nil
	}
	return shownError{text: s.Hide(err.Error()), cause: func() error { return err }}
}

// pieceLen is the number of successive characters by which a secret is recognized.
const pieceLen = 6

// matcher returns a function that searches the forms of a text for a secret.
func matcher(secret string) func([]textForm) bool {
	letters, ascii, plain := lettersOf(secret), asciiLettersOf(secret), plainOf(secret)
	switch {
	case utf8.RuneCountInString(letters) >= pieceLen:
		// A wrong charset may have changed the characters that are not ASCII. Then asciiPieces finds the secret.
		allPieces, asciiPieces := newPieces(letters), newPieces(ascii)
		return anyForm(func(r textForm) bool {
			return allPieces.in(r.letters) || len(ascii) < len(letters) && asciiPieces.in(asciiLettersOf(r.text))
		})
	case utf8.RuneCountInString(plain) >= pieceLen:
		p := newPieces(plain)
		return anyForm(func(r textForm) bool { return p.in(plainOf(r.text)) })
	case plain == "":
		return func([]textForm) bool { return false }
	}
	word := strings.Map(fold, Visible(secret))
	return anyForm(func(r textForm) bool { return r.shortOK && hasWord(strings.Map(fold, r.text), word) })
}

func anyForm(shows func(textForm) bool) func([]textForm) bool {
	return func(all []textForm) bool { return slices.ContainsFunc(all, shows) }
}

// lettersOf returns the letters and digits of text, with case folded.
func lettersOf(text string) string { return filter(text, isLetter) }

// asciiLettersOf is like lettersOf, for ASCII only.
func asciiLettersOf(text string) string {
	return filter(text, func(r rune) bool { return r < utf8.RuneSelf && isLetter(r) })
}

// plainOf returns the visible characters of text without blanks, with case folded.
func plainOf(text string) string {
	return filter(text, func(r rune) bool { return isVisible(r) && !unicode.IsSpace(r) })
}

// filter returns the characters of text for which include returns true, with case folded.
func filter(text string, include func(r rune) bool) string {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if include(r) {
			b = utf8.AppendRune(b, fold(r))
		}
	}
	return string(b)
}

// isLetter reports whether r is a letter or a digit that can be seen.
func isLetter(r rune) bool {
	if r < utf8.RuneSelf {
		return '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z'
	}
	return (unicode.IsLetter(r) || unicode.IsNumber(r)) && isVisible(r)
}

// fold returns the same character for all case forms of a letter: the lower case of its upper case.
func fold(r rune) rune {
	if r < utf8.RuneSelf {
		return unicode.ToLower(r)
	}
	return unicode.ToLower(unicode.ToUpper(r))
}

// hasWord reports whether text contains word as a whole word, not as a part of a longer one.
func hasWord(text, word string) bool {
	first, _ := utf8.DecodeRuneInString(word)
	last, _ := utf8.DecodeLastRuneInString(word)
	for end := 0; ; {
		i := strings.Index(text[end:], word)
		if i < 0 {
			return false
		}
		before, _ := utf8.DecodeLastRuneInString(text[:end+i])
		after, _ := utf8.DecodeRuneInString(text[end+i+len(word):])
		if !(isLetter(first) && isLetter(before)) && !(isLetter(last) && isLetter(after)) {
			return true
		}
		_, n := utf8.DecodeRuneInString(text[end+i:])
		end += i + n
	}
}

// pieces has all runs of pieceLen successive characters of a secret.
type pieces struct {
	secret string
	filter []uint64 // a Bloom filter, with which most runs of a text are rejected at once
}

var seed = maphash.MakeSeed()

const filterBits = 16 // bits of the filter for each of the runs

func newPieces(secret string) pieces {
	p := pieces{secret, make([]uint64, 1+len(secret)*filterBits/64)}
	for piece := range runs(secret) {
		word, bit := p.place(piece)
		p.filter[word] |= bit
	}
	return p
}

func (p pieces) place(piece string) (word int, bit uint64) {
	n := maphash.String(seed, piece) % uint64(64*len(p.filter))
	return int(n / 64), 1 << (n % 64)
}

// in reports whether text contains one of the runs.
func (p pieces) in(text string) bool {
	for piece := range runs(text) {
		if word, bit := p.place(piece); p.filter[word]&bit != 0 && strings.Contains(p.secret, piece) {
			return true
		}
	}
	return false
}

// runs yields each group of pieceLen successive characters of s.
func runs(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		from, n := 0, 0
		for i, r := range s {
			if n++; n < pieceLen {
				continue
			}
			if !yield(s[from : i+utf8.RuneLen(r)]) {
				return
			}
			_, first := utf8.DecodeRuneInString(s[from:])
			from += first
		}
	}
}

// A textForm is a text in one decoded form.
type textForm struct {
	text    string
	letters string // the letters and digits of text
	shortOK bool   // whether a short secret in text counts; false for decoded text that may be random
}

func newTextForm(text string, exact bool) textForm { return textForm{text, lettersOf(text), exact} }

// textForms returns text in several forms: unchanged, without invisible characters, read as Latin-1, decoded once, and
// decoded twice. The first form is the unchanged text.
func textForms(text string) []textForm {
	all := []textForm{newTextForm(text, true)}
	if visible := Visible(text); visible != text {
		all = append(all, newTextForm(visible, true))
	}
	if !utf8.ValidString(text) {
		all = append(all, newTextForm(Visible(fromLatin1(text)), true))
	}
	for from, times := 0, 0; times < 2; times++ {
		last := all[from:]
		from = len(all)
		for _, r := range last {
			all = append(all, decodings(r)...)
		}
	}
	return all
}

func fromLatin1(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		b.WriteRune(rune(c))
	}
	return b.String()
}

// decodings returns the result of each decoder that finds something to decode in r.
func decodings(r textForm) (all []textForm) {
	for _, decoded := range []string{unescape(r.text), html.UnescapeString(r.text)} {
		if decoded != r.text {
			all = append(all, newTextForm(decoded, r.shortOK))
		}
	}
	var text, binary []byte
	collect := func(decoded []byte) {
		switch {
		case isText(decoded):
			text = append(append(text, decoded...), '\n')
		case len(decoded) >= pieceLen:
			binary = append(append(binary, decoded...), '\n')
		}
	}
	decodeHex(r.text, collect)
	decodeBase64(r.text, collect)
	if len(text) > 0 {
		all = append(all, newTextForm(string(text), r.shortOK))
	}
	if len(binary) > 0 {
		all = append(all, newTextForm(string(binary), false))
	}
	return all
}

// isText reports whether b looks like text. As in SASL, fields may be separated by NUL or ^A.
func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if r < ' ' && r > 1 && !unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

var escapes = []struct {
	start              string
	digits, base, bits int
}{{"%", 2, 16, 8}, {"=", 2, 16, 8}, {`\x`, 2, 16, 8}, {`\u`, 4, 16, 16}, {`\`, 3, 8, 8}}

// unescape decodes %41, =41, \x41, \u0041 and \101. It replaces a doubled quote by one quote, and removes a backslash
// before a quote.
func unescape(text string) string {
	if !strings.ContainsAny(text, `%=\'"`) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		decoded, n := unescapeOne(text)
		b.WriteString(decoded)
		text = text[n:]
	}
	return b.String()
}

// unescapeOne decodes the character at the beginning of text. n is the number of octets of text that it has decoded.
func unescapeOne(text string) (decoded string, n int) {
	for _, escape := range escapes {
		end := len(escape.start) + escape.digits
		if len(text) < end || !strings.HasPrefix(text, escape.start) {
			continue
		}
		code, err := strconv.ParseUint(text[len(escape.start):end], escape.base, escape.bits)
		switch {
		case err == nil && escape.bits == 8:
			return string([]byte{byte(code)}), end // perhaps one octet of a character in UTF-8
		case err == nil:
			return string(rune(code)), end
		}
	}
	if len(text) > 1 && (text[0] == '\\' || text[0] == text[1] && strings.IndexByte(`'"`, text[0]) >= 0) {
		return text[1:2], 2
	}
	return text[:1], 1
}

// decodeHex decodes hexadecimal octets, with or without separators. It starts at the first digit and at the second,
// because a secret may begin at either.
func decodeHex(text string, collect func(decoded []byte)) {
	const shortest = 4 // shortest run of digits that is decoded
	var digits []byte
	flush := func() {
		for skip := range 2 {
			if n := (len(digits) - skip) / 2; 2*n >= shortest && (skip == 0 || n >= pieceLen) {
				decoded := make([]byte, n)
				hex.Decode(decoded, digits[skip:skip+2*n]) // cannot fail, because there are only digits
				collect(decoded)
			}
		}
		digits = digits[:0]
	}
	text = strings.ReplaceAll(text, "0x", "")
	for i := range len(text) {
		switch c := text[i]; {
		case '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f':
			digits = append(digits, c)
		case strings.IndexByte(" :-,.", c) < 0:
			flush()
		}
	}
	flush()
}

// decodeBase64 decodes base64 of both alphabets. It starts at each of the first four characters, because a secret may
// begin at any of them.
func decodeBase64(text string, collect func(decoded []byte)) {
	const shortest = 4 // shortest run of characters that is decoded, with the padding
	var memory [128]byte
	for len(text) > 0 {
		n := 0
		for n < len(text) && isBase64(text[n]) {
			n++
		}
		padded := n
		for padded < len(text) && text[padded] == '=' {
			padded++
		}
		for skip := range 4 {
			if run := text[:n][min(skip, n):]; padded >= shortest && (skip == 0 || len(run)*6/8 >= pieceLen) {
				collect(decodeRun(memory[:0], run))
			}
		}
		text = text[max(padded, 1):]
	}
}

func isBase64(c byte) bool {
	return c < utf8.RuneSelf && isLetter(rune(c)) || c == '+' || c == '/' || c == '-' || c == '_'
}

// decodeRun appends the octets of a run of base64 without padding.
func decodeRun(b []byte, run string) []byte {
	bits, n := uint32(0), 0
	for i := range len(run) {
		bits = bits<<6 | sextet(run[i])
		if n += 6; n >= 8 {
			n -= 8
			b = append(b, byte(bits>>n))
		}
	}
	return b
}

func sextet(c byte) uint32 {
	switch {
	case 'A' <= c && c <= 'Z':
		return uint32(c - 'A')
	case 'a' <= c && c <= 'z':
		return uint32(c-'a') + 26
	case '0' <= c && c <= '9':
		return uint32(c-'0') + 52
	case c == '+' || c == '-':
		return 62
	}
	return 63
}
