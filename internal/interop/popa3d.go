package interop

import "context"

// popa3dSpec runs popa3d, one process for each connection, with accounts of the sandbox. popa3d has no TLS, so socat
// listens at TLSAddr and forwards to popa3d.
var popa3dSpec = spec{
	packages: []string{"popa3d", "socat"},
	stores:   []Store{Mbox},
	keyMode:  0o600,
	prepare:  preparePopa3d,
	command:  func(s *Server) []string { return s.inetd("/usr/sbin/popa3d") },
}

func preparePopa3d(_ context.Context, s *Server) error {
	if err := s.writeEtc(home, "popa3d"); err != nil {
		return err
	}
	if err := s.fillSpool(); err != nil {
		return err
	}
	return s.render("inetd.sh", "srv/conf/inetd.sh", nil)
}
