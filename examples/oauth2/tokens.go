package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/oauth2"
)

// tokens contains an access token, which is valid for about an hour, and the refresh token to get the next access
// token. A provider may also return a new refresh token, so both tokens are stored each time.
type tokens struct {
	config  *oauth2.Config
	file    string // "" if the tokens are not stored
	current *oauth2.Token
}

// get returns an access token that has not expired according to the clock of this machine.
func (t *tokens) get(ctx context.Context) (string, error) {
	token, err := t.config.TokenSource(ctx, t.current).Token()
	if err != nil {
		return "", t.explain(err)
	}
	if token.AccessToken != t.current.AccessToken {
		t.current = token
		err = t.save()
	}
	return token.AccessToken, err
}

// renew returns a new access token, even if the current one has not expired.
func (t *tokens) renew(ctx context.Context) (string, error) {
	t.current = &oauth2.Token{RefreshToken: t.current.RefreshToken}
	return t.get(ctx)
}

// explain adds advice to the error of a failed renewal.
func (t *tokens) explain(err error) error {
	var refusal *oauth2.RetrieveError
	expired := errors.As(err, &refusal) && refusal.ErrorCode == "invalid_grant"
	err = explain(err, t.current.RefreshToken, t.config.ClientSecret)
	switch {
	case expired && t.file != "":
		return fmt.Errorf("%w; the consent has ended, so remove %s and run again", err, t.file)
	case expired:
		return fmt.Errorf("%w; the consent has ended, so set another POP3_REFRESH_TOKEN", err)
	}
	return err
}

// explain returns an error with only the status, the code and the description from the provider's response. In the
// description it replaces secrets of the request by ***. It removes the rest, because some error pages repeat the whole
// request.
func explain(err error, secrets ...string) error {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return err
	}
	description := refusal.ErrorDescription
	for _, secret := range secrets {
		if secret != "" {
			description = strings.ReplaceAll(description, secret, "***")
		}
	}
	return fmt.Errorf("the provider refuses to issue a token: %s, %q: %q",
		refusal.Response.Status, refusal.ErrorCode, description)
}

// load reads the file.
func (t *tokens) load() error {
	b, err := os.ReadFile(t.file)
	if err != nil {
		return err
	}
	t.current = new(oauth2.Token)
	if json.Unmarshal(b, t.current) != nil { // the error of Unmarshal may quote the file
		return fmt.Errorf("%s contains no tokens; remove it and run again", t.file)
	}
	return nil
}

// save replaces the file atomically. Temporary files have the mode 0600.
func (t *tokens) save() (err error) {
	if t.file == "" {
		return nil
	}
	b, err := json.Marshal(t.current)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(t.file), ".tokens-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), t.file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
