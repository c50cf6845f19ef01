package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

// Each secret in these tests is this text, or contains it.
const secret = "tr0ub4dor-and-3-horses"

// file writes a file that only its owner can read.
func (r *rig) file(name, text string) string {
	r.Helper()
	name = filepath.Join(r.lab.Dir, name)
	require.NoError(r, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func seedOf(t *testing.T, pair nkeys.KeyPair) string {
	seed, err := pair.Seed()
	require.NoError(t, err)
	return string(seed)
}

func publicOf(t *testing.T, pair nkeys.KeyPair) string {
	key, err := pair.PublicKey()
	require.NoError(t, err)
	return key
}

// operatorConf returns a server configuration with an operator's account, and credentials for that account.
func operatorConf(t *testing.T) (conf, creds string) {
	operator, err := nkeys.CreateOperator()
	require.NoError(t, err)
	account, err := nkeys.CreateAccount()
	require.NoError(t, err)
	user, err := nkeys.CreateUser()
	require.NoError(t, err)
	operatorJWT, err := jwt.NewOperatorClaims(publicOf(t, operator)).Encode(operator)
	require.NoError(t, err)
	system, err := nkeys.CreateAccount()
	require.NoError(t, err)
	systemJWT, err := jwt.NewAccountClaims(publicOf(t, system)).Encode(operator)
	require.NoError(t, err)
	claims := jwt.NewAccountClaims(publicOf(t, account))
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1}
	accountJWT, err := claims.Encode(operator)
	require.NoError(t, err)
	userJWT, err := jwt.NewUserClaims(publicOf(t, user)).Encode(account)
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	text, err := jwt.FormatUserConfig(userJWT, seed)
	require.NoError(t, err)
	conf = "operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {%[2]s: %s, %s: %s}\n"
	conf = fmt.Sprintf(conf, operatorJWT, publicOf(t, system), systemJWT, publicOf(t, account), accountJWT)
	return conf, string(text)
}

// The test logs in to NATS in every way. No secret may be in a list of processes, a log or an error (C-109).
func TestNATSCredentials(t *testing.T) {
	t.Parallel()
	user, err := nkeys.CreateUser()
	require.NoError(t, err)
	authority := testcert.New()
	pemOf := func(c tls.Certificate) (string, string) {
		cert, key := testcert.PEM(c)
		return string(cert), string(key)
	}
	serverCert, serverKey := pemOf(authority.Server("127.0.0.1"))
	clientCert, clientKey := pemOf(authority.Client("fleet"))
	operator, creds := operatorConf(t)
	tests := []struct {
		name   string
		conf   string
		files  map[string]string // by flag
		env    func(url string) []string
		secret string
	}{
		{"token", "authorization: {token: " + secret + "}", map[string]string{"nats-token": secret + "\n"}, nil,
			secret},
		{"NKey", "authorization: {users: [{nkey: " + publicOf(t, user) + "}]}",
			map[string]string{"nats-nkey": seedOf(t, user)}, nil, seedOf(t, user)},
		{"credentials", operator, map[string]string{"nats-creds": creds}, nil, creds},
		{"user and password in the environment", "authorization: {user: fleet, password: " + secret + "}", nil,
			func(url string) []string {
				return []string{"FLEET_NATS=" + strings.Replace(url, "nats://", "nats://fleet:"+secret+"@", 1)}
			}, secret},
		{"TLS with a client certificate",
			`tls: {cert_file: "%s/server.pem", key_file: "%s/server.key", ca_file: "%s/ca", verify: true}`,
			map[string]string{"nats-ca": serverCertOf(authority), "nats-cert": clientCert, "nats-key": clientKey}, nil,
			clientKey},
	}
	for _, tt := range tests {
		t.Run("C-109 "+tt.name, func(t *testing.T) {
			r := &rig{T: t}
			dir := t.TempDir()
			r.lab, err = lab.Open(dir, lab.Size{Boxes: 1, Servers: 1, Messages: 1})
			require.NoError(t, err)
			t.Cleanup(r.lab.Close)
			r.mail = filepath.Join(dir, "mail")
			require.NoError(t, os.Mkdir(r.mail, 0o700))
			r.file("server.pem", serverCert)
			r.file("server.key", serverKey)
			r.file("ca", serverCertOf(authority))
			port := freePort(t)
			r.url = "nats://127.0.0.1:" + port
			var args []string
			for name, text := range tt.files {
				args = append(args, "--"+name, r.file(name, text))
			}
			var env []string
			if tt.env == nil {
				args = append(args, "--nats", r.url)
			} else {
				env = tt.env(r.url)
			}
			// All processes are started before NATS is available.
			common := append([]string{"--accounts", r.lab.File(), "--http", "127.0.0.1:0"}, args...)
			s := r.exec("s", env, append([]string{"scheduler", "--first", "1ms"}, common...)...)
			w := r.exec("w", env, append([]string{"worker", "--sink", "maildir:" + r.mail}, common...)...)
			eventually(t, "both say that they are not ready", func() bool {
				status1, _ := s.get("/readyz")
				status2, _ := w.get("/readyz")
				return status1 == http.StatusServiceUnavailable && status2 == http.StatusServiceUnavailable
			})
			r.startNATS(port, "--conf", r.file("nats.conf", strings.ReplaceAll(tt.conf, "%s", dir)))
			r.url = "nats://127.0.0.1:" + port
			i := r.exec("init", env, append([]string{"init"}, args...)...)
			_, err := i.Output()
			require.NoError(t, err, i.log.String())
			eventually(t, "both are ready", func() bool { return s.ready() && w.ready() })
			eventually(t, "mail is delivered", func() bool { _, n := r.delivered(); return n == 1 })
			for _, p := range []*process{s, w, i} {
				line := strings.Join(p.Cmd.Args, " ")
				for _, part := range strings.Fields(tt.secret) {
					if len(part) > 8 && !strings.Contains(part, "---") {
						assert.NotContains(t, p.log.String(), part)
						assert.NotContains(t, line, part)
					}
				}
			}
		})
	}
}

func serverCertOf(a *testcert.Authority) string {
	cert, _ := testcert.PEM(a.Certificate)
	return string(cert)
}

// These URLs and files are refused, and the errors show no secret.
func TestNATSMistakes(t *testing.T) {
	t.Parallel()
	r := &rig{T: t, lab: &lab.Lab{Dir: t.TempDir()}}
	open := r.file("open", secret)
	require.NoError(t, os.Chmod(open, 0o644))
	tests := []struct {
		name string
		args []string
		env  string
		err  string
	}{
		{"a password on the command line", []string{"--nats", "nats://u:" + secret + "@h:4222"}, "",
			"set it as FLEET_NATS"},
		{"a token on the command line", []string{"--nats=nats://" + secret + "@h:4222"}, "", "set it as FLEET_NATS"},
		{"an invalid URL", nil, "FLEET_NATS=nats://u:" + secret + "@h:port", "a URL of NATS is not valid"},
		{"no host", nil, "FLEET_NATS=" + secret, "a URL of NATS is not valid"},
		{"a file that others can read", []string{"--nats-token", open}, "", "run chmod 600"},
		{"no NKey", []string{"--nats-nkey", r.file("nkey", secret)}, "", "contains no NKey seed"},
	}
	for _, tt := range tests {
		t.Run("C-109 "+tt.name, func(t *testing.T) {
			r := &rig{T: t}
			p := r.exec("init", []string{tt.env}, append([]string{"init"}, tt.args...)...)
			_, err := p.Output()
			require.ErrorContains(t, err, "exit status 1")
			assert.Contains(t, p.log.String(), tt.err)
			assert.NotContains(t, p.log.String(), secret)
		})
	}
}
