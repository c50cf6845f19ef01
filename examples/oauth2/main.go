// Oauth2 lists a maildrop of Gmail or Microsoft 365. It logs in with a token of OAuth 2.0 instead of a password.
//
// The first run asks the user for consent and stores the tokens in a file. Later runs need no user. README.md explains
// how to register a program with the provider, which assigns the client ID.
//
//	go run . -provider google    -client-id ID -tokens me.json -user me@gmail.com
//	go run . -provider microsoft -client-id ID -tokens me.json -user me@example.com
//
// Secrets come from the environment, because all users of the machine can see arguments. POP3_CLIENT_SECRET is
// needed if the provider assigns one with the client ID. POP3_REFRESH_TOKEN replaces the file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	"golang.org/x/oauth2"

	"github.com/seed-2d50cddb/pop3"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "oauth2:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	j, err := parse(args, stderr)
	if err != nil {
		return err
	}
	return j.run(ctx, stdout, stderr)
}

// A job contains the arguments.
type job struct {
	provider               provider
	consent                consent
	clientID, file         string
	user, mech             string
	verbose                bool
	opts                   pop3.Options
	clientSecret, envToken string
}

func parse(args []string, stderr io.Writer) (*job, error) {
	j := &job{clientSecret: os.Getenv("POP3_CLIENT_SECRET"), envToken: os.Getenv("POP3_REFRESH_TOKEN")}
	flags := flag.NewFlagSet("oauth2", flag.ContinueOnError)
	flags.SetOutput(stderr)
	name := flags.String("provider", "", "google or microsoft")
	tenant := flags.String("tenant", "common", "microsoft only: the `directory` of the user")
	flow := flags.String("consent", "", "browser or device (default browser for google, device for microsoft)")
	flags.StringVar(&j.clientID, "client-id", "", "`ID` that the provider has assigned to the program")
	flags.StringVar(&j.file, "tokens", "", "`file` for the tokens")
	flags.StringVar(&j.user, "user", "", "`name` of the user, an address")
	flags.StringVar(&j.mech, "mech", "", "XOAUTH2 or OAUTHBEARER (default OAUTHBEARER if the server announces it)")
	flags.BoolVar(&j.verbose, "v", false, "log commands and replies, without the tokens")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if newProvider := providers[*name]; newProvider != nil {
		j.provider = newProvider(*tenant)
	}
	if *flow == "" {
		*flow = j.provider.consent
	}
	j.consent = consents[*flow]
	return j, j.check(flags)
}

// check returns an error if an argument is missing or wrong.
func (j *job) check(flags *flag.FlagSet) error {
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; see -h", flags.Arg(0))
	case j.provider.addr == "":
		return errors.New("-provider must be google or microsoft")
	case j.consent == nil:
		return errors.New("-consent must be browser or device")
	case j.mech != "" && mechanisms[j.mech] == nil:
		return errors.New("-mech must be XOAUTH2 or OAUTHBEARER")
	case j.clientID == "" || j.user == "":
		return errors.New("-client-id and -user are required")
	case j.file == "" && j.envToken == "":
		return errors.New("set -tokens to a file for the tokens, or set the environment variable POP3_REFRESH_TOKEN")
	}
	return nil
}

// run lists the maildrop.
func (j *job) run(ctx context.Context, stdout, stderr io.Writer) error {
	if j.verbose {
		debug := &slog.HandlerOptions{Level: slog.LevelDebug}
		j.opts.Trace = pop3.LogTrace(slog.New(slog.NewTextHandler(stderr, debug)))
	}
	// Package oauth2 has no time limit of its own.
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: time.Minute})
	tokens, err := j.tokens(ctx, stderr)
	if err != nil {
		return err
	}
	account := &account{addr: j.provider.addr, user: j.user, mech: j.mech, opts: &j.opts, tokens: tokens}
	c, err := account.logIn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	infos, err := c.Listing(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		fmt.Fprintf(stdout, "%6d %12d octets  %q\n", info.Num, info.Size, info.UID)
	}
	fmt.Fprintf(stdout, "messages: %d\n", len(infos))
	return c.Quit(ctx)
}

// tokens loads the tokens from the environment or from the file. If there is no file, it asks the user for consent, and
// prints the instructions to prompt.
func (j *job) tokens(ctx context.Context, prompt io.Writer) (*tokens, error) {
	config := j.provider.config(j.clientID, j.clientSecret)
	if j.envToken != "" {
		return &tokens{config: config, current: &oauth2.Token{RefreshToken: j.envToken}}, nil
	}
	t := &tokens{config: config, file: j.file}
	err := t.load()
	if !errors.Is(err, os.ErrNotExist) {
		return t, err
	}
	if t.current, err = j.consent(ctx, config, j.provider.options(j.user), prompt); err != nil {
		return nil, fmt.Errorf("no consent: %w", err)
	}
	return t, t.save()
}
