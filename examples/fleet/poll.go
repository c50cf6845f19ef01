package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsmail"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
	"github.com/seed-2d50cddb/pop3/fetch"
	"golang.org/x/net/proxy"
)

// poll fetches the new mail of an account while the lease is valid. If the poll fails for a reason that has nothing to
// do with the account, it returns that reason.
func (w *Worker) poll(storeCtx context.Context, lease *leases.Lease, a accounts.Account) (o Outcome, reason string) {
	ctx, cancel := context.WithTimeout(lease.Context(), w.Longest)
	defer cancel()
	report, err := w.fetch(ctx, storeCtx, lease, a)
	o = outcomeOf(report, err)
	switch {
	case storeCtx.Err() != nil:
		reason = "stopping"
	case !lease.Valid() || errors.Is(err, leases.ErrLost):
		reason = "lease"
	case errors.Is(err, natsretry.ErrUnavailable):
		reason = "nats"
	case ctx.Err() != nil:
		o.More, o.Code = o.Delivered > 0, "slow"
	}
	return o, reason
}

// fetch fetches until ctx ends. The history can be stored until storeCtx ends.
func (w *Worker) fetch(ctx, storeCtx context.Context, lease *leases.Lease, a accounts.Account) (fetch.Report, error) {
	history := &natsmail.History{Bucket: w.bus.seen, Requests: &w.bus.requests, Key: a.Key(), Lease: lease,
		StoreContext: storeCtx}
	if _, err := history.Open(ctx, a.Name); err != nil {
		return fetch.Report{Aborted: err}, err
	}
	sink, err := w.sinkOf(a, history.IsNew())
	if err != nil {
		return fetch.Report{Aborted: err}, err
	}
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) { return w.login(ctx, lease, a) },
		Sink:    sink, Seen: history, Account: a.Name,
		Delete: a.Delete, MaxMessages: w.MaxMessages, MaxSize: w.maxSize,
	}
	report, err := f.Run(ctx)
	messageCount.Add(float64(report.Delivered))
	octetCount.Add(float64(report.Octets))
	return report, err
}

// shorten returns the text of an error for a record: one line of at most 500 bytes.
func shorten(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

// outcomeOf returns the outcome of a run. If only single messages failed, the run was successful. Its error is kept for
// people, and the account is polled as usual.
func outcomeOf(r fetch.Report, err error) Outcome {
	o := Outcome{Delivered: r.Delivered, TryAgain: r.TryAgain, Error: shorten(err), Code: codeOf(err)}
	for _, s := range r.Skipped {
		o.More = o.More || errors.Is(s.Err, fetch.ErrLimit)
	}
	o.Failed = r.Aborted != nil && r.Delivered == 0
	if refusal, ok := errors.AsType[*pop3.Error](err); ok && r.Sessions == 0 {
		o.Refused, _ = refusal.RejectsCredentials()
	}
	return o
}

// login returns a session that is logged in. It writes to the server only while the lease is valid.
func (w *Worker) login(ctx context.Context, lease *leases.Lease, a accounts.Account) (*pop3.Client, error) {
	opts := w.options
	opts.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := proxy.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return lease.Conn(conn), nil
	}
	c, err := a.Dial(ctx, &opts)
	if err != nil {
		return nil, err
	}
	handshake := "none"
	if state, ok := c.TLSConnectionState(); ok {
		handshake = map[bool]string{true: "resumed", false: "full"}[state.DidResume]
	}
	handshakeCount.WithLabelValues(handshake).Inc()
	if err := a.Login(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// knownCodes are the response codes that have a time series of their own. All others are counted together, because a
// server can send any word.
var knownCodes = []pop3.Code{pop3.CodeInUse, pop3.CodeLoginDelay, pop3.CodeAuth, pop3.CodeSysTemp, pop3.CodeSysPerm,
	pop3.CodeUTF8}

// codeOf returns a short name for an error: the code of a refusal, or a word in lower case.
func codeOf(err error) string {
	refusal, refused := errors.AsType[*pop3.Error](err)
	switch {
	case err == nil:
		return ""
	case refused:
		if i := slices.IndexFunc(knownCodes, refusal.Code.Is); i >= 0 {
			return string(knownCodes[i])
		}
		return "refused"
	case isType[*tls.CertificateVerificationError](err):
		return "certificate"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case isType[*pop3.ProtocolError](err):
		return "protocol"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "cut"
	case isType[*net.OpError](err):
		return "network"
	case errors.Is(err, fetch.ErrTooLarge):
		return "too large"
	}
	return "other"
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// sinkOf returns where the mail of an account goes: the stream, or a Maildir in a folder that is named by its key. The
// Maildir is made only for an account that has no history.
func (w *Worker) sinkOf(a accounts.Account, isNew bool) (fetch.Sink, error) {
	root, ok := strings.CutPrefix(w.Sink, "maildir:")
	if !ok {
		return natsmail.Stream{JetStream: w.mail, Requests: &w.bus.requests, Subject: mailSubject + a.Key()}, nil
	}
	maildir := fetch.Maildir{Dir: filepath.Join(root, a.Key())}
	if !isNew {
		return maildir, nil
	}
	if _, err := os.Stat(root); err != nil { // a missing folder may be on a file system that is not mounted
		return nil, fmt.Errorf("fleet: the folder of all Maildirs has to exist: %w", err)
	}
	return maildir, maildir.Create()
}
