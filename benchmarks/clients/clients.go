// Package clients contains the POP3 clients to be measured. Each client does the same work, in the way that its own
// documentation shows. A client is a Go library or a program.
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

// A Work is what a session does between the login and QUIT.
type Work string

const (
	Fetch Work = "fetch" // read the sizes and unique-ids, then every message, and discard them
	Large Work = "large" // read the only message of the maildrop, and discard it
	Uidl  Work = "uidl"  // read the unique-ids
	Dele  Work = "dele"  // delete every message
	Poll  Work = "poll"  // read the sizes and unique-ids of an empty maildrop
)

// A Job is one session.
type Job struct {
	Client         string
	Work           Work
	Addr           string // host:port
	TLS            bool   // TLS from the first octet
	CAFile         string // file with the authority of the server's certificate, in PEM
	User, Password string
	Count          int    // number of messages in the maildrop
	Dir            string // folder for files that the client needs
}

// A Result contains what a session has done, and its time and memory. Times that a client does not report are 0.
type Result struct {
	Total    time.Duration // time from the beginning of the connection to the end of the session
	LoggedIn time.Duration // time from the beginning of the connection to the end of the login
	Done     time.Duration // time from the beginning of the connection to the end of the work, before QUIT
	Messages int           // number of messages that were completely read, deleted or listed; -1 if it is not known
	Octets   int64         // octets of the messages that were read; -1 if the number is not known
	Base     int64         // octets of resident memory before the session
	Peak     int64         // octets of resident memory at the peak
}

// A Client is a client to be measured. Either Open or Command is set.
type Client struct {
	Name      string
	Version   string // version of the module; "" for a program
	Ours      bool   // it is this library
	Limit     bool   // it is not a real client, but shows the limit of what is possible
	Pipelines bool   // it sends commands without waiting for replies
	LoginOnly bool   // it differs from another client only in the login

	Open           func(ctx context.Context, j Job) (session, error)
	Command        func(j Job) (*program, error)
	VersionCommand []string // a command that only prints the version of the program
	Silent         bool     // the program reports neither its time nor its memory
}

// A session begins after the login. Each of its methods is called at most once, and quit is the last call.
type session interface {
	list(n int) (int, error)    // reads the sizes and unique-ids of n messages, and returns their number
	fetch(n int) (int64, error) // reads and discards messages 1 to n, and returns the number of octets
	uidl(n int) (int, error)    // reads the unique-ids of n messages, and returns their number
	dele(n int) error           // deletes messages 1 to n
	quit() error
}

// All returns the clients, in the order of the tables.
func All() []Client {
	return []Client{library, libraryPlain, bareLoop, mpop, migadu, byHand, knadh, poplib, curl}
}

// ByName returns the client with the given name, or an error if there is none.
func ByName(name string) (Client, error) {
	for _, c := range All() {
		if c.Name == name {
			return c, nil
		}
	}
	return Client{}, fmt.Errorf("there is no client with the name %q", name)
}

// envJob is the environment variable with the job of a child process; see [Child].
const envJob = "POP3_BENCH_JOB"

// Run carries out a job in a process of its own, so that its memory can be measured separately.
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

// child returns a program that runs this executable again, to carry out a job.
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

// Child must be called first in main. In a process that [Run] has started, it carries out the job and exits. In any
// other process it does nothing.
func Child() {
	job := os.Getenv(envJob)
	if job == "" {
		return
	}
	var j Job
	err := json.Unmarshal([]byte(job), &j)
	if err == nil {
		var r Result
		if r, err = runJob(context.Background(), j); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runJob carries out a job in this process, with a Go library.
func runJob(ctx context.Context, j Job) (r Result, err error) {
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

// tlsConfig returns a TLS configuration that trusts the server of a job.
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

// connect connects to the server of a job. It is for clients that cannot connect themselves.
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

// numbers returns the numbers from 1 to n.
func numbers(n int) []int {
	nums := make([]int, n)
	for i := range nums {
		nums[i] = i + 1
	}
	return nums
}
