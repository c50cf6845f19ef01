package pop3_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A memoryConn replaces the connection and the server: each command makes its reply readable. It never waits and never
// allocates, so only the client is measured.
type memoryConn struct {
	replies map[string][]byte // the reply to each verb; +OK if there is none
	unread  []byte
	more    func() []byte // returns the next part of the reply to RETR, nil at its end
}

var okReply = []byte("+OK\r\n")

func (c *memoryConn) Write(p []byte) (int, error) {
	verb, _, _ := bytes.Cut(p, []byte(" "))
	reply, ok := c.replies[string(bytes.TrimSuffix(verb, []byte("\r\n")))]
	if !ok {
		reply = okReply
	}
	c.unread = reply
	return len(p), nil
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 && c.more != nil {
		c.unread = c.more()
	}
	if len(c.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

func (c *memoryConn) Close() error                     { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return nil }
func (c *memoryConn) RemoteAddr() net.Addr             { return nil }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// inMemory returns a client in the TRANSACTION state on a memoryConn.
func inMemory(tb testing.TB, replies map[string][]byte) *pop3.Client {
	tb.Helper()
	return login(tb, &memoryConn{replies: replies, unread: okReply})
}

// login logs in over conn.
func login(tb testing.TB, conn net.Conn) *pop3.Client {
	tb.Helper()
	c, err := pop3.NewClient(tb.Context(), conn, &pop3.Options{InsecureAuth: true})
	require.NoError(tb, err)
	require.NoError(tb, c.User(tb.Context(), "bob"))
	require.NoError(tb, c.Pass(tb.Context(), "secret"))
	return c
}

// A comparison measures this library and other programs alternately, and compares the medians. So other work on the
// machine has little effect. The other programs run less often, because some are slow.
type comparison struct {
	b      *testing.B
	ratio  int // number of runs of this library for each run of another program
	ours   contender
	others []contender
}

type contender struct {
	unit  string // unit of the reported ratio: the time of this contender divided by the time of this library
	run   func() error
	times []time.Duration
}

// run runs the benchmark.
func (c *comparison) run() {
	c.b.ReportAllocs()
	for c.b.Loop() {
		c.ours.measure(c.b)
		turns := len(c.ours.times)
		if len(c.others) == 0 || turns%c.ratio != 1%c.ratio {
			continue
		}
		c.b.StopTimer()
		c.others[turns/c.ratio%len(c.others)].measure(c.b)
		c.b.StartTimer()
	}
	for _, other := range c.others {
		if len(other.times) > 0 {
			c.b.ReportMetric(other.median()/c.ours.median(), other.unit)
		}
	}
}

func (e *contender) measure(b *testing.B) {
	start := time.Now()
	err := e.run()
	e.times = append(e.times, time.Since(start))
	require.NoError(b, err)
}

func (e *contender) median() float64 {
	slices.Sort(e.times)
	return float64(e.times[len(e.times)/2])
}

const prose = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of " +
	"foolishness. It was the epoch of belief; it was the epoch of incredulity. It was the season of Light, it " +
	"was the season of Darkness. "

// text returns n octets of prose. The line number chooses where in the prose they begin.
func text(line, n int) string {
	return (prose + prose)[line*31%len(prose):][:n]
}

// base64Line is a line of base64 as in mail.
var base64Line = strings.Repeat("TWFu", 18)

// lines returns about a megabyte of lines as a server sends them. The function line returns the n-th of them.
func lines(line func(n int) string) string {
	var b strings.Builder
	for n := 0; b.Len() < 1<<20; n++ {
		b.WriteString(line(n) + "\r\n")
	}
	return b.String()
}

// repeat returns the octets many times, about a megabyte in total, and a line end.
func repeat(octets string) string { return strings.Repeat(octets, 1<<20/len(octets)) + "\r\n" }

// bodies are typical messages, and messages that somebody might send to keep the client busy.
var bodies = []struct{ name, wire string }{
	{"text", lines(func(n int) string { return text(n, 70) })},
	{"text,every20thLineStuffed", lines(func(n int) string {
		if n%20 == 0 {
			return "." + ("." + text(n, 69))
		}
		return text(n, 70)
	})},
	{"text,everyLineStuffed", lines(func(n int) string { return ".." + text(n, 69) })},
	{"base64", lines(func(int) string { return base64Line })},
	{"base64,everyLineStuffed", lines(func(int) string { return ".." + base64Line })},
	{"base64,behindDots", strings.Repeat(".", 500) + lines(func(int) string { return base64Line })},
	{"hostile,dots", repeat(".")},
	{"hostile,linesOfDots", lines(func(int) string { return strings.Repeat(".", 72) })},
	{"hostile,linesOfOneDot", lines(func(int) string { return ".." })},
	{"hostile,linesNotStuffed", lines(func(int) string { return ".x" })},
	{"hostile,emptyLines", lines(func(int) string { return "" })},
	{"hostile,LF", repeat("\n")},
	{"hostile,LF.", repeat("\n.")},
	{"hostile,CR.", repeat("\r.")},
	{"hostile,LF.CRa", repeat("\n.\ra")},
	{"hostile,CRLFCR.", repeat("\r\n\r.")},
	{"hostile,8dots8LF", repeat("........\n\n\n\n\n\n\n\n")},
	{"hostile,dotEvery40", repeat(strings.Repeat("a", 39) + ".")},
	{"hostile,dotEvery1100", repeat(strings.Repeat("a", 1099) + ".")},
}

// retrieve reads message 1.
func retrieve(b *testing.B, c *pop3.Client, read func(*pop3.Message) error) error {
	m, err := c.Retr(b.Context(), 1)
	if err != nil {
		return err
	}
	return read(m)
}

func writeTo(m *pop3.Message) error {
	_, err := m.WriteTo(io.Discard)
	return err
}

// BenchmarkRetr reads messages of a megabyte from memory. net/textproto reads the same octets. The metric x/textproto
// is the time of net/textproto divided by the time of this library. The metric is missing for messages with a dot
// between two bare LFs, because net/textproto ends a message there.
func BenchmarkRetr(b *testing.B) {
	for _, body := range bodies {
		b.Run(body.name, func(b *testing.B) {
			wire := []byte("+OK\r\n" + body.wire + ".\r\n")
			c := inMemory(b, map[string][]byte{"RETR": wire})
			ours := contender{run: func() error { return retrieve(b, c, writeTo) }}
			contest := comparison{b: b, ratio: 16, ours: ours}
			if !strings.Contains(body.wire, "\n.\n") && !strings.Contains(body.wire, "\n.\r\n") {
				contest.others = []contender{{unit: "x/textproto", run: func() error { return readByTextproto(wire) }}}
			}
			b.SetBytes(int64(len(wire)))
			contest.run()
		})
	}
}

// readByTextproto reads a reply with net/textproto.
func readByTextproto(wire []byte) error {
	r := textproto.NewReader(bufio.NewReader(&memoryConn{unread: wire}))
	_, err := r.ReadLine()
	if err == nil {
		_, err = io.Copy(io.Discard, r.DotReader())
	}
	return err
}

// BenchmarkMessage compares the ways to read a message.
func BenchmarkMessage(b *testing.B) {
	wire := []byte("+OK\r\n" + bodies[0].wire + ".\r\n")
	p := make([]byte, 32<<10)
	for name, read := range map[string]func(*pop3.Message) error{
		"WriteTo": writeTo,
		"Close":   func(m *pop3.Message) error { return m.Close() },
		"Read": func(m *pop3.Message) error {
			for {
				if _, err := m.Read(p); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			wire := wire
			if name == "Close" { // the message is short, because Close discards only a small rest
				wire = append(bytes.Clone(wire[:200<<10]), "\r\n.\r\n"...)
			}
			c := inMemory(b, map[string][]byte{"RETR": wire})
			b.ReportAllocs()
			b.SetBytes(int64(len(wire)))
			for b.Loop() {
				require.NoError(b, retrieve(b, c, read))
			}
		})
	}
}

// listOf returns the reply to LIST or UIDL. The function entry returns what follows the number n.
func listOf(entries int, entry func(n int) string) []byte {
	var b bytes.Buffer
	b.WriteString("+OK\r\n")
	for n := 1; n <= entries; n++ {
		fmt.Fprintf(&b, "%d %s\r\n", n, entry(n))
	}
	b.WriteString(".\r\n")
	return b.Bytes()
}

func uid(n int) string  { return fmt.Sprintf("%08x%024x", n, uint64(n)*2654435761) }
func size(n int) string { return fmt.Sprint(1000 + n%9000) }

// scan splits the lines of a reply with bufio.Scanner and discards them.
func scan(wire []byte) error {
	s := bufio.NewScanner(&memoryConn{unread: wire})
	for s.Scan() {
	}
	return s.Err()
}

// scanAndKeep splits the lines of a reply and keeps them.
func scanAndKeep(wire []byte) error {
	var lines []string
	s := bufio.NewScanner(&memoryConn{unread: wire})
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	runtime.KeepAlive(lines)
	return s.Err()
}

// BenchmarkUidlAll and BenchmarkListAll read listings from memory. For comparison, bufio.Scanner splits the same octets
// into lines. It discards the lines (x/Scanner) or keeps them (x/Text). Both metrics are the time of bufio.Scanner
// divided by the time of this library, which also parses the lines. (Writing a million entries into memory takes about
// as long as splitting a million lines.)
func BenchmarkUidlAll(b *testing.B) {
	benchmarkLists(b, "UIDL", uid, (*pop3.Client).UidlAll)
}

func BenchmarkListAll(b *testing.B) {
	benchmarkLists(b, "LIST", size, (*pop3.Client).ListAll)
}

func benchmarkLists(b *testing.B, verb string, entry func(int) string,
	list func(*pop3.Client, context.Context) ([]pop3.MessageInfo, error)) {
	for _, entries := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			wire := listOf(entries, entry)
			c := inMemory(b, map[string][]byte{verb: wire})
			ours := func() error {
				infos, err := list(c, b.Context())
				if err == nil && len(infos) != entries {
					err = fmt.Errorf("%d entries", len(infos))
				}
				return err
			}
			contest := comparison{b: b, ratio: 1, ours: contender{run: ours}, others: []contender{
				{unit: "x/Scanner", run: func() error { return scan(wire) }},
				{unit: "x/Text", run: func() error { return scanAndKeep(wire) }},
			}}
			b.SetBytes(int64(len(wire)))
			contest.run()
			b.ReportMetric(contest.ours.median()/float64(entries), "ns/entry")
		})
	}
}

