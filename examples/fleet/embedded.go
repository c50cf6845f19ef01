package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// maxPayload is the largest message that the server of our own takes, and so the largest mail of a streamSink.
const maxPayload = 8 << 20

// startNATS starts a JetStream server in this process, on a free port of the loopback interface. With sync, whatever
// it has confirmed is on the disk, which is what package fetch asks of a place to remember; without it a power cut
// loses up to two minutes.
func startNATS(dir string, sync bool) (*natsserver.Server, error) {
	return startServer(natsOptions(dir, sync))
}

func natsOptions(dir string, sync bool) *natsserver.Options {
	return &natsserver.Options{
		ServerName: "fleet", Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, SyncAlways: sync, MaxPayload: maxPayload,
	}
}

// clustered makes a server one of a cluster, if there are URLs for routes: that of the server, and those of others.
func clustered(opts *natsserver.Options, name, routes string) error {
	opts.ServerName = name
	if routes == "" {
		return nil
	}
	opts.Routes = natsserver.RoutesFromStr(routes)
	port, err := strconv.Atoi(opts.Routes[0].Port())
	opts.Cluster = natsserver.ClusterOpts{Name: "fleet", Host: opts.Routes[0].Hostname(), Port: port}
	return err
}

func startServer(opts *natsserver.Options) (*natsserver.Server, error) {
	s, err := natsserver.NewServer(opts)
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return nil, errors.New("the NATS server does not get ready")
	}
	return s, nil
}

// connectNATS connects to a server or cluster, and goes on trying when the connection is lost. A server that falls
// silent without a word, with its machine or the network, is given up after half a minute; it would be six otherwise.
func connectNATS(url, name string) (*nats.Conn, error) {
	nc, err := nats.Connect(url, nats.Name(name), nats.MaxReconnects(-1), nats.PingInterval(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("NATS at %s: %w", url, err)
	}
	return nc, nil
}
