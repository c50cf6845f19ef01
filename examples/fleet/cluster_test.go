package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A testCluster is NATS servers that have a leader among them.
type testCluster []node

type node struct {
	name, url string
	stop      func()
}

// startCluster starts three of them, which know each other by routes.
func startCluster(t *testing.T, begin func(t *testing.T, name, dir, routes string) node) testCluster {
	t.Helper()
	var c testCluster
	routes := freeRoutes(t, 3)
	for n := range routes {
		own := append(slices.Clone(routes[n:]), routes[:n]...)
		c = append(c, begin(t, fmt.Sprintf("nats%d", n), t.TempDir(), strings.Join(own, ",")))
		t.Cleanup(c[n].stop)
	}
	return c
}

// freeRoutes gives addresses for routes, which have to be known before the first server starts.
func freeRoutes(t *testing.T, n int) (routes []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		routes = append(routes, "nats-route://"+l.Addr().String())
	}
	return routes
}

// beginHere starts a server in this process. It is stopped as for maintenance: what it leads it hands over before.
func beginHere(t *testing.T, name, dir, routes string) node {
	t.Helper()
	opts := natsOptions(dir, false)
	require.NoError(t, clustered(opts, name, routes))
	s, err := startServer(opts)
	require.NoError(t, err)
	return node{name, s.ClientURL(), func() { s.Shutdown(); s.WaitForShutdown() }}
}

// beginThere starts a server in another process. It is stopped with kill -9.
func beginThere(t *testing.T, name, dir, routes string) node {
	t.Helper()
	s, err := spawn("lab-nats", "-name", name, "-dir", dir, "-routes", routes, "-sync=false")
	require.NoError(t, err)
	url, err := s.line()
	require.NoError(t, err)
	return node{name, url, s.kill}
}

// join is the bus for another process, with a connection like that of the program. It waits for the cluster to be one.
func (c testCluster) join(t *testing.T, name string) (b *Bus) {
	t.Helper()
	var urls []string
	for _, n := range c {
		urls = append(urls, n.url)
	}
	nc, err := connectNATS(strings.Join(urls, ","), name)
	require.NoError(t, err)
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() { nc.Close(); <-closed })
	eventually(t, "the cluster has a leader, and three servers for each stream", func() bool {
		b, err = openBus(t.Context(), nc, clusterBus)
		return err == nil
	})
	return b
}

var clusterBus = BusConfig{Replicas: 3, AckWait: 6 * time.Second}

// stopLeader stops the server that leads the work queue, and gives its name.
func (c testCluster) stopLeader(t *testing.T, b *Bus) string {
	t.Helper()
	info, err := b.due.Info(t.Context())
	require.NoError(t, err)
	n := slices.IndexFunc(c, func(n node) bool { return n.name == info.Cluster.Leader })
	require.GreaterOrEqual(t, n, 0, info.Cluster.Leader)
	c[n].stop()
	return info.Cluster.Leader
}

// A countedSink delivers to the stream, and counts what it has confirmed.
type countedSink struct {
	stream streamSink
	count  *memorySink
}

func (s countedSink) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.stream.Deliver(ctx, item, bytes.NewReader(body)); err != nil {
		return err
	}
	return s.count.Deliver(ctx, item, bytes.NewReader(body))
}

func TestClusterLosesLeaderOfQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes some seconds to find its leaders")
	}
	t.Run("stopped", func(t *testing.T) { testClusterLosesLeader(t, beginHere) })
	t.Run("killed", func(t *testing.T) { testClusterLosesLeader(t, beginThere) })
}

// Of many who want a lease, or write over a revision, at the same time one gets through. The others learn that they were
// too late, which JetStream says in other words while what was first is on its way to the replicas.
func TestClusterLetsOneThrough(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes some seconds to find its leaders")
	}
	const rivals = 20
	b := startCluster(t, beginHere).join(t, "rivals")
	takes, writes := make(chan error, rivals), make(chan error, rivals)
	for n := range rivals {
		go func() {
			held, err := b.leases.take(t.Context(), "k", "owner")
			if err == nil {
				t.Cleanup(func() { held.release() })
			}
			takes <- err
		}()
		go func() {
			_, err := updateKey(t.Context(), b.seen, "k", []byte(strconv.Itoa(n)), 0)
			writes <- err
		}()
	}
	for _, tt := range []struct {
		name   string
		errs   chan error
		refuse error
	}{{"lease", takes, errHeld}, {"page", writes, jetstream.ErrKeyRevisionMismatch}} {
		through := 0
		for range rivals {
			if err := <-tt.errs; err != nil {
				require.ErrorIs(t, err, tt.refuse, tt.name)
				continue
			}
			through++
		}
		assert.Equal(t, 1, through, tt.name)
	}
}

func testClusterLosesLeader(t *testing.T, begin func(t *testing.T, name, dir, routes string) node) {
	const boxes, messages = 60, 5
	f := newPOP3(t, boxes, messages)
	c := startCluster(t, begin)
	f.bus = c.join(t, "scheduler")
	f.enlist(t)
	for _, name := range []string{"w1", "w2"} {
		b := c.join(t, name)
		stream, err := openStreamSink(t.Context(), b.js, clusterBus)
		require.NoError(t, err)
		w := f.worker(b, name, quick)
		w.Poller.Sink = func(Account) fetch.Sink { return countedSink{stream, &f.sink} }
		start(t, w.Run)
	}
	s := f.scheduler(f.bus, quick)
	s.Limits.Resend = clusterBus.AckWait // what was on its way into the queue when it died is looked after so soon
	start(t, s.Run)
	eventually(t, "some are delivered", func() bool { return f.sink.different() > boxes*messages/3 })
	before, from := f.sink.different(), time.Now()
	leader := c.stopLeader(t, f.bus)
	eventually(t, "all are polled", f.polled)
	eventually(t, "all are acknowledged", func() bool {
		info, err := f.bus.due.Info(context.Background())
		return err == nil && info.State.Msgs == 0
	})
	t.Logf("%s stopped after %d messages, all polled %v later", leader, before, time.Since(from))

	lines, err := linesInStream(t.Context(), f.bus.js)
	require.NoError(t, err)
	lost, repeated := tallyMail(lines, boxes*messages)
	assert.Zero(t, lost)
	assert.LessOrEqual(t, repeated, 5)
	again := f.sink.all() - f.sink.different()
	assert.LessOrEqual(t, again, 16, "one for each session under way")
	t.Logf("%d messages, %d lost, %d delivered again, %d of them stored again", boxes*messages, lost, again, repeated)
	for key := range f.accounts {
		r := f.record(t, f.accounts[key].Name)
		assert.Zero(t, r.Fails, "%s: %s", r.Account, r.Error)
	}
	for _, name := range []string{"DUE", "KV_schedules", "KV_seen", "LEASES", "MAIL"} {
		stream, err := f.bus.js.Stream(t.Context(), name)
		require.NoError(t, err, name)
		assert.Equal(t, 3, stream.CachedInfo().Config.Replicas, name)
		assert.Len(t, stream.CachedInfo().Cluster.Replicas, 2, name)
	}
}
