package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/sasl"
	"golang.org/x/net/proxy"
)

// poll fetches the new mail of an account while the lease is held. If it fails for a reason that is not the account's,
// it returns that reason.
func (w *Worker) poll(life context.Context, held *lease, a Account) (o Outcome, reason string) {
	ctx, cancel := context.WithTimeout(held.ctx, w.Longest)
	defer cancel()
	report, err := w.fetch(ctx, life, held, a)
	o = outcomeOf(report, err)
	switch {
	case life.Err() != nil:
		reason = "stopping"
	case !held.valid() || errors.Is(err, errLeaseLost):
		reason = "lease"
	case errors.Is(err, errAway):
		reason = "nats"
	case ctx.Err() != nil:
		o.More, o.Code = o.Delivered > 0, "slow"
	}
	return o, reason
}

// fetch fetches until ctx ends. The history can be stored until the context life ends.
func (w *Worker) fetch(ctx, life context.Context, held *lease, a Account) (report fetch.Report, err error) {
	seen, err := openSeen(ctx, w.bus, life, held, a)
	if err != nil {
		return fetch.Report{Aborted: err}, err
	}
	sink, err := w.sinkOf(a, len(seen.pages) == 0)
	if err != nil {
		return fetch.Report{Aborted: err}, err
	}
	f := fetch.Fetcher{
		Connect: func(ctx context.Context) (*pop3.Client, error) { return w.login(ctx, held, a) },
		Sink:    sink, Seen: seen, Account: a.Name,
		Delete: a.Delete, MaxMessages: w.MaxMessages, MaxSize: w.maxSize,
	}
	report, err = f.Run(ctx)
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

// dials are the functions to connect, by Account.Security.
var dials = map[string]func(context.Context, string, *pop3.Options) (*pop3.Client, error){
	"": pop3.DialTLS, "tls": pop3.DialTLS, "starttls": pop3.DialStartTLS, "none": pop3.DialInsecure,
}

// login returns a session that is logged in.
func (w *Worker) login(ctx context.Context, held *lease, a Account) (*pop3.Client, error) {
	dial := dials[a.Security]
	if dial == nil {
		return nil, fmt.Errorf("account %q: security is %q; it has to be tls, starttls or none", a.Name, a.Security)
	}
	opts := w.options
	opts.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := proxy.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newLeasedConn(conn, held), nil
	}
	c, err := dial(ctx, a.Addr, &opts)
	if err != nil {
		return nil, err
	}
	handshake := "none"
	if state, ok := c.TLSConnectionState(); ok {
		handshake = map[bool]string{true: "resumed", false: "full"}[state.DidResume]
	}
	handshakeCount.WithLabelValues(handshake).Inc()
	if len(a.TokenCommand) > 0 {
		err = loginWithToken(ctx, c, a)
	} else {
		err = c.Login(ctx, a.User, a.Password)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func loginWithToken(ctx context.Context, c *pop3.Client, a Account) error {
	token, err := a.token(ctx)
	if err != nil {
		return err
	}
	capabilities, err := c.Capa(ctx)
	if err != nil {
		return err
	}
	mechanism := sasl.XOAuth2(a.User, token)
	if slices.Contains(capabilities.SASL(), "OAUTHBEARER") {
		mechanism = sasl.OAuthBearer(a.User, token)
	}
	return c.Auth(ctx, mechanism)
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
func (w *Worker) sinkOf(a Account, isNew bool) (fetch.Sink, error) {
	root, ok := strings.CutPrefix(w.Sink, "maildir:")
	if !ok {
		return streamSink{w.bus, w.mail}, nil
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

// A streamSink delivers to a JetStream stream, from which other programs read the mail. Each mail is one message, so it
// must not be larger than NATS allows; see Worker.maxSize. A mail is delivered again if a worker dies between the
// delivery and the history entry. It then has the same unique-id and content, and JetStream drops it if that was not
// long ago.
type streamSink struct {
	bus *Bus
	js  jetstream.JetStream // JetStream for the mail, which may be in another NATS account than the records
}

func (s streamSink) Deliver(ctx context.Context, item fetch.Item, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(mailSubject + keyOf(item.Account))
	msg.Data = body
	msg.Header.Set("Account", item.Account)
	msg.Header.Set("UID", strconv.Quote(item.UID))
	if item.UID != "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", item.Account, item.UID, body))
		msg.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(sum[:]))
	}
	err = s.bus.insist(ctx, func(ctx context.Context) error {
		_, err := s.js.PublishMsg(ctx, msg)
		return err
	})
	if err != nil {
		return fmt.Errorf("fleet: delivering: %w", err)
	}
	return nil
}
