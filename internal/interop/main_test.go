package interop_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3/internal/interop"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envHelper); dir != "" {
		os.Exit(helper(dir))
	}
	// The tests mostly wait for servers, so more of them can run in parallel than there are processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	code := m.Run()
	if err := servers.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	for _, line := range servers.skipped() {
		fmt.Fprintln(os.Stderr, line)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// servers are shared by the tests of this run. Each is started when the first test needs it.
var servers pool

type pool struct {
	mu      sync.Mutex
	dir     string
	entries map[string]*entry
	skips   []string
}

type entry struct {
	once   sync.Once
	server *interop.Server
	err    error
}

// get returns the server of kind in a variant. If the server is not available, the mode decides whether get skips the
// test or fails.
func (p *pool) get(t *testing.T, kind interop.Kind, variant string) *interop.Server {
	t.Helper()
	mode := interop.CurrentMode()
	if mode == interop.ModeOff {
		t.Skipf("NOT RUN: it needs a real server (%s); as root on Debian 12: %s=on go test ./internal/interop",
			kind, interop.EnvMode)
	}
	e, err := p.entry(string(kind) + " " + variant)
	require.NoError(t, err)
	e.once.Do(func() { e.server, e.err = p.start(kind, variant) })
	if mode == interop.ModeOn && errors.Is(e.err, interop.ErrUnavailable) {
		p.skip(kind, e.err)
		t.Skipf("NOT RUN: %v (with %s=require this is a failure)", e.err, interop.EnvMode)
	}
	require.NoError(t, e.err)
	return e.server
}

func (p *pool) entry(name string) (*entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries == nil {
		dir, err := os.MkdirTemp("", "pop3-interop-")
		if err != nil {
			return nil, err
		}
		p.dir, p.entries = dir, map[string]*entry{}
	}
	if p.entries[name] == nil {
		p.entries[name] = &entry{}
	}
	return p.entries[name], nil
}

func (p *pool) start(kind interop.Kind, variant string) (*interop.Server, error) {
	opts, ok := variants[variant]
	if !ok {
		return nil, fmt.Errorf("no variant %q", variant)
	}
	// The limit is long enough to compile a server.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return interop.Start(ctx, kind, p.dir, &opts)
}

// variants are the options with which the tests start a server.
var variants = map[string]interop.Options{
	"":       {},
	"frozen": {}, // the store is made immutable
	"lock":   {Lock: true},
	"mbox":   {Store: interop.Mbox},
	"idle":   {Idle: idle},
}

func (p *pool) skip(kind interop.Kind, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skips = append(p.skips, fmt.Sprintf("interop: %s NOT RUN: %v", kind, err))
}

// skipped returns the lines about skipped tests that are printed at the end of a run.
func (p *pool) skipped() []string {
	if interop.CurrentMode() == interop.ModeOff {
		return []string{"interop: tests against real servers NOT RUN; " +
			"as root on Debian 12: " + interop.EnvMode + "=on go test ./internal/interop"}
	}
	slices.Sort(p.skips)
	return slices.Compact(p.skips)
}

func (p *pool) stop() error {
	var errs []error
	for name, e := range p.entries {
		if e.server != nil {
			if err := e.server.Stop(); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", strings.TrimSpace(name), err))
			}
		}
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}
