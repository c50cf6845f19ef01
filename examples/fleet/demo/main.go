// Command demo runs a whole fleet on this machine: NATS, POP3 servers with mail that keeps arriving, two schedulers and
// two workers, each in a process of its own. "demo pop3" and "demo nats" are the servers alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

func main() {
	if len(os.Args) > 1 && os.Args[1][0] != '-' {
		os.Exit(lab.Main(os.Args[1:]))
	}
	var d demo
	flag.IntVar(&d.boxes, "maildrops", 500, "maildrops")
	flag.IntVar(&d.servers, "servers", 3, "POP3 servers they are on")
	flag.IntVar(&d.workers, "workers", 2, "workers")
	flag.StringVar(&d.http, "http", "127.0.0.1:8080", "`address` of the page")
	flag.StringVar(&d.fleet, "fleet", "", "the `program` fleet; it is built with the go command if this is empty")
	flag.StringVar(&d.accounts, "accounts", "",
		"only write the accounts of a server that \"demo pop3\" runs to this `file`")
	addr := flag.String("addr", "127.0.0.1:110", "with -accounts, the `address` of that server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := d.run
	if d.accounts != "" {
		run = func(context.Context) error { return d.writeAccounts(*addr) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

type demo struct {
	boxes, servers, workers int
	http, fleet, accounts   string

	lab       *lab.Lab
	processes []*lab.Child
}

// writeAccounts writes the accounts of a server that runs somewhere else.
func (d *demo) writeAccounts(addr string) error {
	var all []accounts.Account
	for n := range d.boxes {
		all = append(all, accounts.Account{Name: lab.User(n), Addr: addr, User: lab.User(n), Password: lab.Password(n),
			Security: "none"})
	}
	return lab.Save(d.accounts, all)
}

// run runs everything until ctx ends.
func (d *demo) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "fleet-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if d.fleet == "" {
		d.fleet = filepath.Join(dir, "fleet")
		build := exec.CommandContext(ctx, "go", "build", "-o", d.fleet, "github.com/seed-2d50cddb/pop3/examples/fleet")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building the fleet: %w", err)
		}
	}
	size := lab.Size{Boxes: d.boxes, Servers: d.servers, Messages: 2, Bytes: 4096, Deliver: 5, TLS: true}
	d.lab, err = lab.Open(dir, size)
	if err != nil {
		return err
	}
	defer d.lab.Close()
	defer d.stop()
	if err := d.spoil(); err != nil {
		return err
	}
	if err := d.start(dir); err != nil {
		return err
	}
	fmt.Printf("%d maildrops, %d workers: http://%s/ and /metrics; mail goes to %s. Stop with Ctrl-C.\n",
		len(d.lab.Accounts), d.workers, d.http, filepath.Join(dir, "mail"))
	<-ctx.Done()
	return nil
}

// spoil gives some accounts a wrong password and one a server that does not exist, so that the page shows failures.
func (d *demo) spoil() error {
	for n := range min(3, len(d.lab.Accounts)) {
		d.lab.Accounts[n].Password = "wrong"
	}
	d.lab.Accounts = append(d.lab.Accounts,
		accounts.Account{Name: "nobody@127.0.0.1", Addr: "127.0.0.1:1", User: "u", Password: "p"})
	return d.lab.Save()
}

// start starts NATS and the fleet, with short intervals.
func (d *demo) start(dir string) error {
	nats, err := lab.Spawn("nats", "--dir", filepath.Join(dir, "nats"))
	if err != nil {
		return err
	}
	d.processes = append(d.processes, nats)
	url, err := nats.Line()
	if err != nil {
		return err
	}
	if out, err := exec.Command(d.fleet, "init", "--nats", url, "--silence", "12s").CombinedOutput(); err != nil {
		return fmt.Errorf("fleet init: %w: %s", err, out)
	}
	mail := filepath.Join(dir, "mail")
	if err := os.Mkdir(mail, 0o700); err != nil {
		return err
	}
	common := []string{"--nats", url, "--accounts", d.lab.File()}
	policy := []string{"--first", "20s", "--min", "3s", "--max", "20s", "--backoff", "30s", "--refusals", "3"}
	for n, http := range []string{d.http, "127.0.0.1:0"} {
		if err := d.spawn("scheduler", n+1, slices.Concat(common, policy, []string{"--http", http})...); err != nil {
			return err
		}
	}
	for n := range d.workers {
		if err := d.spawn("worker", n+1, append(common, "--http", "127.0.0.1:0", "--ca", d.lab.CA(),
			"--sink", "maildir:"+mail)...); err != nil {
			return err
		}
	}
	return nil
}

// spawn starts a process of the fleet. Its log goes to a file, and to the terminal if it ends.
func (d *demo) spawn(command string, n int, flags ...string) error {
	name := command + "-" + strconv.Itoa(n)
	log, err := os.Create(filepath.Join(d.lab.Dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c, err := lab.Start(exec.Command(d.fleet, append([]string{command, "--name", name}, flags...)...), log)
	if err == nil {
		d.processes = append(d.processes, c)
	}
	return err
}

// stop stops the processes in reverse order.
func (d *demo) stop() {
	var errs []error
	for len(d.processes) > 0 {
		last := len(d.processes) - 1
		errs = append(errs, d.processes[last].Stop())
		d.processes = d.processes[:last]
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
}
