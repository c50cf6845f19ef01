// Popfetch fetches mail from POP3 servers into a Maildir, an mbox file or a mail delivery agent, and loses none of it.
// README.md shows how to use it, popfetch.1 is the manual page.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// The exit statuses are explained in the manual page.
const (
	exitDone    = 0
	exitFailed  = 1 // an account or a message failed
	exitUsage   = 2
	exitConfig  = 3
	exitNoPOP3  = 4 // --diagnose found no POP3 server
	exitStopped = 5 // stopped by a signal before everything was done
)

func main() {
	os.Exit(run(handleSignals, os.Args[1:], os.Stdout, os.Stderr))
}

// signals contains a context or a channel for each kind of signal.
type signals struct {
	stop     context.Context // done after the first SIGINT or SIGTERM, to end after the current message
	abort    context.Context // done after the second signal, or after grace, to end at once
	reload   chan os.Signal  // receives SIGHUP in a daemon
	fetchNow chan os.Signal  // receives SIGUSR1
}

// grace is how long the current message may take after the first SIGINT or SIGTERM.
const grace = 30 * time.Second

// handleSignals returns the signals of this process. After abort is done, the next SIGINT or SIGTERM kills the process.
func handleSignals(daemon bool) signals {
	stop, doStop := context.WithCancel(context.Background())
	abort, doAbort := context.WithCancelCause(context.Background())
	s := signals{stop, abort, make(chan os.Signal, 1), make(chan os.Signal, 1)}
	stopSignals := make(chan os.Signal, 2)
	signal.Notify(stopSignals, os.Interrupt, syscall.SIGTERM)
	s.handleUnixSignals(daemon, stopSignals)
	go func() {
		<-stopSignals
		doStop()
		select {
		case <-stopSignals:
		case <-time.After(grace):
		}
		doAbort(errStopped)
		signal.Stop(stopSignals)
	}()
	return s
}

// run runs popfetch and returns its exit status.
func run(listen func(daemon bool) signals, args []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprint(stdout, usage)
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "popfetch: %v; see popfetch --help\n", err)
		return exitUsage
	case opts.version:
		fmt.Fprintln(stdout, version())
		return exitDone
	}
	p := &program{options: opts, signals: listen(opts.daemon), stdout: stdout, stderr: stderr}
	p.log = newLogger(stderr, opts)
	if opts.diagnose != "" {
		return p.diagnoseHost()
	}
	c, err := p.load()
	if err == nil && !p.check {
		err = p.askPasswords(c.accounts)
	}
	switch {
	case err != nil:
		p.complain(err)
		return exitConfig
	case p.check:
		fmt.Fprintf(stdout, "%s has no mistakes: %s\n", c.file, countOf(len(c.accounts), "account"))
		return exitDone
	}
	p.slots = c.slots
	if p.catchUp || p.importFrom != "" {
		return p.markAllFetched(c.accounts)
	}
	return p.fetchAll(c.accounts)
}

// A program is one run of the command popfetch.
type program struct {
	*options
	signals
	stdout, stderr io.Writer
	display        display
	log            *slog.Logger // logs commands and replies; in a daemon it logs everything
	slots          chan struct{}
}

// complain writes an error to the standard error. If the error joins several, each is on a line of its own.
func (p *program) complain(err error) {
	for _, line := range errorLines(err) {
		fmt.Fprintln(p.stderr, "popfetch:", line)
	}
}

// A loadedConfig is the configuration file, after it was read and checked.
type loadedConfig struct {
	file     string
	accounts []*account    // the accounts that the command line names, or all accounts if it names none
	slots    chan struct{} // an account holds a slot while popfetch fetches from it; the key parallel is the capacity
}

func (p *program) load() (*loadedConfig, error) {
	file, err := p.configFile()
	if err != nil {
		return nil, err
	}
	c, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	accounts, err := c.build()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	accounts, err = choose(accounts, p.accounts)
	return &loadedConfig{file, accounts, make(chan struct{}, c.Parallel)}, err
}

// fetchAll fetches from all accounts, once or as a daemon.
func (p *program) fetchAll(accounts []*account) int {
	p.display = p.newDisplay(accounts)
	noteShown := make(chan struct{})
	cancelNote := context.AfterFunc(p.stop, func() {
		p.display.note("stopping after the current message")
		close(noteShown)
	})
	if p.daemon {
		p.serve(accounts)
	} else {
		p.each(accounts, func(a *account) { p.visit(p.stop, a) })
	}
	if !cancelNote() {
		<-noteShown
	}
	if err := p.display.close(); err != nil {
		p.complain(fmt.Errorf("writing to the standard output: %w", err))
		return exitFailed
	}
	switch {
	case p.daemon && p.abort.Err() == nil:
		return exitDone
	case p.stop.Err() != nil:
		return exitStopped
	case slices.ContainsFunc(accounts, func(a *account) bool { return a.failed }):
		return exitFailed
	}
	return exitDone
}
