package pop3test_test

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newBox returns a mailbox with two messages of 120 and 200 octets, as in the examples of RFC 1939.
func newBox() *pop3test.Mailbox {
	return &pop3test.Mailbox{
		User:     "mrose",
		Password: "tanstaaf",
		Messages: [][]byte{message(120), message(200)},
		UIDs:     []string{"whqtswO00WBw418f9t5JxYwZ", "QhdPYR:00WBw1Ph7x7"},
	}
}

// message returns a message of exactly n octets, with a line that begins with a dot.
func message(n int) []byte {
	m := "Subject: test\r\n\r\n.dot\r\n"
	return []byte(m + strings.Repeat("x", n-len(m)-2) + "\r\n")
}

// A client is the client's side of a session in a test.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func newClient(t *testing.T, conn net.Conn) *client {
	return &client{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// play sends the C lines of a transcript and expects its S lines, in which * stands for any text. Successive C lines
// are sent at once. A c line is sent without a line end.
func (k *client) play(transcript string) {
	k.t.Helper()
	var batch strings.Builder
	for line := range strings.Lines(transcript) {
		line = strings.TrimSuffix(strings.TrimLeft(line, "\t "), "\n")
		if text, ok := strings.CutPrefix(line, "C: "); ok {
			batch.WriteString(text + "\r\n")
			continue
		}
		if text, ok := strings.CutPrefix(line, "c: "); ok {
			batch.WriteString(text)
			continue
		}
		k.send(batch.String())
		batch.Reset()
		if want, ok := strings.CutPrefix(line, "S: "); ok {
			k.expect(want)
		}
	}
	k.send(batch.String())
}

func (k *client) send(octets string) {
	k.t.Helper()
	if octets == "" {
		return
	}
	k.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	_, err := k.conn.Write([]byte(octets))
	require.NoError(k.t, err)
}

func (k *client) expect(want string) {
	k.t.Helper()
	k.conn.SetReadDeadline(time.Now().Add(time.Minute))
	line, err := k.in.ReadString('\n')
	require.NoError(k.t, err, "instead of %q came %q", want, line)
	require.True(k.t, strings.HasSuffix(line, "\r\n"), "%q", line)
	if before, after, star := strings.Cut(want, "*"); star {
		require.True(k.t, strings.HasPrefix(line, before) && strings.HasSuffix(line, after+"\r\n"), "%q is not %q",
			line, want)
		return
	}
	require.Equal(k.t, want+"\r\n", line)
}

// login is the transcript of a login.
const login = `
	S: +OK *
	C: USER mrose
	S: +OK *
	C: PASS tanstaaf
	S: +OK *
`

// readAll returns the octets that are received until the connection ends, and the error at its end.
func (k *client) readAll() (string, error) {
	k.conn.SetReadDeadline(time.Now().Add(time.Minute))
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := k.in.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			return string(all), err
		}
	}
}

// overPipe runs f with a session over a net.Pipe, in a synctest bubble. The session must end when the client hangs up.
func overPipe(t *testing.T, srv *pop3test.Server, f func(k *client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(startSession(t, srv))
	})
}

// startSession starts a session over a net.Pipe, which ends with the test.
func startSession(t *testing.T, srv *pop3test.Server) *client {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.ServeConn(server)
	}()
	t.Cleanup(func() {
		client.Close()
		<-done
	})
	return newClient(t, client)
}

// overTCP runs f with a session over TCP.
func overTCP(t *testing.T, srv *pop3test.Server, f func(k *client)) {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Addr)
	require.NoError(t, err)
	defer conn.Close()
	f(newClient(t, conn))
}

func leftSizes(srv *pop3test.Server) []int {
	var sizes []int
	for _, m := range srv.Left("mrose") {
		sizes = append(sizes, len(m))
	}
	return sizes
}
