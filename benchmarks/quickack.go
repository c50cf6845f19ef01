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

// An ackRow contains the times to retrieve messages one at a time from a server, with and without TCP_QUICKACK.
type ackRow struct {
	server, version string
	quickTimes      []time.Duration
	delayedTime     time.Duration
	err             error
}

var properNames = map[interop.Kind]string{
	interop.Dovecot: "Dovecot", interop.Courier: "Courier", interop.Cyrus: "Cyrus", interop.Mailutils: "GNU Mailutils",
	interop.Popa3d: "popa3d", interop.Solid: "solid-pop3d",
}

// acks contains the rows, and their servers while they run.
type acks struct {
	count   int // number of messages to retrieve
	servers []*interop.Server
	rows    []ackRow
}

// startAcks starts the available real servers in dir, and measures one server after the other. From each server it
// retrieves count messages, one at a time.
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
		row.measure(ctx, s.Addr, count, runs)
		a.servers, a.rows = append(a.servers, s), append(a.rows, row)
	}
	return a
}

// measure measures with TCP_QUICKACK. It also measures without TCP_QUICKACK, unless a short trial shows that this takes
// long.
func (row *ackRow) measure(ctx context.Context, addr string, count, runs int) {
	for range runs {
		took, err := retrieveOneAtATime(ctx, addr, new(net.Dialer).DialContext, count)
		row.quickTimes = append(row.quickTimes, took)
		row.err = errors.Join(row.err, err)
	}
	const trialMessages, slowMessage = 20, 10 * time.Millisecond
	took, err := retrieveOneAtATime(ctx, addr, dialWithoutQuickAck, trialMessages)
	if err != nil || took > trialMessages*slowMessage {
		row.err = errors.Join(row.err, err)
		return
	}
	row.delayedTime, err = retrieveOneAtATime(ctx, addr, dialWithoutQuickAck, count)
	row.err = errors.Join(row.err, err)
}

// measureRemaining measures the remaining servers without TCP_QUICKACK. It measures them at the same time, because each
// measurement mostly waits. Then it stops all servers.
func (a *acks) measureRemaining(ctx context.Context) {
	var running sync.WaitGroup
	for i, s := range a.servers {
		running.Go(func() {
			row := &a.rows[i]
			if row.delayedTime == 0 && row.err == nil {
				row.delayedTime, row.err = retrieveOneAtATime(ctx, s.Addr, dialWithoutQuickAck, a.count)
			}
			row.err = errors.Join(row.err, s.Stop())
		})
	}
	running.Wait()
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialWithoutQuickAck returns a connection that hides its TCP socket, so that the client cannot set TCP_QUICKACK.
func dialWithoutQuickAck(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return struct{ net.Conn }{conn}, err
}

// retrieveOneAtATime retrieves messages one at a time. It returns how long that took, without the login and QUIT.
func retrieveOneAtATime(ctx context.Context, addr string, dial dialFunc, count int) (took time.Duration, err error) {
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
