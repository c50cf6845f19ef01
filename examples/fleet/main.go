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

// The commands and their flags. Each flag can be set in the environment; for instance, FLEET_HOST_SESSIONS sets
// --host-sessions.
type commands struct {
	globals

	Init      initCommand `cmd:"" help:"Make the streams in JetStream, or migrate those of an earlier version."`
	Scheduler Scheduler   `cmd:"" help:"Hand out the accounts that are due, and serve the page; run two."`
	Worker    Worker      `cmd:"" help:"Poll accounts; run as many as there is work for."`

	List    accountsCommand `cmd:"" help:"List accounts."`
	Release accountsCommand `cmd:"" help:"Give accounts that were set aside another chance."`
	Poll    accountsCommand `cmd:"" help:"Poll accounts now."`
	Remove  accountsCommand `cmd:"" help:"Stop polling accounts that the accounts file lacks, however many they are."`
	Pause   hostsCommand    `cmd:"" help:"Poll no accounts of these hosts."`
	Resume  hostsCommand    `cmd:"" help:"Poll the accounts of these hosts again."`
}

// globals are the flags of all commands.
type globals struct {
	NATS natsConfig `embed:""`
	Name string     `default:"${name}" help:"Name of this process, unique."`
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

// run connects to NATS and runs the command of the command line.
func run(ctx context.Context) error {
	if err := checkArguments(os.Args[1:]); err != nil {
		return err
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

// checkArguments refuses URLs that contain secrets, before an error could show them.
func checkArguments(args []string) error {
	for _, arg := range args {
		if strings.Contains(arg, "://") && strings.Contains(arg, "@") {
			return errors.New("an URL with a user or password can be seen by everybody on this machine; " +
				"set it as FLEET_NATS or FLEET_MAIL_NATS, or use --nats-creds, --nats-nkey or --nats-token")
		}
	}
	return nil
}

// A mailConfig says where the mail stream is.
type mailConfig struct {
	Mail natsConfig `embed:"" prefix:"mail-"`
}

// connect returns JetStream for mail: js, or a connection of its own if one is configured. The caller must close it.
func (m *mailConfig) connect(name string, js jetstream.JetStream) (mail jetstream.JetStream, err error) {
	if m.Mail.URL == "" {
		return js, nil
	}
	return m.Mail.connect(name)
}

// A service contains what a scheduler and a worker have in common.
type service struct {
	Accounts       string `default:"accounts.json" placeholder:"FILE" help:"File with the accounts."`
	FingerprintKey string `placeholder:"FILE" help:"Secret, the same everywhere, to notice changed passwords."`
	HTTP           string `default:"127.0.0.1:8080" help:"Address of /healthz, /readyz, /metrics and the page."`

	name     string
	accounts *accounts.File
	bus      *Bus
	mux      http.ServeMux
	works    atomic.Bool // everything is open
}

// A program is a scheduler or a worker.
type program interface {
	healthy() error // why it must be restarted, or nil
	ready() error   // why it does not work, or nil
	work(ctx context.Context) error
}

// run opens everything, lets p work, and closes everything.
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
