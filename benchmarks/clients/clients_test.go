package clients

import (
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestMain(m *testing.M) {
	Child()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // otherwise each child waits a second at its end
	os.Exit(m.Run())
}

// readOnlyConn is a connection on which nothing is sent.
type readOnlyConn struct {
	net.Conn
	r io.Reader
}

func (h readOnlyConn) Read(p []byte) (int, error) { return h.r.Read(p) }

func TestBareLoopCounts(t *testing.T) {
	tests := []struct {
		name, input string
		end         []byte
		n           int
		fails       bool
	}{
		{"lines", "+OK\r\n-ERR\r\n", lineEnd, 2, false},
		{"messages", "+OK\r\na\r\n.\r\n+OK\r\n..\r\n.b\r\n.\r\n", terminator, 2, false},
		{"an empty message", "+OK\r\n.\r\n", terminator, 1, false},
		{"only a byte-stuffed dot", "+OK\r\n..\r\n", terminator, 1, true},
		{"an incomplete terminator", "+OK\r\n.\r\n+OK\r\n.\r", terminator, 2, true},
	}
	splits := map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r },
		"octets":  iotest.OneByteReader,
		"halves":  iotest.HalfReader,
		"EOF too": iotest.DataErrReader,
	}
	for _, test := range tests {
		for pieces, split := range splits {
			t.Run(test.name+", "+pieces, func(t *testing.T) {
				s := bareSession{conn: readOnlyConn{r: split(strings.NewReader(test.input))}, buf: make([]byte, 16)}
				octets, err := s.count(test.end, test.n)
				assert.Equal(t, test.fails, err != nil, err)
				assert.EqualValues(t, len(test.input), octets)
			})
		}
	}
}

func TestNameAndVersion(t *testing.T) {
	for output, want := range map[string]string{
		"mpop version 1.4.18\nPlatform: x": "mpop version 1.4.18",
		"Python 3.11.7\n":                  "Python 3.11.7",
		"curl 7.88.1 (x86_64) libcurl/1":   "curl 7.88.1",
		"nothing":                          "",
	} {
		assert.Equal(t, want, nameAndVersion([]byte(output)))
	}
}

func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		assert.Zero(t, Resident(os.Getpid()))
		return
	}
	assert.Greater(t, Resident(os.Getpid()), int64(1<<20))
	assert.Greater(t, Peak(os.Getpid()), int64(1<<20))
	assert.Zero(t, Peak(-1))
}

// Run carries out a job in a process of its own and returns its result.
func TestRun(t *testing.T) {
	message := []byte("Subject: x\r\n\r\n.dot\r\nhello\r\n")
	box := &pop3test.Mailbox{User: "alice", Password: "secret", Messages: [][]byte{message, message, message}}
	srv := pop3test.NewServer(box)
	defer srv.Close()
	job := Job{Client: "pop3", Work: Fetch, Addr: srv.Addr, User: "alice", Password: "secret", Count: 3}
	r, err := Run(t.Context(), job)
	require.NoError(t, err)
	assert.Equal(t, 3, r.Messages)
	assert.EqualValues(t, 3*len(message), r.Octets)
	assert.Positive(t, r.LoggedIn)
	assert.Greater(t, r.Done, r.LoggedIn)
	assert.Greater(t, r.Total, r.Done)
	assert.Less(t, r.Total, time.Minute)

	job.Password = "wrong"
	_, err = Run(t.Context(), job)
	assert.ErrorContains(t, err, "pop3, fetch: ")
	assert.NotContains(t, err.Error(), "wrong")

	job.Client = "nobody"
	_, err = Run(t.Context(), job)
	assert.EqualError(t, err, `there is no client with the name "nobody"`)
}
