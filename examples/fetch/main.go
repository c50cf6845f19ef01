// Fetch fetches all messages of a POP3 maildrop into a Maildir. With -delete it deletes each message from the server
// after the message is stored and synced to the disk.
//
// Without arguments it fetches sample messages from its own server into a temporary folder:
//
//	go run ./examples/fetch
//
// With -addr and -user it works with any server. The password comes from the environment (POP3_PASSWORD), from
// a prompt, or from the first line of the standard input. It is never an argument, because all users of the
// machine can see arguments.
//
//	go run ./examples/fetch -addr pop.example.org -user me@example.org -o ~/Mail/new-mail
//
// The program does not remember which messages it has stored, so another run without -delete stores the same messages
// again. To remember them, set the field Seen of fetch.Fetcher, as cmd/popfetch does.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// A job contains the arguments.
type job struct {
	addr, user, password string
	tls                  string // one of the keys of dialers
	delete               bool
	dir                  string
	opts                 pop3.Options
}

// dialers contains a function for each value of -tls.
var dialers = map[string]func(context.Context, string, *pop3.Options) (*pop3.Client, error){
	"implicit": pop3.DialTLS,
	"starttls": pop3.DialStartTLS,
	"none":     pop3.DialInsecure,
}

func run(ctx context.Context, args []string, stdin *os.File, stdout, stderr io.Writer) error {
	j, err := parse(args, stderr)
	if err != nil {
		return err
	}
	return j.start(ctx, stdin, stdout, stderr)
}

// start prepares the job and runs it. Without -addr it starts the sample server. With -addr it reads the password.
// Without -o it creates a temporary folder.
func (j *job) start(ctx context.Context, stdin *os.File, stdout, stderr io.Writer) (err error) {
	if j.addr == "" {
		sample := startSample()
		defer sample.Close()
		fmt.Fprintln(stdout, "-addr is not set, so the messages come from a sample server on this machine.")
		j.addr, j.user, j.password = sample.Addr, sampleUser, samplePassword
		j.opts.TLSConfig = sample.ClientTLS()
	} else if j.password, err = readPassword(ctx, stdin, stderr); err != nil {
		return fmt.Errorf("no password: %w", err)
	}
	if j.dir == "" {
		if j.dir, err = os.MkdirTemp("", "maildir-"); err != nil {
			return err
		}
		defer removeEmpty(j.dir)
	}
	if err := (fetch.Maildir{Dir: j.dir}).Create(); err != nil {
		return err
	}
	return j.run(ctx, stdout)
}

// removeEmpty removes the empty folders of a Maildir. If all its folders are empty, it also removes the Maildir.
func removeEmpty(maildir string) {
	for _, folder := range []string{"new", "cur", "tmp", "."} {
		os.Remove(filepath.Join(maildir, folder))
	}
}

func parse(args []string, stderr io.Writer) (*job, error) {
	j := &job{opts: pop3.Options{Timeout: 30 * time.Second}} // the time limit is short, because a person is waiting
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&j.addr, "addr", "", "server, as `host[:port]`; the default port is 995, or 110 without\n"+
		"implicit TLS (default a server with sample messages)")
	flags.StringVar(&j.user, "user", "", "`name` of the user")
	flags.StringVar(&j.tls, "tls", "implicit",
		"`encryption`: implicit (DialTLS), starttls (DialStartTLS) or none (DialInsecure)")
	flags.BoolVar(&j.delete, "delete", false, "delete messages from the server after they are stored")
	flags.StringVar(&j.dir, "o", "", "Maildir to store in (default a new temporary folder)")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; see fetch -h", flags.Arg(0))
	case dialers[j.tls] == nil:
		return nil, fmt.Errorf("-tls %s: the value must be one of implicit, starttls, none", j.tls)
	case (j.addr == "") != (j.user == ""):
		return nil, errors.New("-addr and -user must both be set")
	}
	return j, nil
}

// run fetches all messages and shows the progress.
func (j *job) run(ctx context.Context, out io.Writer) error {
	f := fetch.Fetcher{
		Connect: j.connect,
		Sink:    fetch.Maildir{Dir: j.dir},
		Delete:  j.delete,
	}
	d := newDisplay(out)
	f.Progress = d.progress
	var report fetch.Report
	for result, err := range f.Results(ctx, &report) {
		if err == nil {
			d.result(result)
		}
	}
	d.report(report, j)
	return report.Err
}

// connect returns a client that is logged in.
func (j *job) connect(ctx context.Context) (*pop3.Client, error) {
	c, err := dialers[j.tls](ctx, j.addr, &j.opts)
	if untrusted := new(tls.CertificateVerificationError); errors.As(err, &untrusted) {
		return nil, fmt.Errorf("%w (examples/connect shows how to trust your own certificate authority)", err)
	}
	if err != nil {
		return nil, err
	}
	if err := c.Login(ctx, j.user, j.password); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
