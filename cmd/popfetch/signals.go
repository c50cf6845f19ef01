package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// handleSignals gives two contexts: the first SIGINT or SIGTERM ends stop, the second one ends cut. From the third
// on signals do what they always do.
func handleSignals() (stop, cut context.Context, release func()) {
	stop, doStop := context.WithCancel(context.Background())
	cut, doCut := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		doStop()
		<-signals
		doCut()
		signal.Stop(signals)
	}()
	return stop, cut, func() { signal.Stop(signals) }
}
