package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// startDovecot starts Dovecot. If Dovecot is not available, the mode decides whether the test is skipped or fails. The
// result ca is the file with the authority of Dovecot's certificate. The result run is the folder with its sockets.
func startDovecot(t *testing.T, conf string) (s *interop.Server, ca, run string) {
	t.Helper()
	mode := interop.CurrentMode()
	if mode == interop.ModeOff {
		t.Skipf("NOT RUN: it needs a real server; as root on Debian 12: %s=on go test .", interop.EnvMode)
	}
	dir := t.TempDir()
	s, err := interop.Start(t.Context(), interop.Dovecot, dir, &interop.Options{Conf: conf})
	if mode == interop.ModeOn && errors.Is(err, interop.ErrUnavailable) {
		t.Skipf("NOT RUN: %v (with %s=require this is a failure)", err, interop.EnvMode)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Log())
		}
		assert.NoError(t, s.Stop())
	})
	folders, err := filepath.Glob(filepath.Join(dir, "*", "srv"))
	require.NoError(t, err)
	require.Len(t, folders, 1)
	return s, filepath.Join(folders[0], "tls", "ca.crt"), filepath.Join(folders[0], "run")
}

// Messages are delivered, kept and deleted on Dovecot, with each kind of encryption and each kind of destination.
func TestDovecot(t *testing.T) {
	s, ca, _ := startDovecot(t, "")
	p := newWorkspace(t)
	account := func(user, addr, tls, sink string) string {
		trust := fmt.Sprintf("ca_file = %q", ca)
		if tls == "none" {
			trust = ""
		}
		return fmt.Sprintf("[[account]]\nserver = %q\ntls = %q\n%s\nuser = %q\n"+
			"password_env = \"POPFETCH_TEST_PASSWORD\"\n%s\ndelete = \"after delivery\"\n",
			addr, tls, trust, user, sink)
	}
	one, two, three := s.Spare(), s.Spare(), s.Spare()
	t.Setenv("POPFETCH_TEST_PASSWORD", one.Password)
	config := p.configure(
		account(one.Name, s.TLSAddr, "implicit", fmt.Sprintf("maildir = %q", p.path("m"))),
		account(two.Name, s.Addr, "starttls", fmt.Sprintf("mbox = %q", p.path("box"))),
		account(three.Name, s.Addr, "none",
			fmt.Sprintf("command = [\"sh\", \"-c\", \"cat >> $0\", %q]", p.path("all"))),
	)
	r := p.run("-c", config)
	assert.Equal(t, exitDone, r.status, r)
	for _, a := range []interop.Account{one, two, three} {
		assert.Regexp(t, a.Name+": 5 new, .*, 5 deleted\n", r.out)
	}
	assert.NotContains(t, r.out+r.err, one.Password)
	assert.Len(t, p.stored("m"), 5)
	all, err := os.ReadFile(p.path("all"))
	require.NoError(t, err)
	for _, m := range p.stored("m") {
		assert.Contains(t, string(all), m)
	}
	r = p.run("-c", config)
	assert.Equal(t, 3, strings.Count(r.out, ": nothing new\n"), r)

	r = p.run("--diagnose", s.TLSAddr, "--ca-file", ca)
	assert.Equal(t, exitDone, r.status)
	for _, want := range []string{"Dovecot", "trusted, and valid for the name", "PLAIN", "pipelining     yes"} {
		assert.Contains(t, r.out, want)
	}
	assert.NotContains(t, r.out, "NOT TRUSTED")
}

const lmtpConf = `
protocols = pop3 lmtp
service lmtp {
  unix_listener lmtp {
    mode = 0666
  }
}
passdb {
  # the other databases are for logins with certain mechanisms, and a delivery has no mechanism
  driver = passwd-file
  args = username_format=%n /srv/conf/passwd
}
`

// popfetch delivers messages to Dovecot by LMTP. The messages are unchanged when they are fetched again. A message for
// an unknown user stays on the server, because the configuration may name a wrong recipient.
func TestDovecotLMTP(t *testing.T) {
	s, _, run := startDovecot(t, lmtpConf)
	p := newWorkspace(t)
	sender, receiver := s.Spare(), s.Spare()
	t.Setenv("POPFETCH_TEST_PASSWORD", sender.Password)
	t.Setenv("POPFETCH_TEST_OTHER", receiver.Password)
	account := func(name, user, password, sink string) string {
		return fmt.Sprintf("[[account]]\nname = %q\nserver = %q\ntls = \"none\"\nuser = %q\npassword_env = %q\n"+
			"delete = \"after delivery\"\n%s\n", name, s.Addr, user, password, sink)
	}
	socket := filepath.Join(run, "lmtp")
	lmtp := func(recipient string) string { return fmt.Sprintf("lmtp = %q\nrecipient = %q", socket, recipient) }
	send := func(recipient string) string {
		return p.configure(account("from", sender.Name, "POPFETCH_TEST_PASSWORD", lmtp(recipient)))
	}
	maildir := fmt.Sprintf("maildir = %q", p.path("m"))
	empty := p.configure(account("to", receiver.Name, "POPFETCH_TEST_OTHER", maildir))
	require.Equal(t, exitDone, p.run("-c", empty).status)
	before := p.stored("m")

	r := p.run("-c", send("nobody-of-that-name"))
	assert.Equal(t, exitFailed, r.status, r)
	assert.Contains(t, r.err, "550")
	r = p.run("-c", send(receiver.Name))
	assert.Equal(t, exitDone, r.status, r)
	assert.Regexp(t, "^from: 5 new, .*, 5 deleted\n$", r.out)
	r = p.run("-c", p.configure(account("to", receiver.Name, "POPFETCH_TEST_OTHER", maildir)))
	assert.Equal(t, exitDone, r.status, r)
	after := p.stored("m")
	assert.Len(t, after, len(before)+5)
	for _, m := range before {
		added := 0
		for _, stored := range after {
			// Dovecot adds Return-Path, Delivered-To and Received at the top
			if stored != m && strings.HasSuffix(stored, m) {
				added++
			}
		}
		assert.Equal(t, 1, added, "%.100q", m)
	}
}
