package fetch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/internal/race"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// Processes fetch into real files and are killed with SIGKILL, at every step and at random. Then a process that is not
// killed finishes the job. Nothing is lost, and at most one message is stored again for each kill.

func init() { helpers["fetch"] = runFetchProcess }

// A fetchProcess describes the run of a process that will be killed. The process kills itself at step KillAt, or never
// if KillAt is 0.
type fetchProcess struct {
	Name           string
	Addr, Dir      string
	User, Password string
	Delete         bool
	CommitEvery    int
	Mbox           bool
	KillAt         int
}

var steps, killAt int

// killStep is called at each place where a process can be killed.
func killStep() {
	if steps++; steps == killAt {
		self, _ := os.FindProcess(os.Getpid())
		self.Kill()
		os.Stdin.Read(make([]byte, 1)) // wait until the process is killed
	}
}

func runFetchProcess(arg string) {
	var v fetchProcess
	if err := json.Unmarshal([]byte(arg), &v); err != nil {
		panic(err)
	}
	killAt = v.KillAt
	f := fetch.Fetcher{
		Connect: v.connect, Sink: v.steppingSink(), Account: account,
		Seen:   steppingSeen{fetch.FileSeen{Dir: filepath.Join(v.Dir, "seen")}},
		Delete: v.Delete, CommitEvery: v.CommitEvery,
	}
	sendWord("begin")
	_, err := f.Run(context.Background())
	sendWord(fmt.Sprint("steps ", steps))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (v fetchProcess) connect(ctx context.Context) (*pop3.Client, error) {
	c, err := pop3.DialInsecure(ctx, v.Addr, &pop3.Options{Trace: &pop3.Trace{
		WroteCommand: func(context.Context, string) { killStep() },
		Done:         func(context.Context, string, int64, error) { killStep() },
	}})
	if err != nil {
		return nil, err
	}
	if err = c.User(ctx, v.User); err == nil {
		err = c.Pass(ctx, v.Password)
	}
	return c, err
}

// A sinkWithCreate is a sink that must be created.
type sinkWithCreate interface {
	fetch.Sink
	Create() error
}

func (v fetchProcess) sink() sinkWithCreate {
	if v.Mbox {
		return fetch.Mbox{Path: filepath.Join(v.Dir, "mbox")}
	}
	return fetch.Maildir{Dir: filepath.Join(v.Dir, "mail")}
}

func (v fetchProcess) steppingSink() fetch.Sink {
	sink := v.sink()
	return fetch.SinkFunc(func(ctx context.Context, item fetch.Item, r io.Reader) error {
		killStep()
		defer killStep()
		return sink.Deliver(ctx, item, steppingReader{r})
	})
}

type steppingReader struct{ io.Reader }

func (r steppingReader) Read(p []byte) (int, error) {
	killStep()
	return r.Reader.Read(p)
}

type steppingSeen struct{ fetch.Seen }

func (s steppingSeen) Open(ctx context.Context, account string) (fetch.History, error) {
	killStep()
	h, err := s.Seen.Open(ctx, account)
	return steppingHistory{h}, err
}

type steppingHistory struct{ fetch.History }

func (h steppingHistory) Save(ctx context.Context, entries ...fetch.Entry) error {
	killStep()
	defer killStep()
	return h.History.Save(ctx, entries...)
}

func (h steppingHistory) Forget(ctx context.Context, entries ...fetch.Entry) error {
	killStep()
	defer killStep()
	return h.History.Forget(ctx, entries...)
}

// A killTest is a maildrop on a server. Processes fetch from it and are killed.
type killTest struct {
	t        *testing.T
	messages []string
	left     func() int
	process  fetchProcess
	kills    int
	close    func()
}

func newKillTest(t *testing.T, v fetchProcess, messages int) *killTest {
	all := mails("one", "two", string(make([]byte, 100_000)), "four", "five", "six", "seven", "eight")[:messages]
	server := pop3test.NewServer(&pop3test.Mailbox{User: user, Password: password, Messages: all})
	t.Cleanup(server.Close)
	v.Addr, v.User, v.Password, v.Dir = server.Addr, user, password, t.TempDir()
	require.NoError(t, v.sink().Create())
	return &killTest{t: t, messages: texts(all), process: v, close: server.Close,
		left: func() int { return len(server.Left(user)) }}
}

// start starts a process and waits until it has begun.
func (o *killTest) start(killAt int) *helper {
	o.process.KillAt = killAt
	arg, err := json.Marshal(o.process)
	require.NoError(o.t, err)
	h := startHelper(o.t, "fetch", string(arg))
	h.await("begin")
	return h
}

// runToEnd runs a process that is not killed, and checks the result. It returns the number of steps.
func (o *killTest) runToEnd() (steps int) {
	t, h := o.t, o.start(0)
	for h.stdout.Scan() {
		fmt.Sscanf(h.stdout.Text(), "steps %d", &steps)
	}
	require.NoError(t, h.cmd.Wait())
	if o.process.Delete {
		assert.Zero(t, o.left(), "left on the server")
	} else {
		assert.Equal(t, len(o.messages), o.left())
	}
	var got []string
	if o.process.Mbox {
		got = readMbox(t, filepath.Join(o.process.Dir, "mbox"))
	} else {
		got = readDir(t, filepath.Join(o.process.Dir, "mail", "new"))
	}
	assert.LessOrEqual(t, len(got), len(o.messages)+o.kills, "stored again more than once for each kill")
	for _, text := range o.messages {
		if o.process.Mbox {
			text = strings.ReplaceAll(text, "\r\n", "\n")
		}
		assert.True(t, slices.Contains(got, text), "lost: %.80q", text)
	}
	return steps
}

var fetchProcesses = []fetchProcess{
	{Name: "delete", Delete: true},
	{Name: "commit two, mbox", Delete: true, CommitEvery: 2, Mbox: true},
	{Name: "keep"},
}

// killsWanted makes the tests longer. With it, TestKillAtEveryStep kills at each step instead of at every third one,
// and TestKillAtRandom kills this number of processes instead of stopping after some seconds.
var killsWanted, _ = strconv.Atoi(os.Getenv("FETCH_KILLS"))

func TestKillAtEveryStep(t *testing.T) {
	kills, stride := 0, 3*race.Stride
	if killsWanted > 0 {
		stride = 1
	} else if testing.Short() {
		stride = 10
	}
	for i, v := range fetchProcesses {
		t.Run(v.Name, func(t *testing.T) {
			const messages = 3
			n := newKillTest(t, v, messages).runToEnd()
			require.Greater(t, n, 20)
			for at := 1 + i%stride; at <= n; at += stride {
				o := newKillTest(t, v, messages)
				h := o.start(at)
				require.False(t, h.await("never"))
				h.kill()
				o.kills = 1
				o.runToEnd()
				o.close()
				kills++
				if t.Failed() {
					t.Fatalf("killed at step %d", at)
				}
			}
		})
	}
	t.Logf("%d kills", kills)
}

// killAtRandom kills processes. It returns how many were killed during a run, and how many were killed in total.
func (o *killTest) killAtRandom(random *rand.Rand, maxDelay time.Duration) (duringRun, all int) {
	for range 1 + random.IntN(4) {
		h := o.start(0)
		timer := time.NewTimer(time.Duration(random.Int64N(int64(maxDelay))))
		<-timer.C
		h.cmd.Process.Kill()
		if !h.stdout.Scan() {
			duringRun++
		}
		h.kill()
		o.kills++
	}
	return duringRun, o.kills
}

func TestKillAtRandom(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	begin, limit := time.Now(), 6*time.Second/race.Stride
	if testing.Short() {
		limit = time.Second
	}
	kills, rounds, duringRun := 0, 0, 0
	for kills < killsWanted || killsWanted == 0 && time.Since(begin) < limit {
		o := newKillTest(t, fetchProcesses[rounds%len(fetchProcesses)], 8)
		during, all := o.killAtRandom(random, 20*time.Millisecond)
		o.runToEnd()
		o.close()
		rounds++
		kills += all
		duringRun += during
		require.False(t, t.Failed(), "seed %d, round %d", seed, rounds)
	}
	t.Logf("%d kills in %d rounds, %d of them during a run", kills, rounds, duringRun)
}
