package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A monitor is what the HTTP server of a process says. A process is healthy unless healthy returns an error: then it
// should be restarted.
type monitor struct {
	healthy, ready func() error
	metrics        prometheus.Gatherer
	page           *atomic.Pointer[view]
}

// serveHTTP serves what current says until stop is called. The page has names of accounts, so the address should be
// reachable from inside only.
func serveHTTP(addr string, current *atomic.Pointer[monitor]) (stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, current.Load().healthy) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, current.Load().ready) })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		promhttp.HandlerFor(current.Load().metrics, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if page := current.Load().page; page != nil {
			servePage(w, page.Load())
			return
		}
		http.Error(w, "the page is that of a scheduler that has started", http.StatusNotFound)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	slog.Info("serving", "http", "http://"+l.Addr().String())
	return func() { srv.Close(); wg.Wait() }, nil
}

// answer reports a state as a probe of Kubernetes understands it.
func answer(w http.ResponseWriter, state func() error) {
	if state != nil {
		if err := state(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ok")
}
