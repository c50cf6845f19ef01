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

// check checks the keys of an account that depend on each other. If the account has no name, check sets one.
func (r *reader) check(s *settings) {
	t := s.merged
	if s.Name == "" {
		s.Name = s.User
	}
	r.checkServer(s)
	if _, ok := t.values["user"]; !ok {
		r.mistake(t, "", `no user; add the name to log in with, as in user = "me@example.org"`)
	}
	r.checkMechanisms(s)
	if !s.externalOnly() {
		r.checkOne(t, passwordKeys, "password")
	}
	r.checkOne(t, sinkKeys, "destination")
	if s.Mbox != "" && s.LineEnds == "crlf" {
		r.mistake(t, "line_ends", `lines of an mbox file end in LF; remove line_ends = "crlf"`)
	}
	if (s.ClientCertificate == "") != (s.ClientKey == "") {
		r.mistake(t, "client_certificate", "client_certificate and client_key must both be set")
	}
	if s.InsecureAuth && s.TLS != tlsNone && len(s.own.present([]string{"insecure_auth"})) > 0 {
		r.mistake(t, "insecure_auth", `insecure_auth needs tls = "none"`)
	}
	r.checkTLS(s)
	if s.Recipient != "" && s.LMTP.addr == "" {
		r.mistake(t, "recipient", "recipient can be used with lmtp only")
	}
}

// mechanismNames are the names that [pop3.Options] allows, and the names of mechanisms that need no password.
var mechanismNames = strings.Fields("SCRAM-SHA-512-PLUS SCRAM-SHA-512 SCRAM-SHA-256-PLUS SCRAM-SHA-256 " +
	"SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN LOGIN USER CRAM-MD5 APOP XOAUTH2 OAUTHBEARER EXTERNAL")

// checkMechanisms adds a mistake for each mechanism that is unknown or cannot be used.
func (r *reader) checkMechanisms(s *settings) {
	for i, name := range s.Mechanisms {
		word, err := oneOf(mechanismNames, name)
		switch {
		case err != nil:
			r.mistake(s.merged, "mechanisms", "mechanisms has %q; each name is %v", name, err)
		case len(s.Mechanisms) > 1 && slices.Contains([]string{"XOAUTH2", "OAUTHBEARER", "EXTERNAL"}, word):
			r.mistake(s.merged, "mechanisms", "%s must be the only one in mechanisms: it takes no password", word)
		case word == "EXTERNAL" && s.ClientCertificate == "":
			r.mistake(s.merged, "mechanisms", "EXTERNAL needs client_certificate and client_key")
		default:
			s.Mechanisms[i] = word
		}
	}
}

// checkServer adds a mistake if the server is neither a host nor host:port.
func (r *reader) checkServer(s *settings) {
	host, port, err := net.SplitHostPort(s.Server)
	if err != nil {
		host, port = s.Server, ""
	}
	n, portErr := strconv.Atoi(port)
	switch {
	case s.Server == "":
		if _, ok := s.merged.values["server"]; !ok {
			r.mistake(s.merged, "", `no server; add its name, as in server = "pop.example.org"`)
		}
	case strings.Contains(s.Server, "://"):
		r.mistake(s.merged, "server", `server is a host, not a URL, as in "pop.example.org" or "pop.example.org:995"`)
	case host == "" || strings.ContainsAny(host, " \t/@,") || strings.Count(host, ":") == 1 && err != nil:
		r.mistake(s.merged, "server", `server is a host, as in "pop.example.org" or "pop.example.org:995"`)
	case err == nil && (portErr != nil || n < 1 || n > 65535):
		r.mistake(s.merged, "server", "the port of server is a number from 1 to 65535, not %q", port)
	}
}

// checkTLS adds a mistake for each key about TLS in an account without TLS.
func (r *reader) checkTLS(s *settings) {
	if s.TLS != tlsNone {
		return
	}
	for _, key := range s.own.present([]string{"tls_min", "ca_file", "fingerprint", "certificate_name",
		"client_certificate"}) {
		r.mistake(s.merged, key, `%s has no effect with tls = "none"`, key)
	}
}

// checkOne adds a mistake if a table does not have exactly one of keys. The mistake uses the word kind for these keys,
// such as "password".
func (r *reader) checkOne(t table, keys []string, kind string) {
	switch present := t.present(keys); len(present) {
	case 0:
		r.mistake(t, "", "no %s; add one of %s", kind, strings.Join(keys, ", "))
	case 1:
	default:
		r.mistake(t, present[1], "more than one %s: %s; keep one of them", kind, strings.Join(present, " and "))
	}
}

// checkNames adds a mistake if two accounts have the same name or the same maildrop.
func (r *reader) checkNames(accounts []settings) {
	names, keys := make(map[string]bool), make(map[string]string)
	for i := range accounts {
		s := &accounts[i]
		if names[s.Name] && s.Name != "" {
			r.mistake(s.merged, "", "two accounts have this name; give each account a name of its own")
		} else if other, ok := keys[s.key()]; ok && s.User != "" && s.Server != "" {
			r.mistake(s.merged, "", "account %q has the same maildrop; remove one of them", other)
		}
		names[s.Name], keys[s.key()] = true, s.Name
	}
}

// checkMode adds a mistake if other users can write to the configuration file, because popfetch runs the commands in
// it. It also adds a mistake if the file contains a password and other users can read it. Windows has no such file
// modes.
func (c *config) checkMode(r *reader, file string) {
	if runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(file)
	folder, folderErr := os.Stat(filepath.Dir(file))
	if err != nil || folderErr != nil {
		return // the file was removed after it was read
	}
	mode, folderMode := info.Mode().Perm(), folder.Mode()
	hasPassword := func(s settings) bool { return s.Password != "" || s.Proxy.hasPassword() }
	switch {
	case mode&0o022 != 0 && mode.IsRegular():
		r.mistake(table{}, "",
			"other users can write to it, and can so make popfetch run commands (mode %o); run chmod go-w", mode)
	case folderMode.Perm()&0o002 != 0 && folderMode&os.ModeSticky == 0:
		r.mistake(table{}, "",
			"other users can replace it, because they can write to the folder %s; run chmod o-w on the folder",
			filepath.Dir(file))
	case slices.ContainsFunc(c.accounts, hasPassword) && mode&0o077 != 0:
		r.mistake(table{}, "", "it contains a password, and other users can read it (mode %o); "+
			"run chmod 600, or use password_command", mode)
	}
}

// choose returns the accounts with the given names, or all accounts if no name is given.
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
			hint := "; it has " + strings.Join(known, ", ")
			if near := nearest(name, known); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			return nil, fmt.Errorf("no account %q in the configuration%s", name, hint)
		}
	}
	return slices.DeleteFunc(accounts, func(a *account) bool { return !slices.Contains(names, a.Name) }), nil
}
