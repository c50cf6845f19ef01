package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// An oldMaildrop contains the unique-ids of the messages that another program has fetched from a maildrop.
type oldMaildrop struct {
	user, host string // "" if the file does not contain user and host
	uids       map[string]bool
}

// importers contains a function for each other program. The function reads a line of that program's file.
var importers = map[string]struct {
	file string // a description of the file for errors
	read func(line string, found []oldMaildrop) []oldMaildrop
}{
	"mpop":      {"uidls_file, as in ~/.mpop_uidls/me_at_pop.example.org", readMpop},
	"getmail":   {"oldmail file, as in ~/.getmail/oldmail-pop.example.org-995-me", readGetmail},
	"fetchmail": {"idfile, as in ~/.fetchids", readFetchmail},
}

// readMpop reads a line of mpop's file. The file begins with comments. A line " COUNT HOST USER" comes before each
// maildrop, and each other line is a unique-id.
func readMpop(line string, found []oldMaildrop) []oldMaildrop {
	heading, isHeading := strings.CutPrefix(line, " ")
	fields := strings.SplitN(heading, " ", 3)
	switch {
	case strings.HasPrefix(line, "#") && len(found) == 0:
	case isHeading && len(fields) == 3:
		return append(found, oldMaildrop{fields[2], fields[1], make(map[string]bool)})
	case len(found) > 0 && line != "":
		found[len(found)-1].uids[line] = true
	}
	return found
}

// readGetmail reads a line of getmail's file: a unique-id, NUL and the Unix time.
func readGetmail(line string, found []oldMaildrop) []oldMaildrop {
	uid, _, ok := strings.Cut(line, "\x00")
	if !ok || uid == "" {
		return found
	}
	if len(found) == 0 {
		found = []oldMaildrop{{uids: make(map[string]bool)}}
	}
	found[0].uids[uid] = true
	return found
}

// readFetchmail reads a line of fetchmail's file: USER@HOST, a space and a unique-id.
func readFetchmail(line string, found []oldMaildrop) []oldMaildrop {
	maildrop, uid, ok := strings.Cut(line, " ")
	at := strings.LastIndex(maildrop, "@")
	if !ok || at < 0 || uid == "" {
		return found
	}
	user, host := maildrop[:at], maildrop[at+1:]
	isSame := func(m oldMaildrop) bool { return m.user == user && m.host == host }
	i := slices.IndexFunc(found, isSame)
	if i < 0 {
		i, found = len(found), append(found, oldMaildrop{user, host, make(map[string]bool)})
	}
	found[i].uids[uid] = true
	return found
}

// readOldUIDs returns the unique-ids that the file of another program contains for the account.
func (o *options) readOldUIDs(a *account) (uids map[string]bool, err error) {
	text, err := os.ReadFile(o.importFile)
	if err != nil {
		return nil, err
	}
	importer := importers[o.importFrom]
	var found []oldMaildrop
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for lines.Scan() {
		found = importer.read(strings.TrimSuffix(lines.Text(), "\r"), found)
	}
	host, _, err := net.SplitHostPort(a.Server)
	if err != nil {
		host = a.Server
	}
	var others []string
	for _, m := range found {
		if m.user == "" || m.user == a.User && strings.EqualFold(m.host, host) {
			return m.uids, nil
		}
		others = append(others, m.user+"@"+m.host)
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("%s has no unique-ids of %s@%s, only of %s", o.importFile, a.User, host,
			clean(strings.Join(others, ", ")))
	}
	return nil, fmt.Errorf("%s has no unique-ids; with --from %s, the file must be the %s", o.importFile, o.importFrom,
		importer.file)
}

// markFetched marks messages on the server as fetched, so that they are never retrieved and never deleted. It marks the
// messages that another program has fetched, or all messages for catch-up.
func (p *program) markFetched(a *account) (summary string, err error) {
	isOld := func(string) bool { return true }
	if p.importFrom != "" {
		old, err := p.readOldUIDs(a)
		if err != nil {
			return "", err
		}
		isOld = func(uid string) bool { return old[uid] }
		if p.importFrom == "getmail" { // getmail writes "-" instead of "/" in its file
			isOld = func(uid string) bool { return old[strings.ReplaceAll(uid, "/", "-")] }
		}
	}
	marked, unmarked := 0, 0
	f := a.fetcher()
	f.Delete, f.KeepFor, f.Sink = false, 0, fetch.SinkFunc(func(context.Context, fetch.Item, io.Reader) error {
		return errors.New("popfetch has a bug: catch-up and import must not fetch a message")
	})
	f.Connect = func(ctx context.Context) (*pop3.Client, error) { return a.connect(ctx, p.log) }
	f.Select = func(_ context.Context, item fetch.Item, _ []byte) fetch.Decision {
		if item.UID != "" && isOld(item.UID) {
			marked++
			return fetch.Skip
		}
		unmarked++
		return fetch.Leave
	}
	if err := a.create(p.stop); err != nil {
		return "", err
	}
	report, err := f.Run(p.stop)
	switch {
	case err != nil:
		return "", err
	case marked == 0 && unmarked > 0:
		return "", fmt.Errorf("none of the %s on the server is marked as fetched: %s", countOf(unmarked, "new message"),
			choice(p.catchUp, "they have no unique-ids", "their unique-ids are not in the file"))
	}
	return fmt.Sprintf("%s marked as fetched, %d to be fetched, %d known before", countOf(marked, "message"), unmarked,
		report.Known), nil
}

// markAllFetched carries out the commands "popfetch catch-up" and "popfetch import".
func (p *program) markAllFetched(accounts []*account) int {
	status := exitDone
	for _, a := range accounts {
		summary, err := p.markFetched(a)
		if err != nil {
			p.complain(fmt.Errorf("%s: %w", a.Name, err))
			status = exitFailed
			continue
		}
		fmt.Fprintf(p.stdout, "%s: %s\n", a.Name, summary)
	}
	return status
}
