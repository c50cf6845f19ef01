//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// An otherProgram is a program that users replace by popfetch.
type otherProgram struct {
	program, title string // name of the program, and heading of its section in MOVING.md
	config         string // name of the program's configuration file in the home folder
	command        string // the command that fetches
	record         string // name of the file with the messages that the program has fetched
}

var otherPrograms = []otherProgram{
	{"mpop", "From mpop", ".mpoprc", "mpop --quiet me", ".mpop_uidls/me_at_localhost"},
	{"getmail", "From getmail6", ".getmail/getmailrc", "getmail --quiet", ".getmail/oldmail-localhost-PORT-me"},
	{"fetchmail", "From fetchmail", ".fetchmailrc", "fetchmail --silent --nodetach", ".fetchids"},
}

// codeBlock returns the first code block after a heading of MOVING.md.
func codeBlock(t *testing.T, title string) string {
	t.Helper()
	text, err := os.ReadFile("MOVING.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(text), title+"\n")
	require.True(t, ok, title)
	return regexp.MustCompile("(?s)```(?:toml)?\n(.*?)\n *```").FindStringSubmatch(rest)[1]
}

// A home is a home folder with the configurations of MOVING.md, which are changed to use the server of the test.
type home struct {
	*workspace
	srv *pop3test.Server
	dir string
}

// newHome makes a home folder. If the test runs as root, the folder belongs to the user nobody, because getmail does
// not deliver mail as root.
func newHome(t *testing.T, m otherProgram) *home {
	t.Helper()
	if _, err := exec.LookPath(m.program); err != nil {
		t.Skipf("NOT RUN: %s is not installed (apt-get install mpop getmail6 fetchmail)", m.program)
	}
	me := &pop3test.Mailbox{User: "me", Password: "secret", Messages: newMessages("one", "two", "three"),
		UIDs: []string{"a1", "b/2", "c<3>"}}
	h := &home{workspace: newWorkspace(t), srv: pop3test.NewTLSServer(me)}
	t.Cleanup(h.srv.Close)
	h.dir = h.workspace.dir
	port := h.srv.Addr[strings.LastIndex(h.srv.Addr, ":")+1:]
	substitute := strings.NewReplacer(" 995", " "+port, "pop.example.org", "localhost", "~/", h.dir+"/",
		"/etc/ssl/certs/ca-certificates.crt", h.writeCA(h.srv), "/usr/bin/procmail -d %T", "/bin/cat")
	for _, folder := range []string{"cur", "new", "tmp"} {
		require.NoError(t, os.MkdirAll(filepath.Join(h.dir, "Maildir", folder), 0o700))
	}
	account := strings.ReplaceAll(strings.ReplaceAll(codeBlock(t, "become the same account:"), "\n   ", "\n"),
		`"pop.example.org"`, fmt.Sprintf("%q\n%s", "localhost:"+port, h.trustLine(h.srv)))
	for name, text := range map[string]string{
		m.config:                       substitute.Replace(codeBlock(t, "## "+m.title)),
		".config/popfetch/config.toml": substitute.Replace(account),
	} {
		name = filepath.Join(h.dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(text+"\n"), 0o600))
	}
	self, err := os.Executable()
	require.NoError(t, err)
	script := fmt.Sprintf("#!/bin/sh\n%s=1 GORACE=atexit_sleep_ms=0 exec %s \"$@\"\n", envMain,
		filepath.Join(h.dir, "self"))
	require.NoError(t, exec.CommandContext(t.Context(), "cp", self, filepath.Join(h.dir, "self")).Run())
	require.NoError(t, os.WriteFile(filepath.Join(h.dir, "popfetch"), []byte(script), 0o755))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chmod(filepath.Dir(h.dir), 0o711))
		require.NoError(t, exec.CommandContext(t.Context(), "chown", "-R", "65534:65534", h.dir).Run())
	}
	return h
}

