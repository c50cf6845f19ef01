package conformance_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"os"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// A peer that asks for a new key and does not read the answer must not block a Read forever (C-106).
func TestKeyUpdateThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		held := make(chan struct{})
		go func() {
			defer conn.Close()
			p := newPeer(t, conn)
			if !p.startTLS(rawServerTLS(p)) {
				return
			}
			p.login()
			p.hears("RETR 1")
			server := newRawTLS(p, conn)
			server.says("+OK\r\nbegun\r\n")
			server.updateKey()
			<-held
		}()
		config := clientTLS()
		config.ServerName = "pop.example.com"
		c, err := pop3.NewClient(t.Context(), tls.Client(client, config), insecure)
		require.NoError(t, err)
		require.NoError(t, c.User(t.Context(), "u"))
		require.NoError(t, c.Pass(t.Context(), canary))
		m, err := c.Retr(t.Context(), 1)
		require.NoError(t, err)
		var got bytes.Buffer
		_, err = m.WriteTo(&got)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.ErrorContains(t, err, "fewer than 128 octets per second", "the limit that has passed")
		assert.Equal(t, "begun\r\n", got.String())
		assert.NoError(t, c.Close())
		close(held)
		synctest.Wait()
	})
}

// A rawTLS replaces the server's tls.Conn, which never asks for a new key. It knows the secret, and how many
// records were written with it.
type rawTLS struct {
	t       *testing.T
	out     net.Conn
	secret  []byte
	written uint64
}

// secrets collects the secrets that a server logs in the format of SSLKEYLOGFILE.
type secrets struct{ bytes.Buffer }

// rawServerTLS is serverTLS for a connection that newRawTLS will take over.
func rawServerTLS(p *peer) *tls.Config {
	config := serverTLS().Clone()
	config.SessionTicketsDisabled = true // tickets would count as records
	p.secrets = new(secrets)
	config.KeyLogWriter = p.secrets
	return config
}

// newRawTLS takes over after login, in which the server has written three records.
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

// write sends a record of that type (RFC 8446 section 5.2).
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

func (r *rawTLS) says(octets string) { r.write(23, []byte(octets)) }

// updateKey asks for a new key of the client and takes a new one (RFC 8446 section 4.6.3).
func (r *rawTLS) updateKey() {
	r.write(22, []byte{24, 0, 0, 1, 1})
	r.secret, r.written = r.expand("traffic upd", sha256.Size), 0
}

// sendTicket sends a session ticket (RFC 8446 section 4.6.1). Servers may send one at any time.
func (r *rawTLS) sendTicket() {
	const body = "\x00\x00\x0e\x10" + "\x00\x00\x00\x00" + "\x01\x00" + "\x00\x06ticket" + "\x00\x00"
	r.write(22, append([]byte{4, 0, 0, byte(len(body))}, body...))
}
