package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// runWithBrowser runs s with a user who opens the printed address in a browser. The function change can change the
// address before the browser opens it. runWithBrowser returns the last page in the browser, and the error of the run.
func (s *session) runWithBrowser(t *testing.T, change func(*url.URL)) (page string, err error) {
	t.Helper()
	prompt, stderr := io.Pipe()
	defer prompt.Close()
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		err := s.job.run(ctx, &s.out, io.MultiWriter(stderr, &s.errs))
		stderr.Close()
		failed <- err
	}()
	lines := bufio.NewScanner(prompt)
	for lines.Scan() {
		address, err := url.Parse(lines.Text())
		if err != nil || address.Scheme != "http" {
			continue
		}
		change(address)
		response, err := http.Get(address.String())
		require.NoError(t, err)
		b, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		page = string(b)
		if response.StatusCode != http.StatusOK {
			cancel() // the program still waits, because the response was not from the provider
		}
	}
	err = <-failed
	cancel()
	shown := s.out.String() + s.errs.String() + page
	if err != nil {
		shown += err.Error()
	}
	s.checkNoSecrets(t, shown)
	return page, err
}

func TestConsentInBrowser(t *testing.T) {
	tests := []struct {
		name    string
		refusal url.Values
		change  func(*url.URL)
		page    string
		err     string
	}{
		{name: "given", page: "You can close this window"},
		{name: "refused", refusal: url.Values{"error": {"access_denied"}}, page: "You can close this window",
			err: `the provider says "access_denied"`},
		{name: "response to another request", page: "This is not the response", err: "context canceled",
			change: func(address *url.URL) { setQuery(address, "state", "x") }},
		{name: "code for another program", page: "You can close this window", err: "wrong code",
			change: func(address *url.URL) { setQuery(address, "code_challenge", "x") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, "-consent", "browser")
			s.authority.refusal = tt.refusal
			var query url.Values
			page, err := s.runWithBrowser(t, func(address *url.URL) {
				if query = address.Query(); tt.change != nil {
					tt.change(address)
				}
			})
			assert.Contains(t, page, tt.page)
			assert.Equal(t, user, query.Get("login_hint"))
			assert.Regexp(t, `^http://localhost:\d+$`, query.Get("redirect_uri"))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				assert.NoFileExists(t, s.file)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, goodAccess, s.stored(t).AccessToken)
			assert.Equal(t, []string{"authorization_code"}, s.authority.grantTypes())
		})
	}
}

func setQuery(address *url.URL, name, value string) {
	q := address.Query()
	q.Set(name, value)
	address.RawQuery = q.Encode()
}

// handlerTransport passes requests to the authority without a network, because waiting for a network would stop the
// clock of a synctest bubble.
type handlerTransport struct{ handler http.Handler }

func (n handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	n.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestConsentOnDevice(t *testing.T) {
	tests := []struct {
		name     string
		setUp    func(*authority)
		wantTime time.Duration
		err      string
	}{
		{name: "given after a while", setUp: func(a *authority) { a.pending = 3 }, wantTime: 20 * time.Second},
		{name: "refused", setUp: func(a *authority) {
			a.refusal = url.Values{"error": {"access_denied"}, "error_description": {deviceCode + " is not allowed"}}
		}, wantTime: 5 * time.Second, err: `"access_denied": "*** is not allowed"`},
		{name: "no user", setUp: func(a *authority) { a.pending = 1e6 }, wantTime: 15 * time.Minute,
			err: "context deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := new(authority)
				tt.setUp(a)
				p := microsoft("common")
				p.useServers("http://authority.example.com", "")
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: handlerTransport{a}})
				var prompt strings.Builder
				start := time.Now()
				token, err := consentOnDevice(ctx, p.config("my-id", ""), p.options(user), &prompt)
				assert.Equal(t, tt.wantTime, time.Since(start).Round(time.Second))
				assert.Contains(t, prompt.String(),
					`Open "https://example.com/device" in any browser and enter the code "WDJB-MJHT"`)
				assert.NotContains(t, prompt.String(), deviceCode)
				if tt.err != "" {
					require.ErrorContains(t, err, tt.err)
					assert.NotContains(t, err.Error(), deviceCode)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, goodAccess, token.AccessToken)
			})
		})
	}
}

// The URL for the consent contains the parameters that the provider requires.
func TestConsentURL(t *testing.T) {
	tests := []struct {
		provider provider
		want     url.Values
		prefix   string
	}{
		{google(""), url.Values{
			"scope":       {"https://mail.google.com/"},
			"access_type": {"offline"},
			"prompt":      {"consent"},
		}, "https://accounts.google.com/"},
		{microsoft("contoso.example"), url.Values{
			"scope": {"https://outlook.office.com/POP.AccessAsUser.All offline_access"},
		}, "https://login.microsoftonline.com/contoso.example/"},
	}
	for _, tt := range tests {
		t.Run(tt.prefix, func(t *testing.T) {
			config := tt.provider.config("my-id", "")
			got, err := url.Parse(config.AuthCodeURL("", tt.provider.options("recent:bob@example.com")...))
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(got.String(), tt.prefix), got.String())
			tt.want["client_id"] = []string{"my-id"}
			tt.want["response_type"] = []string{"code"}
			tt.want["login_hint"] = []string{"bob@example.com"}
			tt.want["redirect_uri"] = []string{tt.provider.redirect}
			assert.Equal(t, tt.want, got.Query())
		})
	}
}
