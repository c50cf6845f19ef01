package conformance_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-2d50cddb/pop3"
)

// Listing without UIDL, or with lines that make no sense (C-014, C-015, C-039).
func TestListingInPart(t *testing.T) {
	const list = "+OK\n1 5\n2 6\n3 7\n."
	unsupported := is(errors.ErrUnsupported)
	in := func(id, capa, list, uidl string, infos []pop3.MessageInfo, problems ...problem) dialogue {
		return dialogue{id: id, script: turns("CAPA", capa, "LIST", list, "UIDL", uidl), do: listing,
			want: gives(infos, problems...)}
	}
	// uidls and lists have odd lines in the place of message 2.
	uidls := func(id, odd string, infos []pop3.MessageInfo, problems ...problem) dialogue {
		return in(id, "-ERR", list, "+OK\n1 a\n"+odd+"\n3 c\n.", infos, problems...)
	}
	lists := func(id, odd string, infos []pop3.MessageInfo, problems ...problem) dialogue {
		return in(id, "-ERR", "+OK\n1 5\n"+odd+"\n3 7\n.", "+OK\n1 a\n2 b\n3 c\n.", infos, problems...)
	}
	of := func(infos ...pop3.MessageInfo) []pop3.MessageInfo { return infos }
	without := of(info(1, 5, ""), info(2, 6, ""), info(3, 7, ""))
	noSecondID := of(info(1, 5, "a"), info(2, 6, ""), info(3, 7, "c"))
	noSecondSize := of(info(1, 5, "a"), info(2, -1, "b"), info(3, 7, "c"))
	playAll(t, []dialogue{
		in("C-014 not announced, refused", "+OK\nTOP\n.", list, "-ERR", without, unsupported),
		in("C-014 Q-51 no capabilities, refused", "-ERR", list, "-ERR", without, unsupported),
		in("C-015 not announced, there", "+OK\nTOP\n.", "+OK\n1 5\n.", "+OK\n1 a\n.", of(info(1, 5, "a"))),
		in("Q-51 no capabilities, there", "-ERR", "+OK\n1 5\n.", "+OK\n1 a\n.", of(info(1, 5, "a"))),
		in(
			"H-116 Q-51 announced, refused",
			"+OK\nUIDL\n.",
			list,
			"-ERR locked",
			nil,
			refused("", "locked"),
			supported,
		),
		in(
			"C-014 Q-51 refused with a code",
			"-ERR",
			list,
			"-ERR [SYS/TEMP] x",
			nil,
			refused(pop3.CodeSysTemp, "x"),
			supported,
		),
		in("C-038 no messages, UIDL refused", "-ERR", "+OK\n.", "-ERR no", nil),
		in("LIST refused", "-ERR", "-ERR no", "+OK\n1 a\n.", nil, refused("", "no"), supported),
		uidls("C-039 no id", "2", noSecondID, nonsense),
		uidls("C-039 no octet of an id", "2 ", noSecondID, nonsense),
		uidls("C-039 two words", "2 a b", noSecondID, nonsense),
		uidls("C-039 eight bits", "2 \xe4", noSecondID, nonsense),
		uidls("C-039 an id too long", "2 "+strings.Repeat("u", 1100), noSecondID, nonsense),
		uidls("C-039 not about a message", "b", noSecondID, nonsense),
		uidls("C-039 a blank behind the id", "2 b ", of(info(1, 5, "a"), info(2, 6, "b"), info(3, 7, "c"))),
		uidls("C-039 twice, two ids", "2 b\n1 z", of(info(1, 5, ""), info(2, 6, "b"), info(3, 7, "c")), nonsense),
		uidls("C-039 twice the same", "2 b\n2 b", of(info(1, 5, "a"), info(2, 6, "b"), info(3, 7, "c")), nonsense),
		lists("C-039 a size below 0", "2 -1", noSecondSize, nonsense),
		lists("C-039 a size of letters", "2 x", noSecondSize, nonsense),
		lists("C-039 a scan without number", "x 6", of(info(1, 5, "a"), info(3, 7, "c"), info(2, -1, "b")), nonsense),
		in(
			"C-039 both",
			"-ERR",
			"+OK\n1 -1\n2 6\n.",
			"+OK\n1 a\n2\n.",
			of(info(1, -1, "a"), info(2, 6, "")),
			nonsense,
		),
		in(
			"C-039 C-014 an odd size, no UIDL",
			"-ERR",
			"+OK\n1 -1\n.",
			"-ERR",
			of(info(1, -1, "")),
			nonsense,
			unsupported,
		),
	})
}

// supported wants an error that does not say that UIDL is unknown to the server.
func supported(t *testing.T, err error) {
	if errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("not unsupported: %v", err)
	}
}

func info(num int, size int64, uid string) pop3.MessageInfo {
	return pop3.MessageInfo{Num: num, Size: size, UID: uid}
}
