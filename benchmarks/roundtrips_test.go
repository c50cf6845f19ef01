package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/benchmarks/link"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// These tests count round trips. In a bubble of synctest computing takes no time, so the measured time consists of
// round trips only. The times in RESULTS.md also contain the time that a machine needs.

const trip = 50 * time.Millisecond

// tripsSince returns how many round trips have passed.
func tripsSince(began time.Time) float64 { return float64(time.Since(began)) / float64(trip) }

// newClient returns a client that is connected to a server by a link. The round-trip time of the link is trip.
func newClient(t *testing.T, d maildrop, overTLS bool, opts pop3.Options) *pop3.Client {
	t.Helper()
	server := pop3test.NewUnstartedServer(
		&pop3test.Mailbox{User: "alice", Password: password, Messages: d.messages()})
	near, end := net.Pipe()
	var running sync.WaitGroup
	running.Go(func() {
		assert.NoError(t, link.Carry(context.Background(), end, trip, func(context.Context) (net.Conn, error) {
			far, end := net.Pipe()
			if overTLS {
				end = tls.Server(end, server.ServerTLS())
			}
			running.Go(func() { server.ServeConn(end) })
			return far, nil
		}))
	})
	conn := near
	if overTLS {
		config := server.ClientTLS()
		config.ServerName = "127.0.0.1"
		conn = tls.Client(near, config)
	}
	opts.InsecureAuth = !overTLS
	c, err := pop3.NewClient(t.Context(), conn, &opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		running.Wait()
	})
	return c
}

func numbers(n int) []int {
	nums := make([]int, n)
	for i := range nums {
		nums[i] = i + 1
	}
	return nums
}

func TestFetchTrips(t *testing.T) {
	tests := []struct {
		name   string
		count  int
		listed bool
		want   float64
	}{
		{"sizes known", 1000, true, 4}, // includes one round trip for the listing
		{"sizes not known", 1000, false, 2},
		{"many, sizes known", 10_000, true, 11},
		{"many, sizes not known", 10_000, false, 11},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := maildrop{test.count, 6000}
				c := newClient(t, d, false, pop3.Options{})
				require.NoError(t, c.Login(t.Context(), "alice", password))
				began := time.Now()
				if test.listed {
					_, err := c.Listing(t.Context())
					require.NoError(t, err)
				}
				for m, err := range c.Messages(t.Context(), numbers(d.count)...) {
					require.NoError(t, err)
					n, err := io.Copy(io.Discard, m)
					require.NoError(t, err)
					require.EqualValues(t, d.size, n)
				}
				assert.Equal(t, test.want, tripsSince(began))
			})
		})
	}
}

func TestDeleTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := maildrop{10_000, 200}
		c := newClient(t, d, false, pop3.Options{})
		require.NoError(t, c.Login(t.Context(), "alice", password))
		began := time.Now()
		require.NoError(t, c.Dele(t.Context(), numbers(d.count)...))
		assert.Equal(t, 1.0, tripsSince(began))
	})
}

func TestPollTrips(t *testing.T) {
	tests := []struct {
		name    string
		overTLS bool
		mechs   []string
		want    float64 // round trips of CAPA, the login, LIST with UIDL, and QUIT
	}{
		{"PLAIN", false, []string{"PLAIN"}, 4},
		{"PLAIN over TLS", true, []string{"PLAIN"}, 4},
		{"USER and PASS", false, []string{"USER"}, 5},
		{"SCRAM", false, nil, 6}, // the proof of the server comes in one more challenge
		{"SCRAM over TLS", true, nil, 6},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, maildrop{}, test.overTLS, pop3.Options{Mechanisms: test.mechs})
				began := time.Now()
				require.NoError(t, c.Login(t.Context(), "alice", password))
				_, err := c.Listing(t.Context())
				require.NoError(t, err)
				require.NoError(t, c.Quit(t.Context()))
				assert.Equal(t, test.want, tripsSince(began))
			})
		})
	}
}
