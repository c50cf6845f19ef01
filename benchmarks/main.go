// Command benchmarks compares this library with other POP3 clients and writes the results as RESULTS.md and as
// charts. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/seed-2d50cddb/pop3/internal/interop"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

func main() {
	clients.Child()
	out := flag.String("out", "", "folder for RESULTS.md and the charts; without it the tables are only printed")
	short := flag.Bool("quick", false, "fewer and shorter measurements, in less than a minute")
	only := flag.String("only", "", "run only this workload, such as fetch, poll, dele or large (see plan.go); "+
		"with -tools, measure only these programs, separated by commas")
	disk := flag.String("disk", "", `with -tools, measure only on this file system, "tmpfs" or "disk"`)
	programs := flag.Bool("tools", false, "measure popfetch, mpop, getmail and fetchmail instead of libraries")
	flag.Parse()
	z := full
	if *short {
		z = quick
	}
	z.only = *only
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *programs {
		names := strings.FieldsFunc(*only, func(c rune) bool { return c == ',' })
		if err := measureTools(ctx, names, *disk, *out, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	real := os.Getenv(interop.EnvMode) != string(interop.ModeOff)
	if err := run(ctx, z, real, *out, os.Stderr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run carries out the measurements. If real is true, it uses real servers too. It writes the report to print, and also
// to the folder out unless out is empty.
func run(ctx context.Context, z sizes, real bool, out string, progress, print io.Writer) (err error) {
	dir, err := memoryDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := newBench(dir, progress)
	defer func() {
		for _, s := range b.servers {
			err = errors.Join(err, s.stop())
		}
	}()
	r := newReport(z)
	main, err := b.startServers(ctx, r, real)
	if err != nil {
		return err
	}
	b.findClients(ctx, r)
	r.workloads = z.workloads(main, inMemoryName)
	if err := b.runInTurns(ctx, r.workloads); err != nil {
		return err
	}
	var a acks
	if z.sequential > 0 && z.only == "" && main != inMemoryName {
		a = startAcks(ctx, dir, z.sequential, z.runs, progress)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { a.measureRemaining(ctx) })
	err = b.runConcurrently(ctx, r.workloads)
	waiting.Wait()
	if err != nil {
		return err
	}
	r.results, r.failures, r.acks = b.results, b.failures, a.rows
	if err := r.write(print); err != nil || out == "" {
		return err
	}
	return r.save(out)
}

// startServers starts the available servers and returns the name of the main server. That is Dovecot if it is
// available, and pop3test otherwise.
func (b *bench) startServers(ctx context.Context, r *report, real bool) (main string, err error) {
	inProcess, err := startInProcess(b.dir)
	if err != nil {
		return "", err
	}
	b.servers[inProcess.name()] = inProcess
	r.describe(inProcess.name(), inProcess.version())
	if !real {
		return inProcess.name(), nil
	}
	d, err := startDovecot(ctx, b.dir)
	if errors.Is(err, interop.ErrUnavailable) {
		r.note("Dovecot is not available (%v). pop3test is used instead.", err)
		return inProcess.name(), nil
	} else if err != nil {
		return "", err
	}
	b.servers[d.name()] = d
	r.describe(d.name(), d.version())
	return d.name(), nil
}

// findClients adds the clients to the bench and to the report. It leaves out programs that are not installed.
func (b *bench) findClients(ctx context.Context, r *report) {
	for _, c := range clients.All() {
		about, err := clients.Describe(ctx, c)
		if err != nil {
			r.note("%s is left out, because it is not installed (%v).", c.Name, err)
			continue
		}
		b.clients = append(b.clients, c)
		r.clients = append(r.clients, about)
	}
}

// memoryDir creates a folder in memory. If the machine has no file system in memory, the folder is on the disk.
func memoryDir() (string, error) {
	const inMemory = "/dev/shm"
	if dir, err := os.MkdirTemp(inMemory, "pop3-bench-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "pop3-bench-")
}
