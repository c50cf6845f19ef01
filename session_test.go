package pop3

import (
	"context"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		k           command
		wire, shown string
	}{
		{command{verb: "NOOP"}, "NOOP\r\n", "NOOP"},
		{numbered("RETR", 3), "RETR 3\r\n", "RETR 3"},
		{numbered("DELE", math.MaxInt), "DELE " + strconv.Itoa(math.MaxInt) + "\r\n", "DELE " +
			strconv.Itoa(math.MaxInt)},
		{topCommand(3, 0), "TOP 3 0\r\n", "TOP 3 0"},
		{command{verb: "USER", arg: "bob"}, "USER bob\r\n", "USER bob"},
		{command{verb: "PASS", secret: "open sesame"}, "PASS open sesame\r\n", "PASS ***"},
		{command{verb: "PASS", secret: " open sesame "}, "PASS  open sesame \r\n", "PASS ***"},
		{command{verb: "APOP", arg: "bob", secret: "c4c9"}, "APOP bob c4c9\r\n", "APOP bob ***"},
		{command{verb: "AUTH", arg: "PLAIN", secret: "="}, "AUTH PLAIN =\r\n", "AUTH PLAIN ***"},
		{command{verb: "XTND XMIT"}, "XTND XMIT\r\n", "XTND XMIT"},
	} {
		assert.Equal(t, tt.wire, string(tt.k.append(nil)), "R1-001 %s", tt.shown)
		assert.Equal(t, tt.shown, tt.k.String())
		assert.NoError(t, tt.k.check())
	}
}

// R1-123: the example of RFC 1939.
func TestApopCommand(t *testing.T) {
	c := &Client{timestamp: "<1896.697170952@dbc.mtview.ca.us>"}
	assert.Equal(t, "APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n",
		string(c.apopCommand("mrose", "tanstaaf").append(nil)))
}

// R1-003: a command may have 255 octets with CRLF, but not 256. The lengths of its parts do not matter.
func TestCommandLength(t *testing.T) {
	fill := func(k command, set func(*command, string), octets int) command {
		set(&k, strings.Repeat("x", octets-len(k.append(nil))-1))
		return k
	}
	for name, tt := range map[string]struct {
		k   command
		set func(*command, string)
	}{
		"word":             {command{verb: "USER"}, func(k *command, s string) { k.arg = s }},
		"secret":           {command{verb: "PASS"}, func(k *command, s string) { k.secret = s }},
		"word and secret":  {command{verb: "APOP", arg: "bob"}, func(k *command, s string) { k.secret = s }},
		"initial response": {command{verb: "AUTH", arg: "XOAUTH2"}, func(k *command, s string) { k.secret = s }},
		"verb":             {command{}, func(k *command, s string) { k.verb = s + "x" }},
	} {
		longest := fill(tt.k, tt.set, 255)
		require.Len(t, longest.append(nil), 255, name)
		assert.NoError(t, longest.check(), name)
		longer := fill(tt.k, tt.set, 256)
		require.Len(t, longer.append(nil), 256, name)
		assert.ErrorIs(t, longer.check(), ErrArgument, name)
	}
	secret := command{verb: "PASS", secret: strings.Repeat("opensesame", 26)}
	assert.NotContains(t, secret.check().Error(), "sesame")
}

func TestCheckNum(t *testing.T) {
	for _, good := range [][]int{nil, {1}, {1, 1}, {math.MaxInt}} {
		assert.NoError(t, checkNum(good...))
	}
	for _, bad := range [][]int{{0}, {-1}, {1, 0}, {math.MinInt}} {
		assert.ErrorIs(t, checkNum(bad...), ErrArgument, "R1-019 %v", bad)
	}
	assert.NoError(t, checkTop(0, 1))
	assert.ErrorIs(t, checkTop(-1, 1), ErrArgument, "R1-059")
	assert.ErrorIs(t, checkTop(0, 0), ErrArgument, "R1-059")
}

func TestCheckText(t *testing.T) {
	for _, tt := range []struct {
		name, s    string
		text, word bool // whether the argument may be sent as text, and as a word
	}{
		{"word", "bob@example.org", true, true},
		{"UTF-8", "b\u00f6b", true, true},
		{"all printable ASCII", "!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~", true, true},
		{"R1-121 a space inside", "open sesame", true, false},
		{"R1-121 a space at the start", " open", true, false},
		{"R1-121 a space at the end", "open ", true, false},
		{"no-break space", "open\u00a0sesame", true, true},
		{"R1-002 nothing", "", false, false},
		{"R1-002 CR", "bob\rQUIT", false, false},
		{"R1-002 LF", "bob\nQUIT", false, false},
		{"R1-002 CRLF", "bob\r\nQUIT", false, false},
		{"R1-002 NUL", "bob\x00", false, false},
		{"R1-002 tab", "bob\t", false, false},
		{"R1-002 ESC", "\x1bbob", false, false},
		{"R1-002 the last of C0", "\x1fbob", false, false},
		{"R1-002 DEL", "bob\x7f", false, false},
		{"C1", "bob\u0085", false, false},
		{"the last of C1", "bob\u009f", false, false},
		{"R1-151 invalid UTF-8", "b\xf6b", false, false},
		{"R1-151 half a rune", "bob\xc3", false, false},
	} {
		check := func(err error, ok bool) {
			if ok {
				assert.NoError(t, err, tt.name)
				return
			}
			assert.ErrorIs(t, err, ErrArgument, tt.name)
			if tt.s != "" {
				assert.NotContains(t, err.Error(), tt.s, "%s: the argument may be a secret", tt.name)
			}
		}
		check(checkText("password", tt.s), tt.text)
		check(checkWord("name", tt.s), tt.word)
	}
}

