package interop

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
)

// dovecotSpec runs Dovecot 2.3 with users of its own and with every mechanism that Dovecot supports. Dovecot checks
// tokens without an authorization server.
var dovecotSpec = spec{
	packages:  []string{"dovecot-pop3d", "dovecot-core", "dovecot-lmtpd"},
	cacheForm: "2",
	stores:    []Store{Maildir, Mbox},
	keyMode:   0o600,
	prepare:   func(_ context.Context, s *Server) error { return s.prepareDovecot(nil) },
	command: func(*Server) []string {
		return []string{"/usr/sbin/dovecot", "-F", "-c", "/srv/conf/dovecot.conf"}
	},
}

const dovecotOAuth = `introspection_mode = local
local_validation_key_dict = fs:posix:prefix=/srv/conf/keys/
username_attribute = sub
openid_configuration_url = https://localhost/.well-known/openid-configuration
`

// prepareDovecot writes Dovecot's configuration and store. If Dovecot is the backend of another server, extra sets
// other ports.
func (s *Server) prepareDovecot(extra map[string]any) error {
	if err := s.writeEtc(home, "dovecot", "dovenull"); err != nil {
		return err
	}
	if err := s.fill(oneOwner); err != nil {
		return err
	}
	var users strings.Builder
	for _, a := range accounts() {
		fmt.Fprintf(&users, "%s:{PLAIN}%s\n", a.Name, a.Password)
	}
	files := map[string]string{
		"srv/conf/passwd":      users.String(),
		"srv/conf/oauth2.conf": dovecotOAuth,
		// Dovecot expects the key in base64.
		"srv/conf/keys/default/HS256/default": base64.StdEncoding.EncodeToString([]byte(tokenSecret)),
	}
	for name, text := range files {
		if err := s.write(name, text, os644); err != nil {
			return err
		}
	}
	location := "maildir:/srv/mail/%u/Maildir"
	if s.opts.Store == Mbox {
		location = "mbox:/srv/mail/%u.d:INBOX=/srv/mail/%u"
	}
	values := map[string]any{
		"Location": location, "FailureDelay": fmt.Sprintf("%d secs", int(s.opts.FailureDelay.Seconds())),
	}
	maps.Copy(values, extra)
	return s.render("dovecot.conf", "srv/conf/dovecot.conf", values)
}
