package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

// A rig is a NATS server, POP3 servers and the processes of a fleet.
type rig struct {
	*testing.T
	lab  *lab.Lab
	nats *lab.Child
	url  string
	bus  *Bus
	mail string // folder of the Maildirs

	namespace string // network namespace of the processes that are started next
}

// testSilence is as short as a busy machine allows: the leader has to renew its lease in a fifth of it.
const testSilence = 12 * time.Second

// newRig starts the servers, and makes the streams.
func newRig(t *testing.T, size lab.Size, natsFlags ...string) *rig {
	t.Helper()
	r := bareRig(t, size, natsFlags...)
	r.command("init", "--silence", testSilence.String())
	r.join()
	return r
}

// bareRig is a rig without streams.
func bareRig(t *testing.T, size lab.Size, natsFlags ...string) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, mail: filepath.Join(dir, "mail")}
	require.NoError(t, os.Mkdir(r.mail, 0o700))
	var err error
	r.lab, err = lab.Open(dir, size)
	require.NoError(t, err)
	t.Cleanup(r.lab.Close)
	r.startNATS(freePort(t), natsFlags...)
	return r
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// startNATS starts the NATS server, on the same port and folder each time.
func (r *rig) startNATS(port string, flags ...string) {
	r.Helper()
	folder := filepath.Join(r.lab.Dir, "nats")
	flags = append([]string{"nats", "--dir", folder, "--port", port, "--sync=false"}, flags...)
	var err error
	r.nats, err = lab.Spawn(flags...)
	require.NoError(r, err)
	r.Cleanup(r.nats.Kill)
	r.url, err = r.nats.Line()
	require.NoError(r, err)
}

// jetStream connects this process.
func (r *rig) jetStream() jetstream.JetStream {
	r.Helper()
	closed := make(chan struct{})
	nc, err := nats.Connect(r.url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	require.NoError(r, err)
	r.Cleanup(func() { nc.Close(); <-closed })
	js, err := jetstream.New(nc)
	require.NoError(r, err)
	return js
}

// join opens the bus for this process.
func (r *rig) join() {
	r.Helper()
	var err error
	r.bus, err = openBus(r.Context(), r.jetStream())
	require.NoError(r, err)
}

// A process is one of the fleet.
type process struct {
	*lab.Child
	*testing.T
	name string
	log  *logBuffer
}

// A logBuffer keeps what a process logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start starts a scheduler or a worker. All accounts are due at once, and then not again for a long time, unless flags
// change that.
func (r *rig) start(command, name string, flags ...string) *process {
	r.Helper()
	args := []string{command, "--name", name, "--nats", r.url, "--accounts", r.lab.File(), "--http", "127.0.0.1:0"}
	switch command {
	case "scheduler":
		args = append(args, "--rate", "10000", "--burst", "1000", "--first", "10ms", "--host-sessions", "1000",
			"--min", "1h", "--max", "1h", "--backoff", "1h")
	case "worker":
		args = append(args, "--sessions", "8", "--sink", "maildir:"+r.mail, "--mechanisms", "PLAIN", "--timeout", "20s")
	}
	return r.exec(name, nil, append(args, flags...)...)
}

func (r *rig) exec(name string, env []string, args ...string) *process {
	r.Helper()
	self, err := os.Executable()
	require.NoError(r, err)
	p := &process{T: r.T, name: name, log: new(logBuffer)}
	cmd := exec.Command(self, args...)
	if r.namespace != "" {
		cmd = exec.Command("ip", append([]string{"netns", "exec", r.namespace, self}, args...)...)
	}
	cmd.Env = append(os.Environ(), env...)
	p.Child, err = lab.Start(cmd, p.log)
	require.NoError(r, err)
	r.Cleanup(func() {
		p.Kill()
		if r.Failed() {
			r.Logf("log of %s:\n%s", name, lastLines(p.log.String(), 40))
		}
	})
	return p
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// command runs a command of an operator to its end and returns what it printed.
func (r *rig) command(name string, args ...string) string {
	r.Helper()
	out, err := r.try(name, args...)
	require.NoError(r, err, out)
	return out
}

func (r *rig) try(name string, args ...string) (string, error) {
	self, err := os.Executable()
	require.NoError(r, err)
	cmd := exec.Command(self, append([]string{name, "--nats", r.url}, args...)...)
	errors := new(logBuffer)
	c, err := lab.Start(cmd, errors)
	if err != nil {
		return "", err
	}
	out, err := c.Output()
	return out + errors.String(), err
}

var servingAt = regexp.MustCompile(`"http":"(http://[^"]+)"`)

// get returns the status and the body of a response from the HTTP server of a process.
func (p *process) get(path string) (status int, body string) {
	at := servingAt.FindStringSubmatch(p.log.String())
	if at == nil {
		return 0, ""
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(at[1] + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func (p *process) ready() bool { status, _ := p.get("/readyz"); return status == http.StatusOK }

// metric adds the values of a metric over all labels that contain a text.
func (p *process) metric(name string, label ...string) (sum float64) {
	_, text := p.get("/metrics")
	for line := range strings.Lines(text) {
		if full, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (full == name ||
			strings.HasPrefix(full, name+"{") && (len(label) == 0 || strings.Contains(full, label[0]))) {
			n, _ := strconv.ParseFloat(value, 64)
			sum += n
		}
	}
	return sum
}

// eventually waits until other processes have made the condition true. It waits for the whole limit only if the test
// fails.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	require.Eventually(t, happened, 120*time.Second, 50*time.Millisecond, what)
}

// record returns the record of an account, which is empty if there is none or a damaged one.
func (r *rig) record(name string) Record {
	kve, err := r.bus.records.Get(context.Background(), accounts.KeyOf(name))
	if err != nil {
		return Record{}
	}
	rec, _ := recordOf(kve)
	return rec
}

// edit changes an account and writes the file.
func (r *rig) edit(n int, change func(a *accounts.Account)) {
	r.Helper()
	change(&r.lab.Accounts[n])
	require.NoError(r, r.lab.Save())
}

// polledAll reports whether each account was polled.
func (r *rig) polledAll() bool {
	for _, a := range r.lab.Accounts {
		if r.record(a.Name).Polled.IsZero() {
			return false
		}
	}
	return true
}

var messageName = regexp.MustCompile(`box \d+ message \d+`)

// delivered counts the messages in the Maildirs, by their subject.
func (r *rig) delivered() (count map[string]int, all int) {
	count = make(map[string]int)
	files, _ := filepath.Glob(filepath.Join(r.mail, "*", "new", "*"))
	for _, name := range files {
		if body, err := os.ReadFile(name); err == nil && len(body) > 0 { // the sink tests it with an empty file
			count[messageName.FindString(string(body))]++
			all++
		}
	}
	return count, all
}

// different returns how many different messages were delivered.
func (r *rig) different() int { count, _ := r.delivered(); return len(count) }

// wantOnce checks that n different messages were delivered, each of them once.
func (r *rig) wantOnce(messages int) {
	r.Helper()
	count, all := r.delivered()
	assert.Len(r, count, messages, "none is lost")
	assert.Equal(r, len(count), all, "none is delivered twice")
}

// put writes a record as another program does.
func (r *rig) put(key string, fields map[string]any) {
	r.Helper()
	value, err := json.Marshal(fields)
	require.NoError(r, err)
	_, err = r.bus.records.Put(r.Context(), key, value)
	require.NoError(r, err)
}
