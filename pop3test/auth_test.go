package pop3test_test

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/xdg-go/scram"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuth(t *testing.T) {
	plain := b64("\x00mrose\x00tanstaaf")
	for _, tt := range []struct{ name, transcript string }{
		{"PLAIN with an initial response", "C: AUTH PLAIN " + plain + "\nS: +OK *"},
		{"PLAIN in two steps", "C: auth plain\nS: + \nC: " + plain + "\nS: +OK *"},
		{"PLAIN as oneself", "C: AUTH PLAIN " + b64("mrose\x00mrose\x00tanstaaf") + "\nS: +OK *"},
		{"PLAIN as somebody else", "C: AUTH PLAIN " + b64("other\x00mrose\x00tanstaaf") + "\nS: -ERR [AUTH] *"},
		{"PLAIN with a wrong password", "C: AUTH PLAIN " + b64("\x00mrose\x00x") + "\nS: -ERR [AUTH] *"},
		{"PLAIN with an empty initial response", "C: AUTH PLAIN =\nS: -ERR malformed response"},
		{"LOGIN", "C: AUTH LOGIN\nS: + " + b64("Username:") + "\nC: " + b64("mrose") +
			"\nS: + " + b64("Password:") + "\nC: " + b64("tanstaaf") + "\nS: +OK *"},
		{"LOGIN with an initial response", "C: AUTH LOGIN " + b64("mrose") +
			"\nS: + " + b64("Password:") + "\nC: " + b64("tanstaaf") + "\nS: +OK *"},
		{"cancelled", "C: AUTH PLAIN\nS: + \nC: *\nS: -ERR authentication cancelled\nC: USER mrose\nS: +OK *"},
		{"not base64", "C: AUTH PLAIN\nS: + \nC: a=b=\nS: -ERR not base64"},
		{"base64 with a CR in it", "C: AUTH PLAIN\nS: + \nC: QUJD\rREVG\nS: -ERR not base64"},
		{"base64 with set bits after the end", "C: AUTH PLAIN AB==\nS: -ERR not base64"},
		{"unknown", "C: AUTH GSSAPI\nS: -ERR no such mechanism"},
		{"no mechanism", "C: AUTH\nS: -ERR wrong number of arguments to AUTH"},
		{"CRAM-MD5 has no initial response", "C: AUTH CRAM-MD5 " + plain + "\nS: -ERR malformed response"},
		{"XOAUTH2", "C: AUTH XOAUTH2 " + b64("user=mrose\x01auth=Bearer tanstaaf\x01\x01") + "\nS: +OK *"},
		{"XOAUTH2 refused", "C: AUTH XOAUTH2 " + b64("user=mrose\x01auth=Bearer x\x01\x01") +
			"\nS: + *\nC: \nS: -ERR [AUTH] *"},
		{"OAUTHBEARER", "C: AUTH OAUTHBEARER " +
			b64("n,a=mrose,\x01host=h\x01port=110\x01auth=Bearer tanstaaf\x01\x01") + "\nS: +OK *"},
		{"OAUTHBEARER refused", "C: AUTH OAUTHBEARER " + b64("n,a=mrose,\x01auth=Bearer x\x01\x01") +
			"\nS: + " + b64(`{"status":"invalid_token","scope":"mail"}`) + "\nC: AQ==\nS: -ERR [AUTH] *"},
		{"OAUTHBEARER refused and answered wrongly", "C: AUTH OAUTHBEARER " +
			b64("n,a=mrose,\x01auth=Bearer x\x01\x01") + "\nS: + *\nC: AA==\nS: -ERR malformed response"},
		{"OAUTHBEARER cut", "C: AUTH OAUTHBEARER " + b64("n,a=mrose,\x01auth=Bearer x") +
			"\nS: -ERR malformed response"},
		{"EXTERNAL without a certificate", "C: AUTH EXTERNAL =\nS: -ERR [AUTH] *"},
		{"ANONYMOUS without such a mailbox", "C: AUTH ANONYMOUS =\nS: -ERR [AUTH] *"},
		{"SCRAM-PLUS without TLS", "C: AUTH SCRAM-SHA-256-PLUS =\nS: -ERR channel binding needs TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overPipe(t, pop3test.NewUnstartedServer(newBox()), func(k *client) { k.play("S: +OK *\n" + tt.transcript) })
		})
	}
}

func TestAuthAnonymous(t *testing.T) {
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "anonymous"})
	overPipe(t, srv, func(k *client) { k.play("S: +OK *\nC: AUTH ANONYMOUS " + b64("me") + "\nS: +OK *") })
}

