// Package link simulates a network link with a given round-trip time. It carries TCP connections between clients and a
// server on the same machine, and only delays the data. No data is lost or reordered, and the rate has no limit.
//
// The first data arrives at the same time as on a real link. There the TCP handshake takes a round trip, and the server
// can send data only after the last packet of the handshake has arrived. Here a connection is established at once, and
// the time of the handshake is added to the delay of the first data in both directions. TCP's slow start is not
// simulated. On a real link it adds round trips to the beginning of a large transfer.
package link

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// A Dialer connects to the server at the far end of a link.
type Dialer func(ctx context.Context) (net.Conn, error)

// Carry carries one connection between client, its near end, and the far end, which dial opens. It returns when both
// directions have ended or ctx is done, and closes both ends. It returns the error of dial.
func Carry(ctx context.Context, client net.Conn, roundTrip time.Duration, dial Dialer) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer client.Close()
	// the handshake takes one round trip, and its last packet needs another half to reach the server
	arrival := time.Now().Add(roundTrip + roundTrip/2)
	up, down := newPipe(roundTrip/2, arrival), newPipe(roundTrip/2, arrival)
	readers.Go(func() { up.readFrom(client) })

	if !sleep(ctx, time.Until(arrival)) {
		return nil
	}
	server, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	defer server.Close()
	readers.Go(func() { down.readFrom(server) })
	defer context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})()

	var deliveries sync.WaitGroup
	deliveries.Go(func() { deliver(up, server) })
	deliveries.Go(func() { deliver(down, client) })
	deliveries.Wait()
	return nil
}

// sleep waits for the duration d. It returns false if ctx is done earlier.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// deliver writes the data of p to one end of the connection. At the end of the data it closes that direction.
func deliver(p *pipe, to net.Conn) {
	p.writeTo(to)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	} else {
		to.Close()
	}
}

// A Link listens on the loopback interface and carries each connection to one server.
type Link struct {
	Addr string // host:port, for clients

	listener net.Listener
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// Listen returns a link to the server at target. The caller must close the link.
func Listen(roundTrip time.Duration, target string) (*Link, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Link{Addr: listener.Addr().String(), listener: listener, cancel: cancel}
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", target)
	}
	l.running.Go(func() { l.accept(ctx, roundTrip, dial) })
	return l, nil
}

func (l *Link) accept(ctx context.Context, roundTrip time.Duration, dial Dialer) {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { Carry(ctx, client, roundTrip, dial) }) // after an error, Carry has closed client
	}
}

// Close closes the link and its connections. It returns after all connections are closed.
func (l *Link) Close() error {
	err := l.listener.Close()
	l.cancel()
	l.running.Wait()
	return err
}
