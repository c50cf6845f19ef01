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

// A session is a run of the program, with servers of the test.
type session struct {
	authority *authority
	server    *pop3test.Server
	job       *job
	file      string
	out, errs bytes.Buffer
}

// newSession prepares a run with these arguments and the required ones. The good token opens the maildrop.
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
	t.Setenv("POP3_CLIENT_SECRET", aClientKey)
	needed := []string{"-v", "-provider", "microsoft", "-client-id", "my-id", "-user", user, "-tokens", s.file}
	var err error
	s.job, err = parse(append(needed, args...), &s.errs)
	require.NoError(t, err)
	s.job.provider.pretend(web.URL, s.server.Addr)
	s.job.opts.TLSConfig = s.server.ClientTLS()
	return s
}

// has writes the tokens to the file, as an earlier run would have.
func (s *session) has(t *testing.T, token *oauth2.Token) {
	t.Helper()
	require.NoError(t, (&tokens{file: s.file, now: token}).save())
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
	s.keepsSecrets(t, shown)
	return err
}

func (s *session) keepsSecrets(t *testing.T, shown string) {
	t.Helper()
	secrets := []string{goodAccess, goodAccess[:40], oldAccess, oldRefresh, newRefresh, aClientKey, aCode, deviceCode}
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

// Texts for the table below. ended is an error of the provider, bare a reply of Microsoft's mail server. The others
// are commands of the program.
var ended = url.Values{"error": {"invalid_grant"}, "error_description": {"no such token: " + oldRefresh}}

const (
	bare                    = "-ERR Authentication failure: unknown user name or bad password."
	twoStepBearer, twoStepX = "AUTH OAUTHBEARER\n", "AUTH XOAUTH2\n" // the token follows on a line of its own
)

var logins = []struct {
	name     string
	access   string
	expiry   time.Time
	args     []string
	refuse   url.Values
	crash    bool
	faults   []pop3test.Fault // the reply of the mail server
	renewed  bool
	sessions int
	auth     string // the command of the last session
	err      string
}{
	{name: "the token is good", access: goodAccess, expiry: inAnHour, sessions: 1, auth: twoStepBearer},
	{name: "it has expired", access: oldAccess, expiry: longAgo, renewed: true, sessions: 1, auth: twoStepBearer},
	{name: "refused, OAUTHBEARER", access: oldAccess, expiry: inAnHour, args: []string{"-mech", "OAUTHBEARER"},
		renewed: true, sessions: 2, auth: twoStepBearer},
	{name: "refused, XOAUTH2", access: oldAccess, expiry: inAnHour, args: []string{"-mech", "XOAUTH2"},
		renewed: true, sessions: 2, auth: twoStepX},
	{name: "refused without a word on OAuth, as by Microsoft 365", access: oldAccess, expiry: inAnHour,
		faults: []pop3test.Fault{
			{At: "CAPA", Reply: "+OK\r\nTOP\r\nUIDL\r\nSASL PLAIN XOAUTH2\r\n."},
			{At: "AUTH", Times: 1, Reply: bare, Drop: pop3test.AfterReply},
		},
		renewed: true, sessions: 2, auth: twoStepX},
	{name: "the new one is refused too", access: oldAccess, expiry: inAnHour,
		faults:  []pop3test.Fault{{At: "AUTH", Reply: "-ERR [AUTH] POP3 is not enabled"}},
		renewed: true, sessions: 2, auth: "AUTH OAUTHBEARER", err: "POP3 is not enabled"},
	{name: "the maildrop is locked", access: goodAccess, expiry: inAnHour,
		faults:   []pop3test.Fault{{At: "AUTH", Reply: "-ERR [IN-USE] locked"}},
		sessions: 1, auth: "AUTH OAUTHBEARER", err: "locked"},
	{name: "the mail server is down", access: goodAccess, expiry: inAnHour,
		faults:   []pop3test.Fault{{At: pop3test.AtGreeting, Drop: pop3test.BeforeReply}},
		sessions: 1, err: "EOF"},
	{name: "the consent has ended", access: oldAccess, expiry: longAgo, refuse: ended,
		err: `"no such token: ***"; the consent has ended: remove `},
	{name: "refused, and the consent has ended", access: oldAccess, expiry: inAnHour, refuse: ended,
		sessions: 1, auth: "AUTH OAUTHBEARER ", err: "and it can't be renewed"},
	{name: "the provider shows the request", access: oldAccess, expiry: longAgo, crash: true,
		err: "500 Internal Server Error"},
}

func TestLogin(t *testing.T) {
	for _, tt := range logins {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, tt.args...)
			s.authority.refuse, s.authority.crash = tt.refuse, tt.crash
			s.server.SetFaults(tt.faults...)
			before := oauth2.Token{AccessToken: tt.access, RefreshToken: oldRefresh, Expiry: tt.expiry}
			s.has(t, &before)
			err := s.run(t)
			if tt.err == "" {
				require.NoError(t, err)
				assert.Equal(t, "     1           19 octets  \"uid-1\"\nmessages: 1\n", s.out.String())
			} else {
				require.ErrorContains(t, err, tt.err)
			}
			s.loggedIn(t, tt.sessions, tt.auth)
			s.keptTokens(t, before, tt.renewed)
		})
	}
}

