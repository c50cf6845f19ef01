// Package clients has the POP3 clients that are measured, each doing the same work in the way that its own
// documentation shows. Those in Go are called; the others are programs that are run.
package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

// A Work is what is done in a session between the login and QUIT.
type Work string

const (
	Fetch Work = "fetch" // the sizes and unique-ids, then every message, thrown away
	Large Work = "large" // the one message of the maildrop, thrown away
	Uidl  Work = "uidl"  // the unique-ids
	Dele  Work = "dele"  // every message is deleted
	Poll  Work = "poll"  // the sizes and unique-ids of an empty maildrop
)

// A Job is one session.
type Job struct {
	Client         string
	Work           Work
	Addr           string // host:port
	TLS            bool   // from the first octet
	CAFile         string // who signed the server's certificate, as PEM
	User, Password string
	Count          int    // messages in the maildrop
	Dir            string // for files that a client needs
}

// A Result is what a session did and what it cost. Times that a client does not tell are 0.
type Result struct {
	Total    time.Duration // from before the connect to the end of the session
	LoggedIn time.Duration // of it, until the login was over
	Done     time.Duration // of it, until the work was done, before QUIT
	Messages int           // read whole, deleted, or listed
	Octets   int64         // of messages; here and there -1 is not known
	Base     int64         // octets of resident memory before the session
	Peak     int64         // octets of resident memory, at most
}

// A Client is one of those that are measured: either Open or Command is set.
type Client struct {
	Name      string
	Version   string // of the module, or "" to ask the program
	Ours      bool   // it is this library
	Limit     bool   // it is no client, but the limit of what one could do
	Ahead     bool   // it sends commands ahead of replies
	LoginOnly bool   // it differs from another client in the login alone

	Open      func(ctx context.Context, j Job) (session, error)
	Command   func(j Job) (*program, error)
	VersionOf []string // a command that does nothing but tell the version of the program
	Silent    bool     // the program tells neither its time nor its memory
}

// A session is logged in. Its methods are called at most once each, quit last.
type session interface {
	list(n int) (int, error)    // the sizes and unique-ids of n messages; how many there are
	fetch(n int) (int64, error) // messages 1 to n, thrown away; the octets
	uidl(n int) (int, error)    // the unique-ids of n messages
	dele(n int) error           // messages 1 to n
	quit() error
}

// All are the clients, in the order in which they are shown.
func All() []Client {
	return []Client{library, libraryPlain, bareLoop, mpop, migadu, byHand, knadh, poplib, curl}
}

// ByName finds a client.
func ByName(name string) (Client, error) {
	for _, c := range All() {
		if c.Name == name {
			return c, nil
		}
	}
	return Client{}, fmt.Errorf("no client is called %q", name)
}

// envJob is the environment variable that makes a process the child that does one job; see [Child].
const envJob = "POP3_BENCH_JOB"

// Run does a job in a process of its own, so that its memory is its own too.
func Run(ctx context.Context, j Job) (Result, error) {
	c, err := ByName(j.Client)
	if err != nil {
		return Result{}, err
	}
	var p *program
	if c.Command != nil {
		p, err = c.Command(j)
	} else {
		p, err = child(j)
	}
	if err != nil {
		return Result{}, err
	}
	r, err := p.run(ctx, c.Silent)
	if err != nil {
		return r, fmt.Errorf("%s, %s: %w", j.Client, j.Work, err)
	}
	return r, nil
}

// child is this program again, as the client of a job.
func child(j Job) (*program, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	job, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	p := &program{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), envJob+"="+string(job))
	p.read = func(out []byte, r *Result) error { return json.Unmarshal(out, r) }
	return p, nil
}

// Child is to be called first in main: in a process that [Run] started it does the job and exits.
func Child() {
	job := os.Getenv(envJob)
	if job == "" {
		return
	}
	var j Job
	err := json.Unmarshal([]byte(job), &j)
	if err == nil {
		var r Result
		if r, err = do(context.Background(), j); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// do does a job in this process, with a client that is called.
func do(ctx context.Context, j Job) (r Result, err error) {
	c, err := ByName(j.Client)
	if err != nil {
		return r, err
	}
	r.Base = Resident(os.Getpid())
	began := time.Now()
	s, err := c.Open(ctx, j)
	if err != nil {
		return r, err
	}
	r.LoggedIn = time.Since(began)
	err = r.work(s, j)
	r.Done = time.Since(began)
	err = errors.Join(err, s.quit())
	r.Total = time.Since(began)
	r.Peak = Peak(os.Getpid())
	return r, err
}

func (r *Result) work(s session, j Job) (err error) {
	r.Messages = j.Count
	switch j.Work {
	case Fetch:
		if r.Messages, err = s.list(j.Count); err == nil {
			r.Octets, err = s.fetch(j.Count)
		}
	case Large:
		r.Octets, err = s.fetch(j.Count)
	case Uidl:
		r.Messages, err = s.uidl(j.Count)
	case Dele:
		err = s.dele(j.Count)
	case Poll:
		r.Messages, err = s.list(j.Count)
	}
	return err
}

// tlsConfig trusts the server of a job.
func tlsConfig(j Job) (*tls.Config, error) {
	pem, err := os.ReadFile(j.CAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + j.CAFile)
	}
	host, _, err := net.SplitHostPort(j.Addr)
	return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}, err
}

// connect connects for clients that do not do it by themselves.
func connect(ctx context.Context, j Job) (net.Conn, error) {
	if !j.TLS {
		return new(net.Dialer).DialContext(ctx, "tcp", j.Addr)
	}
	config, err := tlsConfig(j)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", j.Addr)
}

// numbers are 1 to n.
func numbers(n int) []int {
	nums := make([]int, n)
	for i := range nums {
		nums[i] = i + 1
	}
	return nums
}
