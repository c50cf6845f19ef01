package pop3

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParseStatus(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		ok         bool
		text       string
		valid      bool
	}{
		{"R1-008 positive", "+OK ready", true, "ready", true},
		{"R1-008 negative", "-ERR no", false, "no", true},
		{"R1-010 no text", "+OK", true, "", true},
		{"R1-010 a space and no text", "+OK ", true, "", true},
		{"R1-010 -ERR and no text", "-ERR", false, "", true},
		{"R1-010 -ERR, a space and no text", "-ERR ", false, "", true},
		{"H-030 lower case", "+ok", true, "", true},
		{"H-030 lower case, negative", "-err x", false, "x", true},
		{"H-030 mixed case", "+Ok x", true, "x", true},
		{"H-015 text without a space", "+OK[PREAUTH] x", true, "[PREAUTH] x", true},
		{"H-015 a bracket after -ERR", "-ERR[AUTH] x", false, "[AUTH] x", true},
		{"H-031 a letter after the token", "+OKx", false, "", false},
		{"H-031 a word after the token", "+OKAY", false, "", false},
		{"H-031 a digit after the token", "+OK1", false, "", false},
		{"H-031 a letter after -ERR", "-ERRx", false, "", false},
		{"H-031 -ERROR", "-ERROR x", false, "", false},
		{"H-033 no sign", "OK", false, "", false},
		{"H-033 no sign, negative", "ERR", false, "", false},
		{"H-033 plus", "+", false, "", false},
		{"H-033 minus", "-", false, "", false},
		{"H-033 nothing", "", false, "", false},
		{"H-033 dot", ".", false, "", false},
		{"R1-011 a challenge", "+ QUJD", false, "", false},
		{"half a token", "+O", false, "", false},
		{"half a token, negative", "-ER", false, "", false},
		{"a space inside", "+ OK", false, "", false},
		{"the wrong sign", "-OK", false, "", false},
		{"the wrong sign, negative", "+ERR", false, "", false},
		{"H-019 a space at the start", " +OK x", false, "", false},
		{"H-019 a byte order mark", "\xEF\xBB\xBF+OK x", false, "", false},
		{"H-010 IMAP", "* OK IMAP4 ready", false, "", false},
		{"H-011", "+Do you even care?", false, "", false},
		{"letters that only fold to the token", "+O\u212A", false, "", false},
		{"H-094 blanks before the text", "+OK \t 2 320", true, "2 320", true},
		{"blanks after the text stay", "+OK x ", true, "x ", true},
		{"H-034 NUL is text here", "+OK a\x00b", true, "a\x00b", true},
		{"H-035 CR is text", "+OK a\rb", true, "a\rb", true},
		{"H-038 eight bits after the token", "+OK\xff", true, "\xff", true},
	} {
		ok, text, valid := parseStatus([]byte(tt.line))
		assert.Equal(t, tt.valid, valid, tt.name)
		assert.Equal(t, tt.ok, ok, tt.name)
		assert.Equal(t, tt.text, string(text), tt.name)
	}
}

func TestCutCode(t *testing.T) {
	long := strings.Repeat("A", maxCode-1)
	for _, tt := range []struct {
		name, text string
		code       Code
		rest       string
	}{
		{"R1-105 a code", "[IN-USE] locked", CodeInUse, "locked"},
		{"R1-105 a code alone", "[AUTH]", CodeAuth, ""},
		{"R1-105 not at the start", "x [AUTH] y", "", "x [AUTH] y"},
		{"R1-105 levels", "[SYS/TEMP] x", CodeSysTemp, "x"},
		{"R1-107 lower case", "[sys/perm] x", CodeSysPerm, "x"},
		{"H-041 deeper levels", "[sys/temp/disk/7] x", "SYS/TEMP/DISK/7", "x"},
		{"R1-108 not known", "[FOO] x", "FOO", "x"},
		{"H-014 XCLIENT", "[XCLIENT] Dovecot ready.", "XCLIENT", "Dovecot ready."},
		{"no space after it", "[AUTH]x", CodeAuth, "x"},
		{"blanks after it", "[AUTH] \t x", CodeAuth, "x"},
		{"two codes: the second is text", "[AUTH] [SYS/TEMP] x", CodeAuth, "[SYS/TEMP] x"},
		{"R1-110 open", "[", "", "["},
		{"R1-110 empty", "[]", "", "[]"},
		{"R1-110 not closed", "[A", "", "[A"},
		{"R1-110 empty level at the end", "[A/] x", "", "[A/] x"},
		{"R1-110 empty level at the start", "[/A] x", "", "[/A] x"},
		{"R1-110 empty level within", "[A//B] x", "", "[A//B] x"},
		{"R1-110 a slash alone", "[/] x", "", "[/] x"},
		{"R1-110 a space inside", "[A B] x", "", "[A B] x"},
		{"R1-110 nested", "[[A]] x", "", "[[A]] x"},
		{"a control inside", "[A\x1b] x", "", "[A\x1b] x"},
		{"eight bits inside", "[A\xc3\xa4] x", "", "[A\xc3\xa4] x"},
		{"DEL inside", "[A\x7f] x", "", "[A\x7f] x"},
		{"of the greatest length", "[" + long + "] x", Code(long), "x"},
		{"longer than the limit", "[A" + long + "] x", "", "[A" + long + "] x"},
		{"R1-106 words in brackets", "[this is no code] x", "", "[this is no code] x"},
		{"nothing", "", "", ""},
	} {
		code, rest := cutCode([]byte(tt.text))
		assert.Equal(t, tt.code, code, tt.name)
		assert.Equal(t, tt.rest, string(rest), tt.name)
	}
}