// Reading a list takes few allocations, and their number hardly depends on the length of the list.
func TestListAllocations(t *testing.T) {
	const entries = 50_000
	c := inMemory(t, map[string][]byte{"UIDL": listOf(entries, uid), "LIST": listOf(entries, size)})
	for name, list := range map[string]func(context.Context) ([]pop3.MessageInfo, error){
		"UIDL": c.UidlAll, "LIST": c.ListAll,
	} {
		allocations := testing.AllocsPerRun(1, func() {
			infos, err := list(context.Background())
			require.NoError(t, err)
			require.Len(t, infos, entries)
		})
		require.LessOrEqual(t, allocations, float64(entries/100), name)
	}
}

func BenchmarkNoop(b *testing.B) {
	c := inMemory(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, c.Noop(context.Background()))
	}
}

// A command whose reply is not kept allocates nothing if its context cannot end.
func TestNoopAllocations(t *testing.T) {
	c := inMemory(t, nil)
	require.Zero(t, testing.AllocsPerRun(100, func() { require.NoError(t, c.Noop(context.Background())) }))
}

// Over TCP, a command whose reply is not kept allocates nothing either, although the client checks the socket for data.
func TestNoopAllocationsOverTCP(t *testing.T) {
	c := login(t, loopback(t, nil, nil)())
	require.Zero(t, testing.AllocsPerRun(100, func() { require.NoError(t, c.Noop(context.Background())) }))
}

