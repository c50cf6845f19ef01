package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

// A Kind is one of the servers that [Start] knows.
type Kind string

const (
	Dovecot   Kind = "dovecot"
	Courier   Kind = "courier"
	Cyrus     Kind = "cyrus"
	Mailutils Kind = "mailutils"
	Popa3d    Kind = "popa3d"
	Solid     Kind = "solid"
	Nginx     Kind = "nginx"
	WildDuck  Kind = "wildduck"
	Inbucket  Kind = "inbucket"
)

// Kinds returns the servers that have the mail of every account, the most important ones first. It does not return
// Inbucket, which has no bulk mail, nor nginx and WildDuck, which have no store of their own.
func Kinds() []Kind { return []Kind{Dovecot, Courier, Cyrus, Mailutils, Popa3d, Solid} }

// Options select a variant of a server. A nil *Options is the same as the zero value: the usual configuration without
// delays.
type Options struct {
	Store        Store         // "" is the server's default: Maildir, or mbox for Mailutils, popa3d and solid-pop3d
	Lock         bool          // only one session at a time for each maildrop (Dovecot: pop3_lock_session)
	Idle         time.Duration // the autologout time in seconds, if it can be set; 0 is ten minutes
	FailureDelay time.Duration // the wait before the reply to a wrong password (Dovecot); 0 means as short as possible
	Conf         string        // lines appended to the main configuration file
}

// A Server is a running server.
type Server struct {
	Kind    Kind
	Version string         // version of the Debian package or of the module
	Addr    string         // address in clear, with STLS if the server supports it
	TLSAddr string         // address with TLS from the first octet
	Roots   *x509.CertPool // contains the authority of the server's certificate

	packages string // the folder that fetch returned
	spec     spec
	opts     Options
	dir      string // has the folders etc, srv and root; see sandbox.sh
	ca       *testcert.Authority
	ports    [3]int // the ports of Addr, of TLSAddr, and of the backend
	box      *sandbox
	stop     func() error // stops the server; later calls return the same result

	mu         sync.Mutex
	frozen     map[string]bool
	spares     int
	bulkSpares int
}

// A spec is what [Start] needs to know about a server.
type spec struct {
	packages []string // names of Debian packages; the first one has the version, unless add returns it
	// cacheForm replaces the constant cacheForm. It is changed if only the packages of this server have changed.
	cacheForm string
	stores    []Store // the first one is the default
	keyMode   os.FileMode
	spool     string // folder of the maildrops below the mail folder, if the server chooses their names

	// add adds to tree a program that Debian does not have. It returns the version of the program.
	add     func(ctx context.Context, tree string) (version string, err error)
	prepare func(context.Context, *Server) error // writes the configuration and the store
	command func(*Server) []string
	ready   func(context.Context, *Server) error // returns nil when the server is ready; nil means portsReady
	deliver func(context.Context, *Server) error // fills the store, after ready has returned nil
}

var specs = map[Kind]spec{
	Dovecot:   dovecotSpec,
	Courier:   courierSpec,
	Cyrus:     cyrusSpec,
	Mailutils: mailutilsSpec,
	Popa3d:    popa3dSpec,
	Solid:     solidSpec,
	Nginx:     nginxSpec,
	WildDuck:  wildDuckSpec,
	Inbucket:  inbucketSpec,
}

const (
	os644        = os.FileMode(0o644)
	startTimeout = 20 * time.Second
	attempts     = 3
)

// Start starts a server of kind and returns when the server sends its greeting. Its state is in dir, which must exist.
// ctx applies only to the start. The caller must call [Server.Stop] before dir is removed.
func Start(ctx context.Context, kind Kind, dir string, opts *Options) (*Server, error) {
	if err := available(); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind, err)
	}
	sp, ok := specs[kind]
	if !ok {
		return nil, fmt.Errorf("start %s: no such server", kind)
	}
	if opts != nil && opts.Store != "" && !slices.Contains(sp.stores, opts.Store) {
		return nil, fmt.Errorf("start %s: it has no store of the form %s", kind, opts.Store)
	}
	packages, err := fetch(ctx, kind, sp)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", kind, err)
	}
	for range attempts {
		var s *Server
		if s, err = start(ctx, kind, sp, packages, dir, opts); err == nil {
			return s, nil
		}
		// Another program may have taken a port between freePort and the start of the server.
		if !strings.Contains(err.Error(), "in use") {
			break
		}
	}
	return nil, fmt.Errorf("start %s: %w", kind, err)
}

