package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/spf13/pflag"
)

// options contains the flags and arguments of the command line.
type options struct {
	config     string
	accounts   []string
	daemon     bool
	dryRun     bool
	check      bool
	catchUp    bool
	importFrom string // the other program: mpop, getmail or fetchmail
	importFile string
	diagnose   string
	caFile     string
	json       bool
	quiet      bool
	verbose    bool
	version    bool
}

const usage = `Popfetch fetches new mail from POP3 servers and loses none of it.

  popfetch [flags] [ACCOUNT ...]      fetch once, from all accounts or from those named
  popfetch --daemon [ACCOUNT ...]     fetch again and again
  popfetch --diagnose HOST[:PORT]     show what a server offers, without logging in
  popfetch --check                    check the configuration only
  popfetch catch-up ACCOUNT ...       mark all messages on the server as fetched
  popfetch import --from mpop|getmail|fetchmail FILE ACCOUNT
                                      mark as fetched what another program has fetched

  -c, --config FILE    configuration (default: popfetch/config.toml in the folder for
                       configurations, which is ~/.config on Linux)
  -n, --dry-run        show what would be fetched or deleted, and change nothing
  -d, --daemon         keep running, and fetch at the interval of each account
      --diagnose HOST  without a port, ports 995 and 110 are tried
      --ca-file FILE   with --diagnose: trust the certificates in FILE (PEM)
      --json           write one JSON object for each event to the standard output
  -q, --quiet          write errors only
  -v, --verbose        log all commands and replies, with secrets masked
      --version        print the version
  -h, --help           print this

A configuration with one account:

  [[account]]
  server = "pop.example.org"            # or "pop.example.org:995"
  user = "me@example.org"
  password_command = ["pass", "show", "mail/me"]  # or password_env, password_keyring
  maildir = "~/Maildir"                 # or mbox = FILE, or command = ["procmail"]
  delete = "never"                      # or "after delivery", "14 days"

README.md and popfetch(1) list all keys.

Exit status: 0 all done; 1 an account or a message failed (the message stays on the
server); 2 wrong usage; 3 wrong configuration; 4 no POP3 server (--diagnose);
5 stopped by a signal.

After the first SIGINT or SIGTERM the current message is stored, which may take at most
30 seconds. The second one closes the connections at once. A daemon reads its
configuration again at SIGHUP, and fetches at once at SIGUSR1.
`

var errHelp = pflag.ErrHelp

// parseFlags reads the command line.
func parseFlags(args []string) (*options, error) {
	o := new(options)
	flags := pflag.NewFlagSet("popfetch", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.StringVarP(&o.config, "config", "c", "", "")
	flags.BoolVarP(&o.daemon, "daemon", "d", false, "")
	flags.BoolVarP(&o.dryRun, "dry-run", "n", false, "")
	flags.BoolVar(&o.check, "check", false, "")
	flags.StringVar(&o.importFrom, "from", "", "")
	flags.StringVar(&o.diagnose, "diagnose", "", "")
	flags.StringVar(&o.caFile, "ca-file", "", "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "")
	flags.BoolVar(&o.version, "version", false, "")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if err := o.takeArguments(flags.Args()); err != nil {
		return nil, err
	}
	return o, o.validate()
}

// takeArguments reads the arguments after the flags: a subcommand, and names of accounts.
func (o *options) takeArguments(args []string) error {
	if o.accounts = args; len(args) > 0 && (args[0] == "catch-up" || args[0] == "import") {
		o.accounts = args[1:]
	}
	switch {
	case len(args) > 0 && args[0] == "import":
		if _, ok := importers[o.importFrom]; !ok || len(o.accounts) != 2 {
			return errors.New("usage: popfetch import --from mpop|getmail|fetchmail FILE ACCOUNT")
		}
		o.importFile, o.accounts = o.accounts[0], o.accounts[1:]
	case o.importFrom != "":
		return errors.New("--from can be used with popfetch import only")
	case len(args) > 0 && args[0] == "catch-up":
		if o.catchUp = true; len(o.accounts) == 0 {
			return errors.New("catch-up needs the name of an account, as in popfetch catch-up work")
		}
	}
	return nil
}

// validate returns an error if flags are used together that exclude each other.
func (o *options) validate() error {
	subcommand := o.catchUp || o.importFrom != ""
	switch {
	case o.daemon && o.dryRun:
		return errors.New("--daemon and --dry-run cannot be used together")
	case o.daemon && (o.check || subcommand):
		return errors.New("--check, catch-up and import cannot be used with --daemon")
	case o.dryRun && subcommand:
		return errors.New("catch-up and import cannot be used with --dry-run")
	case o.diagnose != "" && (o.daemon || o.dryRun || o.check || subcommand || o.config != "" || len(o.accounts) > 0):
		return errors.New("--diagnose can be used with --json, --ca-file and --verbose only")
	case o.caFile != "" && o.diagnose == "":
		return errors.New("--ca-file can be used with --diagnose only; " +
			"for an account, write ca_file in the configuration")
	case slices.Contains(o.accounts, ""):
		return errors.New("an account on the command line has an empty name")
	}
	return nil
}

// configFile returns the name of the configuration file.
func (o *options) configFile() (string, error) {
	if o.config != "" {
		return o.config, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("the folder for configurations is not known: %w; use --config FILE", err)
	}
	return filepath.Join(dir, "popfetch", "config.toml"), nil
}

// version returns the version that the Go toolchain has recorded in the program.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "popfetch (unknown version)"
	}
	return "popfetch " + info.Main.Version
}
