package interop

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
)

// cyrusSpec runs Cyrus IMAP's pop3d. Only Cyrus itself can write its store, when mail is delivered. So the first run
// delivers the corpus over LMTP and keeps the store with the packages. Every later start copies that store.
var cyrusSpec = spec{
	packages: []string{"cyrus-pop3d", "sasl2-bin"},
	stores:   []Store{Maildir}, // the format is that of Cyrus, but it has one file for each message
	keyMode:  0o644,            // the server runs as a user of its own and must read the key
	spool:    "spool",
	prepare:  prepareCyrus,
	command:  cyrusCommand,
}

func cyrusCommand(*Server) []string { return []string{"sh", "/srv/conf/cyrus.sh"} }

func prepareCyrus(ctx context.Context, s *Server) error {
	if err := s.configureCyrus(false); err != nil {
		return err
	}
	store, err := cyrusStore(ctx, s.packages)
	if err != nil {
		return err
	}
	return run(ctx, "cp", "-a", store+"/.", s.mailDir())
}

// configureCyrus writes the configuration. If deliver is true, Cyrus only accepts mail; otherwise it serves POP3.
func (s *Server) configureCyrus(deliver bool) error {
	if err := s.writeEtc(home, "cyrus"); err != nil {
		return err
	}
	var users strings.Builder
	for _, a := range accounts() {
		fmt.Fprintf(&users, "%s:%s\n", a.Name, a.Password)
	}
	if err := s.write("srv/conf/users", users.String(), 0o600); err != nil {
		return err
	}
	folders := []string{
		"srv/mail", "srv/mail/lib", "srv/mail/spool", "srv/run", "srv/run/proc", "srv/run/lock",
	}
	for _, dir := range folders {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
		if err := os.Chown(s.path(dir), daemonUID, spoolGID); err != nil {
			return err
		}
	}
	if err := s.render("cyrus.conf", "etc/cyrus.conf", map[string]any{"Deliver": deliver}); err != nil {
		return err
	}
	return s.renderAll(map[string]string{"imapd.conf": "etc/imapd.conf", "cyrus.sh": "srv/conf/cyrus.sh"})
}

// cyrusStore returns the folder with the delivered corpus. The first call makes it.
func cyrusStore(ctx context.Context, packages string) (string, error) {
	cached := fmt.Sprintf("%s-store-%s", packages, corpusSum())
	unlock, err := lock(cached + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(cached); err == nil {
		return cached, nil
	}
	work, err := os.MkdirTemp(filepath.Dir(packages), "cyrus-store-*.tmp")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	s, err := deliverCorpus(ctx, packages, work)
	if err != nil {
		return "", fmt.Errorf("deliver the corpus to Cyrus: %w", err)
	}
	return cached, os.Rename(s.mailDir(), cached)
}

// corpusSum returns a hash that changes when the accounts or their mail change.
func corpusSum() string {
	h := fnv.New64a()
	for _, a := range accounts() {
		fmt.Fprintf(h, "%s %s %d\n", a.Name, a.Password, a.Mail)
	}
	for _, kind := range []MailKind{Five, Awkward, Bulk} {
		for _, m := range Corpus(kind) {
			_, _ = h.Write(m.Stored) // a hash returns no error
		}
	}
	return fmt.Sprintf("%x", h.Sum64())
}

// deliverCorpus starts Cyrus with LMTP only, fills its store, and stops it.
func deliverCorpus(ctx context.Context, packages, dir string) (*Server, error) {
	sp := spec{
		packages: []string{"cyrus-common"},
		stores:   []Store{Maildir},
		keyMode:  os644,
		prepare:  func(_ context.Context, s *Server) error { return s.configureCyrus(true) },
		command:  cyrusCommand,
		ready:    tookConnection,
	}
	s, err := start(ctx, Cyrus, sp, packages, dir, nil)
	if err != nil {
		return nil, err
	}
	return s, errors.Join(deliver(ctx, s.Addr, false, Five, Awkward, Bulk), s.Stop())
}

func tookConnection(ctx context.Context, s *Server) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}
