package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A MailKind says what a maildrop contains at the start; see [Corpus].
type MailKind int

const (
	Empty   MailKind = iota // no messages, for tests of logins
	Five                    // five small messages, for tests that delete
	Awkward                 // one message for each difficulty, such as dots or long lines
	Bulk                    // 1,000 messages of 2 to 10 KB
)

// An Account is a user of a server. All servers have the same accounts.
type Account struct {
	Name, Password string
	Mail           MailKind
}

// These accounts have names. Every server also has spare accounts; see [Server.Spare] and [Server.SpareBulk].
var (
	Alice = Account{"alice", "secret-alice", Awkward}
	Bob   = Account{"bob", "secret-bob", Bulk}
	Carol = Account{"carol", "secret-carol", Five}
	Dave  = Account{"dave", "secret-dave", Empty}
	Erin  = Account{"erin", "pass word with spaces", Five}
	Zoe   = Account{"zoe", "pässwörd", Five}
)

const (
	spareCount     = 60
	spareBulkCount = 3
	firstUID       = 5010 // user id of the first account; the next accounts have the next ids
	mailGID        = 5000
	mailUID        = 5000 // owner of every maildrop, on servers where one user owns them all
	daemonUID      = 5001 // user of a server's own processes
)

// accounts returns all accounts of a server.
func accounts() []Account {
	all := []Account{Alice, Bob, Carol, Dave, Erin, Zoe}
	for i := range spareCount {
		all = append(all, spare(i))
	}
	for i := range spareBulkCount {
		all = append(all, spareBulk(i))
	}
	return all
}

func spare(i int) Account     { return Account{fmt.Sprintf("spare%02d", i), "secret-spare", Five} }
func spareBulk(i int) Account { return Account{fmt.Sprintf("bulk%02d", i), "secret-bulk", Bulk} }

// hashes maps passwords to their hashes in the form of /etc/shadow (crypt(3)). "openssl passwd -6 -salt interop" made
// them, because Go's library cannot.
var hashes = map[string]string{
	Alice.Password: "/y9SuzvmN/1/cUCcaL/CSNqfb9c26iUerXsI95ZmIXGtRYnq5UE/wxnWmNPHqgJoUexiJ4XBk5QToh9f2gyAm.",
	Bob.Password:   "dSTODDFb1NCdhsgi9FzbK/NFU/RtkQxM0B93dsYaSz6L3Lv40ba4GAR/.w.vPifs0ZCnrT4jn7qCK/E3E51bm.",
	Carol.Password: "pL4VLv57B6UK94mkpERWQGHiV/oHcjSFNLSapaoeeLInNfIWGOXRdbuIL34m9iooz97pkw/br55aTiQ57XR3I/",
	Dave.Password:  "JSUmlWHu51wU9keTxBZ6BnvR8schOzyfUlPIegIeQ73rLADCMioCJyl9jYfKNMZpoPvPjqQAA5NTst7B.zmXF.",
	Erin.Password:  "muEZTiygilT.4M/lbXx8UuPogtt08/3DA4EbPr2sQWZEtzRVun1I3Qpc4KyJK3pkNf2MLsf.9eQlMp4ulJ0Qf1",
	Zoe.Password:   "QdJ8V3ZCq/CcGNrBgHuGsADQmc2H1nn8kIDJlagW5oIrx7AGCn0YEV/PpWqsRP/haGJBm1QNVC8mNcq3E0Mh90",
	"secret-spare": "1YSdlPlzcnxm64oUz3kLnj4rMQW8xaT/wEiss7UfyLACcpCg6Ho7bQ2Yrtzyz/7WQ9lQOAPFGOeNO3sIypPFB0",
	"secret-bulk":  "ojHbhi.yRWiimrwZJrwlh9Tx0eS6tKD4fl2wA3l8DmwYwyQRfupZNNcLxrD/RGqSuxYUna38Fk59N.UPOpiAa0",
}

// writeEtc writes passwd, group and shadow into the server's private /etc. The files begin with the lines of the
// machine, because the programs of the packages look up root, mail and other users. Lines for the accounts and for the
// users of daemons follow. home returns the directory of an account.
func (s *Server) writeEtc(home func(name string) string, daemons ...string) error {
	passwd := []string{fmt.Sprintf("mailuser:x:%d:%d::/nonexistent:/bin/false", mailUID, mailGID)}
	group := []string{fmt.Sprintf("mailuser:x:%d:", mailGID)}
	var shadow []string
	for i, d := range daemons {
		passwd = append(passwd, fmt.Sprintf("%s:x:%d:%d::/nonexistent:/bin/false", d, daemonUID+i, daemonUID+i))
		group = append(group, fmt.Sprintf("%s:x:%d:", d, daemonUID+i))
	}
	for i, a := range accounts() {
		user := fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh", a.Name, firstUID+i, mailGID, home(a.Name))
		passwd = append(passwd, user)
		shadow = append(shadow, fmt.Sprintf("%s:$6$interop$%s:19000:0:99999:7:::", a.Name, hashes[a.Password]))
	}
	for name, lines := range map[string][]string{"passwd": passwd, "group": group, "shadow": shadow} {
		own, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			return err
		}
		text := string(own) + strings.Join(lines, "\n") + "\n"
		mode := os.FileMode(0o644)
		if name == "shadow" {
			mode = 0o600
		}
		if err := s.write("etc/"+name, text, mode); err != nil {
			return err
		}
	}
	return nil
}
