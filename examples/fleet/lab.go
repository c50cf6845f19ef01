package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// The lab is POP3 servers of package pop3test, in processes of their own, each with an address of its own on the
// loopback interface: TLS sessions are resumed by host, and rate limits are for hosts.

func labIP(server int) net.IP { return net.IPv4(127, 0, 0, byte(2+server)) }

func labUser(n int) string { return fmt.Sprintf("user%06d", n) }

func labPassword(n int) string { return fmt.Sprintf("secret%06d", n) }

// labMessage is the message i of box n: its first line tells both, which is how losses and repetitions are counted.
func labMessage(n, i, size int) []byte {
	head := fmt.Sprintf("Subject: box %06d message %04d\r\n\r\n", n, i)
	line := strings.Repeat("x", 70) + "\r\n"
	return []byte(head + strings.Repeat(line, max(0, size-len(head))/len(line)))
}

// labCertificate writes a certificate for all addresses of the lab, which is its own authority.
func labCertificate(dir string) error {
	var addresses []string
	for server := range 100 {
		addresses = append(addresses, labIP(server).String())
	}
	cert, key := testcert.PEM(testcert.New(addresses...).Certificate)
	return errors.Join(os.WriteFile(filepath.Join(dir, "ca.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
}

// labPOP3 is the process of one server. It says its address in a line.
func labPOP3(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("lab-pop3", flag.ExitOnError)
	dir := f.String("dir", ".", "with ca.pem and key.pem")
	server := f.Int("server", 0, "number of this server")
	first := f.Int("first", 0, "number of the first box")
	count := f.Int("count", 100, "boxes")
	messages := f.Int("messages", 1, "in each box")
	size := f.Int("size", 4096, "octets of a message")
	deliver := f.Float64("deliver", 0, "messages a second that come later")
	delay := f.Duration("delay", 0, "before each reply")
	f.Parse(args)
	cert, err := tls.LoadX509KeyPair(filepath.Join(*dir, "ca.pem"), filepath.Join(*dir, "key.pem"))
	if err != nil {
		return err
	}
	s := pop3test.NewUnstartedServer(labBoxes(*first, *count, *messages, *size)...)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	if s.Listener, err = net.Listen("tcp", net.JoinHostPort(labIP(*server).String(), "0")); err != nil {
		return err
	}
	if *delay > 0 {
		s.SetFaults(pop3test.Fault{Delay: *delay})
	}
	s.StartTLS()
	defer s.Close()
	fmt.Println(s.Addr)
	for i := *messages; *deliver > 0 && pause(ctx, time.Duration(float64(time.Second) / *deliver)); i++ {
		n := *first + mathrand.IntN(*count)
		s.Deliver(labUser(n), labMessage(n, i, *size))
	}
	<-ctx.Done()
	return nil
}

func labBoxes(first, count, messages, size int) []*pop3test.Mailbox {
	var boxes []*pop3test.Mailbox
	for n := first; n < first+count; n++ {
		box := &pop3test.Mailbox{User: labUser(n), Password: labPassword(n)}
		for i := range messages {
			box.Messages = append(box.Messages, labMessage(n, i, size))
		}
		boxes = append(boxes, box)
	}
	return boxes
}

// labNATS is the process of a NATS server, alone or one of a cluster. It says its URL in a line.
func labNATS(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("lab-nats", flag.ExitOnError)
	dir := f.String("dir", "", "where the streams are")
	sync := f.Bool("sync", true, "bring each write to the disk before it is confirmed")
	name := f.String("name", "fleet", "of this server")
	routes := f.String("routes", "", "`URLs` for the routes of a cluster, that of this server first")
	f.Parse(args)
	opts := natsOptions(*dir, *sync)
	if err := clustered(opts, *name, *routes); err != nil {
		return err
	}
	s, err := startServer(opts)
	if err != nil {
		return err
	}
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
