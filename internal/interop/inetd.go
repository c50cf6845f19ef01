package interop

import (
	"os"
	"strconv"
)

// spoolGID is Debian's group "mail", which owns the folder of maildrops that mbox servers use.
const spoolGID = 8

// inetd is the command that runs one process of a server for each connection, as inetd does.
func (s *Server) inetd(command string) []string {
	return []string{"sh", "/srv/conf/inetd.sh", strconv.Itoa(s.ports[0]), strconv.Itoa(s.ports[1]), command}
}

// fillSpool writes the maildrops as /var/mail. Each belongs to its user, and all users may create locks in the
// folder.
func (s *Server) fillSpool() error {
	if err := s.fill(func(i int) (int, int) { return firstUID + i, spoolGID }); err != nil {
		return err
	}
	if err := os.Chown(s.mailDir(), 0, spoolGID); err != nil {
		return err
	}
	return os.Chmod(s.mailDir(), os.ModeSticky|os.ModeSetgid|0o777)
}