func start(ctx context.Context, kind Kind, sp spec, packages, dir string, opts *Options) (*Server, error) {
	s := &Server{
		Kind: kind, Version: packageVersion(packages, sp),
		spec: sp, packages: packages, frozen: map[string]bool{},
	}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Store == "" {
		s.opts.Store = sp.stores[0]
	}
	var err error
	if s.dir, err = os.MkdirTemp(dir, string(kind)+"-"); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	log, err := os.Create(s.path("srv/log/output"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if s.box, err = startSandbox(packages, s.dir, log, sp.command(s)...); err != nil {
		return nil, err
	}
	s.stop = sync.OnceValue(s.shutdown)
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.wait(waiting); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if sp.deliver != nil {
		if err := sp.deliver(ctx, s); err != nil {
			return nil, errors.Join(fmt.Errorf("deliver the messages: %w", err), s.Stop())
		}
	}
	return s, nil
}

// prepare makes the folders, chooses the ports, and writes what the server needs.
func (s *Server) prepare(ctx context.Context) error {
	for _, d := range []string{"etc", "root", "srv/conf", "srv/log", "srv/mail", "srv/run", "srv/tls"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return err
		}
	}
	// MkdirTemp made the folder for root only, but servers use it as other users.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	for i := range s.ports {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.ports[i] = port
	}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[0]))
	s.TLSAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[1]))
	if err := s.writeCerts(); err != nil {
		return err
	}
	return s.spec.prepare(ctx, s)
}

// freePort finds a port below the range from which the kernel chooses ports for connections, so that no connection can
// take it before the server does.
func freePort() (int, error) {
	const low, high, tries = 20000, 32000, 100
	var err error
	for range tries {
		port := low + rand.IntN(high-low)
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// wait waits until the server replies.
func (s *Server) wait(ctx context.Context) error {
	ready := s.spec.ready
	if ready == nil {
		ready = portsReady
	}
	for {
		err := ready(ctx, s)
		if err == nil {
			return nil
		}
		select {
		case <-s.box.done:
			return fmt.Errorf("it ended before it greeted: %s", s.Log())
		case <-ctx.Done():
			return fmt.Errorf("it does not greet: %w: %s", err, s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// portsReady returns nil if the port in clear and the TLS port send a greeting.
func portsReady(ctx context.Context, s *Server) error {
	if err := checkGreeting(ctx, s.dial); err != nil {
		return err
	}
	return checkGreeting(ctx, s.dialTLS)
}

// backendAddr returns the address of the server's backend.
func (s *Server) backendAddr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[2])) }

func (s *Server) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp4", s.Addr)
}

func (s *Server) dialTLS(ctx context.Context) (net.Conn, error) {
	d := tls.Dialer{Config: s.TLSConfig()}
	return d.DialContext(ctx, "tcp4", s.TLSAddr)
}

func checkGreeting(ctx context.Context, dial func(context.Context) (net.Conn, error)) error {
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+OK") {
		return fmt.Errorf("greeting %q", line)
	}
	// Some servers count a connection without QUIT as a failure.
	_, err = conn.Write([]byte("QUIT\r\n"))
	return err
}

// TLSConfig returns a configuration that trusts only the server's certificate. Each call returns a new one.
func (s *Server) TLSConfig() *tls.Config {
	return &tls.Config{RootCAs: s.Roots, ServerName: "localhost"}
}

// Stop kills the server and every process that it started, and waits until they have ended. It may be called again.
func (s *Server) Stop() error { return s.stop() }

func (s *Server) shutdown() error {
	s.box.stop()
	s.mu.Lock()
	names := make([]string, 0, len(s.frozen))
	for name := range s.frozen {
		names = append(names, name)
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.Thaw(name))
	}
	return errors.Join(errs...)
}

// Spare returns an account with five messages, for a test that deletes. Each call returns another account. If no
// account is left, Spare panics.
func (s *Server) Spare() Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spares++; s.spares > spareCount {
		panic("interop: no spare account is left: start another server, or raise spareCount")
	}
	return spare(s.spares - 1)
}

// SpareBulk returns an account with 1,000 messages. Each call returns another account. There are only a few. If no
// account is left, SpareBulk panics.
func (s *Server) SpareBulk() Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bulkSpares++; s.bulkSpares > spareBulkCount {
		panic("interop: no spare account with bulk mail is left: start another server, or raise spareBulkCount")
	}
	return spareBulk(s.bulkSpares - 1)
}

// Log returns the end of the server's log files, to be shown when a test fails.
func (s *Server) Log() string {
	var b strings.Builder
	names, _ := filepath.Glob(s.path("srv/log/*")) // the pattern is valid, so there is no error
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && len(text) > 0 {
			fmt.Fprintf(&b, "\n%s:\n%s", filepath.Base(name), lastLines(text, 20))
		}
	}
	return b.String()
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }
func (s *Server) mailDir() string         { return s.path("srv/mail") }

// Maildrop returns the file or folder that contains the maildrop of an account. If the server chooses the names of
// maildrops, it is the folder of all maildrops.
func (s *Server) Maildrop(name string) string {
	if s.spec.spool != "" {
		return filepath.Join(s.mailDir(), s.spec.spool)
	}
	return filepath.Join(s.mailDir(), name)
}

func (s *Server) write(name, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(s.path(name), []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(s.path(name), mode) // WriteFile has applied the umask
}
