//go:build unix

package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

var update = flag.Bool("update", false, "draw the pictures of the README again")

// A session is a command that runs in a terminal.
type session struct {
	t           *testing.T
	screen      vt10x.Terminal
	cmd         *exec.Cmd
	keyboard    *os.File
	done        chan struct{} // closed when all output was read
	mu          sync.Mutex
	partialRune []byte   // an incomplete character at the end of the output
	frames      []string // the screen after each piece of output
	output      []byte
}

const columns = 96

// startInTerminal starts a command in a terminal. The first row shows prompt, as if a user had typed the command.
func startInTerminal(t *testing.T, cmd *exec.Cmd, rows int, prompt string) *session {
	t.Helper()
	s := &session{t: t, screen: vt10x.New(vt10x.WithSize(columns, rows)), cmd: cmd, done: make(chan struct{})}
	s.screen.Write([]byte(prompt + "\r\n"))
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: uint16(rows), Cols: columns})
	require.NoError(t, err)
	s.keyboard = terminal
	go func() {
		defer close(s.done)
		defer terminal.Close()
		io.Copy(s, terminal) // Copy returns the error EIO when the command has ended
	}()
	return s
}

// Write receives the output of the command. It passes only complete characters to the screen.
func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames, s.output = append(s.frames, s.text()), append(s.output, p...)
	output := append(s.partialRune, p...)
	n := wholeRunes(output)
	s.partialRune = output[n:]
	_, err := s.screen.Write(output[:n])
	return len(p), err
}

// wholeRunes returns the length of the output without an incomplete character at its end.
func wholeRunes(output []byte) int {
	for i := len(output) - 1; i >= max(0, len(output)-utf8.UTFMax); i-- {
		if utf8.RuneStart(output[i]) {
			if utf8.FullRune(output[i:]) {
				break
			}
			return i
		}
	}
	return len(output)
}

// The screen is the same wherever the output is cut into pieces.
func TestOutputCutWithinARune(t *testing.T) {
	const output = "ann   ━━╸─── ✓ 30 new 𝄞"
	for at := range len(output) {
		s := &session{screen: vt10x.New(vt10x.WithSize(columns, 1))}
		for _, piece := range []string{output[:at], output[at:]} {
			n, err := s.Write([]byte(piece))
			require.NoError(t, err)
			assert.Len(t, piece, n)
		}
		assert.Equal(t, output, s.text(), "cut at %d", at)
	}
}

// text returns the rows of the screen.
func (s *session) text() string {
	var rows []string
	_, height := s.screen.Size()
	for y := range height {
		rows = append(rows, rowText(s.screen, y))
	}
	return strings.TrimRight(strings.Join(rows, "\n"), "\n")
}

// waitForScreen waits until the screen matches pattern.
func (s *session) waitForScreen(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	defer func() {
		if s.t.Failed() {
			s.t.Log("frames:\n" + strings.Join(s.frames, "\n\n"))
		}
	}()
	require.Eventually(s.t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return re.MatchString(s.text())
	}, 20*time.Second, 5*time.Millisecond, pattern)
}

// draw writes a picture of the screen to a file if the test runs with -update.
func (s *session) draw(file, title string) {
	s.t.Helper()
	if !*update {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NoError(s.t, os.WriteFile(file, drawScreen(s.screen, title), 0o644))
}

// waitForExit waits for the end of the command, and returns the exit status and the last screen.
func (s *session) waitForExit() (int, string) {
	s.t.Helper()
	<-s.done
	s.cmd.Wait() // the exit status is read from ProcessState
	return s.cmd.ProcessState.ExitCode(), s.text()
}

// A terminal shows four accounts at the same time. One is slow, one has few messages, one has no messages, and one
// fails.
func TestTerminal(t *testing.T) {
	work := pop3test.NewServer(mailbox("work", numberedMessages(40, 50_000)...))
	defer work.Close()
	work.SetFaults(pop3test.Fault{At: "RETR", Chunk: 10_000, Pace: 10 * time.Millisecond})
	home := pop3test.NewServer(mailbox("home", numberedMessages(12, 9_000)...), mailbox("lists"))
	defer home.Close()
	broken := pop3test.NewTLSServer(mailbox("club"))
	defer broken.Close()
	p := newWorkspace(t)
	config := p.configure(p.account(work, "work"), p.account(home, "home", `delete = "after delivery"`),
		p.account(home, "lists"), p.account(broken, "club", `tls = "implicit"`))
	s := startInTerminal(t, p.command("-c", config), 9, "$ popfetch")
	s.waitForScreen(`work +━+╸─+ +[123]\d/40  .* of 2\.\d MB  .*/s`)
	s.draw("popfetch.svg", "popfetch fetches from four accounts at once")
	status, screen := s.waitForExit()
	assert.Equal(t, exitFailed, status)
	assert.Regexp(t, `^\$ popfetch
work    ✓ 40 new, 2\.\d MB
home    ✓ 12 new, 10\d\.\d kB, 12 deleted
lists   ✓ nothing new
club    ✗ connecting: .*…
club: connecting: (?s:.*certificate\s+signed by unknown authority.*)\)$`, screen)
	assert.Len(t, p.stored("work"), 40)
	p.checkNoPassword(result{out: strings.Join(s.frames, "\n")})
}

// With --verbose there are no bars, so no line of the log is overwritten.
func TestVerboseInATerminal(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", numberedMessages(30, 2_000)...), mailbox("bob"))
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR", Delay: 10 * time.Millisecond})
	p, noTerminal := newWorkspace(t), newWorkspace(t)
	s := startInTerminal(t, p.command("-v", "-c", p.configure(p.account(srv, "ann"), p.account(srv, "bob"))), 600, "")
	status, screen := s.waitForExit()
	assert.Equal(t, exitDone, status)
	assert.Regexp(t, `level=DEBUG.*
ann: 30 new, `, screen)
	assert.NotContains(t, screen, "━")
	config := noTerminal.configure(noTerminal.account(srv, "ann"), noTerminal.account(srv, "bob"))
	r := noTerminal.run("-v", "-c", config)
	assert.Equal(t, strings.Count(r.err, "level=DEBUG"), strings.Count(screen, "level=DEBUG"))
	p.checkNoPassword(result{out: strings.Join(s.frames, "\n")})
}

// Without a terminal there are no bars and no escape sequences.
func TestOutputWithoutTerminal(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	cmd := p.command("-c", p.configure(p.account(srv, "ann")))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err)
	assert.Equal(t, "ann: 1 new, 30 bytes\n", string(out))
	assert.Empty(t, errs.String())
}

