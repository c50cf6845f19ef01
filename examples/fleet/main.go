package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// commands are the first argument.
var commands = map[string]func(ctx context.Context, args []string) error{
	"demo":      demo,
	"scheduler": runScheduler,
	"worker":    runWorker,
	"status":    runStatus,
	"release":   release,
	"bench":     bench,

	"lab-pop3": labPOP3, // these are started by demo and bench
	"lab-nats": labNATS,
	"lab-hold": labHold,
}

const usage = `usage: fleet command [flags], with one of these commands:

  demo       run everything on this machine, with POP3 servers of its own
  scheduler  put maildrops that are due into the work queue; more than one may run
  worker     poll maildrops; as many as there is work for
  status     serve the page and /metrics
  release    poll an account again that was set aside
  bench      measure on this machine

"fleet command -h" tells the flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](untilParentEnds(ctx), os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "fleet %s: %v\n", os.Args[1], err)
		stop()
		os.Exit(1)
	}
}
