package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// A program is a client that runs as a process.
type program struct {
	cmd     *exec.Cmd
	read    func(out []byte, r *Result) error // reads the result from its output or its files
	cleanUp func()                            // nil if there is nothing to remove
}

// run runs the program, which carries out a session. If the program does not report the total time, Total is the time
// from the start of the process to its end.
func (p *program) run(ctx context.Context, silent bool) (r Result, err error) {
	if p.cleanUp != nil {
		defer p.cleanUp()
	}
	var out, stderr bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &out, &stderr
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
		return r, fmt.Errorf("%w: %s", err, lastLine(stderr.Bytes()))
	}
	return r, p.read(out.Bytes(), &r)
}

// watchPeak measures the memory of a process repeatedly, more often at first. The returned function stops the
// measurements and returns the maximum.
func watchPeak(pid int) (stop func() int64) {
	done, peak := make(chan struct{}), make(chan int64)
	go func() {
		var maximum int64
		began := time.Now()
		for {
			maximum = max(maximum, Peak(pid))
			select {
			case <-time.After(max(time.Millisecond, time.Since(began)/100)):
			case <-done:
				peak <- maximum
				return
			}
		}
	}()
	return func() int64 {
		close(done)
		return <-peak
	}
}

// A Description contains a client, and what its program needs before a session begins.
type Description struct {
	Client
	Startup time.Duration // time in which the program prints its version; it is included in its other times
	Base    int64         // octets of memory that the program uses when it prints its version
}

// Describe runs a program to get its version, and measures its time and memory. It returns an error if the program is
// not installed. For a Go library it measures nothing.
func Describe(ctx context.Context, c Client) (Description, error) {
	about := Description{Client: c}
	if c.VersionCommand == nil {
		return about, nil
	}
	for i := range 5 {
		p := program{cmd: exec.CommandContext(ctx, c.VersionCommand[0], c.VersionCommand[1:]...)}
		p.cmd.Env = append(os.Environ(), "LC_ALL=C")
		p.read = func(out []byte, _ *Result) error {
			about.Version = nameAndVersion(out)
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

// lastLine returns the last line of the standard error, in which most programs report the reason of a failure.
func lastLine(stderr []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(stderr), []byte("\n"))
	return lines[len(lines)-1]
}

// nameAndVersion returns the beginning of the output of a program, up to the first word with a digit.
func nameAndVersion(out []byte) string {
	words := bytes.Fields(out)
	for i, word := range words {
		if bytes.ContainsAny(word, "0123456789") {
			return string(bytes.Join(words[:i+1], []byte(" ")))
		}
	}
	return ""
}