// Reading a message takes a few allocations. Their number does not depend on the length of the message.
func TestRetrAllocations(t *testing.T) {
	for _, lines := range []int{1, 100_000} {
		wire := "+OK\r\n" + strings.Repeat(".."+base64Line+"\r\n", lines) + ".\r\n"
		c := inMemory(t, map[string][]byte{"RETR": []byte(wire)})
		allocations := testing.AllocsPerRun(5, func() {
			m, err := c.Retr(context.Background(), 1)
			require.NoError(t, err)
			require.NoError(t, writeTo(m))
		})
		require.LessOrEqual(t, allocations, 10.0, "%d lines", lines)
	}
}

// heap returns the size of the heap that is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the second collection frees the memory that was in a sync.Pool
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// A message of a gigabyte is not kept in memory.
func TestRetrMemory(t *testing.T) {
	const pieces = 16 << 10
	piece := []byte(strings.Repeat(base64Line+"\r\n", 885) + "..\r\n") // 64 KiB
	sent := 0
	conn := &memoryConn{unread: okReply}
	c := login(t, conn)
	conn.more = func() []byte {
		if sent++; sent > pieces {
			return []byte(".\r\n")
		}
		return piece
	}
	before, peak := heap(), int64(0)
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	n, err := io.Copy(writerFunc(func(p []byte) (int, error) {
		if sent%(pieces/8) == 0 {
			peak = max(peak, heap())
		}
		return len(p), nil
	}), m)
	require.NoError(t, err)
	require.EqualValues(t, pieces*(len(piece)-1), n)
	require.NotZero(t, peak)
	require.Less(t, peak-before, int64(1<<20))
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A session that waits for its next command uses little memory, apart from its connection.
func TestIdleMemory(t *testing.T) {
	const sessions = 2_000
	capa := []byte("+OK\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nUSER\r\nSASL " +
		"PLAIN LOGIN\r\n.\r\n")
	replies := map[string][]byte{"CAPA": capa, "LIST": listOf(100, size), "RETR": []byte("+OK\r\nx\r\n.\r\n")}
	clients := make([]*pop3.Client, sessions)
	conns := make([]*memoryConn, sessions)
	for i := range conns {
		conns[i] = &memoryConn{unread: okReply, replies: replies}
	}
	before := heap()
	for i, conn := range conns {
		clients[i] = login(t, conn)
		_, err := clients[i].Capa(t.Context())
		require.NoError(t, err)
		_, err = clients[i].ListAll(t.Context())
		require.NoError(t, err)
		m, err := clients[i].Retr(t.Context(), 1)
		require.NoError(t, err)
		require.NoError(t, writeTo(m))
	}
	perSession := (heap() - before) / sessions
	t.Logf("%d octets of heap a session", perSession)
	require.LessOrEqual(t, perSession, int64(4<<10))
	runtime.KeepAlive(clients)
	runtime.KeepAlive(conns)
}

// loopback starts a server of one message on a port of the loopback interface, and returns a function that
// dials it.
func loopback(tb testing.TB, config *tls.Config, reply []byte) (dial func() net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				conn = tls.Server(conn, config)
			}
			go serveMessage(conn, reply)
		}
	}()
	return func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(tb, err)
		if config != nil {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		tb.Cleanup(func() { conn.Close() })
		return conn
	}
}

