package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/interop"
	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A mailRequest describes the maildrop and the connection that a session needs.
type mailRequest struct {
	maildrop
	overTLS bool
	deletes bool // the session deletes the messages
}

// An account is the address and the login of a maildrop.
type account struct {
	addr           string
	caFile         string // certificate of the authority, as PEM
	user, password string

	remaining func() (int, error) // messages that are there now
	close     func() error        // must be called after the session
}

// A server provides maildrops for clients.
type server interface {
	name() string
	version() string
	// open prepares a maildrop. If the session deletes messages, open makes a new maildrop.
	open(ctx context.Context, v mailRequest) (*account, error)
	stop() error
}

const password = "sesame"

const inMemoryName = "pop3test"

const caFile = "ca.pem" // authority of the in-process server, for clients that run in other processes

// inMemoryCaps do not contain SCRAM, because its computation would take a part of the measured time.
var inMemoryCaps = []string{"TOP", "UIDL", "USER", "SASL PLAIN LOGIN", "PIPELINING", "RESP-CODES"}

// inProcess uses pop3test. It has a server for each session, because only one session at a time can use a maildrop.
type inProcess struct {
	dir string
	ca  *testcert.Authority

	mu       sync.Mutex
	messages map[maildrop][][]byte
	free     map[mailRequest][]*pop3test.Server
}

func startInProcess(dir string) (*inProcess, error) {
	ca := testcert.New("localhost", "127.0.0.1")
	public, _ := testcert.PEM(ca.Certificate)
	if err := os.WriteFile(filepath.Join(dir, caFile), public, 0o600); err != nil {
		return nil, err
	}
	return &inProcess{
		dir: dir, ca: ca, messages: make(map[maildrop][][]byte), free: make(map[mailRequest][]*pop3test.Server),
	}, nil
}

func (s *inProcess) name() string    { return inMemoryName }
func (s *inProcess) version() string { return "this tree" }

func (s *inProcess) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v, servers := range s.free {
		for _, srv := range servers {
			srv.Close()
		}
		delete(s.free, v)
	}
	return nil
}

func (s *inProcess) open(_ context.Context, v mailRequest) (*account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := v.maildrop.name()
	srv := s.takeFree(v)
	if srv == nil {
		srv = s.start(v, user)
	}
	return &account{
		addr: srv.Addr, caFile: filepath.Join(s.dir, caFile), user: user, password: password,
		remaining: func() (int, error) { return len(srv.Left(user)), nil },
		close:     func() error { return s.release(v, srv) },
	}, nil
}

// take returns a free server that was started for an earlier session, or nil.
func (s *inProcess) takeFree(v mailRequest) *pop3test.Server {
	n := len(s.free[v])
	if n == 0 {
		return nil
	}
	srv := s.free[v][n-1]
	s.free[v] = s.free[v][:n-1]
	return srv
}

func (s *inProcess) release(v mailRequest, srv *pop3test.Server) error {
	if v.deletes {
		srv.Close()
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free[v] = append(s.free[v], srv)
	return nil
}

func (s *inProcess) start(v mailRequest, user string) *pop3test.Server {
	if s.messages[v.maildrop] == nil {
		s.messages[v.maildrop] = v.maildrop.messages() // making the messages takes longer than a session
	}
	srv := pop3test.NewUnstartedServer(
		&pop3test.Mailbox{User: user, Password: password, Messages: s.messages[v.maildrop]})
	srv.Caps = inMemoryCaps
	if v.overTLS {
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{s.ca.Certificate}}
		srv.StartTLS()
	} else {
		srv.Start()
	}
	return srv
}

// dovecot is a real Dovecot. Its maildrops are in memory if the machine has a file system in memory.
type dovecot struct {
	*interop.Server
	mail   string // the folder of maildrops
	caFile string

	mu        sync.Mutex
	prepared  map[string]bool // users
	deletable int             // number of maildrops whose messages are deleted
}

// dovecotConf accepts every user with one password. With it, sessions do not change the maildrops that they read, and
// do not read an unchanged folder again.
const dovecotConf = `
passdb {
  driver = static
  mechanisms = plain login cram-md5 digest-md5 apop scram-sha-1 scram-sha-256
  args = password=` + password + `
}
protocol pop3 {
  pop3_no_flag_updates = yes
}
service pop3-login {
  process_limit = 400
}
mail_max_userip_connections = 400
maildir_very_dirty_syncs = yes
`

func startDovecot(ctx context.Context, dir string) (*dovecot, error) {
	s, err := interop.Start(ctx, interop.Dovecot, dir, &interop.Options{Conf: dovecotConf})
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "dovecot-*", "srv"))
	if err != nil || len(found) != 1 {
		return nil, errors.Join(fmt.Errorf("%d folders of Dovecot in %s", len(found), dir), err, s.Stop())
	}
	return &dovecot{
		Server: s, mail: filepath.Join(found[0], "mail"), caFile: filepath.Join(found[0], "tls", "ca.crt"),
		prepared: make(map[string]bool),
	}, nil
}

func (s *dovecot) name() string    { return "Dovecot" }
func (s *dovecot) version() string { return s.Version }
func (s *dovecot) stop() error     { return s.Stop() }

func (s *dovecot) open(ctx context.Context, v mailRequest) (*account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := v.maildrop.name()
	if v.deletes {
		s.deletable++
		user = fmt.Sprintf("%s-%d", user, s.deletable)
	}
	home := filepath.Join(s.mail, user)
	a := &account{
		addr: s.Addr, caFile: s.caFile, user: user, password: password,
		remaining: func() (int, error) { return countMessages(filepath.Join(home, "Maildir")) },
		close:     func() error { return nil },
	}
	if v.overTLS {
		a.addr = s.TLSAddr
	}
	if v.deletes {
		a.close = func() error { return os.RemoveAll(home) }
	}
	if s.prepared[user] {
		return a, nil
	}
	s.prepared[user] = true
	if err := v.maildrop.write(home, mailUser); err != nil {
		return nil, err
	}
	return a, warmUp(ctx, s.Addr, user)
}

// mailUser is the user who owns all of Dovecot's maildrops.
const mailUser = 5000

// warmUp makes the server build its index. Otherwise the first session of each maildrop would wait for the index.
func warmUp(ctx context.Context, addr, user string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	for _, command := range []string{"", "USER " + user, "PASS " + password, "STAT", "QUIT"} {
		if command != "" {
			if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
				return err
			}
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%s: %w", user, err)
		}
		if line[0] != '+' {
			return fmt.Errorf("%s: %s: %s", user, command, line)
		}
	}
	return nil
}
