package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// A program is a client that is run, not called.
type program struct {
	cmd   *exec.Cmd
	read  func(out []byte, r *Result) error // reads the result from its output or its files
	clean func()                            // nil if there is nothing to remove
}

// run is the session that a program carries out. If the program reports no time, the time of the process is
// used, from its start to its end.
func (p *program) run(ctx context.Context, silent bool) (r Result, err error) {
	if p.clean != nil {
		defer p.clean()
	}
	var out, complaint bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &out, &complaint
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return r, err
	}
	defer context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })()
	peak := func() int64 { return 0 }
	if silent {
		peak = watchPeak(p.cmd.Process.Pid)
	}
	err = p.cmd.Wait()
	r.Total = time.Since(began)
	r.Peak = peak()
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, lastLine(complaint.Bytes()))
	}
	return r, p.read(out.Bytes(), &r)
}

// watchPeak measures the memory of a process repeatedly, more often at first. The returned func stops it and
// returns the maximum.
func watchPeak(pid int) (end func() int64) {
	over, peak := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		began := time.Now()
		for {
			most = max(most, Peak(pid))
			select {
			case <-time.After(max(time.Millisecond, time.Since(began)/100)):
			case <-over:
				peak <- most
				return
			}
		}
	}()
	return func() int64 {
		close(over)
		return <-peak
	}
}

// An About describes a client: what it costs before it opens a session.
type About struct {
	Client
	Startup time.Duration // time that the program takes to do nothing; it is included in its other times
	Base    int64         // octets of memory that the program uses when it does nothing
}

// Describe asks a program for its version, and measures what that costs. It returns an error if the program is
// not installed.
func Describe(ctx context.Context, c Client) (About, error) {
	about := About{Client: c}
	if c.VersionOf == nil {
		return about, nil
	}
	for i := range 5 {
		p := program{cmd: exec.CommandContext(ctx, c.VersionOf[0], c.VersionOf[1:]...)}
		p.cmd.Env = append(os.Environ(), "LC_ALL=C")
		p.read = func(out []byte, _ *Result) error {
			about.Version = firstWords(out)
			return nil
		}
		r, err := p.run(ctx, true)
		if err != nil {
			return about, err
		}
		if i == 0 || r.Total < about.Startup {
			about.Startup = r.Total
		}
		about.Base = max(about.Base, r.Peak)
	}
	return about, nil
}

// lastLine returns the last line, where programs report what was wrong.
func lastLine(complaint []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(complaint), []byte("\n"))
	return lines[len(lines)-1]
}

// firstWords returns the name and version in the first line that a program prints about itself.
func firstWords(out []byte) string {
	words := bytes.Fields(out)
	for i, word := range words {
		if bytes.ContainsAny(word, "0123456789") {
			return string(bytes.Join(words[:i+1], []byte(" ")))
		}
	}
	return ""
}
