package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

// An lmtpServer is an LMTP server, and also each of its sessions. Its reply depends on the subject of the message.
type lmtpServer struct {
	mu  sync.Mutex
	got []string // each element is "sender recipient text"

	sender, recipient string
}

func (s *lmtpServer) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }
func (s *lmtpServer) Reset()                                      {}
func (s *lmtpServer) Logout() error                               { return nil }

func (s *lmtpServer) Mail(from string, _ *smtp.MailOptions) error {
	s.sender = from
	return nil
}

func (s *lmtpServer) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.recipient = to; to == "nobody@example.org" {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	return nil
}

func (s *lmtpServer) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	switch {
	case strings.Contains(string(text), "Subject: full"):
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "quota exceeded"}
	case strings.Contains(string(text), "Subject: virus"):
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "virus"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, fmt.Sprintf("%s %s %s", s.sender, s.recipient, text))
	return nil
}

// serveLMTP starts a server. It also returns the value of the key lmtp for that server.
func serveLMTP(t *testing.T, network, addr string) (*lmtpServer, string) {
	t.Helper()
	listener, err := net.Listen(network, addr)
	require.NoError(t, err)
	backend := new(lmtpServer)
	srv := smtp.NewServer(backend)
	srv.LMTP, srv.Domain = true, "localhost"
	done := make(chan struct{})
	go func() { srv.Serve(listener); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return backend, listener.Addr().String()
}

func TestLMTP(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann",
				[]byte("Return-Path: <bob@example.org>\r\nSubject: one\r\n\r\n.dot\r\n")))
			defer srv.Close()
			p := newWorkspace(t)
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = p.path("socket")
			}
			backend, addr := serveLMTP(t, network, addr)
			config := p.configure(p.account(srv, "ann", fmt.Sprintf("lmtp = %q", addr), `recipient = "ann@example.org"`,
				`delete = "after delivery"`))
			r := p.run("-c", config)
			assert.Equal(t, exitDone, r.status, r.err)
			assert.Equal(t, []string{"bob@example.org ann@example.org " +
				"Return-Path: <bob@example.org>\r\nSubject: one\r\n\r\n.dot\r\n"}, backend.got)
			assert.Empty(t, srv.Left("ann"))
		})
	}
}

// After a permanent refusal a message is not tried again. After a temporary refusal the message is tried again.
func TestLMTPRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, subject, recipient, want string
		permanent                      bool
	}{
		{"temporary refusal", "full", "ann@example.org", "452", false},
		{"permanent refusal", "virus", "ann@example.org", "554", true},
		{"no such user, which is not about the message", "one", "nobody@example.org", "550", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewServer(mailbox("ann", newMessages(tt.subject, "good")...))
			defer srv.Close()
			p := newWorkspace(t)
			backend, addr := serveLMTP(t, "tcp", "127.0.0.1:0")
			r := p.run("-c", p.configure(p.account(srv, "ann", fmt.Sprintf("lmtp = %q", addr),
				fmt.Sprintf("recipient = %q", tt.recipient), `delete = "after delivery"`)))
			assert.Equal(t, exitFailed, r.status)
			assert.Contains(t, r.err, tt.want)
			assert.Equal(t, tt.permanent, strings.Contains(r.err, "never"), r.err)
			assert.Len(t, srv.Left("ann"), 2-len(backend.got))
		})
	}
}

// C-076: popfetch waits only a limited time for an LMTP server that does not reply.
func TestSilentLMTP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	p := newWorkspace(t)
	start := time.Now()
	r := p.run("-c", p.configure(p.account(srv, "ann", fmt.Sprintf("lmtp = %q", listener.Addr()),
		`command_timeout = "1s"`)))
	assert.Less(t, time.Since(start), 20*time.Second)
	assert.Equal(t, exitFailed, r.status)
	assert.Contains(t, r.err, "no reply within 1s (command_timeout)")
	assert.Len(t, srv.Left("ann"), 1)
}