func TestFreeCommand(t *testing.T) {
	for _, unknown := range []string{"XTND XMIT", "xtnd", "XCLIENT ADDR=[::1]", "AUTHX y", "QUITE"} {
		for _, multi := range []bool{false, true} {
			k, err := freeCommand(unknown, multi)
			assert.NoError(t, err, unknown)
			assert.Equal(t, unknown+"\r\n", string(k.append(nil)))
		}
	}
	for line, multi := range map[string]bool{
		"STAT": false, "noop": false, "LIST 1": false, "uidl 2": false, "LANG de": false,
		"LIST": true, "uidl": true, "LANG": true, "CAPA": true, "RETR 1": true, "top 1 0": true,
	} {
		_, err := freeCommand(line, multi)
		assert.NoError(t, err, line)
		_, err = freeCommand(line, !multi)
		assert.ErrorIs(t, err, ErrArgument, "C-017 %s", line)
	}
	for _, tt := range []struct{ name, line string }{
		{"nothing", ""},
		{"R1-001 a space at the start", " STAT"},
		{"R1-001 a space at the end", "STAT "},
		{"R1-001 two spaces", "LIST  1"},
		{"a space alone", " "},
		{"R1-002 CRLF", "STAT\r\nQUIT"},
		{"R1-002 LF", "STAT\nQUIT"},
		{"R1-002 tab", "QUIT\tx"},
		{"R1-151 not ASCII", "XFOO \u00e4"},
		{"Q-40 invalid UTF-8", "XFOO \xe4"},
		{"QUIT", "QUIT"}, {"quit", "quit"}, {"QUIT with an argument", "QuIt now"}, {"STLS", "STLS"},
		{"USER", "USER bob"},
		{"PASS", "pass x"}, {"APOP", "APOP bob c4c9"}, {"AUTH", "AUTH PLAIN"}, {"DELE", "DELE 1"}, {"RSET", "RSET"},
		{"UTF8", "utf8"},
	} {
		_, err := freeCommand(tt.line, false)
		assert.ErrorIs(t, err, ErrArgument, tt.name)
	}
}

// isMechanism rejects every text that is not the name of a mechanism, so that such a text is never sent.
func TestIsMechanism(t *testing.T) {
	for _, good := range []string{"PLAIN", "SCRAM-SHA-256-PLUS", "X", "CRAM-MD5", "A_B", "12345678901234567890"} {
		assert.True(t, isMechanism(good), good)
	}
	for _, bad := range []string{
		"", "plain", "PLAIN ", "PLAIN\r\n", "PLAIN X", "PL\u00c4IN", "\u0130", "123456789012345678901", "PLAIN=",
	} {
		assert.False(t, isMechanism(bad), "%q", bad)
	}
}

func TestDecodeStrict(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		ok             bool
	}{
		{"R1-135", "QUJD", "ABC", true},
		{"R1-136 nothing", "", "", true},
		{"R1-135 padding", "QUI=", "AB", true},
		{"R1-135 CR inside", "QUJD\rREVG", "", false},
		{"R1-135 LF inside", "QUJD\nREVG", "", false},
		{"R1-135 a space inside", "QUJD REVG", "", false},
		{"R1-135 no padding", "QUI", "", false},
		{"R1-135 padding inside", "QUI=REVG", "", false},
		{"R1-135 surplus bits", "QUJ=", "", false},
		{"R1-135 the alphabet of URLs", "-_-_", "", false},
		{"R1-135 NUL", "QUJ\x00", "", false},
	} {
		got, err := decodeStrict([]byte(tt.in))
		assert.Equal(t, tt.ok, err == nil, tt.name)
		assert.Equal(t, tt.want, string(got), tt.name)
	}
}

// All fields of Options are optional, and a nil *Options is the same as the zero value.
func TestOptionsRead(t *testing.T) {
	var none *Options
	assert.Equal(t, DefaultTimeout, none.read().Timeout)
	assert.Equal(t, DefaultTimeout, (&Options{}).read().Timeout)
	assert.EqualValues(t, -1, (&Options{Timeout: -1}).read().Timeout)
	ctx, cancel := limitTime(context.Background(), -1)
	defer cancel()
	_, limited := ctx.Deadline()
	assert.False(t, limited)
}
