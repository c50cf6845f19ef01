package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/zalando/go-keyring"
	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// defaultPasswordTimeout is long enough for a person to unlock a key.
const defaultPasswordTimeout = 2 * time.Minute

// A cachedSecret is the last password or token of an account. A password command is not run again until the token
// expires.
type cachedSecret struct {
	text    string
	expires time.Time
}

// secret returns the password or the token. If refused is true, the server has refused the last token, so the command
// is run again. The error contains no part of the secret and no argument of the command.
func (a *account) secret(ctx context.Context, refused bool) (secret string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.PasswordTimeout.Duration, fmt.Errorf(
		"no password within %v (password_timeout)", a.PasswordTimeout))
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
			err = errors.New("password_prompt needs a terminal")
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

// fromKeyring returns the password in the system keyring. It waits until a person unlocks the keyring or ctx is done.
func (a *account) fromKeyring(ctx context.Context) (string, error) {
	type lookup struct {
		secret string
		err    error
	}
	lookups := make(chan lookup, 1)
	go func() {
		secret, err := keyring.Get(a.PasswordKeyring, a.User)
		lookups <- lookup{secret, err}
	}()
	place := fmt.Sprintf("service %q, user %q in the system keyring", a.PasswordKeyring, a.User)
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w", place, context.Cause(ctx))
	case reply := <-lookups:
		if reply.err != nil {
			return "", fmt.Errorf("%s: %w", place, reply.err)
		}
		return reply.secret, nil
	}
}

// fromCommand runs password_command. The command writes a password in its first line, or the JSON reply of an OAuth
// token endpoint (RFC 6749 section 5.1), which may contain the lifetime of the token. If the server has refused the
// latest token, POPFETCH_REFUSED=1 is set in the environment of the command.
func (a *account) fromCommand(ctx context.Context, refused bool) (cachedSecret, error) {
	env := os.Environ()
	if refused {
		env = append(env, "POPFETCH_REFUSED=1")
	}
	var out bytes.Buffer
	output, err := runCommand(ctx, a.PasswordCommand, env, nil, &out)
	line := firstLine(out.Bytes())
	if err != nil {
		var secrets printable.Secrets
		if secrets.Add(line); secrets.ShownIn(output) {
			err = fmt.Errorf("%s: %w; its output is not shown, because it contains the password", a.PasswordCommand[0],
				errors.Unwrap(err))
		}
		return cachedSecret{}, fmt.Errorf("password_command %w", err)
	}
	var reply struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	if json.Unmarshal(out.Bytes(), &reply) == nil && reply.Token != "" {
		const margin = time.Minute // the token must still be valid when the login takes place
		return cachedSecret{reply.Token, time.Now().Add(time.Duration(reply.Seconds)*time.Second - margin)}, nil
	}
	if line == "" {
		return cachedSecret{}, fmt.Errorf("password_command %s wrote nothing to its standard output%s",
			a.PasswordCommand[0], output)
	}
	return cachedSecret{text: line}, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r")
}

// askPasswords asks at the terminal for the password of each account with password_prompt.
func (p *program) askPasswords(accounts []*account) error {
	for _, a := range accounts {
		if !a.PasswordPrompt || a.latest.text != "" {
			continue
		}
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return fmt.Errorf("account %q: password_prompt needs a terminal; use password_command instead",
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
