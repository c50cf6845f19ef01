package interop_test

import (
	"context"
	"net"
	"sync"
)

// A recorder is a connection that records the data in both directions.
type recorder struct {
	net.Conn

	mu     sync.Mutex
	events []event
}

// An event is data that was sent in one direction without data in the other direction in between.
type event struct {
	client bool
	octets string
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.add(false, p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) {
	r.add(true, p) // before the write, because another goroutine may read the reply before Write returns
	return r.Conn.Write(p)
}

func (r *recorder) add(client bool, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.events) - 1; last >= 0 && r.events[last].client == client {
		r.events[last].octets += string(p)
	} else if len(p) > 0 {
		r.events = append(r.events, event{client, string(p)})
	}
}

func (r *recorder) log() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event(nil), r.events...)
}

// dialer can be used as Options.DialContext.
func (r *recorder) dialer(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	r.Conn = conn
	return r, err
}
