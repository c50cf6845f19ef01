// Command fleet polls many POP3 maildrops with many processes: schedulers decide which maildrop is due, workers fetch
// with package fetch, and everything that has to be remembered is in NATS JetStream. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The commands, with their flags. Each flag can be set in the environment: FLEET_HOST_SESSIONS is --host-sessions.
type commands struct {
	globals

	Init      initCommand      `cmd:"" help:"Make the streams in JetStream, or migrate those of an earlier version."`
	Scheduler schedulerCommand `cmd:"" help:"Hand out the accounts that are due, and serve the page; run two."`
	Worker    workerCommand    `cmd:"" help:"Poll accounts; run as many as there is work for."`

	List      accountsCommand  `cmd:"" help:"List accounts."`
	Release   accountsCommand  `cmd:"" help:"Give accounts that were set aside another chance."`
	Poll      accountsCommand  `cmd:"" help:"Poll accounts now."`
	Pause     hostsCommand     `cmd:"" help:"Poll no accounts of these hosts."`
	Resume    hostsCommand     `cmd:"" help:"Poll the accounts of these hosts again."`
	Reconcile reconcileCommand `cmd:"" help:"Make the records follow the accounts file, even if many are gone."`
}

// globals are the flags of all commands.
type globals struct {
	NATS natsConfig `embed:""`
	Name string     `help:"Name of this process, unique. Host and process number if it is empty."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	err := checkArguments(os.Args[1:])
	if err == nil {
		var c commands
		parser := kong.Must(&c, kong.Name("fleet"), kong.DefaultEnvars("FLEET"), kong.ShortUsageOnError(),
			kong.Description("Polls many POP3 maildrops with many processes."),
			kong.BindTo(ctx, (*context.Context)(nil)))
		k, parsing := parser.Parse(os.Args[1:])
		parser.FatalIfErrorf(parsing)
		c.globals.complete()
		err = k.Run(&c.globals)
	}
	if err != nil {
		slog.Error("fleet failed", "error", err)
		stop()
		os.Exit(1)
	}
}

// checkArguments refuses URLs with secrets, before an error could show them.
func checkArguments(args []string) error {
	for _, arg := range args {
		if strings.Contains(arg, "://") && strings.Contains(arg, "@") {
			return errors.New("an URL with a user or password can be seen by everybody on this machine; " +
				"set it as FLEET_NATS or FLEET_MAIL_NATS, or use --nats-creds, --nats-nkey or --nats-token")
		}
	}
	return nil
}

func (g *globals) complete() {
	if g.NATS.URL == "" {
		g.NATS.URL = "nats://127.0.0.1:4222"
	}
	if g.Name == "" {
		host, _ := os.Hostname()
		g.Name = fmt.Sprintf("%s-%d", strings.ReplaceAll(host, ".", "-"), os.Getpid())
	}
}

// A mailConfig says where the mail stream is.
type mailConfig struct {
	Mail natsConfig `embed:"" prefix:"mail-"`
}

// connect connects to NATS. The connection for mail is the same one if nothing else was asked for.
func (m *mailConfig) connect(g *globals) (nc, mail *nats.Conn, err error) {
	if nc, err = g.NATS.connect(g.Name); err != nil || m.Mail.URL == "" {
		return nc, nc, err
	}
	if mail, err = m.Mail.connect(g.Name); err != nil {
		nc.Close()
	}
	return nc, mail, err
}

type initCommand struct {
	mailConfig
	layout
}

// Run is the only command that makes or changes streams.
func (c *initCommand) Run(ctx context.Context, g *globals) error {
	nc, mail, err := c.connect(g)
	if err != nil {
		return err
	}
	defer nc.Close()
	defer mail.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var both [2]jetstream.JetStream
	for n, one := range []*nats.Conn{nc, mail} {
		if both[n], err = jetstream.New(one); err != nil {
			return err
		}
		err = waitFor(ctx, one, func(ctx context.Context) error {
			_, err := both[n].AccountInfo(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("JetStream: %w", err)
		}
	}
	return c.initialize(ctx, both[0], both[1], os.Stdout)
}

// waitFor tries until NATS is there and what is missing has been made, and logs what it waits for.
func waitFor(ctx context.Context, nc *nats.Conn, do func(ctx context.Context) error) error {
	for last := ""; ; {
		err := fmt.Errorf("%w: it is not connected", errAway)
		if nc.IsConnected() {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			err = do(try)
			cancel()
		}
		if err == nil || !isAway(err) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		if err.Error() != last {
			last = err.Error()
			slog.Warn("waiting for NATS", "error", err)
		}
		if !pause(ctx, time.Second) {
			return err
		}
	}
}
