package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/zalando/go-keyring"
	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// defaultPasswordTimeout is long enough for a person to unlock a key.
const defaultPasswordTimeout = 2 * time.Minute

// commandWait is how long popfetch waits for output that a killed command has left to its children.
const commandWait = time.Second

// A token is the latest password or token of an account, with the time until which it need not be asked for again.
type token struct {
	text    string
	expires time.Time
}

// secret returns the password or the token from where the settings say. It asks anew if the server has refused the
// latest one. No error holds any of it, nor an argument of the command.
func (a *account) secret(ctx context.Context, refused bool) (secret string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.PasswordTimeout.Duration, fmt.Errorf(
		"no answer within %v (password_timeout)", a.PasswordTimeout))
	defer cancel()
	switch {
	case a.Password != "":
		return a.Password, nil
	case a.PasswordEnv != "":
		if secret = os.Getenv(a.PasswordEnv); secret == "" {
			err = fmt.Errorf("the environment variable %s is not set", a.PasswordEnv)
		}
	case a.PasswordKeyring != "":
		secret, err = a.fromKeyring(ctx)
	case a.PasswordPrompt:
		if secret = a.latest.text; secret == "" {
			err = errors.New("password_prompt needs a terminal to ask at")
		}
	case len(a.PasswordCommand) > 0:
		if refused || !time.Now().Before(a.latest.expires) {
			a.latest, err = a.fromCommand(ctx, refused)
		}
		secret = a.latest.text
	}
	if err != nil {
		return "", fmt.Errorf("no password: %w", err)
	}
	return secret, nil
}

// fromKeyring asks the system keyring, which may wait for a person to unlock it.
func (a *account) fromKeyring(ctx context.Context) (string, error) {
	type answer struct {
		secret string
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		secret, err := keyring.Get(a.PasswordKeyring, a.User)
		answers <- answer{secret, err}
	}()
	place := fmt.Sprintf("service %q, user %q in the system keyring", a.PasswordKeyring, a.User)
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w", place, context.Cause(ctx))
	case got := <-answers:
		if got.err != nil {
			return "", fmt.Errorf("%s: %w", place, got.err)
		}
		return got.secret, nil
	}
}

// fromCommand runs password_command. Its output is the password in the first line, or the answer of an OAuth token
// endpoint in JSON (RFC 6749 section 5.1), which says how long the token lives. The command finds POPFETCH_REFUSED=1
// in its environment if the server has refused the latest token.
func (a *account) fromCommand(ctx context.Context, refused bool) (token, error) {
	argv, said := a.PasswordCommand, &tail{max: 300}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay, cmd.Stderr = commandWait, said
	if refused {
		cmd.Env = append(os.Environ(), "POPFETCH_REFUSED=1")
	}
	ownGroup(cmd)
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay): // a child of it holds the output open
		err = nil
	}
	if err != nil {
		words := said.quote()
		var secrets printable.Secrets
		if secrets.Add(string(firstLine(out))); secrets.ShownIn(words) {
			words = "; its words repeat the password"
		}
		return token{}, fmt.Errorf("password_command %s: %w%s", argv[0], err, words)
	}
	var answer struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	if json.Unmarshal(out, &answer) == nil && answer.Token != "" {
		const margin = time.Minute // the session has to begin before the token ends
		return token{answer.Token, time.Now().Add(time.Duration(answer.Seconds)*time.Second - margin)}, nil
	}
	line := firstLine(out)
	if len(line) == 0 {
		return token{}, fmt.Errorf("password_command %s wrote nothing to its standard output%s", argv[0], said.quote())
	}
	return token{text: string(line)}, nil
}

func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// askPasswords asks the person at the terminal for the passwords of the accounts with password_prompt.
func (p *program) askPasswords(accounts []*account) error {
	for _, a := range accounts {
		if !a.PasswordPrompt || a.latest.text != "" {
			continue
		}
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return fmt.Errorf("account %q: password_prompt needs a terminal to ask at; use password_command elsewhere",
				a.Name)
		}
		fmt.Fprintf(p.stderr, "Password of %s for %s: ", a.User, a.Server)
		secret, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(p.stderr)
		if err != nil {
			return fmt.Errorf("account %q: reading the password: %w", a.Name, err)
		}
		a.latest.text = string(secret)
	}
	return nil
}
