package conformance_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// When the peer requests a new key, crypto/tls writes the answer during a Read. If the peer does not read the answer,
// the Read must not block forever. If the peer reads it, the session continues. The test requests a key at several
// moments of a session (C-106).
func TestKeyUpdate(t *testing.T) {
	for _, row := range []struct {
		name    string
		server  func(p *peer, server *rawTLS, out *holdingConn)
		noReads bool // the peer does not read, so the call must end with a timeout
		ahead   bool // RETR 2 was sent before the reply to RETR 1
	}{
		{"C-106 nobody reads", func(p *peer, server *rawTLS, _ *holdingConn) {
			server.send("+OK\r\nbegun\r\n")
			server.updateKey()
			time.Sleep(time.Hour)
		}, true, false},
		{"C-106 nobody reads, and a command was sent ahead", func(p *peer, server *rawTLS, _ *holdingConn) {
			p.expect("RETR 2")
			server.send("+OK\r\nbegun\r\n")
			server.updateKey()
			time.Sleep(time.Hour)
		}, true, true},
		{"C-106 nobody reads, later", func(p *peer, server *rawTLS, _ *holdingConn) {
			server.send("+OK\r\nbegun\r\n")
			time.Sleep(pop3.DefaultTimeout * 3 / 4)
			server.send("\r\n") // then less than half of the time limit of RETR is left
			server.updateKey()
			time.Sleep(time.Hour)
		}, true, false},
		{"C-106 in a message that takes long", func(p *peer, server *rawTLS, out *holdingConn) {
			server.send("+OK\r\nbegun\r\n")
			for range 10 {
				time.Sleep(pop3.DefaultTimeout / 3)
				server.send(strings.Repeat("x", 1<<13) + "\r\n")
			}
			out.hold = true
			server.updateKey()
			out.hold = false
			server.send(".\r\n")
			p.expect("NOOP")
			server.send("+OK\r\n")
		}, false, false},
		{"C-106 after the reply, found when the session was idle", func(p *peer, server *rawTLS, out *holdingConn) {
			out.hold = true
			server.send("+OK\r\nbegun\r\n.\r\n")
			out.hold = false
			server.updateKey()
			p.expect("NOOP")
			server.send("+OK\r\n")
		}, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := retrOverTLS(t, row.server, nil)
				began := time.Now()
				got, err := readFirst(t, c, row.ahead)
				assert.True(t, strings.HasPrefix(got, "begun\r\n"), got)
				if row.noReads {
					assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
					assert.ErrorContains(t, err, "fewer than 128 octets per second", "the limit that has passed")
					assert.LessOrEqual(t, time.Since(began), 2*pop3.DefaultTimeout)
				} else {
					assert.NoError(t, err)
					time.Sleep(time.Hour)
					assert.NoError(t, c.Noop(t.Context()))
				}
				assert.NoError(t, c.Close())
			})
		})
	}
}

// The same is true when the client looks for unexpected data before a command, even if the context of the previous call
// has just ended (C-106).
func TestKeyUpdateAfterContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ends := &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, _ error) {
			if cmd == "RETR 1" {
				cancel()
				// Wait until the client's watch on the context has interrupted the connection.
				synctest.Wait()
			}
		}}
		c := retrOverTLS(t, func(_ *peer, server *rawTLS, out *holdingConn) {
			out.hold = true
			server.send("+OK\r\nx\r\n.\r\n")
			out.hold = false
			server.updateKey()
			time.Sleep(time.Hour)
		}, ends)
		_, err := readAll(c.Retr(ctx, 1))
		require.NoError(t, err)
		began := time.Now()
		assert.Error(t, c.Noop(t.Context()))
		assert.LessOrEqual(t, time.Since(began), 2*pop3.DefaultTimeout)
		assert.NoError(t, c.Close())
	})
}

// readFirst reads message 1, alone or as the first of two.
func readFirst(t *testing.T, c *pop3.Client, ahead bool) (string, error) {
	if !ahead {
		return readAll(c.Retr(t.Context(), 1))
	}
	for m, err := range c.Messages(t.Context(), 1, 2) {
		return readAll(m, err)
	}
	return "", nil
}

func readAll(m *pop3.Message, err error) (string, error) {
	if err != nil {
		return "", err
	}
	var content strings.Builder
	_, err = m.WriteTo(&content)
	return content.String(), err
}

