// Command fleet polls many POP3 maildrops with many processes. Schedulers decide which maildrop is due, workers fetch
// with package fetch, and all data that must survive a process is in NATS JetStream. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
)

// commands are the commands and their flags. Each flag can be set in the environment; for instance, FLEET_HOST_SESSIONS
// sets --host-sessions.
type commands struct {
	globals

	Init      initCommand `cmd:"" help:"Create the streams in JetStream, or change those of an earlier version."`
	Scheduler Scheduler   `cmd:"" help:"Hand out the accounts that are due, and serve the page. Run two of them."`
	Worker    Worker      `cmd:"" help:"Poll accounts. Run as many of them as necessary."`

	List    accountsCommand `cmd:"" help:"List accounts."`
	Release accountsCommand `cmd:"" help:"Poll accounts again that were set aside."`
	Poll    accountsCommand `cmd:"" help:"Poll accounts now."`
	Remove  accountsCommand `cmd:"" help:"Stop polling accounts; for accounts that are missing in the accounts file."`
	Pause   hostsCommand    `cmd:"" help:"Do not poll the accounts of these hosts."`
	Resume  hostsCommand    `cmd:"" help:"Poll the accounts of these hosts again."`
}

// globals are the flags of all commands.
type globals struct {
	NATS natsConfig `embed:""`
	Name string     `default:"${name}" help:"Name of this process in logs and on the page."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	if err := run(ctx); err != nil {
		slog.Error("fleet failed", "error", err)
		stop()
		os.Exit(1)
	}
}

// run parses the command line, connects to NATS, and runs the command.
func run(ctx context.Context) error {
	for _, arg := range os.Args[1:] { // before kong, whose errors show arguments
		if strings.Contains(arg, "://") && strings.Contains(arg, "@") {
			return errors.New("everybody on this machine can see the user or password in a URL on the command line; " +
				"set it as FLEET_NATS or FLEET_MAIL_NATS, or use --nats-creds, --nats-nkey or --nats-token")
		}
	}
	var c commands
	host, _ := os.Hostname()
	k := kong.Parse(&c, kong.Name("fleet"), kong.DefaultEnvars("FLEET"), kong.ShortUsageOnError(),
		kong.Description("Polls many POP3 maildrops with many processes."),
		kong.Vars{"name": fmt.Sprintf("%s-%d", host, os.Getpid())})
	slog.SetDefault(slog.With("process", c.Name))
	js, err := c.NATS.connect(c.Name)
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	k.BindTo(ctx, (*context.Context)(nil))
	k.BindTo(js, (*jetstream.JetStream)(nil))
	return k.Run(c.globals)
}

// A mailConfig configures a connection of its own for the mail stream. Without a URL, mail uses the connection of the
// records.
type mailConfig struct {
	Mail natsConfig `embed:"" prefix:"mail-"`
}

// connect returns js, or JetStream over a new connection if one is configured. The caller must close the connection.
func (m *mailConfig) connect(name string, js jetstream.JetStream) (mail jetstream.JetStream, err error) {
	if m.Mail.URL == "" {
		return js, nil
	}
	return m.Mail.connect(name)
}

// A service is the common part of a scheduler and a worker.
type service struct {
	Accounts       string `default:"accounts.json" placeholder:"FILE" help:"File with the accounts."`
	FingerprintKey string `placeholder:"FILE" help:"File with a secret of the fleet, to notice changed passwords."`
	HTTP           string `default:"127.0.0.1:8080" help:"Address to serve /healthz, /readyz, /metrics and the page."`

	name     string
	accounts *accounts.File
	bus      *Bus
	mux      http.ServeMux
	started  atomic.Bool // true if NATS and the streams were available
}

// A program is a scheduler or a worker.
type program interface {
	healthy() error                 // returns an error if the process must be restarted
	ready() error                   // returns an error if the process cannot work now
	work(ctx context.Context) error // works until ctx ends
}

// run serves HTTP, reads the accounts, opens the streams, and calls p.work.
func (s *service) run(ctx context.Context, js jetstream.JetStream, name string, p program) error {
	s.name = name
	stop, err := s.serve(p, js.Conn())
	if err != nil {
		return err
	}
	defer stop()
	if s.accounts, err = accounts.Open(s.Accounts, s.FingerprintKey); err != nil {
		return err
	}
	if s.bus, err = openBus(ctx, js); err == nil {
		err = p.work(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}