// shell returns a shell command that runs as the owner of the home folder.
func (h *home) shell(command string) *exec.Cmd {
	cmd := exec.CommandContext(h.t.Context(), "sh", "-c", command)
	cmd.Dir = h.dir
	cmd.Env = []string{"HOME=" + h.dir, "PATH=" + h.dir + ":" + os.Getenv("PATH"), "TERM=xterm-256color",
		"LC_ALL=C.UTF-8"}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

// fetchWith runs the other program until it succeeds. Several attempts may be needed, because getmail sometimes does
// not notice that its child has ended.
func (h *home) fetchWith(m otherProgram) {
	h.t.Helper()
	var out []byte
	var err error
	for range 5 {
		if out, err = h.shell("timeout 20 " + m.command).CombinedOutput(); err == nil {
			return
		}
	}
	require.NoError(h.t, err, "%s", out)
}

// After the import, popfetch fetches new mail, but not the mail that the other program has fetched.
func TestMoving(t *testing.T) {
	for _, m := range otherPrograms {
		t.Run(m.program, func(t *testing.T) {
			h := newHome(t, m)
			h.fetchWith(m)
			record := strings.ReplaceAll(m.record, "PORT", h.srv.Addr[strings.LastIndex(h.srv.Addr, ":")+1:])
			out, err := h.shell("popfetch import --from " + m.program + " ~/" + record + " me").CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Equal(t, "me: 3 messages marked as fetched, 0 to be fetched, 0 known before\n", string(out))
			h.srv.Deliver("me", newMessages("four")...)
			out, err = h.shell("popfetch").CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Equal(t, "me: 1 new, 32 bytes\n", string(out))
			assert.Len(t, h.srv.Left("me"), 4)
		})
	}
}

// This test records the pictures of MOVING.md.
func TestMovingInATerminal(t *testing.T) {
	for _, m := range otherPrograms {
		t.Run(m.program, func(t *testing.T) {
			h := newHome(t, m)
			record := strings.ReplaceAll(m.record, "PORT", h.srv.Addr[strings.LastIndex(h.srv.Addr, ":")+1:])
			h.srv.Deliver("me", newMessages("four")...)
			h.fetchWith(m)
			for _, header := range []string{"From: Ann <ann@example.org>\r\nSubject: Lunch?",
				"From: Bob\r\nSubject: Re: Lunch?"} {
				h.srv.Deliver("me", []byte(header+"\r\n\r\n"+strings.Repeat("Yes, at noon.\r\n", 50)))
			}
			script := ""
			for _, command := range []string{"popfetch import --from " + m.program + " ~/" +
				record + " me",
				"popfetch --dry-run", "popfetch"} {
				script += fmt.Sprintf("echo '$ %s'; %s; ", command, command)
			}
			s := startInTerminal(t, h.shell(script), 16, "$ "+m.command)
			status, screen := s.waitForExit()
			assert.Equal(t, exitDone, status)
			assert.Contains(t, screen, "me: 4 messages marked as fetched, 2 to be fetched, 0 known before")
			assert.Contains(t, screen, "me   ✓ 2 new")
			s.draw("moving-"+m.program+".svg", "A person moves from "+m.program)
		})
	}
}

// readOldUIDs reads every form of the files of the other programs.
func TestReadOldUIDs(t *testing.T) {
	for _, tt := range []struct{ name, from, text, want, err string }{
		{"mpop, two maildrops", "mpop", "# mpop\n#\n 1 other.example me\nx\n 2 pop.example.org me\na\nb c\n", "a|b c",
			""},
		{"mpop, a unique-id like a comment", "mpop", "# mpop\n 2 pop.example.org me\n#a\nb\n", "#a|b", ""},
		{"mpop, another host", "mpop", " 1 other.example me\nx\n", "",
			"has no unique-ids of me@pop.example.org, only of me@other.example"},
		{"mpop, empty", "mpop", "# mpop\n", "", "has no unique-ids; with --from mpop, the file must be the uidls_file"},
		{"getmail", "getmail", "a\x001795954692\nb c\x00123\nbroken\n", "a|b c", ""},
		{"getmail, the wrong file", "getmail", "[retriever]\n", "",
			"with --from getmail, the file must be the oldmail file"},
		{"fetchmail", "fetchmail", "me@pop.example.org a\nyou@pop.example.org x\nme@POP.example.org b\n", "a", ""},
		{"fetchmail, an address for a user", "fetchmail", "me@a@pop.example.org x\n", "",
			"only of me@a@pop.example.org"},
		{"escapes", "fetchmail", "\x1b[2J@h x\n", "", "only of [2J@h"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "old")
			require.NoError(t, os.WriteFile(file, []byte(tt.text), 0o600))
			o := &options{importFrom: tt.from, importFile: file}
			got, err := o.readOldUIDs(&account{settings: settings{Server: "pop.example.org:995", User: "me"}})
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			want := make(map[string]bool)
			for uid := range strings.SplitSeq(tt.want, "|") {
				want[uid] = true
			}
			assert.Equal(t, want, got)
		})
	}
}

// catch-up marks all messages as fetched. An import of a file for another maildrop fails.
func TestCatchUp(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one", "two")...))
	defer srv.Close()
	p := newWorkspace(t)
	config := p.configure(p.account(srv, "ann", `delete = "after delivery"`))
	ids := p.path("ids")
	require.NoError(t, os.WriteFile(ids, []byte("ann@127.0.0.1 other\n"), 0o600))
	r := p.run("-c", config, "import", "--from", "fetchmail", ids, "ann")
	assert.Equal(t, result{exitFailed, "",
		"popfetch: ann: none of the 2 new messages on the server is marked as fetched: " +
			"their unique-ids are not in the file\n"}, r)
	assert.Equal(t, result{exitDone, "ann: 2 messages marked as fetched, 0 to be fetched, 0 known before\n", ""},
		p.run("-c", config, "catch-up", "ann"))
	srv.Deliver("ann", newMessages("three")...)
	r = p.run("-c", config)
	assert.Equal(t, exitDone, r.status, r.err)
	assert.Equal(t, withLF(newMessages("three")), p.stored("ann"))
	assert.Len(t, srv.Left("ann"), 2, "popfetch does not delete messages that it has not stored")
}
