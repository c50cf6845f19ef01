package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// A natsConfig says where NATS is and how to log in. Secrets are in files, so that no list of processes shows them.
type natsConfig struct {
	URL   string `name:"nats" help:"URLs of NATS, separated by commas. With a password only in the environment."`
	Creds string `name:"nats-creds" placeholder:"FILE" help:"Credentials of a user (JWT and NKey seed)."`
	NKey  string `name:"nats-nkey" placeholder:"FILE" help:"NKey seed."`
	Token string `name:"nats-token" placeholder:"FILE" help:"Token."`
	CA    string `name:"nats-ca" placeholder:"FILE" help:"Certificates to trust for NATS."`
	Cert  string `name:"nats-cert" placeholder:"FILE" help:"Our certificate for NATS."`
	Key   string `name:"nats-key" placeholder:"FILE" help:"Key of that certificate."`
}

// connect returns a connection that is made in the background, and made again whenever it is lost. A server that falls
// silent is given up after half a minute.
func (c *natsConfig) connect(name string) (*nats.Conn, error) {
	for one := range strings.SplitSeq(c.URL, ",") {
		// The error never shows the URL, because it may contain a password.
		if u, err := url.Parse(strings.TrimSpace(one)); err != nil || u.Host == "" {
			return nil, errors.New("an URL of NATS is not valid; it should look like nats://host:4222")
		}
	}
	connected := func(nc *nats.Conn) { slog.Info("NATS: connected", "url", nc.ConnectedUrlRedacted()) }
	opts := []nats.Option{
		nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.PingInterval(10 * time.Second),
		nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1), nats.ReconnectWait(time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				slog.Warn("NATS: connection lost", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { slog.Warn("NATS: no connection", "error", err) }),
		nats.ConnectHandler(connected), nats.ReconnectHandler(connected),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { slog.Warn("NATS", "error", err) }),
	}
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	return nats.Connect(c.URL, append(opts, login...)...)
}

// login returns the options for credentials and TLS.
func (c *natsConfig) login() (opts []nats.Option, err error) {
	for _, name := range []string{c.Creds, c.NKey, c.Token} {
		if name != "" {
			if err := checkPrivate(name); err != nil {
				return nil, err
			}
		}
	}
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("%s: no NKey seed in it", c.NKey)
		}
		opts = append(opts, nkey)
	}
	if c.Token != "" {
		opts = append(opts, nats.TokenHandler(func() string {
			token, _ := os.ReadFile(c.Token)
			return strings.TrimSpace(string(token))
		}))
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			return nil, err
		}
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	return opts, nil
}