// serveMessage answers RETR and UIDL with reply, and everything else with +OK. It allocates nothing.
func serveMessage(conn net.Conn, reply []byte) {
	defer conn.Close()
	_, err := conn.Write(okReply)
	for commands := bufio.NewScanner(conn); err == nil && commands.Scan(); {
		if verb := commands.Bytes(); bytes.HasPrefix(verb, []byte("RETR")) || bytes.HasPrefix(verb, []byte("UIDL")) {
			_, err = conn.Write(reply)
		} else {
			_, err = conn.Write(okReply)
		}
	}
}

// BenchmarkLoopback reads a message of 64 MiB over TCP, and discards it or writes it to a file. For comparison, io.Copy
// reads the same octets from a connection of the same kind. The metric x/Copy is the time of io.Copy divided by the
// time of this library. (From TCP to a file, io.Copy makes the kernel move the octets. A client cannot do that, because
// it has to look for dots.)
func BenchmarkLoopback(b *testing.B) {
	srv := pop3test.NewUnstartedServer()
	b.Cleanup(srv.Close)
	reply := []byte("+OK\r\n" + strings.Repeat(lines(func(int) string { return base64Line }), 64) + ".\r\n")
	for _, transport := range []struct {
		name   string
		config *tls.Config
	}{{"TCP", nil}, {"TLS", srv.ServerTLS()}} {
		for _, target := range []struct {
			name string
			sink func(b *testing.B) io.Writer
		}{
			{"Discard", func(*testing.B) io.Writer { return io.Discard }},
			{"File", func(b *testing.B) io.Writer { return newFile(b) }},
		} {
			b.Run(transport.name+"/"+target.name, func(b *testing.B) {
				benchmarkLoopback(b, loopback(b, transport.config, reply), len(reply), target.sink(b))
			})
		}
	}
}