// loggedIn checks the number of attempts, and the command that began the last one.
func (s *session) loggedIn(t *testing.T, sessions int, auth string) {
	t.Helper()
	all := s.server.Sessions()
	require.Len(t, all, sessions)
	if auth != "" {
		assert.Contains(t, strings.Join(all[sessions-1], "\n"), auth)
	}
}

// keptTokens checks that a renewal is stored, and that there is at most one.
func (s *session) keptTokens(t *testing.T, before oauth2.Token, renewed bool) {
	t.Helper()
	after := s.stored(t)
	if !renewed {
		assert.Equal(t, before.AccessToken, after.AccessToken)
		assert.Equal(t, before.RefreshToken, after.RefreshToken)
		return
	}
	assert.Equal(t, []string{"refresh_token"}, s.authority.kinds())
	assert.Equal(t, goodAccess, after.AccessToken)
	assert.Equal(t, newRefresh, after.RefreshToken)
}

// TestErrors: the caller of logIn can see the server's text.
func TestErrors(t *testing.T) {
	s := newSession(t)
	s.authority.refuse = url.Values{"error": {"invalid_grant"}}
	s.has(t, &oauth2.Token{AccessToken: oldAccess, RefreshToken: oldRefresh, Expiry: inAnHour})
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
	assert.Equal(t, []string{"refresh_token"}, s.authority.kinds())
	assert.NoFileExists(t, s.file)

	s.authority.refuse = url.Values{"error": {"invalid_grant"}}
	require.ErrorContains(t, s.run(t), "set another POP3_REFRESH_TOKEN")
}

func TestFileOfTokens(t *testing.T) {
	t.Run("one that others could read is replaced", func(t *testing.T) {
		s := newSession(t)
		require.NoError(t, os.WriteFile(s.file, nil, 0o644))
		s.has(t, &oauth2.Token{AccessToken: goodAccess})
		assert.Equal(t, goodAccess, s.stored(t).AccessToken)
	})
	t.Run("it is something else", func(t *testing.T) {
		s := newSession(t)
		require.NoError(t, os.WriteFile(s.file, []byte(oldRefresh), 0o600))
		require.ErrorContains(t, s.run(t), "is no file of tokens")
		assert.Empty(t, s.server.Sessions())
	})
	t.Run("it can't be written", func(t *testing.T) {
		s := newSession(t)
		s.has(t, &oauth2.Token{AccessToken: oldAccess, RefreshToken: oldRefresh, Expiry: longAgo})
		s.job.file = filepath.Join(s.file, "below a file")
		require.Error(t, s.run(t))
		assert.Empty(t, s.server.Sessions())
	})
	t.Run("nothing else is left in the folder", func(t *testing.T) {
		s := newSession(t)
		require.NoError(t, os.Mkdir(s.file, 0o700)) // a folder with that name makes the last step of saving fail
		require.Error(t, (&tokens{file: s.file, now: new(oauth2.Token)}).save())
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
		{"a third provider", []string{"-provider", "yahoo"}, "-provider is google or microsoft"},
		{"no way of consent", []string{"-consent", "by letter"}, "-consent is browser or device"},
		{"a mechanism without a token", []string{"-mech", "PLAIN"}, "-mech is XOAUTH2 or OAUTHBEARER"},
		{"no user", []string{"-user", ""}, "-client-id and -user are needed"},
		{"no client ID", []string{"-client-id", ""}, "-client-id and -user are needed"},
		{"no tokens", []string{"-tokens", ""}, "POP3_REFRESH_TOKEN"},
		{"something else", []string{"bob"}, `unexpected argument "bob"`},
		{"a secret", []string{"-client-secret", "x"}, "not defined: -client-secret"},
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
