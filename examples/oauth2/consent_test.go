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

// runWithBrowser runs s with a user who opens the printed address in a browser. The function change may change the
// address before. runWithBrowser returns the last page in the browser, and the error of the run.
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
			cancel() // the program must still wait, because the answer was not that of the provider
		}
	}
	err = <-failed
	cancel()
	shown := s.out.String() + s.errs.String() + page
	if err != nil {
		shown += err.Error()
	}
	s.keepsSecrets(t, shown)
	return page, err
}

func TestConsentInBrowser(t *testing.T) {
	tests := []struct {
		name   string
		refuse url.Values
		change func(*url.URL)
		page   string
		err    string
	}{
		{name: "given", page: "You can close this window"},
		{name: "refused", refuse: url.Values{"error": {"access_denied"}}, page: "You can close this window",
			err: `the provider says "access_denied"`},
		{name: "the answer to another question", page: "This is not the answer", err: "context canceled",
			change: func(address *url.URL) { setQuery(address, "state", "x") }},
		{name: "the code was for somebody else", page: "You can close this window", err: "not proved",
			change: func(address *url.URL) { setQuery(address, "code_challenge", "x") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, "-consent", "browser")
			s.authority.refuse = tt.refuse
			var asked url.Values
			page, err := s.runWithBrowser(t, func(address *url.URL) {
				if asked = address.Query(); tt.change != nil {
					tt.change(address)
				}
			})
			assert.Contains(t, page, tt.page)
			assert.Equal(t, user, asked.Get("login_hint"))
			assert.Regexp(t, `^http://localhost:\d+$`, asked.Get("redirect_uri"))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				assert.NoFileExists(t, s.file)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, goodAccess, s.stored(t).AccessToken)
			assert.Equal(t, []string{"authorization_code"}, s.authority.kinds())
		})
	}
}

func setQuery(address *url.URL, name, value string) {
	q := address.Query()
	q.Set(name, value)
	address.RawQuery = q.Encode()
}

// withoutNetwork passes requests to the authority without a network. Waiting for a network would stop the clock of a
// synctest bubble.
type withoutNetwork struct{ handler http.Handler }

func (n withoutNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	n.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestConsentOnDevice(t *testing.T) {
	tests := []struct {
		name   string
		setUp  func(*authority)
		within time.Duration
		err    string
	}{
		{name: "given after a while", setUp: func(a *authority) { a.pending = 3 }, within: 20 * time.Second},
		{name: "refused", setUp: func(a *authority) {
			a.refuse = url.Values{"error": {"access_denied"}, "error_description": {deviceCode + " is not allowed"}}
		}, within: 5 * time.Second, err: `"access_denied": "*** is not allowed"`},
		{name: "nobody came", setUp: func(a *authority) { a.pending = 1e6 }, within: 15 * time.Minute,
			err: "context deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := new(authority)
				tt.setUp(a)
				p := microsoft("common")
				p.pretend("http://authority.example.com", "")
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: withoutNetwork{a}})
				var prompt strings.Builder
				start := time.Now()
				token, err := onDevice(ctx, p.config("my-id", ""), p.options(user), &prompt)
				assert.Equal(t, tt.within, time.Since(start).Round(time.Second))
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

// TestQuestions: the requests contain what the providers require.
func TestQuestions(t *testing.T) {
	tests := []struct {
		provider provider
		want     url.Values
		at       string
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
		t.Run(tt.at, func(t *testing.T) {
			config := tt.provider.config("my-id", "")
			asked, err := url.Parse(config.AuthCodeURL("", tt.provider.options("recent:bob@example.com")...))
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(asked.String(), tt.at), asked.String())
			tt.want["client_id"] = []string{"my-id"}
			tt.want["response_type"] = []string{"code"}
			tt.want["login_hint"] = []string{"bob@example.com"}
			tt.want["redirect_uri"] = []string{tt.provider.redirect}
			assert.Equal(t, tt.want, asked.Query())
		})
	}
}