func TestAPOP(t *testing.T) {
	for _, tt := range []struct{ name, greeting, apop, reply string }{
		{"R1-123 the example of RFC 1939", "POP3 server ready <1896.697170952@dbc.mtview.ca.us>",
			"APOP mrose c4c9334bac560ecc979e58001b3e22fb", "+OK maildrop has 2 messages (320 octets)"},
		{"a wrong digest", "<1896.697170952@dbc.mtview.ca.us>",
			"APOP mrose c4c9334bac560ecc979e58001b3e22fc", "-ERR [AUTH] *"},
		{"no timestamp", "ready", "APOP mrose c4c9334bac560ecc979e58001b3e22fb", "-ERR no timestamp, no APOP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.Greeting = tt.greeting
			overPipe(t, srv, func(k *client) {
				k.play("S: +OK " + tt.greeting + "\nC: " + tt.apop + "\nS: " + tt.reply)
			})
		})
	}
}

func TestAPOPTimestampDiffers(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	var greetings []string
	for range 2 {
		overPipe(t, srv, func(k *client) {
			line, err := k.in.ReadString('\n')
			require.NoError(t, err)
			assert.Regexp(t, `^\+OK .*<[!-~]+@[!-~]+>\r\n$`, line)
			greetings = append(greetings, line)
		})
	}
	assert.NotEqual(t, greetings[0], greetings[1])
}

func TestCramMD5(t *testing.T) {
	for password, reply := range map[string]string{"tanstaaf": "+OK *", "wrong": "-ERR [AUTH] *"} {
		overPipe(t, pop3test.NewUnstartedServer(newBox()), func(k *client) {
			k.play("S: +OK *\nC: AUTH CRAM-MD5")
			mac := hmac.New(md5.New, []byte(password))
			mac.Write([]byte(k.challenge()))
			k.play("C: " + b64("mrose "+hex.EncodeToString(mac.Sum(nil))) + "\nS: " + reply)
		})
	}
}

// challenge reads a challenge of AUTH.
func (k *client) challenge() string {
	k.t.Helper()
	line, err := k.in.ReadString('\n')
	require.NoError(k.t, err)
	text, ok := strings.CutPrefix(line, "+ ")
	require.True(k.t, ok, "%q", line)
	octets, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, "\r\n"))
	require.NoError(k.t, err)
	return string(octets)
}

// scramLogin runs a SCRAM exchange and returns the last line of the server.
func (k *client) scramLogin(mech string, conv *scram.ClientConversation) string {
	k.t.Helper()
	first, err := conv.Step("")
	require.NoError(k.t, err)
	k.send(fmt.Sprintf("AUTH %s %s\r\n", mech, b64(first)))
	for !conv.Done() {
		line, err := k.in.ReadString('\n')
		require.NoError(k.t, err)
		text, challenged := strings.CutPrefix(line, "+ ")
		if !challenged {
			return line
		}
		octets, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, "\r\n"))
		require.NoError(k.t, err)
		response, err := conv.Step(string(octets))
		require.NoError(k.t, err)
		k.send(b64(response) + "\r\n")
	}
	assert.True(k.t, conv.Valid(), "the server's signature")
	line, err := k.in.ReadString('\n')
	require.NoError(k.t, err)
	return line
}

func TestScram(t *testing.T) {
	for _, tt := range []struct {
		mech     string
		hash     scram.HashGeneratorFcn
		password string
		reply    string
	}{
		{"SCRAM-SHA-1", scram.SHA1, "tanstaaf", "+OK maildrop has 2 messages (320 octets)\r\n"},
		{"SCRAM-SHA-256", scram.SHA256, "tanstaaf", "+OK maildrop has 2 messages (320 octets)\r\n"},
		{"SCRAM-SHA-512", scram.SHA512, "tanstaaf", "+OK maildrop has 2 messages (320 octets)\r\n"},
		{"SCRAM-SHA-256", scram.SHA256, "wrong", "-ERR [AUTH] invalid user name or password\r\n"},
	} {
		t.Run(tt.mech+" "+tt.password, func(t *testing.T) {
			overPipe(t, pop3test.NewUnstartedServer(newBox()), func(k *client) {
				client, err := tt.hash.NewClient("mrose", tt.password, "")
				require.NoError(t, err)
				k.play("S: +OK *")
				assert.Equal(t, tt.reply, k.scramLogin(tt.mech, client.NewConversation()))
			})
		})
	}
}