func TestCodeIs(t *testing.T) {
	for _, tt := range []struct {
		name        string
		code, class Code
		want        bool
	}{
		{"itself", CodeInUse, CodeInUse, true},
		{"R1-107 case", "sys/temp", CodeSysTemp, true},
		{"R1-108 a special case", "SYS/TEMP/DISK", CodeSysTemp, true},
		{"R1-108 a special case of one level", "IN-USE/FOO", CodeInUse, true},
		{"R1-108 the class above", "SYS/TEMP", "SYS", true},
		{"a longer word", "SYS/TEMPORARY", CodeSysTemp, false},
		{"a longer word of one level", "AUTHX", CodeAuth, false},
		{"the other way round", "SYS", CodeSysTemp, false},
		{"another", CodeSysPerm, CodeSysTemp, false},
		{"no code", "", CodeAuth, false},
		{"no class", CodeAuth, "", false},
		{"a slash is no class", "/AUTH", "", false},
		{"neither", "", "", true},
	} {
		assert.Equal(t, tt.want, tt.code.Is(tt.class), tt.name)
	}
}

func TestError(t *testing.T) {
	for _, tt := range []struct {
		err              Error
		text             string
		temporary        bool
		rejects, certain bool
	}{
		{Error{Cmd: "RETR 3"}, "pop3: RETR 3: -ERR", false, false, true},
		{Error{Cmd: "RETR 3", Text: "no such message"}, "pop3: RETR 3: -ERR no such message", false, false, true},
		{Error{Cmd: "PASS ***", Code: CodeInUse, login: true}, "pop3: PASS ***: -ERR [IN-USE]", true, false, true},
		{Error{Cmd: "PASS ***", Code: CodeLoginDelay, Text: "wait", login: true},
			"pop3: PASS ***: -ERR [LOGIN-DELAY] wait", true, false, true},
		{Error{Cmd: "PASS ***", Code: "SYS/TEMP/DISK", login: true}, "pop3: PASS ***: -ERR [SYS/TEMP/DISK]", true,
			false, true},
		{Error{Cmd: "PASS ***", Code: CodeSysPerm, login: true}, "pop3: PASS ***: -ERR [SYS/PERM]", false, false, true},
		{Error{Cmd: "PASS ***", Code: CodeAuth, login: true}, "pop3: PASS ***: -ERR [AUTH]", false, true, true},
		{Error{Cmd: "PASS ***", Code: CodeAuth, login: true, authCodes: true}, "pop3: PASS ***: -ERR [AUTH]", false,
			true, true},
		{Error{Cmd: "PASS ***", Text: "no", login: true}, "pop3: PASS ***: -ERR no", false, true, false},
		{Error{Cmd: "PASS ***", Text: "no", login: true, authCodes: true}, "pop3: PASS ***: -ERR no", false, false,
			true},
		{Error{Cmd: "NOOP", Code: CodeAuth}, "pop3: NOOP: -ERR [AUTH]", false, false, true},
		{Error{Cmd: "RETR 1", Code: CodeUTF8}, "pop3: RETR 1: -ERR [UTF8]", false, false, true},
	} {
		assert.EqualError(t, &tt.err, tt.text)
		assert.Equal(t, tt.temporary, tt.err.Temporary(), tt.text)
		rejects, certain := tt.err.RejectsCredentials()
		assert.Equal(t, tt.rejects, rejects, "R1-112 %s", tt.text)
		assert.Equal(t, tt.certain, certain, "R1-112 %s", tt.text)
	}
}

