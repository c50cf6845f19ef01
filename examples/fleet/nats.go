package main

import (
	"crypto/tls"
	"errors"
	"flag"
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
	url, creds, nkey, token, ca, cert, key string
}

// flags defines the flags, with a prefix for a second connection.
func (c *natsConfig) flags(f *flag.FlagSet, prefix, url, what string) {
	f.StringVar(&c.url, prefix+"nats", url, what+"; a user and password in it only as a variable of the environment")
	f.StringVar(&c.creds, prefix+"nats-creds", "", "`file` with a user's credentials (JWT and NKey seed)")
	f.StringVar(&c.nkey, prefix+"nats-nkey", "", "`file` with an NKey seed")
	f.StringVar(&c.token, prefix+"nats-token", "", "`file` with a token")
	f.StringVar(&c.ca, prefix+"nats-ca", "", "`file` with the certificates to trust for NATS")
	f.StringVar(&c.cert, prefix+"nats-cert", "", "`file` with our certificate for NATS")
	f.StringVar(&c.key, prefix+"nats-key", "", "`file` with the key of that certificate")
}

// connect returns a connection that is made in the background, and made again whenever it is lost. A server that falls
// silent is given up after half a minute.
func (c *natsConfig) connect(name string) (*nats.Conn, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.PingInterval(10 * time.Second),
		nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1), nats.ReconnectWait(time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				slog.Warn("NATS: connection lost", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { slog.Warn("NATS: no connection", "error", err) }),
		nats.ConnectHandler(func(nc *nats.Conn) { slog.Info("NATS: connected", "url", nc.ConnectedUrlRedacted()) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			slog.Info("NATS: connected again", "url", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { slog.Warn("NATS", "error", err) }),
	}
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	return nats.Connect(c.url, append(opts, login...)...)
}

// check finds mistakes in the URLs. Its errors never show them, because they may contain a password.
func (c *natsConfig) check() error {
	for one := range strings.SplitSeq(c.url, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" {
			return errors.New("an URL of NATS is not valid; it should look like nats://host:4222")
		}
	}
	return nil
}

// hasPassword reports whether one of the URLs contains a secret.
func hasPassword(urls string) bool { return strings.Contains(urls, "@") }

// login returns the options for credentials and TLS.
func (c *natsConfig) login() (opts []nats.Option, err error) {
	for _, name := range []string{c.creds, c.nkey, c.token} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err == nil {
			err = checkPrivate(name, info)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.creds != "" {
		opts = append(opts, nats.UserCredentials(c.creds))
	}
	if c.nkey != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.nkey)
		if err != nil {
			return nil, fmt.Errorf("%s: no NKey seed in it", c.nkey)
		}
		opts = append(opts, nkey)
	}
	if c.token != "" {
		opts = append(opts, nats.TokenHandler(func() string {
			token, _ := os.ReadFile(c.token)
			return strings.TrimSpace(string(token))
		}))
	}
	if c.ca != "" {
		opts = append(opts, nats.RootCAs(c.ca))
	}
	if c.cert != "" {
		if _, err := tls.LoadX509KeyPair(c.cert, c.key); err != nil {
			return nil, err
		}
		opts = append(opts, nats.ClientCert(c.cert, c.key))
	}
	return opts, nil
}
