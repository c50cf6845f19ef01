package interop

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// courierSpec runs Courier's POP3 server and its authentication daemon over a user database of its own.
var courierSpec = spec{
	packages: []string{"courier-pop", "courier-authlib-userdb"},
	stores:   []Store{Maildir},
	keyMode:  0o644, // the TLS process runs as a user of its own and must read the key
	prepare:  prepareCourier,
	command:  func(*Server) []string { return []string{"sh", "/srv/conf/courier.sh"} },
}

func prepareCourier(_ context.Context, s *Server) error {
	if err := s.writeEtc(home, "courier"); err != nil {
		return err
	}
	if err := s.fill(oneOwner); err != nil {
		return err
	}
	// The script hashes a password again only if it differs from the previous one, so accounts with the same password
	// are written together.
	all := accounts()
	slices.SortStableFunc(all, func(a, b Account) int { return cmp.Compare(a.Password, b.Password) })
	var users strings.Builder
	for _, a := range all {
		fmt.Fprintf(&users, "%s:$6$interop$%s:%s\n", a.Name, hashes[a.Password], a.Password)
	}
	if err := s.write("srv/conf/users", users.String(), 0o600); err != nil {
		return err
	}
	return s.renderAll(map[string]string{
		"courier.sh": "srv/conf/courier.sh", "courier.env": "srv/conf/courier.env",
		"authdaemonrc": "etc/courier/authdaemonrc",
	})
}
