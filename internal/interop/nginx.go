package interop

import (
	"context"
	"net"
	"net/url"
)

// nginxSpec runs nginx as a POP3 proxy, with Dovecot as its backend. nginx also acts as its own authentication server.
// Users of nginx usually write such a server themselves.
var nginxSpec = spec{
	packages: []string{"nginx", "libnginx-mod-mail", "dovecot-pop3d", "dovecot-core"},
	stores:   []Store{Maildir},
	keyMode:  0o600,
	prepare:  prepareNginx,
	command:  func(*Server) []string { return []string{"sh", "/srv/conf/nginx.sh"} },
	ready: func(ctx context.Context, s *Server) error {
		dialBackend := func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp4", s.backendAddr())
		}
		if err := checkGreeting(ctx, dialBackend); err != nil {
			return err
		}
		return portsReady(ctx, s)
	},
}

func prepareNginx(_ context.Context, s *Server) error {
	backend := map[string]any{"Port": s.ports[2], "TLSPort": 0}
	if err := s.prepareDovecot(backend); err != nil {
		return err
	}
	var logins []string // names and passwords in the encoding of nginx
	for _, a := range accounts() {
		logins = append(logins, a.Name+" "+url.PathEscape(a.Password))
	}
	if err := s.render("nginx.sh", "srv/conf/nginx.sh", nil); err != nil {
		return err
	}
	return s.render("nginx.conf", "srv/conf/nginx.conf", map[string]any{"Logins": logins})
}
