package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// A config is the configuration file.
type config struct {
	State    string     `toml:"state"`
	Parallel int        `toml:"parallel"`
	Accounts []settings `toml:"account"`
}

// settings are those of one account. README.md says what the keys mean.
type settings struct {
	Name   string        `toml:"name"`
	Server string        `toml:"server"`
	TLS    word[tlsMode] `toml:"tls"`
	CAFile string        `toml:"ca_file"`

	User            string   `toml:"user"`
	Password        *string  `toml:"password"`
	PasswordEnv     string   `toml:"password_env"`
	PasswordCommand []string `toml:"password_command"`
	PasswordKeyring string   `toml:"password_keyring"`
	Mechanisms      []string `toml:"mechanisms"`
	InsecureAuth    bool     `toml:"insecure_auth"`

	Maildir        string        `toml:"maildir"`
	Mbox           string        `toml:"mbox"`
	Command        []string      `toml:"command"`
	ShellCommand   string        `toml:"shell_command"`
	CommandTimeout span          `toml:"command_timeout"`
	LineEnds       word[lineEnd] `toml:"line_ends"`

	Delete      deletePolicy `toml:"delete"`
	CommitEvery int          `toml:"commit_every"`
	AcceptShort bool         `toml:"accept_short"`

	MaxSize     amount `toml:"max_size"`
	MaxMessages int    `toml:"max_messages"`
	MaxOctets   amount `toml:"max_octets"`
	NewestFirst bool   `toml:"newest_first"`

	Interval   span               `toml:"interval"`
	Timeout    span               `toml:"timeout"`
	Pipelining word[pipelineMode] `toml:"pipelining"`
}

// Defaults.
const (
	defaultParallel       = 4
	defaultInterval       = 10 * time.Minute
	defaultCommandTimeout = 5 * time.Minute
)

// load gives the accounts that the command line asks for, and how many of them may be at work at a time.
func (p *program) load() ([]*account, int, error) {
	name, err := p.configFile()
	if err != nil {
		return nil, 0, err
	}
	c, err := readConfig(name)
	if err != nil {
		return nil, 0, err
	}
	accounts, err := c.build()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	accounts, err = choose(accounts, p.accounts)
	return accounts, c.Parallel, err
}

// readConfig reads and checks a configuration file.
func readConfig(name string) (*config, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no configuration at %s; popfetch --help has one to begin with", name)
	}
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, c.checkMode(name)
}

// parseConfig parses a configuration. Errors begin with the line.
func parseConfig(text []byte) (*config, error) {
	c := &config{Parallel: defaultParallel}
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var all []string
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			all = append(all, fmt.Sprintf("%d: unknown key %s", line, strings.Join(e.Key(), ".")))
		}
		return nil, errors.New(strings.Join(all, "; line "))
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		return nil, fmt.Errorf("%d: %s%s", line, keyOf(wrong), strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return nil, fmt.Errorf(" %w", err)
	}
	return c, nil
}

// keyOf names the key that an error is about, if it is about one.
func keyOf(e *toml.DecodeError) string {
	if len(e.Key()) == 0 {
		return ""
	}
	return strings.Join(e.Key(), ".") + ": "
}

// check fills in what was left out, and finds mistakes that are not in one value.
func (c *config) check() error {
	if len(c.Accounts) == 0 {
		return errors.New("no account; each one is a table [[account]]")
	}
	if c.Parallel < 1 {
		return errors.New("parallel is at least 1")
	}
	names := make(map[string]bool)
	for i := range c.Accounts {
		s := &c.Accounts[i]
		if s.Name == "" {
			s.Name = s.User
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("account %s: %w", s.title(i), err)
		}
		if names[s.Name] {
			return fmt.Errorf("account %q is there twice; give each one a name of its own", s.Name)
		}
		names[s.Name] = true
	}
	return nil
}

// title names an account in an error, by its place if it has no name.
func (s *settings) title(i int) string {
	if s.Name == "" {
		return fmt.Sprintf("number %d", i+1)
	}
	return fmt.Sprintf("%q", s.Name)
}

// check finds what is missing, or there more than once.
func (s *settings) check() error {
	switch {
	case s.Server == "":
		return errors.New("no server")
	case s.User == "":
		return errors.New("no user")
	case s.passwords() != 1:
		return errors.New("it needs one of password_command, password_env, password_keyring, password")
	case s.sinks() != 1:
		return errors.New("it needs one of maildir, mbox, command, shell_command")
	case s.MaxSize < 0 || s.MaxMessages < 0 || s.MaxOctets < 0 || s.CommitEvery < 0:
		return errors.New("limits are not below zero")
	case s.Mbox != "" && s.LineEnds.is == lineEndCRLF:
		return errors.New("lines of an mbox file end in LF")
	}
	if err := s.checkMechanisms(); err != nil {
		return err
	}
	return s.expandPaths()
}

// checkMechanisms wants a token mechanism to stand alone, since a token is no password.
func (s *settings) checkMechanisms() error {
	if len(s.Mechanisms) > 1 && slices.ContainsFunc(s.Mechanisms, isTokenMechanism) {
		return errors.New("mechanisms: XOAUTH2 and OAUTHBEARER stand alone, since a token is no password")
	}
	return nil
}

// count tells how many of its arguments are true.
func count(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

func (s *settings) passwords() int {
	return count(s.Password != nil, s.PasswordEnv != "", len(s.PasswordCommand) > 0, s.PasswordKeyring != "")
}

func (s *settings) sinks() int {
	return count(s.Maildir != "", s.Mbox != "", len(s.Command) > 0, s.ShellCommand != "")
}

// expandPaths makes all paths absolute.
func (s *settings) expandPaths() error {
	for key, path := range map[string]*string{"maildir": &s.Maildir, "mbox": &s.Mbox, "ca_file": &s.CAFile} {
		if err := expand(path); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// expand puts the home folder in the place of "~". A path must not depend on where popfetch was started.
func expand(path *string) error {
	if rest, ok := strings.CutPrefix(*path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		*path = filepath.Join(home, rest)
	}
	if *path != "" && !filepath.IsAbs(*path) {
		return errors.New("a path begins with / or ~/")
	}
	return nil
}

// checkMode refuses a file with a password in it that others can read. Windows has no such mode.
func (c *config) checkMode(name string) error {
	hasPassword := func(s settings) bool { return s.Password != nil }
	if runtime.GOOS == "windows" || !slices.ContainsFunc(c.Accounts, hasPassword) {
		return nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s: there is a password in it, and others may read it (mode %o); "+
			"run chmod 600, or use password_command", name, mode)
	}
	return nil
}

// choose gives the accounts with the given names, all of them if there are none.
func choose(accounts []*account, names []string) ([]*account, error) {
	if len(names) == 0 {
		return accounts, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(accounts, func(a *account) bool { return a.Name == name }) {
			return nil, fmt.Errorf("no account %q in the configuration", name)
		}
	}
	return slices.DeleteFunc(accounts, func(a *account) bool { return !slices.Contains(names, a.Name) }), nil
}
