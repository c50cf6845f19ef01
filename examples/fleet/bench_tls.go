package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/sasl"
)

// benchTLS compares ways to begin a session, one after the other: the time of one, and the processor time of this
// side.
func benchTLS(ctx context.Context, b benchFlags) error {
	dir, remove, err := tempDir()
	if err != nil {
		return err
	}
	defer remove()
	lab, err := openLab(dir, labSize{Maildrops: 1, Servers: 1})
	if err != nil {
		return err
	}
	defer lab.servers.stop()
	trust, err := (&config{ca: lab.ca()}).trust()
	if err != nil {
		return err
	}
	const n = 500
	for _, way := range waysToBegin(trust) {
		wire := new(wireCounter)
		opts := &pop3.Options{TLSConfig: way.config, Mechanisms: way.mechanisms, ScramKeys: way.keys, DialContext: wire.dial}
		times, resumed, cpu, err := sessionsInTurn(ctx, lab.accounts[0], opts, n)
		if err != nil {
			return err
		}
		fmt.Printf("%s: median %v, processor time %v each, octets %d out and %d in; %d of %d resumed\n", way.name,
			times[n/2].Round(time.Microsecond), (cpu / n).Round(time.Microsecond), wire.out/n, wire.in/n, resumed, n)
	}
	return nil
}

// A wayToBegin is a way to begin a session; it logs in if there are mechanisms.
type wayToBegin struct {
	name       string
	config     *tls.Config
	mechanisms []string
	keys       *sasl.ScramKeys
}

func waysToBegin(trust *tls.Config) []wayToBegin {
	cached := trust.Clone()
	cached.ClientSessionCache = tls.NewLRUClientSessionCache(100)
	classic := cached.Clone()
	classic.CurvePreferences = []tls.CurveID{tls.X25519}
	return []wayToBegin{
		{"full handshake, no login", trust, nil, nil},
		{"resumed handshake, no login", cached, nil, nil},
		{"resumed handshake without ML-KEM, no login", classic, nil, nil},
		{"resumed handshake, PLAIN", cached, []string{"PLAIN"}, nil},
		{"resumed handshake, SCRAM-SHA-256", cached, []string{"SCRAM-SHA-256"}, nil},
		{"resumed handshake, SCRAM-SHA-512", cached, []string{"SCRAM-SHA-512"}, nil},
		{"resumed handshake, SCRAM-SHA-512, keys kept", cached, []string{"SCRAM-SHA-512"}, sasl.NewScramKeys(1)},
	}
}

func sessionsInTurn(ctx context.Context, a Account, opts *pop3.Options, n int) (times []time.Duration, resumed int,
	cpu time.Duration, err error) {
	cpu = cpuOf(os.Getpid())
	for range n {
		begin := time.Now()
		c, err := pop3.DialTLS(ctx, a.Addr, opts)
		if err != nil {
			return nil, 0, 0, err
		}
		if opts.Mechanisms != nil {
			err = c.Login(ctx, a.User, a.Password)
		}
		state, _ := c.TLSConnectionState()
		if state.DidResume {
			resumed++
		}
		times = append(times, time.Since(begin))
		c.Quit(ctx)
		if err != nil {
			return nil, 0, 0, err
		}
	}
	slices.Sort(times)
	return times, resumed, cpuOf(os.Getpid()) - cpu, nil
}

// A wireCounter counts the octets of connections, one at a time, without what TCP and IP add.
type wireCounter struct{ out, in int64 }

func (w *wireCounter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return countedConn{conn, w}, nil
}

type countedConn struct {
	net.Conn
	wire *wireCounter
}

// NetConn keeps what the library can do with a TCP socket.
func (c countedConn) NetConn() net.Conn { return c.Conn }

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.in += int64(n)
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wire.out += int64(n)
	return n, err
}
