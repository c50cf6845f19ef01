package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const user = "alice@example.com"

// A session is a run of the program that uses servers of the test.
type session struct {
	authority *authority
	server    *pop3test.Server
	job       *job
	file      string
	out, errs bytes.Buffer
}

// newSession prepares a run with args and the required arguments. The maildrop accepts only the token goodAccess.
func newSession(t *testing.T, args ...string) *session {
	t.Helper()
	s := &session{
		server: pop3test.NewTLSServer(&pop3test.Mailbox{User: user, Password: goodAccess, UIDs: []string{"uid-1"},
			Messages: [][]byte{[]byte("Subject: 1\r\n\r\none\r\n")}}),
		file: filepath.Join(t.TempDir(), "tokens.json"),
	}
	t.Cleanup(s.server.Close)
	authority, web := startAuthority()
	t.Cleanup(web.Close)
	s.authority = authority
	t.Setenv("POP3_CLIENT_SECRET", clientSecret)
	required := []string{"-v", "-provider", "microsoft", "-client-id", "my-id", "-user", user, "-tokens", s.file}
	var err error
	s.job, err = parse(append(required, args...), &s.errs)
	require.NoError(t, err)
	s.job.provider.useServers(web.URL, s.server.Addr)
	s.job.opts.TLSConfig = s.server.ClientTLS()
	return s
}

// saveTokens writes the tokens to the file, as an earlier run would have done.
func (s *session) saveTokens(t *testing.T, token *oauth2.Token) {
	t.Helper()
	require.NoError(t, (&tokens{file: s.file, current: token}).save())
}

