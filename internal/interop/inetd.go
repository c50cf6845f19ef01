package interop

import (
	"os"
	"strconv"
)

// spoolGID is Debian's group "mail", which owns the folder of maildrops that mbox servers use.
const spoolGID = 8

// inetd is the command that runs a server a process a connection, as inetd does.
func (s *Server) inetd(command string) []string {
	return []string{"sh", "/srv/conf/inetd.sh", strconv.Itoa(s.ports[0]), strconv.Itoa(s.ports[1]), command}
}

// fillSpool lays the maildrops out as /var/mail: each its user's own, the folder open to all users for their
// locks.
func (s *Server) fillSpool() error {
	if err := s.fill(func(i int) (int, int) { return firstUID + i, spoolGID }); err != nil {
		return err
	}
	if err := os.Chown(s.mailDir(), 0, spoolGID); err != nil {
		return err
	}
	return os.Chmod(s.mailDir(), os.ModeSticky|os.ModeSetgid|0o777)
}
