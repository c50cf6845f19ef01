package interop

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
)

// solidSpec runs solid-pop3d, one process for each connection, over accounts of the sandbox that keep their
// APOP secrets in their home. It has no TLS of its own: TLSAddr is a socat that forwards to it.
var solidSpec = spec{
	packages: []string{"solid-pop3d", "socat"},
	stores:   []Store{Mbox}, // with Maildir and the message that contains NUL, STAT is "-ERR message is damaged"
	keyMode:  0o600,
	prepare:  prepareSolid,
	command:  func(s *Server) []string { return s.inetd("/usr/sbin/solid-pop3d -f /srv/conf/solid.conf") },
}

const solidPAM = "auth required pam_unix.so\naccount required pam_unix.so\n"

func prepareSolid(_ context.Context, s *Server) error {
	if err := s.writeEtc(func(name string) string { return "/srv/home/" + name }, "spop3d"); err != nil {
		return err
	}
	if err := s.write("etc/pam.d/solid-pop3d", solidPAM, os644); err != nil {
		return err
	}
	if err := s.fillSpool(); err != nil {
		return err
	}
	if err := s.writeSolidSecrets(); err != nil {
		return err
	}
	if err := s.render("inetd.sh", "srv/conf/inetd.sh", nil); err != nil {
		return err
	}
	return s.render("solid.conf", "srv/conf/solid.conf", nil)
}

// writeSolidSecrets does what the package's pop_auth does: it writes every octet of a secret inverted, in hex,
// readable only by the owner.
func (s *Server) writeSolidSecrets() error {
	for i, a := range accounts() {
		secret := []byte(a.Password)
		for j := range secret {
			secret[j] = ^secret[j]
		}
		dir := "srv/home/" + a.Name
		text := fmt.Sprintf("APOPSecret %s\n", hex.EncodeToString(secret))
		if err := s.write(dir+"/.spop3d", text, 0o600); err != nil {
			return err
		}
		if err := chownAll(s.path(dir), firstUID+i, mailGID); err != nil {
			return err
		}
		if err := os.Chmod(s.path(dir), 0o711); err != nil {
			return err
		}
	}
	return nil
}