// retrOverTLS returns a client over TLS. f plays the server after the command RETR 1.
func retrOverTLS(t *testing.T, f func(*peer, *rawTLS, *holdingConn), trace *pop3.Trace) *pop3.Client {
	client, conn := net.Pipe()
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	serving.Go(func() {
		defer conn.Close()
		p := newPeer(t, conn)
		if p.startTLS(rawServerTLS(p)) {
			p.login()
			p.expect("RETR 1")
			out := &holdingConn{Conn: conn}
			f(p, newRawTLS(p, out), out)
		}
	})
	config := clientTLS()
	config.ServerName = "pop.example.com"
	opts := *insecure
	opts.Pipelining, opts.Trace = pop3.PipeliningAlways, trace
	c, err := pop3.NewClient(t.Context(), tls.Client(client, config), &opts)
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), canary))
	return c
}

// A holdingConn keeps written data while hold is true. After that it writes all of the data at once, so that several
// TLS records arrive in one segment.
type holdingConn struct {
	net.Conn
	hold     bool
	buffered []byte
}

func (b *holdingConn) Write(p []byte) (int, error) {
	if b.buffered = append(b.buffered, p...); b.hold {
		return len(p), nil
	}
	_, err := b.Conn.Write(b.buffered)
	b.buffered = nil
	return len(p), err
}

// A rawTLS writes TLS records in place of the server's tls.Conn, which cannot request a new key. The field secret is
// the traffic secret of the server. The field written is the number of records that the server has written with that
// secret.
type rawTLS struct {
	t       *testing.T
	out     net.Conn
	secret  []byte
	written uint64
}

// secrets collects the TLS secrets that crypto/tls logs in the format of SSLKEYLOGFILE.
type secrets struct{ bytes.Buffer }

// rawServerTLS returns the configuration serverTLS for a connection that newRawTLS will take over.
func rawServerTLS(p *peer) *tls.Config {
	config := serverTLS().Clone()
	config.SessionTicketsDisabled = true // tickets would change the number of records
	p.secrets = new(secrets)
	config.KeyLogWriter = p.secrets
	return config
}

// newRawTLS takes over the connection after the login, when the server has written three records.
func newRawTLS(p *peer, out net.Conn) *rawTLS {
	require.EqualValues(p.t, tls.TLS_AES_128_GCM_SHA256, p.Conn.(*tls.Conn).ConnectionState().CipherSuite)
	for line := range bytes.Lines(p.secrets.Bytes()) {
		words := bytes.Fields(line)
		if string(words[0]) == "SERVER_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(string(words[2]))
			require.NoError(p.t, err)
			return &rawTLS{t: p.t, out: out, secret: secret, written: 3}
		}
	}
	require.Fail(p.t, "no secret")
	return nil
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
func (r *rawTLS) expand(label string, length int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(append(info, byte(len("tls13 "+label))), "tls13 "+label...)
	key, err := hkdf.Expand(sha256.New, r.secret, string(append(info, 0)), length)
	require.NoError(r.t, err)
	return key
}

// write sends a record of the type kind (RFC 8446 section 5.2).
func (r *rawTLS) write(kind byte, content []byte) {
	block, err := aes.NewCipher(r.expand("key", 16))
	require.NoError(r.t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(r.t, err)
	nonce := r.expand("iv", 12)
	for i, b := range binary.BigEndian.AppendUint64(nil, r.written) {
		nonce[4+i] ^= b
	}
	inner := append(bytes.Clone(content), kind)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+aead.Overhead()))
	r.written++
	r.out.Write(append(head, aead.Seal(nil, nonce, inner, head)...))
}

func (r *rawTLS) send(octets string) { r.write(23, []byte(octets)) }

// updateKey requests a new key from the client and begins to use a new key itself (RFC 8446 section 4.6.3).
func (r *rawTLS) updateKey() {
	r.write(22, []byte{24, 0, 0, 1, 1})
	r.secret, r.written = r.expand("traffic upd", sha256.Size), 0
}

// sendTicket sends a session ticket (RFC 8446 section 4.6.1). Servers may send one at any time.
func (r *rawTLS) sendTicket() {
	const body = "\x00\x00\x0e\x10" + "\x00\x00\x00\x00" + "\x01\x00" + "\x00\x06ticket" + "\x00\x00"
	r.write(22, append([]byte{4, 0, 0, byte(len(body))}, body...))
}