// stored returns the content of the file, and checks that nobody else can read it.
func (s *session) stored(t *testing.T) oauth2.Token {
	t.Helper()
	info, err := os.Stat(s.file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	b, err := os.ReadFile(s.file)
	require.NoError(t, err)
	var token oauth2.Token
	require.NoError(t, json.Unmarshal(b, &token))
	return token
}

// run runs the program, and checks that it prints no secret.
func (s *session) run(t *testing.T) error {
	t.Helper()
	err := s.job.run(t.Context(), &s.out, &s.errs)
	shown := s.out.String() + s.errs.String()
	if err != nil {
		shown += err.Error()
	}
	s.checkNoSecrets(t, shown)
	return err
}

func (s *session) checkNoSecrets(t *testing.T, shown string) {
	t.Helper()
	secrets := []string{goodAccess, goodAccess[:40], oldAccess, oldRefresh, newRefresh, clientSecret, authCode,
		deviceCode}
	for _, token := range []string{goodAccess, oldAccess} {
		for _, newMechanism := range mechanisms {
			_, ir, err := newMechanism(user, token).Start()
			require.NoError(t, err)
			secrets = append(secrets, base64.StdEncoding.EncodeToString(ir)[len(user)*4/3+8:])
		}
	}
	for _, request := range s.authority.requests {
		if verifier := request.Get("code_verifier"); verifier != "" {
			secrets = append(secrets, verifier)
		}
	}
	for _, secret := range secrets {
		assert.NotContains(t, shown, secret)
		assert.NotContains(t, shown, url.QueryEscape(secret))
	}
}

var (
	inAnHour = time.Now().Add(time.Hour)
	longAgo  = time.Now().Add(-time.Hour)
)

// consentEnded is an error of the provider.
var consentEnded = url.Values{"error": {"invalid_grant"}, "error_description": {"no such token: " + oldRefresh}}

const (
	// a reply of Microsoft's mail server
	bareRefusal = "-ERR Authentication failure: unknown user name or bad password."
	// commands of the program, which sends the token on a line of its own
	twoStepBearer, twoStepX = "AUTH OAUTHBEARER\n", "AUTH XOAUTH2\n"
)

var logins = []struct {
	name         string
	access       string
	expiry       time.Time
	args         []string
	refusal      url.Values
	showsRequest bool
	faults       []pop3test.Fault // the reply of the mail server
	renewed      bool
	sessions     int
	auth         string // the command of the last session
	err          string
}{
	{name: "the token is valid", access: goodAccess, expiry: inAnHour, sessions: 1, auth: twoStepBearer},
	{name: "the token has expired", access: oldAccess, expiry: longAgo, renewed: true, sessions: 1,
		auth: twoStepBearer},
	{name: "refused, OAUTHBEARER", access: oldAccess, expiry: inAnHour, args: []string{"-mech", "OAUTHBEARER"},
		renewed: true, sessions: 2, auth: twoStepBearer},
	{name: "refused, XOAUTH2", access: oldAccess, expiry: inAnHour, args: []string{"-mech", "XOAUTH2"},
		renewed: true, sessions: 2, auth: twoStepX},
	{name: "refused with a bare -ERR, as by Microsoft 365", access: oldAccess, expiry: inAnHour,
		faults: []pop3test.Fault{
			{At: "CAPA", Reply: "+OK\r\nTOP\r\nUIDL\r\nSASL PLAIN XOAUTH2\r\n."},
			{At: "AUTH", Times: 1, Reply: bareRefusal, Drop: pop3test.AfterReply},
		},
		renewed: true, sessions: 2, auth: twoStepX},
	{name: "the new token is refused too", access: oldAccess, expiry: inAnHour,
		faults:  []pop3test.Fault{{At: "AUTH", Reply: "-ERR [AUTH] POP3 is not enabled"}},
		renewed: true, sessions: 2, auth: "AUTH OAUTHBEARER", err: "POP3 is not enabled"},
	{name: "the maildrop is locked", access: goodAccess, expiry: inAnHour,
		faults:   []pop3test.Fault{{At: "AUTH", Reply: "-ERR [IN-USE] locked"}},
		sessions: 1, auth: "AUTH OAUTHBEARER", err: "locked"},
	{name: "the mail server is down", access: goodAccess, expiry: inAnHour,
		faults:   []pop3test.Fault{{At: pop3test.AtGreeting, Drop: pop3test.BeforeReply}},
		sessions: 1, err: "EOF"},
	{name: "the consent has ended", access: oldAccess, expiry: longAgo, refusal: consentEnded,
		err: `"no such token: ***"; the consent has ended, so remove `},
	{name: "refused, and the consent has ended", access: oldAccess, expiry: inAnHour, refusal: consentEnded,
		sessions: 1, auth: "AUTH OAUTHBEARER ", err: "and the token cannot be renewed"},
	{name: "the provider repeats the request in an error page", access: oldAccess, expiry: longAgo, showsRequest: true,
		err: "500 Internal Server Error"},
}

func TestLogin(t *testing.T) {
	for _, tt := range logins {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, tt.args...)
			s.authority.refusal, s.authority.showsRequest = tt.refusal, tt.showsRequest
			s.server.SetFaults(tt.faults...)
			before := oauth2.Token{AccessToken: tt.access, RefreshToken: oldRefresh, Expiry: tt.expiry}
			s.saveTokens(t, &before)
			err := s.run(t)
			if tt.err == "" {
				require.NoError(t, err)
				assert.Equal(t, "     1           19 octets  \"uid-1\"\nmessages: 1\n", s.out.String())
			} else {
				require.ErrorContains(t, err, tt.err)
			}
			s.checkSessions(t, tt.sessions, tt.auth)
			s.checkTokens(t, before, tt.renewed)
		})
	}
}

// checkSessions checks the number of sessions. It also checks the command for the login in the last session.
func (s *session) checkSessions(t *testing.T, sessions int, auth string) {
	t.Helper()
	all := s.server.Sessions()
	require.Len(t, all, sessions)
	if auth != "" {
		assert.Contains(t, strings.Join(all[sessions-1], "\n"), auth)
	}
}

// checkTokens checks the stored tokens. If renewed is true, there must be one renewal, and its tokens must be stored.
func (s *session) checkTokens(t *testing.T, before oauth2.Token, renewed bool) {
	t.Helper()
	after := s.stored(t)
	if !renewed {
		assert.Equal(t, before.AccessToken, after.AccessToken)
		assert.Equal(t, before.RefreshToken, after.RefreshToken)
		return
	}
	assert.Equal(t, []string{"refresh_token"}, s.authority.grantTypes())
	assert.Equal(t, goodAccess, after.AccessToken)
	assert.Equal(t, newRefresh, after.RefreshToken)
}

