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
	only := flag.String("only", "", "play one scene alone: fetch, poll, dele, large and so on (see plan.go); "+
		"with -tools, the programs to measure, with commas between them")
	disk := flag.String("disk", "", `with -tools, the file system to measure on: "tmpfs" or "disk"`)
	programs := flag.Bool("tools", false, "measure popfetch beside mpop, getmail and fetchmail instead")
	flag.Parse()
	z := full
	if *short {
		z = quick
	}
	z.only = *only
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *programs {
		chosen := strings.FieldsFunc(*only, func(c rune) bool { return c == ',' })
		if err := measureTools(ctx, chosen, *disk, *out, os.Stderr); err != nil {
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

// run measures, and includes real servers if they are requested. It prints the report to print and writes it to the
// folder out, unless out is empty.
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
	r.scenes = z.scenes(main, inMemoryName)
	if err := b.brisk(ctx, r.scenes); err != nil {
		return err
	}
	var a acks
	if z.sequential > 0 && z.only == "" && main != inMemoryName {
		a = startAcks(ctx, dir, z.sequential, z.runs, progress)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() { a.finish(ctx) })
	err = b.patient(ctx, r.scenes)
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

// startServers starts the available servers and returns the name of the main one: Dovecot, or the server in memory if
// there is no Dovecot.
func (b *bench) startServers(ctx context.Context, r *report, real bool) (main string, err error) {
	memory, err := startInProcess(b.dir)
	if err != nil {
		return "", err
	}
	b.servers[memory.name()] = memory
	r.describe(memory.name(), memory.version())
	if !real {
		return memory.name(), nil
	}
	d, err := startDovecot(ctx, b.dir)
	if errors.Is(err, interop.ErrUnavailable) {
		r.note("Dovecot could not be had (%v): pop3test stands in for it.", err)
		return memory.name(), nil
	} else if err != nil {
		return "", err
	}
	b.servers[d.name()] = d
	r.describe(d.name(), d.version())
	return d.name(), nil
}

// findClients leaves out the programs that are not installed.
func (b *bench) findClients(ctx context.Context, r *report) {
	for _, c := range clients.All() {
		about, err := clients.Describe(ctx, c)
		if err != nil {
			r.note("%s is not installed here (%v), so it is missing.", c.Name, err)
			continue
		}
		b.clients = append(b.clients, c)
		r.clients = append(r.clients, about)
	}
}

// memoryDir makes a folder in memory if the machine has a file system for that.
func memoryDir() (string, error) {
	const inMemory = "/dev/shm"
	if dir, err := os.MkdirTemp(inMemory, "pop3-bench-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "pop3-bench-")
}
