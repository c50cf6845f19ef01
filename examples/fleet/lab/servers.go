// Package lab runs POP3 and NATS servers for the demo, the tests and the measurements of the fleet. Each server is a
// process of its own.
package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// Main runs a server: args are "pop3" or "nats" and flags. It returns the exit status.
func Main(args []string) int {
	programs := map[string]func(context.Context, []string) error{"pop3": runPOP3, "nats": runNATS}
	if len(args) == 0 || programs[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "usage: pop3 or nats, and flags")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if IsChild() {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	if err := programs[args[0]](ctx, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, args[0]+":", err)
		return 1
	}
	return 0
}

// User and Password return the credentials of box n.
func User(n int) string     { return fmt.Sprintf("user%06d", n) }
func Password(n int) string { return fmt.Sprintf("secret%06d", n) }

// Message returns message i of box n. Its subject has both numbers, so that lost and repeated messages can be counted.
func Message(n, i, size int) []byte {
	head := fmt.Sprintf("Subject: box %06d message %04d\r\n\r\n", n, i)
	line := strings.Repeat("x", 70) + "\r\n"
	return []byte(head + strings.Repeat(line, max(0, size-len(head))/len(line)))
}

// Boxes returns mailboxes with messages.
func Boxes(first, count, messages, size int) []*pop3test.Mailbox {
	var boxes []*pop3test.Mailbox
	for n := first; n < first+count; n++ {
		box := &pop3test.Mailbox{User: User(n), Password: Password(n)}
		for i := range messages {
			box.Messages = append(box.Messages, Message(n, i, size))
		}
		boxes = append(boxes, box)
	}
	return boxes
}

// runPOP3 runs a POP3 server of package pop3test. It prints its address.
func runPOP3(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("pop3", flag.ExitOnError)
	dir := f.String("dir", "", "`folder` with ca.pem and key.pem; without it there is no TLS")
	addr := f.String("addr", "127.0.0.1:0", "`address` to listen on")
	first := f.Int("first", 0, "number of the first box")
	count := f.Int("count", 100, "boxes")
	messages := f.Int("messages", 1, "messages in each box")
	size := f.Int("size", 4096, "bytes of a message")
	deliver := f.Float64("deliver", 0, "messages a second that come later")
	delay := f.Duration("delay", 0, "wait before each reply")
	pace := f.Duration("pace", 0, "wait before each 64 bytes of a message")
	f.Parse(args)
	s := pop3test.NewUnstartedServer(Boxes(*first, *count, *messages, *size)...)
	var err error
	if s.Listener, err = net.Listen("tcp", *addr); err != nil {
		return err
	}
	var faults []pop3test.Fault
	if *delay > 0 {
		faults = append(faults, pop3test.Fault{Delay: *delay})
	}
	if *pace > 0 {
		faults = append(faults, pop3test.Fault{At: "RETR", Chunk: 64, Pace: *pace})
	}
	s.SetFaults(faults...)
	if *dir == "" {
		s.Start()
	} else {
		cert, err := tls.LoadX509KeyPair(filepath.Join(*dir, "ca.pem"), filepath.Join(*dir, "key.pem"))
		if err != nil {
			return err
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.StartTLS()
	}
	defer s.Close()
	fmt.Println(s.Addr)
	for i := *messages; *deliver > 0 && wait(ctx, time.Duration(float64(time.Second) / *deliver)); i++ {
		n := *first + rand.IntN(*count)
		s.Deliver(User(n), Message(n, i, *size))
	}
	<-ctx.Done()
	return nil
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// MaxPayload is the largest message of these NATS servers, and so the largest mail in a stream.
const MaxPayload = 8 << 20

// runNATS runs a NATS server with JetStream, alone or as a part of a cluster. It prints its URL.
func runNATS(ctx context.Context, args []string) error {
	opts := &natsserver.Options{Host: "127.0.0.1", NoSigs: true, NoLog: true, JetStream: true, MaxPayload: MaxPayload}
	f := flag.NewFlagSet("nats", flag.ExitOnError)
	conf := f.String("conf", "", "configuration `file` of a NATS server")
	f.StringVar(&opts.StoreDir, "dir", "", "`folder` of the streams")
	f.StringVar(&opts.Host, "host", "127.0.0.1", "address to listen on")
	f.IntVar(&opts.Port, "port", natsserver.RANDOM_PORT, "port to listen on; -1 is any")
	f.StringVar(&opts.ServerName, "name", "fleet", "name of this server")
	f.BoolVar(&opts.SyncAlways, "sync", true, "sync each write before it is confirmed")
	f.Int64Var(&opts.JetStreamMaxStore, "max-store", 0, "bytes that the streams may use; 0 is the default")
	routes := f.String("routes", "", "`URLs` of the routes of a cluster, that of this server first")
	f.Parse(args)
	if *conf != "" {
		if err := opts.ProcessConfigFile(*conf); err != nil {
			return err
		}
	}
	if *routes != "" {
		opts.Routes = natsserver.RoutesFromStr(*routes)
		port, err := strconv.Atoi(opts.Routes[0].Port())
		if err != nil {
			return err
		}
		opts.Cluster = natsserver.ClusterOpts{Name: "fleet", Host: opts.Routes[0].Hostname(), Port: port}
	}
	s, err := natsserver.NewServer(opts)
	if err != nil {
		return err
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(20 * time.Second) {
		return errors.New("the NATS server does not get ready")
	}
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	return nil
}
