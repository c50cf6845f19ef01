package conformance_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-2d50cddb/pop3"
	"github.com/stretchr/testify/assert"
)

// Listing without UIDL, or with lines that make no sense (C-014, C-015, C-039).
func TestListingInPart(t *testing.T) {
	list := "C: LIST\nS: +OK\nS: 1 5\nS: 2 6\nS: 3 7\nS: .\n"
	unsupported := func(t *testing.T, err error) { assert.ErrorIs(t, err, errors.ErrUnsupported) }
	refused := func(t *testing.T, err error) {
		_, ok := errors.AsType[*pop3.Error](err)
		assert.True(t, ok && !errors.Is(err, errors.ErrUnsupported), "%v", err)
	}
	odd := func(t *testing.T, err error) {
		wrong, ok := errors.AsType[*pop3.ProtocolError](err)
		assert.True(t, ok && !wrong.Fatal, "%v", err)
	}
	without := []pop3.MessageInfo{{Num: 1, Size: 5}, {Num: 2, Size: 6}, {Num: 3, Size: 7}}
	noSecond := []pop3.MessageInfo{info(1, 5, "a"), info(2, 6, ""), info(3, 7, "c")}
	for _, row := range []struct {
		name, script string
		check        func(*testing.T, error)
		want         []pop3.MessageInfo
	}{
		{"C-014 not announced, refused", "C: CAPA\nS: +OK\nS: TOP\nS: .\n" + list + "C: UIDL\nS: -ERR", unsupported, without},
		{"C-014 no capabilities, refused", "C: CAPA\nS: -ERR\n" + list + "C: UIDL\nS: -ERR", unsupported, without},
		{"C-015 not announced, there", "C: CAPA\nS: +OK\nS: TOP\nS: .\nC: LIST\nS: +OK\nS: 1 5\nS: .\n" +
			"C: UIDL\nS: +OK\nS: 1 a\nS: .", nil, []pop3.MessageInfo{info(1, 5, "a")}},
		{"H-116 Q-51 announced, refused", "C: CAPA\nS: +OK\nS: UIDL\nS: .\n" + list + "C: UIDL\nS: -ERR", refused, nil},
		{"C-014 refused with a code", "C: CAPA\nS: -ERR\n" + list + "C: UIDL\nS: -ERR [SYS/TEMP] x", refused, nil},
		{"C-038 no messages, UIDL refused", "C: CAPA\nS: -ERR\nC: LIST\nS: +OK\nS: .\nC: UIDL\nS: -ERR no", nil, nil},
		{"LIST refused", "C: CAPA\nS: -ERR\nC: LIST\nS: -ERR no\nC: UIDL\nS: +OK\nS: 1 a\nS: .", refused, nil},
		{"C-039 no id", uidls("2"), odd, noSecond},
		{"C-039 no octet of an id", uidls("2 "), odd, noSecond},
		{"C-039 two words", uidls("2 a b"), odd, noSecond},
		{"C-039 eight bits", uidls("2 \xe4"), odd, noSecond},
		{"C-039 an id too long", uidls("2 " + strings.Repeat("u", 1100)), odd, noSecond},
		{"C-039 not about a message", uidls("b"), odd, noSecond},
		{"C-039 a blank behind the id", uidls("2 b "), nil, []pop3.MessageInfo{info(1, 5, "a"), info(2, 6, "b"), info(3, 7, "c")}},
		{"C-039 twice, two ids", uidls("2 b", "1 z"), odd, []pop3.MessageInfo{info(1, 5, ""), info(2, 6, "b"), info(3, 7, "c")}},
		{"C-039 twice the same", uidls("2 b", "2 b"), odd, []pop3.MessageInfo{info(1, 5, "a"), info(2, 6, "b"), info(3, 7, "c")}},
		{"C-039 a size below 0", lists("2 -1"), odd, []pop3.MessageInfo{info(1, 5, "a"), info(2, -1, "b"), info(3, 7, "c")}},
		{"C-039 a size of letters", lists("2 x"), odd, []pop3.MessageInfo{info(1, 5, "a"), info(2, -1, "b"), info(3, 7, "c")}},
		{"C-039 a scan without number", lists("x 6"), odd, []pop3.MessageInfo{info(1, 5, "a"), info(3, 7, "c"), info(2, -1, "b")}},
		{"C-039 both", "C: CAPA\nS: -ERR\nC: LIST\nS: +OK\nS: 1 -1\nS: 2 6\nS: .\nC: UIDL\nS: +OK\nS: 1 a\nS: 2\nS: .",
			odd, []pop3.MessageInfo{info(1, -1, "a"), info(2, 6, "")}},
		{"C-039 C-014 an odd size, no UIDL", "C: CAPA\nS: -ERR\nC: LIST\nS: +OK\nS: 1 -1\nS: .\nC: UIDL\nS: -ERR",
			func(t *testing.T, err error) { odd(t, err); unsupported(t, err) }, []pop3.MessageInfo{info(1, -1, "")}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := playLoggedIn(t, row.script+"\nC: NOOP\nS: +OK", pop3.Options{})
			infos, err := c.Listing(t.Context())
			if row.check == nil {
				assert.NoError(t, err)
			} else {
				row.check(t, err)
			}
			assert.Equal(t, row.want, infos)
			assert.NoError(t, c.Noop(t.Context()))
		})
	}
}

// uidls is the dialogue of Listing with odd lines in UIDL, in the place of message 2.
func uidls(odd ...string) string {
	return "C: CAPA\nS: -ERR\nC: LIST\nS: +OK\nS: 1 5\nS: 2 6\nS: 3 7\nS: .\nC: UIDL\nS: +OK\nS: 1 a\nS: " +
		strings.Join(odd, "\nS: ") + "\nS: 3 c\nS: ."
}

// lists is uidls with odd lines in LIST.
func lists(odd ...string) string {
	return "C: CAPA\nS: -ERR\nC: LIST\nS: +OK\nS: 1 5\nS: " + strings.Join(odd, "\nS: ") +
		"\nS: 3 7\nS: .\nC: UIDL\nS: +OK\nS: 1 a\nS: 2 b\nS: 3 c\nS: ."
}

func info(num int, size int64, uid string) pop3.MessageInfo {
	return pop3.MessageInfo{Num: num, Size: size, UID: uid}
}
