package interop

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// mailutilsSpec runs the pop3d of GNU Mailutils with accounts of the sandbox and a database of APOP secrets.
var mailutilsSpec = spec{
	packages: []string{"mailutils-pop3d", "libmu-dbm9"},
	stores:   []Store{Mbox, Maildir},
	keyMode:  0o600,
	prepare:  prepareMailutils,
	command: func(*Server) []string {
		return []string{"sh", "-c", "popauth --create --file /srv/conf/apop --output /srv/run/apop && " +
			"exec /usr/sbin/pop3d --no-site-config --config-file /srv/conf/mailutils.conf"}
	},
}

func prepareMailutils(_ context.Context, s *Server) error {
	if err := s.writeEtc(home); err != nil {
		return err
	}
	if err := s.fill(func(i int) (int, int) { return firstUID + i, mailGID }); err != nil {
		return err
	}
	// Every user creates lock files in both folders.
	if err := os.MkdirAll(s.path("srv/run/lock"), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{s.path("srv/run/lock"), s.mailDir()} {
		if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
			return err
		}
	}
	var secrets strings.Builder
	for _, a := range accounts() {
		if !strings.Contains(a.Password, " ") { // the configuration file cannot contain a password with a space
			fmt.Fprintf(&secrets, "%s %s\n", a.Name, a.Password)
		}
	}
	if err := s.write("srv/conf/apop", secrets.String(), 0o600); err != nil {
		return err
	}
	location := "mbox:/srv/mail/${user}"
	if s.opts.Store == Maildir {
		location = "maildir:/srv/mail/${user}/Maildir"
	}
	return s.render("mailutils.conf", "srv/conf/mailutils.conf", map[string]any{"Location": location})
}
