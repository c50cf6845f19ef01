// Popfetch brings mail from POP3 servers to a Maildir, an mbox file or a mail delivery agent, and loses none of it.
// README.md shows how it is used, popfetch.1 is the manual page.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// Exit statuses. The manual page explains them.
const (
	exitDone    = 0
	exitTrouble = 1 // with an account or a message
	exitUsage   = 2
	exitConfig  = 3
	exitNoPOP3  = 4 // --diagnose found no POP3 server
	exitStopped = 5 // by a signal, before all was done
)

func main() {
	stop, cut, release := handleSignals()
	status := run(stop, cut, os.Args[1:], os.Stdout, os.Stderr)
	release()
	os.Exit(status)
}

// run is the program. It comes to an orderly end when stop is done, and drops everything when cut is.
func run(stop, cut context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprint(stdout, usage)
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "popfetch: %v; popfetch --help tells more\n", err)
		return exitUsage
	case opts.version:
		fmt.Fprintln(stdout, version())
		return exitDone
	}
	p := &program{options: opts, stop: stop, cut: cut, stdout: stdout, stderr: stderr}
	if opts.diagnose != "" {
		return p.diagnoseHost()
	}
	return p.fetchAll()
}

// A program is what one call of popfetch has to do.
type program struct {
	*options
	stop, cut      context.Context
	stdout, stderr io.Writer
	show           display
	log            *slog.Logger
	slots          chan struct{} // one for each account that may be at work at a time
}

// fetchAll reads the configuration and sees to all accounts that were named, or all there are.
func (p *program) fetchAll() int {
	accounts, parallel, err := p.load()
	if err != nil {
		fmt.Fprintf(p.stderr, "popfetch: %v\n", err)
		return exitConfig
	}
	p.show = p.newDisplay(accounts)
	p.log = newLogger(p.show.logWriter(p.stderr), p.options)
	p.slots = make(chan struct{}, parallel)
	if p.daemon {
		p.serve(accounts)
	} else {
		p.once(accounts)
	}
	p.show.close()
	return p.status(accounts)
}

// status is the exit status after all accounts were seen to.
func (p *program) status(accounts []*account) int {
	stopped := p.stop.Err() != nil
	switch {
	case p.daemon && p.cut.Err() == nil:
		return exitDone
	case stopped:
		return exitStopped
	}
	for _, a := range accounts {
		if a.failed {
			return exitTrouble
		}
	}
	return exitDone
}