// When Ctrl-C is pressed, popfetch stops after the current message and shows that.
func TestCtrlC(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", numberedMessages(200, 2_000)...), mailbox("bob", newMessages("one")...))
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR", Pace: 20 * time.Millisecond, Chunk: 1000})
	p := newWorkspace(t)
	text := "parallel = 1\n" + p.account(srv, "ann", `delete = "after delivery"`)
	s := startInTerminal(t, p.command("-c", p.configure(text)), 6, "$ popfetch")
	s.waitForScreen(`ann .* [1-9]\d?/200`)
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	status, screen := s.waitForExit()
	assert.Equal(t, exitStopped, status)
	stored := len(p.stored("ann"))
	assert.Less(t, stored, 200)
	assert.Len(t, srv.Left("ann"), 200-stored)
	assert.Regexp(t,
		`ann   ■ \d+ new, .* kB, \d+ deleted, then stopped\nann: stopped by a signal; the next run continues`, screen)
}

// A diagnosis is not wider than a terminal.
func TestDiagnoseInATerminal(t *testing.T) {
	srv := pop3test.NewTLSServer()
	defer srv.Close()
	p := newWorkspace(t)
	s := startInTerminal(t, p.command("--diagnose", srv.Addr, "--ca-file", p.writeCA(srv)), 40,
		"$ popfetch --diagnose "+srv.Addr)
	status, screen := s.waitForExit()
	assert.Equal(t, exitDone, status)
	assert.Contains(t, screen, "For the configuration:")
	s.draw("diagnose.svg", "popfetch --diagnose tells what a server offers")
	for row := range strings.Lines(screen) {
		assert.LessOrEqual(t, len([]rune(strings.TrimSuffix(row, "\n"))), columns-1, row)
	}
}

// The run uses the typed password, and the terminal does not show it.
func TestPasswordPrompt(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	config := strings.Replace(p.account(srv, "ann"), `password_env = "POPFETCH_TEST_PASSWORD"`,
		"password_prompt = true", 1)
	s := startInTerminal(t, p.command("-c", p.configure(config)), 6, "$ popfetch")
	s.waitForScreen(`Password of ann for 127\.0\.0\.1:\d+:`)
	// Wait until popfetch has turned the echo off, because a person types later than that.
	require.Eventually(t, func() bool {
		stty := exec.Command("stty", "-a")
		stty.Stdin = s.keyboard
		settings, err := stty.Output()
		return err == nil && strings.Contains(string(settings), " -echo ")
	}, 20*time.Second, 5*time.Millisecond)
	_, err := s.keyboard.WriteString(password + "\n")
	require.NoError(t, err)
	status, screen := s.waitForExit()
	assert.Equal(t, exitDone, status)
	assert.Regexp(t, `Password of ann for .*:\s+ann +✓ 1 new, 30 bytes$`, screen)
	assert.Len(t, p.stored("ann"), 1)
	p.checkNoPassword(result{out: strings.Join(s.frames, "\n")})
}

// If there are more accounts than rows, an account has a bar only during its run. After the run, a line about the
// account stays above the bars.
func TestMoreAccountsThanRows(t *testing.T) {
	const rows = 6
	p := newWorkspace(t)
	var boxes []*pop3test.Mailbox
	for i := range 12 {
		boxes = append(boxes, mailbox(fmt.Sprintf("user%02d", i), numberedMessages(5, 2_000)...))
	}
	srv := pop3test.NewServer(boxes...)
	defer srv.Close()
	srv.SetFaults(pop3test.Fault{At: "RETR", Delay: 50 * time.Millisecond})
	text := "parallel = 2\n"
	for _, b := range boxes {
		text += p.account(srv, b.User)
	}
	s := startInTerminal(t, p.command("-c", p.configure(text)), rows, "$ popfetch")
	status, screen := s.waitForExit()
	assert.Equal(t, exitDone, status)
	// the whole output is checked, because on a busy machine a line may leave the screen before a frame is recorded
	for _, b := range boxes {
		assert.Regexp(t, b.User+` +\x1b\[32m✓\x1b\[0m 5 new, `, string(s.output))
	}
	assert.Regexp(t, `user\d\d +━+[╸─]* +\d/5 `, strings.Join(append(s.frames, screen), "\n"))
	for _, frame := range s.frames {
		assert.LessOrEqual(t, strings.Count(frame, "/5 "), 3, "an account has a bar outside its run:\n%s", frame)
	}
}
