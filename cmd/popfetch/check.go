package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// check fills in what was left out of an account, and finds the mistakes that are not in one value.
func (r *reader) check(s *settings) {
	t := s.where
	if s.Name == "" {
		s.Name = s.User
	}
	r.checkServer(s)
	if _, ok := t.values["user"]; !ok {
		r.mistake(t, "", `no user; write the name to log in with, as in user = "me@example.org"`)
	}
	r.checkMechanisms(s)
	if !s.externalOnly() {
		r.checkOne(t, passwordKeys, "password")
	}
	r.checkOne(t, sinkKeys, "destination")
	if s.Mbox != "" && s.LineEnds == "crlf" {
		r.mistake(t, "line_ends", `lines of an mbox file end in LF; take line_ends = "crlf" away`)
	}
	if (s.ClientCertificate == "") != (s.ClientKey == "") {
		r.mistake(t, "client_certificate", "client_certificate and client_key go together")
	}
	if s.InsecureAuth && s.TLS != tlsNone && len(s.own.has([]string{"insecure_auth"})) > 0 {
		r.mistake(t, "insecure_auth", `insecure_auth is for tls = "none"`)
	}
	r.checkTLS(s)
	if s.Recipient != "" && s.LMTP.addr == "" {
		r.mistake(t, "recipient", "recipient is for lmtp")
	}
}

// mechanismNames are those of [pop3.Options], and those that take something else than a password.
var mechanismNames = strings.Fields("SCRAM-SHA-512-PLUS SCRAM-SHA-512 SCRAM-SHA-256-PLUS SCRAM-SHA-256 " +
	"SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN LOGIN USER CRAM-MD5 APOP XOAUTH2 OAUTHBEARER EXTERNAL")

// checkMechanisms finds ways to log in that are unknown, or miss something.
func (r *reader) checkMechanisms(s *settings) {
	for i, name := range s.Mechanisms {
		word, err := oneOf(mechanismNames, name)
		switch {
		case err != nil:
			r.mistake(s.where, "mechanisms", "mechanisms has %q, and each of them is %v", name, err)
		case len(s.Mechanisms) > 1 && slices.Contains([]string{"XOAUTH2", "OAUTHBEARER", "EXTERNAL"}, word):
			r.mistake(s.where, "mechanisms", "%s stands alone in mechanisms, since it takes no password", word)
		case word == "EXTERNAL" && s.ClientCertificate == "":
			r.mistake(s.where, "mechanisms", "EXTERNAL needs client_certificate and client_key")
		default:
			s.Mechanisms[i] = word
		}
	}
}

// checkServer finds what is no host and no host:port.
func (r *reader) checkServer(s *settings) {
	host, port, err := net.SplitHostPort(s.Server)
	if err != nil {
		host, port = s.Server, ""
	}
	n, portErr := strconv.Atoi(port)
	switch {
	case s.Server == "":
		if _, ok := s.where.values["server"]; !ok {
			r.mistake(s.where, "", `no server; write its name, as in server = "pop.example.org"`)
		}
	case strings.Contains(s.Server, "://"):
		r.mistake(s.where, "server", `server is a host and not a URL, as in "pop.example.org" or "pop.example.org:995"`)
	case host == "" || strings.ContainsAny(host, " \t/@,") || strings.Count(host, ":") == 1 && err != nil:
		r.mistake(s.where, "server", `server is a host, as in "pop.example.org" or "pop.example.org:995"`)
	case err == nil && (portErr != nil || n < 1 || n > 65535):
		r.mistake(s.where, "server", "the port of server is a number from 1 to 65535, and not %q", port)
	}
}

// checkTLS finds keys about TLS in an account that has none.
func (r *reader) checkTLS(s *settings) {
	if s.TLS != tlsNone {
		return
	}
	for _, key := range s.own.has([]string{"tls_min", "ca_file", "fingerprint", "certificate_name",
		"client_certificate"}) {
		r.mistake(s.where, key, `%s has no effect with tls = "none"`, key)
	}
}

// checkOne wants one of the keys, which say what the account's password or destination is.
func (r *reader) checkOne(t table, keys []string, what string) {
	switch has := t.has(keys); len(has) {
	case 0:
		r.mistake(t, "", "no %s; it needs one of %s", what, strings.Join(keys, ", "))
	case 1:
	default:
		r.mistake(t, has[1], "there is more than one %s: %s; keep one of them", what, strings.Join(has, " and "))
	}
}

// checkNames finds names, and maildrops, that are there twice.
func (r *reader) checkNames(accounts []settings) {
	names, keys := make(map[string]bool), make(map[string]string)
	for i := range accounts {
		s := &accounts[i]
		if names[s.Name] && s.Name != "" {
			r.mistake(s.where, "", "there are two accounts of this name; give each one a name of its own")
		} else if other, ok := keys[s.key()]; ok && s.User != "" && s.Server != "" {
			r.mistake(s.where, "", "it is the same maildrop as account %q; remove one of them", other)
		}
		names[s.Name], keys[s.key()] = true, s.Name
	}
}

// checkMode refuses a file that others may write, since it names commands that are run, and a file with a password
// that others may read. Windows has no such mode.
func (c *config) checkMode(r *reader, file string) {
	if runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(file)
	folder, folderErr := os.Stat(filepath.Dir(file))
	if err != nil || folderErr != nil {
		return // it was read a moment ago
	}
	mode, folderMode := info.Mode().Perm(), folder.Mode()
	hasPassword := func(s settings) bool { return s.Password != "" || s.Proxy.hasPassword() }
	switch {
	case mode&0o022 != 0 && mode.IsRegular():
		r.mistake(table{}, "", "others may change it, and so let popfetch run commands (mode %o); run chmod go-w", mode)
	case folderMode.Perm()&0o002 != 0 && folderMode&os.ModeSticky == 0:
		r.mistake(table{}, "",
			"others may replace it, since they may write to the folder %s; run chmod o-w on the folder",
			filepath.Dir(file))
	case slices.ContainsFunc(c.accounts, hasPassword) && mode&0o077 != 0:
		r.mistake(table{}, "", "there is a password in it, and others may read it (mode %o); "+
			"run chmod 600, or use password_command", mode)
	}
}

// choose returns the accounts with the given names, all of them if there are none.
func choose(accounts []*account, names []string) ([]*account, error) {
	if len(names) == 0 {
		return accounts, nil
	}
	var known []string
	for _, a := range accounts {
		known = append(known, a.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			hint := ", which has " + strings.Join(known, ", ")
			if near := nearest(name, known); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			return nil, fmt.Errorf("no account %q in the configuration%s", name, hint)
		}
	}
	return slices.DeleteFunc(accounts, func(a *account) bool { return !slices.Contains(names, a.Name) }), nil
}
