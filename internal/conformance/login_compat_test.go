package conformance_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// Servers that other clients get on with (C-030 to C-036): what Login does, or what its error tells to do.
func TestLoginCompat(t *testing.T) {
	const name, secret = "u", "open sesame"
	plain := b64("\x00u\x00open sesame")
	noIR := pop3.Options{Compat: pop3.Compat{NoInitialResponse: true}}
	digests := pop3.Options{Mechanisms: []string{"PLAIN", "USER", "CRAM-MD5", "APOP"}}
	noCapa := pop3.Options{Compat: pop3.Compat{NoCapa: true}}
	for _, row := range []struct {
		id     string
		opts   pop3.Options
		script string
		says   []string // of the error; nil for success
		silent []string // what the error does not say
	}{
		{id: "C-030 an initial response is refused", script: `
			C: CAPA
			S: +OK
			S: SASL PLAIN
			S: .
			C: AUTH PLAIN ` + plain + `
			S: -ERR Invalid number of parameters`,
			says: []string{"Invalid number of parameters", "two steps", "Options.Compat.NoInitialResponse"}},
		{id: "C-030 an initial response ends the session", script: `
			C: CAPA
			S: +OK
			S: SASL PLAIN
			S: .
			C: AUTH PLAIN ` + plain + `
			EOF`,
			says: []string{"closed the connection", "Options.Compat.NoInitialResponse"}},
		{id: "C-030 the password is wrong", script: `
			C: CAPA
			S: +OK
			S: SASL PLAIN
			S: .
			C: AUTH PLAIN ` + plain + `
			S: -ERR Authentication failed.`,
			says: []string{"Authentication failed."}, silent: []string{"Options"}},
		{id: "C-030 a command with a code", script: `
			C: CAPA
			S: +OK
			S: SASL PLAIN
			S: .
			C: AUTH PLAIN ` + plain + `
			S: -ERR [SYS/TEMP] command failed`,
			says: []string{"command failed"}, silent: []string{"Options"}},
		{id: "C-030 two steps", opts: noIR, script: `
			C: CAPA
			S: +OK
			S: SASL PLAIN
			S: .
			C: AUTH PLAIN
			S: +
			C: ` + plain + `
			S: +OK`},
		{id: "C-031 hangs up on CAPA", script: `
			C: CAPA
			EOF`,
			says: []string{"closed the connection", "Options.Compat.NoCapa"}},
		{id: "C-031 no CAPA", opts: noCapa, script: `
			C: USER u
			S: +OK
			C: PASS open sesame
			S: +OK`},
		{id: "C-032 no keys for SCRAM", script: `
			C: CAPA
			S: +OK
			S: SASL SCRAM-SHA-256 PLAIN
			S: .
			C~ AUTH SCRAM-SHA-256 *
			S: -ERR [AUTH] no`,
			says: []string{"[AUTH] no", "SCRAM", "log in with PLAIN", "Options.Mechanisms"}},
		{id: "C-032 nothing but SCRAM", script: `
			C: CAPA
			S: +OK
			S: SASL SCRAM-SHA-256
			S: .
			C~ AUTH SCRAM-SHA-256 *
			S: -ERR [AUTH] no`,
			says: []string{"[AUTH] no"}, silent: []string{"Options"}},
		{id: "C-032 in use", script: `
			C: CAPA
			S: +OK
			S: SASL SCRAM-SHA-256 PLAIN
			S: .
			C~ AUTH SCRAM-SHA-256 *
			S: -ERR [IN-USE] no`,
			says: []string{"[IN-USE] no"}, silent: []string{"Options"}},
		{id: "C-035 TLS first", script: `
			C: CAPA
			S: +OK
			S: STLS
			S: UIDL
			S: .`,
			says: []string{"before TLS", "DialStartTLS"}},
		{id: "C-036 a digest before the password", opts: digests, script: `
			C: CAPA
			S: +OK
			S: SASL PLAIN CRAM-MD5
			S: .
			C: AUTH CRAM-MD5
			S: + ` + b64("<1896.697170952@postoffice.reston.mci.net>") + `
			C: ` + b64(cramResponse(t, name, secret)) + `
			S: +OK`},
		{id: "C-036 APOP before USER", opts: digests, script: `
			C: CAPA
			S: +OK
			S: USER
			S: .
			C~ APOP u *
			S: +OK`},
	} {
		t.Run(row.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := "S: +OK ready <1@example.com>" + strings.ReplaceAll(row.script, "\n\t\t\t", "\n")
				if !strings.HasSuffix(script, "EOF") {
					script += "\nHOLD"
				}
				conn, done := pop3test.Script(script)
				opts := row.opts
				opts.InsecureAuth = true
				c, err := pop3.NewClient(t.Context(), conn, &opts)
				require.NoError(t, err)
				err = c.Login(t.Context(), name, secret)
				if row.says == nil {
					assert.NoError(t, err)
					assert.Equal(t, pop3.StateTransaction, c.State())
				}
				for _, words := range row.says {
					assert.ErrorContains(t, err, words)
				}
				for _, words := range row.silent {
					assert.NotContains(t, err.Error(), words)
				}
				assert.NoError(t, c.Close())
				assert.NoError(t, done())
			})
		})
	}
}

// cramResponse is what CRAM-MD5 answers to the challenge of RFC 2195.
func cramResponse(t *testing.T, name, secret string) string {
	mech := sasl.CramMD5(name, secret)
	_, _, err := mech.Start()
	require.NoError(t, err)
	response, err := mech.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	require.NoError(t, err)
	return string(response)
}

// C-032: a refusal of SCRAM is certain only where there is nothing else to try.
func TestScramRefusedWithOthersOffered(t *testing.T) {
	for offer, want := range map[string]bool{
		"SCRAM-SHA-256 PLAIN": false, "SCRAM-SHA-256 LOGIN": false, "SCRAM-SHA-256": true,
	} {
		conn, done := pop3test.Script("S: +OK\nC: CAPA\nS: +OK\nS: SASL " + offer +
			"\nS: .\nC~ AUTH SCRAM-SHA-256 *\nS: -ERR [AUTH] no\nHOLD")
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
		require.NoError(t, err)
		refusal, ok := errors.AsType[*pop3.Error](c.Login(t.Context(), "u", "open sesame"))
		require.True(t, ok)
		rejects, certain := refusal.RejectsCredentials()
		assert.True(t, rejects, offer)
		assert.Equal(t, want, certain, offer)
		assert.NoError(t, c.Close())
		assert.NoError(t, done())
	}
}

// With NoCapa no method sends CAPA, before the login and after it.
func TestNoCapa(t *testing.T) {
	conn, done := pop3test.Script("S: +OK\nC: USER u\nS: +OK\nC: PASS w\nS: +OK\n" +
		"C: DELE 1\nS: +OK\nC: DELE 2\nS: +OK\nC: QUIT\nS: +OK\nEOF")
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Compat: pop3.Compat{NoCapa: true}})
	require.NoError(t, err)
	caps, err := c.Capa(t.Context())
	assert.NoError(t, err)
	assert.Nil(t, caps)
	assert.NoError(t, c.Login(context.Background(), "u", "w"))
	assert.NoError(t, c.Dele(t.Context(), 1, 2))
	assert.NoError(t, c.Quit(t.Context()))
	assert.NoError(t, done())
}