// errors.As finds the errors of the POP3 server in the error of logIn.
func TestErrors(t *testing.T) {
	s := newSession(t)
	s.authority.refusal = url.Values{"error": {"invalid_grant"}}
	s.saveTokens(t, &oauth2.Token{AccessToken: oldAccess, RefreshToken: oldRefresh, Expiry: inAnHour})
	err := s.run(t)
	var refusal *pop3.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, pop3.CodeAuth, refusal.Code)
	var token *sasl.OAuthError
	require.ErrorAs(t, err, &token)
	assert.Equal(t, "invalid_token", token.Status)
}

func TestRefreshTokenFromTheEnvironment(t *testing.T) {
	t.Setenv("POP3_REFRESH_TOKEN", oldRefresh)
	s := newSession(t, "-tokens", "")
	require.NoError(t, s.run(t))
	assert.Equal(t, []string{"refresh_token"}, s.authority.grantTypes())
	assert.NoFileExists(t, s.file)

	s.authority.refusal = url.Values{"error": {"invalid_grant"}}
	require.ErrorContains(t, s.run(t), "set another POP3_REFRESH_TOKEN")
}

func TestTokensFile(t *testing.T) {
	t.Run("a file that others can read is replaced", func(t *testing.T) {
		s := newSession(t)
		require.NoError(t, os.WriteFile(s.file, nil, 0o644))
		s.saveTokens(t, &oauth2.Token{AccessToken: goodAccess})
		assert.Equal(t, goodAccess, s.stored(t).AccessToken)
	})
	t.Run("the file contains no tokens", func(t *testing.T) {
		s := newSession(t)
		require.NoError(t, os.WriteFile(s.file, []byte(oldRefresh), 0o600))
		require.ErrorContains(t, s.run(t), "contains no tokens")
		assert.Empty(t, s.server.Sessions())
	})
	t.Run("the file cannot be written", func(t *testing.T) {
		s := newSession(t)
		s.saveTokens(t, &oauth2.Token{AccessToken: oldAccess, RefreshToken: oldRefresh, Expiry: longAgo})
		s.job.file = filepath.Join(s.file, "below a file")
		require.Error(t, s.run(t))
		assert.Empty(t, s.server.Sessions())
	})
	t.Run("no temporary file is left in the folder", func(t *testing.T) {
		s := newSession(t)
		require.NoError(t, os.Mkdir(s.file, 0o700)) // a folder with that name makes the last step of saving fail
		require.Error(t, (&tokens{file: s.file, current: new(oauth2.Token)}).save())
		entries, err := os.ReadDir(filepath.Dir(s.file))
		require.NoError(t, err)
		assert.Len(t, entries, 1)
	})
}

func TestArguments(t *testing.T) {
	good := []string{"-provider", "google", "-client-id", "x", "-user", "bob@gmail.com", "-tokens", "x.json"}
	tests := []struct {
		name string
		args []string
		err  string
	}{
		{"unknown provider", []string{"-provider", "yahoo"}, "-provider must be google or microsoft"},
		{"unknown flow", []string{"-consent", "by letter"}, "-consent must be browser or device"},
		{"mechanism without a token", []string{"-mech", "PLAIN"}, "-mech must be XOAUTH2 or OAUTHBEARER"},
		{"no user", []string{"-user", ""}, "-client-id and -user are required"},
		{"no client ID", []string{"-client-id", ""}, "-client-id and -user are required"},
		{"no tokens", []string{"-tokens", ""}, "POP3_REFRESH_TOKEN"},
		{"argument that is not a flag", []string{"bob"}, `unexpected argument "bob"`},
		{"secret as an argument", []string{"-client-secret", "x"}, "not defined: -client-secret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := run(t.Context(), append(good, tt.args...), new(bytes.Buffer), new(bytes.Buffer))
			require.ErrorContains(t, err, tt.err)
		})
	}
	err := run(t.Context(), []string{"-h"}, new(bytes.Buffer), new(bytes.Buffer))
	assert.True(t, errors.Is(err, flag.ErrHelp))
}
