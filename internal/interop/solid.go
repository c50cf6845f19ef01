package interop

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
)

// solidSpec runs solid-pop3d, one process for each connection, with accounts of the sandbox. The APOP secret of an
// account is in its home. solid-pop3d has no TLS, so socat listens at TLSAddr and forwards to it.
var solidSpec = spec{
	packages: []string{"solid-pop3d", "socat"},
	// With Maildir and the message that contains NUL, it replies to STAT "-ERR message is damaged".
	stores:  []Store{Mbox},
	keyMode: 0o600,
	prepare: prepareSolid,
	command: func(s *Server) []string { return s.inetd("/usr/sbin/solid-pop3d -f /srv/conf/solid.conf") },
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

// writeSolidSecrets does the work of the package's program pop_auth. It inverts every octet of a secret and writes the
// octets in hex, into a file that only the owner can read.
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
