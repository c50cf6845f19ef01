// Connect shows how to connect to the server of a company. The company has its own certificate authority (-ca). It
// identifies users by certificates instead of passwords (-cert and -key). Clients must connect through a SOCKS5 proxy
// (-socks). Each flag can be used without the others.
//
//	go run ./examples/connect -addr pop.corp.example -ca ca.pem -cert me.pem -key me.key -socks 127.0.0.1:1080
//
// It prints the TLS version and the name in the server's certificate. With -cert it also logs in and counts the
// messages.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "connect:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "", "server, as `host[:port]`")
	ca := flags.String("ca", "", "`file` with the certificate authorities to trust (default the system's)")
	cert := flags.String("cert", "", "`file` with the user's certificate")
	key := flags.String("key", "", "`file` with the key of the certificate")
	socks := flags.String("socks", "", "SOCKS5 proxy, as `host:port` (default the proxy in ALL_PROXY)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *addr == "" || flags.NArg() > 0:
		return errors.New("-addr is required, and there are no other arguments than flags; see -h")
	case (*cert == "") != (*key == ""):
		return errors.New("-cert and -key must both be set")
	}
	opts, err := options(*ca, *cert, *key, *socks)
	if err != nil {
		return err
	}
	return count(ctx, *addr, opts, stdout)
}

// options returns the Options for -ca, -cert, -key and -socks. A flag that is empty has no effect.
func options(ca, cert, key, socks string) (*pop3.Options, error) {
	opts := &pop3.Options{TLSConfig: new(tls.Config)}
	if ca != "" {
		roots, err := readRoots(ca)
		if err != nil {
			return nil, err
		}
		opts.TLSConfig.RootCAs = roots
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("certificate of the user: %w", err)
		}
		opts.TLSConfig.Certificates = []tls.Certificate{pair}
	}
	if socks != "" {
		dialer, err := proxy.SOCKS5("tcp", socks, nil, proxy.Direct) // nil means no password for the proxy
		if err != nil {
			return nil, err
		}
		opts.DialContext = dialer.(proxy.ContextDialer).DialContext
	}
	return opts, nil
}

// readRoots reads certificates in PEM. They replace the certificates of the system. To trust both, add the certificates
// to x509.SystemCertPool instead.
func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s contains no certificate; it must be a PEM file", file)
	}
	return roots, nil
}

// count connects and prints the parameters of TLS. If there is a client certificate, it logs in and counts the
// messages.
func count(ctx context.Context, addr string, opts *pop3.Options, stdout io.Writer) error {
	c, err := pop3.DialTLS(ctx, addr, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	state, _ := c.TLSConnectionState()
	fmt.Fprintf(stdout, "%s, with %q\n", tls.VersionName(state.Version), state.PeerCertificates[0].Subject)
	if len(opts.TLSConfig.Certificates) == 0 {
		return c.Quit(ctx)
	}
	// With EXTERNAL the server takes the user from the certificate. A name is only needed if the certificate opens
	// several maildrops.
	if err := c.Auth(ctx, sasl.External("")); err != nil {
		return err
	}
	drop, err := c.Stat(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "messages: %d, octets: %d\n", drop.Count, drop.Size)
	return c.Quit(ctx)
}