func benchmarkLoopback(b *testing.B, dial func() net.Conn, size int, sink io.Writer) {
	c, plain := login(b, dial()), dial()
	status := make([]byte, len(okReply))
	_, err := io.ReadFull(plain, status)
	require.NoError(b, err)
	ours := func(m *pop3.Message) error {
		_, err := io.Copy(rewind(b, sink), m)
		return err
	}
	contest := comparison{b: b, ratio: 1, ours: contender{run: func() error { return retrieve(b, c, ours) }}}
	contest.others = []contender{{unit: "x/Copy", run: func() error {
		if _, err := plain.Write([]byte("RETR 1\r\n")); err != nil {
			return err
		}
		if _, err := io.ReadFull(plain, status); err != nil {
			return err
		}
		_, err := io.CopyN(rewind(b, sink), plain, int64(size-len(status)))
		return err
	}}}
	b.SetBytes(int64(size))
	contest.run()
}
func newFile(b *testing.B) *os.File {
	file, err := os.Create(filepath.Join(b.TempDir(), "message"))
	require.NoError(b, err)
	b.Cleanup(func() { file.Close() })
	return file
}

// start prepares a sink for the next message. In a file, the next message overwrites the previous one.
func rewind(b *testing.B, sink io.Writer) io.Writer {
	if file, ok := sink.(*os.File); ok {
		_, err := file.Seek(0, io.SeekStart)
		require.NoError(b, err)
	}
	return sink
}

// BenchmarkUidlAllOverTCP reads a listing of a million entries over the loopback interface. bufio.Scanner
// splits the same octets, from a connection of the same kind.
func BenchmarkUidlAllOverTCP(b *testing.B) {
	const entries = 1_000_000
	wire := listOf(entries, uid)
	dial := loopback(b, nil, wire)
	c, plain := login(b, dial()), dial()
	_, err := io.ReadFull(plain, make([]byte, len(okReply)))
	require.NoError(b, err)
	contest := comparison{b: b, ratio: 1, ours: contender{run: func() error {
		infos, err := c.UidlAll(b.Context())
		require.Len(b, infos, entries)
		return err
	}}}
	contest.others = []contender{{unit: "x/Scanner", run: func() error {
		if _, err := plain.Write([]byte("UIDL\r\n")); err != nil {
			return err
		}
		s := bufio.NewScanner(io.LimitReader(plain, int64(len(wire))))
		for s.Scan() {
		}
		return s.Err()
	}}}
	b.SetBytes(int64(len(wire)))
	contest.run()
}
