package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// benchFlags are those of all measurements.
type benchFlags struct {
	maildrops, servers, rounds int
	sync                       bool
	mechanisms                 string
	profile                    string
}

// benches are the measurements, in the order in which they are made.
var benches = []struct {
	name string
	run  func(context.Context, benchFlags) error
}{
	{"tls", benchTLS},
	{"sessions", benchSessions},
	{"polls", benchPolls},
	{"scale", benchScale},
	{"kill", benchKill},
}

// bench measures, on this machine.
func bench(ctx context.Context, args []string) error {
	var b benchFlags
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.IntVar(&b.maildrops, "maildrops", 10_000, "how many, for polls and scale")
	f.IntVar(&b.servers, "servers", 5, "processes they are on")
	f.IntVar(&b.rounds, "rounds", 5, "of kills")
	f.BoolVar(&b.sync, "sync", true, "let NATS bring each write to the disk before it confirms")
	f.StringVar(&b.mechanisms, "mechanisms", "PLAIN", "the ways to log in, for polls and scale; empty for the best one")
	f.StringVar(&b.profile, "profile", "", "`file` for the CPU profile of polls; heap profiles have longer names")
	only := f.String("only", "", "the measurements to make, of tls,sessions,polls,scale,kill")
	f.Parse(args)
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %s/%s, %d processors, load %s\n", time.Now().Format(time.DateTime), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), strings.TrimSpace(string(load)))
	for _, one := range benches {
		if *only != "" && !strings.Contains(*only, one.name) {
			continue
		}
		fmt.Printf("\n== %s\n", one.name)
		if err := one.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}