func TestProtocolError(t *testing.T) {
	assert.EqualError(t, &ProtocolError{Cmd: "STAT", Detail: "no count"}, "pop3: STAT: no count")
	assert.EqualError(t, &ProtocolError{Cmd: "STAT", Detail: "no count", Line: "seven"}, "pop3: STAT: no count: seven")
}

func TestParseNumber(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		limit    int64
		n        int64
		rest     string
		ok       bool
	}{
		{"digits", "120", math.MaxInt64, 120, "", true},
		{"the text after it is returned", "120 x", math.MaxInt64, 120, " x", true},
		{"zero", "0", math.MaxInt64, 0, "", true},
		{"H-097 leading zeros", "0012", math.MaxInt64, 12, "", true},
		{"many leading zeros", strings.Repeat("0", 100) + "7", 9, 7, "", true},
		{"nothing", "", math.MaxInt64, 0, "", false},
		{"R1-018 plus", "+1", math.MaxInt64, 0, "+1", false},
		{"R1-018 minus", "-1", math.MaxInt64, 0, "-1", false},
		{"R1-018 a space at the start", " 1", math.MaxInt64, 0, " 1", false},
		{"R1-018 hexadecimal", "0x10", math.MaxInt64, 0, "x10", true},
		{"R1-018 exponent", "1e3", math.MaxInt64, 1, "e3", true},
		{"R1-018 underscore", "1_000", math.MaxInt64, 1, "_000", true},
		{"R1-018 full-width digits", "\uff11", math.MaxInt64, 0, "\uff11", false},
		{"the octet below 0", "/", math.MaxInt64, 0, "/", false},
		{"the octet above 9", ":", math.MaxInt64, 0, ":", false},
		{"the limit", "2147483647", math.MaxInt32, math.MaxInt32, "", true},
		{"one more", "2147483648", math.MaxInt32, 0, "2147483648", false},
		{"ten times the limit", "21474836470", math.MaxInt32, 0, "21474836470", false},
		{"2^63-1", "9223372036854775807", math.MaxInt64, math.MaxInt64, "", true},
		{"2^63", "9223372036854775808", math.MaxInt64, 0, "9223372036854775808", false},
		{"2^64+1", "18446744073709551617", math.MaxInt64, 0, "18446744073709551617", false},
		{"H-092 far too much", "99999999999999999999", math.MaxInt64, 0, "99999999999999999999", false},
	} {
		n, rest, ok := parseNumber(tt.in, tt.limit)
		assert.Equal(t, tt.ok, ok, tt.name)
		assert.Equal(t, tt.rest, rest, tt.name)
		if ok {
			assert.Equal(t, tt.n, n, tt.name)
		}
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       DropListing
		ok         bool
	}{
		{"R1-050 count and size", "2 320", DropListing{2, 320}, true},
		{"R1-050 the text after it is ignored", "2 320 octets", DropListing{2, 320}, true},
		{"empty", "0 0", DropListing{0, 0}, true},
		{"H-094 blanks", "2  320", DropListing{2, 320}, true},
		{"H-094 tab", "2\t320", DropListing{2, 320}, true},
		{"H-090 nothing", "", DropListing{}, false},
		{"H-090 words", "x y", DropListing{}, false},
		{"H-090 no size", "1", DropListing{1, -1}, true},
		{"H-090 no size after a blank", "1 ", DropListing{1, -1}, true},
		{"H-090 size in words", "7 #octets", DropListing{7, -1}, true},
		{"Q-44 a count in words", "seven 1800662", DropListing{}, false},
		{"Q-44 negative size", "5 -1073741824", DropListing{5, -1}, true},
		{"Q-45 size over 32 bits", "2 4294967400", DropListing{2, 4294967400}, true},
		{"size with letters", "2 320x", DropListing{2, -1}, true},
		{"count with letters", "2x 320", DropListing{}, false},
		{"count with a sign", "+2 320", DropListing{}, false},
		{"negative count", "-2 320", DropListing{}, false},
		{"H-092 count over 32 bits", "4294967296 1", DropListing{}, false},
		{"H-092 huge count", "99999999999999999999 1", DropListing{}, false},
		{"H-092 huge size", "1 99999999999999999999", DropListing{1, -1}, true},
		{"H-093 a big count", "2000000000 1", DropListing{2000000000, 1}, true},
	} {
		got, err := parseStat(tt.text)
		assert.Equal(t, tt.want, got, tt.name)
		assert.Equal(t, tt.ok, err == nil, "%s: %v", tt.name, err)
	}
}

