package interop_test

import (
	"crypto/md5"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

var update = flag.Bool("update", false, "write testdata/transcripts anew from the real servers")

// fakePassword replaces every password in a transcript.
const fakePassword = "secret"

// playable returns the scenarios for accounts with this kind of mail.
func playable(kind interop.MailKind) []scenario {
	if kind == interop.Awkward {
		return []scenario{{"awkward", playAwkward}}
	}
	return scenarios
}

// playAwkward retrieves every awkward message except the two large ones.
func playAwkward(t *testing.T, c *pop3.Client, f *facts, conn connFacts) {
	login(t, c, conn.account)
	_, err := c.UidlAll(t.Context())
	require.NoError(t, err)
	for i, m := range f.corpus(interop.Awkward) {
		if len(m.Stored) < 10<<10 {
			f.assertMail(t, c, i+1, m)
		}
	}
	require.NoError(t, c.Quit(t.Context()))
}

func transcriptName(kind interop.Kind, name string) string {
	return filepath.Join("testdata", "transcripts", string(kind), strings.ReplaceAll(name, " ", "-")+".txt")
}

// TestRecord writes the transcripts if the flag -update is set. It is not parallel, so that no other test uses the
// servers.
func TestRecord(t *testing.T) {
	if !*update {
		t.Skip("it records only with -update; TestReplay plays what was recorded")
	}
	for _, f := range slices.Concat(mainServers, otherServers) {
		t.Run(string(f.kind), func(t *testing.T) {
			s := servers.get(t, f.kind, "")
			for _, sc := range scenarios {
				record(t, f, s, sc, s.Spare())
			}
			record(t, f, s, scenario{"awkward", playAwkward}, interop.Alice)
		})
	}
}

func record(t *testing.T, f *facts, s *interop.Server, sc scenario, a interop.Account) {
	t.Helper()
	var log recorder
	c := dial(t, s, inClear, &pop3.Options{DialContext: log.dialer})
	sc.run(t, c, f, connFacts{account: a})
	require.NoError(t, c.Close())
	head := fmt.Sprintf("# %s %s, %s\n# account %s\n", s.Kind, s.Version, sc.name, a.Name)
	name := transcriptName(f.kind, sc.name)
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(head+script(log.log(), a)), 0o644))
}

// script returns a dialogue in the format of pop3test.Script.
func script(events []event, a interop.Account) string {
	var b strings.Builder
	stamp := regexp.MustCompile(`<[^<>]*>`).FindString(events[0].octets)
	for _, e := range events {
		for _, line := range strings.SplitAfter(e.octets, "\r\n") {
			text, ended := strings.CutSuffix(line, "\r\n")
			switch {
			case line == "":
			case e.client:
				fmt.Fprintf(&b, "C: %s\n", hide(text, stamp, a))
			case ended && printable(text):
				fmt.Fprintf(&b, "S: %s\n", text)
			default:
				fmt.Fprintf(&b, "s: %q\n", line)
			}
		}
	}
	return b.String()
}

// hide replaces the password in a command, in each form that the client may send.
func hide(line, stamp string, a interop.Account) string {
	sum := func(secret string) string { return fmt.Sprintf("%x", md5.Sum([]byte(stamp+secret))) }
	plain := func(secret string) string {
		return base64.StdEncoding.EncodeToString([]byte("\x00" + a.Name + "\x00" + secret))
	}
	return strings.NewReplacer(
		a.Password, fakePassword,
		sum(a.Password), sum(fakePassword),
		plain(a.Password), plain(fakePassword),
	).Replace(line)
}

// printable reports whether a line can be written to a text file without quoting.
func printable(line string) bool {
	return utf8.ValidString(line) && strings.TrimRight(line, " ") == line &&
		!strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) })
}

// TestReplay plays the recorded dialogues to the client, once whole and once one octet at a time. It needs no server.
func TestReplay(t *testing.T) {
	for _, f := range slices.Concat(mainServers, otherServers) {
		for _, kind := range []interop.MailKind{interop.Five, interop.Awkward} {
			for _, sc := range playable(kind) {
				t.Run(string(f.kind)+"/"+sc.name, func(t *testing.T) {
					text, err := os.ReadFile(transcriptName(f.kind, sc.name))
					require.NoError(t, err)
					a := interop.Account{Name: account(t, string(text)), Password: fakePassword, Mail: kind}
					for _, chunk := range []int{0, 1} {
						replay(t, "CHUNK "+strconv.Itoa(chunk)+"\n"+string(text), f, sc, a)
					}
				})
			}
		}
	}
}

func replay(t *testing.T, text string, f *facts, sc scenario, a interop.Account) {
	conn, done := pop3test.Script(text)
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
	require.NoError(t, err)
	assertMatches(t, f.greeting, c.Greeting())
	sc.run(t, c, f, connFacts{account: a})
	require.NoError(t, c.Close())
	assert.NoError(t, done())
}

// account returns the account name at the beginning of a transcript.
func account(t *testing.T, text string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^# account (.*)$`).FindStringSubmatch(text)
	require.NotNil(t, found)
	return found[1]
}
