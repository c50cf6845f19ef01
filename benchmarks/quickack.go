package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// An ackRow is one server: the times to retrieve messages one at a time, with and without TCP_QUICKACK.
type ackRow struct {
	server, version string
	with            []time.Duration
	without         time.Duration
	err             error
}

var properNames = map[interop.Kind]string{
	interop.Dovecot: "Dovecot", interop.Courier: "Courier", interop.Cyrus: "Cyrus", interop.Mailutils: "GNU Mailutils",
	interop.Popa3d: "popa3d", interop.Solid: "solid-pop3d",
}

// acks has the rows, and the servers that are still running for them.
type acks struct {
	count   int // messages
	servers []*interop.Server
	rows    []ackRow
}

// startAcks starts the available real servers in dir. From each it retrieves count messages one at a time, one
// server after the other.
func startAcks(ctx context.Context, dir string, count, runs int, progress io.Writer) acks {
	a := acks{count: count}
	for _, kind := range interop.Kinds() {
		fmt.Fprintf(progress, "one at a time: %s\n", kind)
		s, err := interop.Start(ctx, kind, dir, nil)
		if err != nil {
			fmt.Fprintf(progress, "  %v\n", err)
			continue
		}
		row := ackRow{server: properNames[kind], version: s.Version}
		row.brisk(ctx, s.Addr, count, runs)
		a.servers, a.rows = append(a.servers, s), append(a.rows, row)
	}
	return a
}

// brisk measures with TCP_QUICKACK. It measures without it too, unless a short trial shows that this takes long.
func (row *ackRow) brisk(ctx context.Context, addr string, count, runs int) {
	for range runs {
		took, err := oneAtATime(ctx, addr, new(net.Dialer).DialContext, count)
		row.with = append(row.with, took)
		row.err = errors.Join(row.err, err)
	}
	const few, slow = 20, 10 * time.Millisecond
	if took, err := oneAtATime(ctx, addr, dialHidden, few); err != nil || took > few*slow {
		row.err = errors.Join(row.err, err)
		return
	}
	var err error
	row.without, err = oneAtATime(ctx, addr, dialHidden, count)
	row.err = errors.Join(row.err, err)
}

// finish measures the remaining servers without TCP_QUICKACK, all at the same time, because that is mostly
// waiting. Then it stops all servers.
func (a *acks) finish(ctx context.Context) {
	var running sync.WaitGroup
	for i, s := range a.servers {
		running.Go(func() {
			row := &a.rows[i]
			if row.without == 0 && row.err == nil {
				row.without, row.err = oneAtATime(ctx, s.Addr, dialHidden, a.count)
			}
			row.err = errors.Join(row.err, s.Stop())
		})
	}
	running.Wait()
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialHidden returns a connection that does not look like TCP, so that the client can't set a socket option.
func dialHidden(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return struct{ net.Conn }{conn}, err
}

// oneAtATime retrieves messages one at a time and returns how long that took, without login and QUIT.
func oneAtATime(ctx context.Context, addr string, dial dialFunc, count int) (took time.Duration, err error) {
	c, err := pop3.DialInsecure(ctx, addr, &pop3.Options{DialContext: dial})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.Login(ctx, interop.Bob.Name, interop.Bob.Password); err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range count {
		m, err := c.Retr(ctx, i+1)
		if err != nil {
			return 0, err
		}
		if _, err := io.Copy(io.Discard, m); err != nil {
			return 0, err
		}
	}
	took = time.Since(began)
	return took, c.Quit(ctx) // some servers keep the maildrop locked for a while after a lost connection
}
