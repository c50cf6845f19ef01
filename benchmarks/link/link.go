// Package link simulates a cable of any length. It carries TCP connections between clients and a server on the
// same machine, and delays the data so that a round trip takes a given time. It does nothing else: nothing is
// lost, reordered or held back, and the rate has no limit.
//
// The client measures the same times as on a real link, from the first octet on. A real connect takes a round
// trip, and the server can send its first octet only after the last packet of the handshake has arrived. Here
// the connect itself succeeds at once, and the time that it should have taken is added to the first octets of
// either side. TCP's slow start is not simulated; on a real link it adds round trips to the beginning of a
// large transfer.
package link

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// A Dialer connects to the server at the other end.
type Dialer func(ctx context.Context) (net.Conn, error)

// Carry carries one connection: client is its near end, and dial opens the far end. It returns when both directions or
// ctx have ended, and closes both ends. It fails if there is no server.
func Carry(ctx context.Context, client net.Conn, roundTrip time.Duration, dial Dialer) error {
	var ways sync.WaitGroup
	defer ways.Wait()
	defer client.Close()
	// The handshake takes one round trip. Its last packet takes another half.
	arrival := time.Now().Add(roundTrip + roundTrip/2)
	up, down := newPipe(roundTrip/2, arrival), newPipe(roundTrip/2, arrival)
	ways.Go(func() { up.take(client) })

	if !sleep(ctx, time.Until(arrival)) {
		return nil
	}
	server, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	defer server.Close()
	ways.Go(func() { down.take(server) })
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

// sleep waits. It returns false if ctx ends first.
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

// deliver writes what arrives through p to one end, and then closes that direction.
func deliver(p *pipe, to net.Conn) {
	p.give(to)
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

// Listen makes a link to the server at target.
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
		l.running.Go(func() { Carry(ctx, client, roundTrip, dial) }) // the client sees a failure as a lost connection
	}
}

// Close closes the link, and returns when all of its connections are closed.
func (l *Link) Close() error {
	err := l.listener.Close()
	l.cancel()
	l.running.Wait()
	return err
}