func TestParseScan(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		num        int
		size       int64
		ok         bool
	}{
		{"R1-052 number and size", "1 120", 1, 120, true},
		{"R1-052 the text after it is ignored", "1 120 x y", 1, 120, true},
		{"H-096 a third number", "1 1 1", 1, 1, true},
		{"H-096 number alone", "1", 1, -1, false},
		{"H-096 number and a blank", "1 ", 1, -1, false},
		{"H-096 blank at the start", " 1 120", 0, -1, false},
		{"H-096 no number", "x 120", 0, -1, false},
		{"H-096 no size", "1 x", 1, -1, false},
		{"H-097 message 0", "0 5", 0, -1, false},
		{"H-097 negative number", "-1 5", 0, -1, false},
		{"H-097 number with a sign", "+1 5", 0, -1, false},
		{"H-097 leading zero", "01 5", 1, 5, true},
		{"H-097 negative size", "1 -5", 1, -1, false},
		{"H-097 size with a sign", "1 +5", 1, -1, false},
		{"H-097 size with a point", "1 5.0", 1, -1, false},
		{"blanks", "1 \t 120", 1, 120, true},
		{"size 0", "1 0", 1, 0, true},
		{"size over 32 bits", "1 5000000000", 1, 5000000000, true},
		{"size over 63 bits", "1 9223372036854775808", 1, -1, false},
		{"number over 31 bits", "2147483648 1", 0, -1, false},
		{"nothing", "", 0, -1, false},
		{"Q-48 a status before it", "+OK 1 120", 0, -1, false},
	} {
		got, err := parseScan(tt.line)
		assert.Equal(t, tt.ok, err == nil, "%s: %v", tt.name, err)
		assert.Equal(t, MessageInfo{Num: tt.num, Size: tt.size}, got, tt.name)
	}
}

func TestParseUnique(t *testing.T) {
	repeatU := func(n int) string { return strings.Repeat("u", n) }
	for _, tt := range []struct {
		name, line string
		num        int
		uid        string
		ok         bool
	}{
		{"R1-063", "1 whqtswO00WBw418f9t5JxYwZ", 1, "whqtswO00WBw418f9t5JxYwZ", true},
		{"H-110 no id", "1", 1, "", false},
		{"H-110 no octet of an id", "1 ", 1, "", false},
		{"H-110 one octet", "1 u", 1, "u", true},
		{"H-110 70 octets", "1 " + repeatU(70), 1, repeatU(70), true},
		{"H-111 71 octets", "1 " + repeatU(71), 1, repeatU(71), true},
		{"H-111 1024 octets", "1 " + repeatU(1024), 1, repeatU(1024), true},
		{"H-111 1025 octets", "1 " + repeatU(1025), 1, "", false},
		{"H-112 NUL", "1 a\x00b", 1, "", false},
		{"H-112 tab", "1 a\tb", 1, "", false},
		{"H-112 ESC", "1 a\x1bb", 1, "", false},
		{"H-112 DEL", "1 a\x7fb", 1, "", false},
		{"H-112 eight bits", "1 a\x80b", 1, "", false},
		{"R1-063 the least octet", "1 !", 1, "!", true},
		{"R1-063 the greatest octet", "1 ~", 1, "~", true},
		{"R1-063 a space inside", "1 a b", 1, "", false},
		{"R1-065 C-039 a space at the end", "1 a ", 1, "a", true},
		{"C-039 blanks at the end", "1 a\t \t", 1, "a", true},
		{"C-039 the number and letters", "1a u", 0, "", false},
		{"C-110 the number and one letter", "1a", 0, "", false},
		{"Q-48 several blanks", "1   2011071307115510400ae3e9e00bmu9", 1, "2011071307115510400ae3e9e00bmu9", true},
		{"H-119 a path", "1 ../../etc/passwd", 1, "../../etc/passwd", true},
		{"H-119 a dot", "1 .", 1, ".", true},
		{"message 0", "0 u", 0, "", false},
		{"no number", "u u", 0, "", false},
		{"Q-48 no number at all", "00001a1457b5a851", 0, "", false},
		{"nothing", "", 0, "", false},
	} {
		got, err := parseUnique(tt.line)
		assert.Equal(t, tt.ok, err == nil, "%s: %v", tt.name, err)
		assert.Equal(t, MessageInfo{Num: tt.num, UID: tt.uid}, got, tt.name)
	}
}

