package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/zalando/go-keyring"
)

// commandWait is how long output is waited for that a killed command has left to its children.
const commandWait = time.Second

// password gets the password, or the token, from where the settings say. No error holds any of it, nor an argument of
// the command.
func (s *settings) password(ctx context.Context) (secret string, err error) {
	switch {
	case s.Password != nil:
		return *s.Password, nil
	case s.PasswordEnv != "":
		if secret = os.Getenv(s.PasswordEnv); secret == "" {
			err = fmt.Errorf("the environment variable %s is not set", s.PasswordEnv)
		}
	case s.PasswordKeyring != "":
		if secret, err = keyring.Get(s.PasswordKeyring, s.User); err != nil {
			err = fmt.Errorf("service %q, user %q in the system keyring: %w", s.PasswordKeyring, s.User, err)
		}
	default:
		secret, err = commandOutput(ctx, s.PasswordCommand)
	}
	if err != nil {
		return "", fmt.Errorf("no password: %w", err)
	}
	return secret, nil
}

// commandOutput gives the first line that a command writes.
func commandOutput(ctx context.Context, argv []string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = commandWait
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("password_command %s: %w; run it by hand to see why", argv[0], err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return "", fmt.Errorf("password_command %s wrote nothing", argv[0])
	}
	return string(line), nil
}
