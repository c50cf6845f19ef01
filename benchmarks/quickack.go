package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// An ackRow compares, for one server, messages retrieved one at a time with and without TCP_QUICKACK.
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

// measureAcks starts the real servers, in dir, and retrieves count messages one at a time from each: with
// TCP_QUICKACK one server after the other, without it all at the same time, since that is mostly waiting.
func measureAcks(ctx context.Context, dir string, count, runs int, progress io.Writer) []ackRow {
	rows := make([]ackRow, 0, len(interop.Kinds()))
	var servers []*interop.Server
	for _, kind := range interop.Kinds() {
		fmt.Fprintf(progress, "one at a time: %s\n", kind)
		s, err := interop.Start(ctx, kind, dir, nil)
		if err != nil {
			fmt.Fprintf(progress, "  %v\n", err)
			continue
		}
		servers = append(servers, s)
		row := ackRow{server: properNames[kind], version: s.Version}
		for range runs {
			took, err := oneAtATime(ctx, s.Addr, new(net.Dialer).DialContext, count)
			row.with = append(row.with, took)
			row.err = errors.Join(row.err, err)
		}
		slices.Sort(row.with)
		rows = append(rows, row)
	}
	fmt.Fprintf(progress, "one at a time, without TCP_QUICKACK: all of them\n")
	var running sync.WaitGroup
	for i, s := range servers {
		running.Go(func() {
			took, err := oneAtATime(ctx, s.Addr, dialHidden, count)
			rows[i].without = took
			rows[i].err = errors.Join(rows[i].err, err, s.Stop())
		})
	}
	running.Wait()
	return rows
}

// dialHidden gives a connection that does not look like TCP, so that the client can't set a socket option.
func dialHidden(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return struct{ net.Conn }{conn}, err
}

// oneAtATime retrieves messages one at a time and tells how long that took, without the login.
func oneAtATime(ctx context.Context, addr string, dial func(ctx context.Context, network, addr string) (net.Conn, error),
	count int) (time.Duration, error) {
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
	return time.Since(began), nil
}

// memoryDir makes a folder that is not on a disk, where the machine has a file system for that.
func memoryDir() (string, error) {
	const inMemory = "/dev/shm"
	if dir, err := os.MkdirTemp(inMemory, "pop3-bench-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "pop3-bench-")
}