// isGraphic finds an octet that must not be in a unique-id, at any position (C-110).
func TestIsGraphic(t *testing.T) {
	for _, good := range []string{"!", "a", "~"} {
		for n := range 30 {
			text := strings.Repeat(good, n)
			assert.True(t, isGraphic(text), text)
			for i := range n {
				for _, bad := range []string{"\x00", " ", "\x7f", "\x80", "\xff"} {
					assert.False(t, isGraphic(text[:i]+bad+text[i+1:]), "%q at %d of %q", bad, i, text)
				}
			}
		}
	}
}

func TestParseLanguage(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       Language
		ok         bool
	}{
		{"R1-156 tag and description", "de Deutsch", Language{"de", "Deutsch"}, true},
		{"R1-156 tag alone", "pt-BR", Language{Tag: "pt-BR"}, true},
		{"description of several words", "en-boont English Boontling dialect",
			Language{"en-boont", "English Boontling dialect"}, true},
		{"description in UTF-8", "de-at \u00d6sterreichisches Deutsch",
			Language{"de-at", "\u00d6sterreichisches Deutsch"}, true},
		{"description with controls", "de \x1b[1mDeutsch", Language{"de", "[1mDeutsch"}, true},
		{"eight letters", "abcdefgh", Language{Tag: "abcdefgh"}, true},
		{"nine letters", "abcdefghi", Language{}, false},
		{"empty subtag", "de- Deutsch", Language{}, false},
		{"nothing", "", Language{}, false},
		{"no tag", " Deutsch", Language{}, false},
		{"any", "* any", Language{}, false},
		{"eight bits in the tag", "d\xe4 x", Language{}, false},
	} {
		got, err := parseLanguage([]byte(tt.line))
		assert.Equal(t, tt.ok, err == nil, "%s: %v", tt.name, err)
		assert.Equal(t, tt.want, got, tt.name)
	}
}

func TestFindTimestamp(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"R1-123", "POP3 server ready <1896.697170952@dbc.mtview.ca.us>", "<1896.697170952@dbc.mtview.ca.us>"},
		{"Q-17 text after it", "<1@a> ready", "<1@a>"},
		{"Q-17 text before it", "[host] x<1@a>y", "<1@a>"},
		{"none", "ready", ""},
		{"nothing", "", ""},
		{"Q-17 no at sign", "E.Novation POP3 server ready <a.b.c>", ""},
		{"H-023 two", "<1@a> <2@b>", "<1@a>"},
		{"H-023 the second is one", "<1a> <2@b>", "<2@b>"},
		{"H-022 open ones", strings.Repeat("<", 8000), ""},
		{"H-022 open ones and a good one", strings.Repeat("<", 8000) + "1@a>", "<1@a>"},
		{"not closed", "<1@a", ""},
		{"nothing inside", "<>", ""},
		{"no local part", "<@a>", ""},
		{"no domain", "<1@>", ""},
		{"an at sign alone", "<@>", ""},
		{"two at signs", "<1@a@b>", ""},
		{"Q-18 a space", "<1 2@a>", ""},
		{"Q-18 a control", "<1\x01@a>", ""},
		{"Q-18 eight bits", "<\xbf\xbf@\xbf>", ""},
		{"Q-18 DEL", "<1\x7f@a>", ""},
		{"nested", "<a<1@b>>", "<1@b>"},
		{"one after a bad one", "<1\x01@a><2@b>", "<2@b>"},
	} {
		assert.Equal(t, tt.want, findTimestamp([]byte(tt.text)), "R1-124 %s", tt.name)
	}
}

// Invisible characters are removed from the server's text wherever it is shown. This includes errors that are wrapped,
// and errors that are printed with another verb.
func TestErrorShown(t *testing.T) {
	c := &Client{}
	err := c.refusal(command{verb: "PASS", secret: "opensesame"}, []byte("[sys/temp] \x1b[2J\u202eno\x9b"))
	assert.Equal(t, CodeSysTemp, err.Code)
	assert.Equal(t, "[2Jno\ufffd", err.Text)
	assert.Equal(t, "pop3: PASS ***: -ERR [SYS/TEMP] [2Jno\ufffd", err.Error())
	for _, format := range []string{"%v", "%+v", "%#v", "%q"} {
		assert.NotContains(t, fmt.Sprintf(format, errors.Join(err)), "opensesame")
	}
}
