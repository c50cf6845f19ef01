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

// startDovecot starts Dovecot, or skips the test as the mode of the run says. ca is the file with its authority.
func startDovecot(t *testing.T) (s *interop.Server, ca string) {
	t.Helper()
	mode := interop.CurrentMode()
	if mode == interop.ModeOff {
		t.Skipf("NOT RUN: it needs a real server; as root on Debian 12: %s=on go test .", interop.EnvMode)
	}
	dir := t.TempDir()
	s, err := interop.Start(t.Context(), interop.Dovecot, dir, nil)
	if mode == interop.ModeOn && errors.Is(err, interop.ErrUnavailable) {
		t.Skipf("NOT RUN: %v (with %s=require this is a failure)", err, interop.EnvMode)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	files, err := filepath.Glob(filepath.Join(dir, "*", "srv", "tls", "ca.crt"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return s, files[0]
}

// The life of a maildrop on Dovecot, with each way to encrypt the connection and each sink.
func TestDovecot(t *testing.T) {
	s, ca := startDovecot(t)
	p := newPlace(t)
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
	for _, want := range []string{"Dovecot", "trusted, and it fits", "PLAIN", "pipelining     yes"} {
		assert.Contains(t, r.out, want)
	}
	assert.NotContains(t, r.out, "NOT TRUSTED")
}
