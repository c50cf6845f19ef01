package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
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

// trip is the round trip time in these tests. Computing takes no time in a bubble of synctest, so that time counts
// round trips, exactly.
const trip = 50 * time.Millisecond

// connect makes a client whose connection to the server takes a round trip there and back.
func connect(t *testing.T, server *pop3test.Server, overTLS bool, opts pop3.Options) *pop3.Client {
	t.Helper()
	near, end := net.Pipe()
	var carrying sync.WaitGroup
	carrying.Go(func() {
		assert.NoError(t, link.Carry(context.Background(), end, trip, func(context.Context) (net.Conn, error) {
			far, end := net.Pipe()
			if overTLS {
				end = tls.Server(end, server.ServerTLS())
			}
			carrying.Go(func() { server.ServeConn(end) })
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
		carrying.Wait()
	})
	return c
}

// tripsSince is how many round trips have passed.
func tripsSince(began time.Time) float64 { return float64(time.Since(began)) / float64(trip) }

func mailbox(n, size int) *pop3test.Mailbox {
	return &pop3test.Mailbox{User: "alice", Password: "secret", Messages: pop3test_messages(n, size)}
}

func pop3test_messages(n, size int) [][]byte {
	messages := make([][]byte, n)
	for i := range messages {
		head := fmt.Sprintf("Subject: message %d\r\n\r\n", i+1)
		messages[i] = append([]byte(head), bytes.Repeat([]byte("0123456789abcde\r\n"), (size-len(head))/17)...)
	}
	return messages
}

func TestFetchTrips(t *testing.T) {
	for _, listed := range []bool{true, false} {
		t.Run(fmt.Sprintf("listed %v", listed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const count = 1000
				ctx := t.Context()
				c := connect(t, pop3test.NewUnstartedServer(mailbox(count, 6000)), false, pop3.Options{})
				require.NoError(t, c.Login(ctx, "alice", "secret"))
				began := time.Now()
				nums := make([]int, count)
				for i := range nums {
					nums[i] = i + 1
				}
				if listed {
					_, err := c.Listing(ctx)
					require.NoError(t, err)
				}
				t.Logf("listing %.2f", tripsSince(began))
				for m, err := range c.Messages(ctx, nums...) {
					require.NoError(t, err)
					_, err = io.Copy(io.Discard, m)
					require.NoError(t, err)
				}
				t.Logf("%.2f round trips after login", tripsSince(began))
				assert.LessOrEqual(t, tripsSince(began), 5.0)
			})
		})
	}
}

func TestDeleTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 10_000
		ctx := t.Context()
		c := connect(t, pop3test.NewUnstartedServer(mailbox(count, 100)), false, pop3.Options{})
		require.NoError(t, c.Login(ctx, "alice", "secret"))
		nums := make([]int, count)
		for i := range nums {
			nums[i] = i + 1
		}
		began := time.Now()
		require.NoError(t, c.Dele(ctx, nums...))
		t.Logf("%.2f round trips", tripsSince(began))
		assert.LessOrEqual(t, tripsSince(began), 2.0)
	})
}

func TestPollTrips(t *testing.T) {
	for _, overTLS := range []bool{false, true} {
		for _, mechs := range [][]string{nil, {"PLAIN"}, {"USER"}} {
			t.Run(fmt.Sprintf("tls %v %v", overTLS, mechs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx := t.Context()
					began := time.Now()
					c := connect(t, pop3test.NewUnstartedServer(mailbox(0, 0)), overTLS, pop3.Options{Mechanisms: mechs})
					t.Logf("connect %.2f", tripsSince(began))
					require.NoError(t, c.Login(ctx, "alice", "secret"))
					t.Logf("login %.2f", tripsSince(began))
					_, err := c.Listing(ctx)
					require.NoError(t, err)
					t.Logf("listing %.2f", tripsSince(began))
					require.NoError(t, c.Quit(ctx))
					t.Logf("%.2f round trips", tripsSince(began))
				})
			})
		}
	}
}
