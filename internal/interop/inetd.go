package interop

import (
	"os"
	"strconv"
)

// spoolGID is Debian's group "mail", which owns the folder of maildrops that mbox servers use.
const spoolGID = 8

// inetd returns a command that runs one process of a server for each connection, as inetd does.
func (s *Server) inetd(command string) []string {
	return []string{"sh", "/srv/conf/inetd.sh", strconv.Itoa(s.ports[0]), strconv.Itoa(s.ports[1]), command}
}

// fillSpool writes the maildrops into the folder that the server sees as /var/mail. Each maildrop belongs to its user,
// and all users can create lock files in the folder.
func (s *Server) fillSpool() error {
	if err := s.fill(func(i int) (int, int) { return firstUID + i, spoolGID }); err != nil {
		return err
	}
	if err := os.Chown(s.mailDir(), 0, spoolGID); err != nil {
		return err
	}
	return os.Chmod(s.mailDir(), os.ModeSticky|os.ModeSetgid|0o777)
}