func TestScramChannelBinding(t *testing.T) {
	const good, bad = "+OK maildrop has 2 messages (320 octets)\r\n", "-ERR [AUTH] invalid user name or password\r\n"
	bound := func(c *scram.Client, k *client) *scram.ClientConversation {
		state := k.conn.(*tls.Conn).ConnectionState()
		binding, err := scram.NewTLSExporterBinding(&state)
		require.NoError(k.t, err)
		return c.NewConversationWithChannelBinding(binding)
	}
	for _, tt := range []struct {
		name, mech string
		caps       []string
		conv       func(*scram.Client, *client) *scram.ClientConversation
		reply      string
	}{
		{"bound", "SCRAM-SHA-256-PLUS", nil, bound, good},
		{"not bound", "SCRAM-SHA-256", nil, func(c *scram.Client, _ *client) *scram.ClientConversation {
			return c.NewConversation()
		}, good},
		{"a -PLUS form without binding", "SCRAM-SHA-256-PLUS", nil,
			func(c *scram.Client, _ *client) *scram.ClientConversation {
				return c.NewConversation()
			}, bad},
		{"a -PLUS form was removed from the list", "SCRAM-SHA-256", nil,
			func(c *scram.Client, _ *client) *scram.ClientConversation {
				return c.NewConversationAdvertisingChannelBinding()
			}, bad},
		{"the server announces no -PLUS form", "SCRAM-SHA-256", []string{"SASL SCRAM-SHA-256"},
			func(c *scram.Client, _ *client) *scram.ClientConversation {
				return c.NewConversationAdvertisingChannelBinding()
			}, good},
		{"bound to something else", "SCRAM-SHA-256-PLUS", nil,
			func(c *scram.Client, _ *client) *scram.ClientConversation {
				return c.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter,
					Data: make([]byte, 32)})
			}, bad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.Caps = tt.caps
			srv.StartTLS()
			defer srv.Close()
			conn, err := tls.Dial("tcp", srv.Addr, srv.ClientTLS())
			require.NoError(t, err)
			defer conn.Close()
			k := newClient(t, conn)
			client, err := scram.SHA256.NewClient("mrose", "tanstaaf", "")
			require.NoError(t, err)
			k.play("S: +OK *")
			assert.Equal(t, tt.reply, k.scramLogin(tt.mech, tt.conv(client, k)))
		})
	}
}

func TestLock(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	synctest.Test(t, func(t *testing.T) {
		first, second := startSession(t, srv), startSession(t, srv)
		first.play(login)
		began := time.Now()
		second.play("S: +OK *\nC: USER mrose\nS: +OK *\nC: PASS tanstaaf\nS: -ERR [IN-USE] maildrop already locked")
		assert.Less(t, time.Since(began), time.Second)

		first.play("C: QUIT\nS: +OK *")
		began = time.Now()
		second.play("C: USER mrose\nS: +OK *\nC: PASS tanstaaf\nS: +OK *")
		assert.Zero(t, time.Since(began), "the maildrop is unlocked before the reply to QUIT")
	})
}

// A client that closes its connection can log in again at once, although its old session may still hold the lock
// for a moment.
func TestLockAfterHangup(t *testing.T) {
	srv := pop3test.NewServer(newBox())
	defer srv.Close()
	for range 50 {
		overTCP(t, srv, func(k *client) { k.play(login) })
	}
}

// The maildrop is unlocked at the end of the session, even if the connection still exists. The session ends after QUIT,
// and after a lost connection that the client has not closed yet.
func TestLockEndsWithSession(t *testing.T) {
	for _, f := range []pop3test.Fault{
		{Session: 1, At: "QUIT", Drop: pop3test.BeforeReply, By: pop3test.Silence},
		{Session: 1, At: "NOOP", Drop: pop3test.BeforeReply, By: pop3test.Hangup},
	} {
		srv := pop3test.NewServer(newBox())
		defer srv.Close()
		srv.SetFaults(f)
		overTCP(t, srv, func(k *client) {
			k.play(login + "C: " + f.At)
			overTCP(t, srv, func(second *client) {
				second.play("S: +OK *\nC: USER mrose\nS: +OK *")
				for len(srv.Commands()) < 4 {
					k.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
					k.conn.Read(make([]byte, 1))
				}
				second.play("C: PASS tanstaaf\nS: +OK *")
			})
		})
	}
}

func TestLockWhileLoginWaits(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	synctest.Test(t, func(t *testing.T) {
		first, second := startSession(t, srv), startSession(t, srv)
		first.play(login)
		second.play("S: +OK *\nC: USER mrose\nS: +OK *\nC: PASS tanstaaf")
		synctest.Wait()
		began := time.Now()
		first.conn.Close()
		second.play("S: +OK maildrop has 2 messages (320 octets)")
		assert.Zero(t, time.Since(began))
	})
}
