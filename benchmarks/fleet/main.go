// Command fleet measures examples/fleet on this machine. It measures polls per second, the memory of a session, the
// start with many accounts, and the time to add one account. Each part runs in a process of its own, as in production.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

var benches = []struct {
	name string
	run  func(r *testbed) error
}{{"polls", benchPolls}, {"sessions", benchSessions}, {"start", benchStart}}

func main() {
	if len(os.Args) > 1 && os.Args[1][0] != '-' {
		os.Exit(lab.Main(os.Args[1:]))
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run() error {
	r := &testbed{}
	flag.IntVar(&r.boxes, "maildrops", 10_000, "maildrops, for polls")
	flag.IntVar(&r.accounts, "accounts", 100_000, "accounts, for start")
	flag.IntVar(&r.servers, "servers", 5, "POP3 servers")
	flag.BoolVar(&r.sync, "sync", true, "let NATS sync each write before it confirms")
	flag.StringVar(
		&r.mechanisms,
		"mechanisms",
		"PLAIN",
		"mechanisms to log in with, for polls; empty for the best one",
	)
	only := flag.String("only", "polls,sessions,start", "measurements to make")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r.ctx, r.program = ctx, filepath.Join(dir, "fleet")
	build := exec.Command("go", "build", "-o", r.program, "github.com/seed-2d50cddb/pop3/examples/fleet")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the fleet: %w: %s", err, out)
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %s/%s, %d processors, load %s\n", time.Now().Format(time.DateTime), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), strings.TrimSpace(string(load)))
	for _, bench := range benches {
		if !strings.Contains(*only, bench.name) {
			continue
		}
		fmt.Printf("\n== %s\n", bench.name)
		r.dir = filepath.Join(dir, bench.name)
		err := errors.Join(os.Mkdir(r.dir, 0o700), bench.run(r))
		r.close()
		if err != nil {
			return fmt.Errorf("%s: %w", bench.name, err)
		}
	}
	return nil
}

// A testbed consists of the servers and processes of one measurement.
type testbed struct {
	ctx                      context.Context
	boxes, accounts, servers int
	sync                     bool
	mechanisms               string
	program, dir, url        string

	lab       *lab.Lab
	nats      *lab.Child
	processes []*process
}

type process struct {
	*lab.Child
	http string
}

// open starts the servers and creates the streams.
func (r *testbed) open(size lab.Size) (err error) {
	if r.lab, err = lab.Open(r.dir, size); err != nil {
		return err
	}
	r.nats, err = lab.Spawn("nats", "--dir", filepath.Join(r.dir, "nats"), fmt.Sprintf("--sync=%t", r.sync))
	if err != nil {
		return err
	}
	if r.url, err = r.nats.Line(); err != nil {
		return err
	}
	return r.command("init", "--silence", "12s", "--mail-bytes", "4000000000")
}

func (r *testbed) command(args ...string) error {
	args = append([]string{args[0], "--nats", r.url}, args[1:]...)
	out, err := exec.CommandContext(r.ctx, r.program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fleet %s: %w: %s", args[0], err, out)
	}
	return nil
}

var servingAt = regexp.MustCompile(`"http":"(http://[^"]+)"`)

// start starts a scheduler or a worker.
func (r *testbed) start(args ...string) (*process, error) {
	args = append([]string{args[0], "--nats", r.url, "--accounts", r.lab.File(), "--http", "127.0.0.1:0"}, args[1:]...)
	log, w := io.Pipe()
	c, err := lab.Start(exec.Command(r.program, args...), w)
	if err != nil {
		return nil, err
	}
	p := &process{Child: c}
	r.processes = append(r.processes, p)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if at := servingAt.FindStringSubmatch(lines.Text()); at != nil {
			p.http = at[1]
			go io.Copy(io.Discard, log)
			return p, nil
		}
	}
	return nil, fmt.Errorf("fleet %s does not start", args[0])
}

func (r *testbed) close() {
	for _, p := range r.processes {
		p.Kill()
	}
	if r.nats != nil {
		r.nats.Kill()
	}
	if r.lab != nil {
		r.lab.Close()
	}
	r.processes, r.nats, r.lab = nil, nil, nil
}

// metric adds up the values of a metric over all labels.
func (p *process) metric(name string) (sum float64) {
	resp, err := http.Get(p.http + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		full, value, ok := strings.Cut(lines.Text(), " ")
		if ok && (full == name || strings.HasPrefix(full, name+"{")) {
			n, _ := strconv.ParseFloat(value, 64)
			sum += n
		}
	}
	return sum
}

// waitForMetric waits until a metric reaches a value, and returns how long that took. It fails after ten minutes.
func (r *testbed) waitForMetric(p *process, name string, value float64) (time.Duration, error) {
	begin := time.Now()
	for p.metric(name) < value {
		if r.ctx.Err() != nil || time.Since(begin) > 10*time.Minute {
			return 0, fmt.Errorf("%s is %.0f and not %.0f", name, p.metric(name), value)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin), nil
}

var unlimited = []string{"--rate", "1000000", "--burst", "100000", "--host-sessions", "100000"}

// benchPolls polls all maildrops three times. The first time each maildrop has a new message, and later there is
// nothing new.
func benchPolls(r *testbed) error {
	err := r.open(lab.Size{Boxes: r.boxes, Servers: r.servers, Messages: 1, Bytes: 4096, TLS: true})
	if err != nil {
		return err
	}
	w, err := r.start("worker", "--ca", r.lab.CA(), "--mechanisms", r.mechanisms, "--sessions", "400")
	if err != nil {
		return err
	}
	s, err := r.start(append([]string{"scheduler", "--first", "10h", "--min", "10h", "--max", "10h"}, unlimited...)...)
	if err != nil {
		return err
	}
	if _, err := r.waitForMetric(s, "fleet_accounts", float64(r.boxes)); err != nil {
		return err
	}
	for n, round := range []string{"one message of 4 kB in each", "nothing new", "nothing new"} {
		// While the hosts are paused, all maildrops are made due for a poll. So only the polls are measured.
		err := errors.Join(r.command(append([]string{"pause"}, r.hosts()...)...), r.command("poll", "--all"))
		if err != nil {
			return err
		}
		nats, worker, scheduler := r.nats.CPU(), w.CPU(), s.CPU()
		servers := cpu(r.lab.Servers)
		if err := r.command(append([]string{"resume"}, r.hosts()...)...); err != nil {
			return err
		}
		if _, err := r.waitForMetric(w, "fleet_polls_total", float64(n*r.boxes+1)); err != nil {
			return err
		}
		took, err := r.waitForMetric(w, "fleet_polls_total", float64((n+1)*r.boxes))
		if err != nil {
			return err
		}
		polls := time.Duration(r.boxes)
		worker = (w.CPU() - worker) / polls
		fmt.Printf(
			"%s: %d polls in %.1f s, %.0f a second; for a poll: worker %v (%.0f polls a second and core), "+
				"NATS %v, scheduler %v, POP3 servers %v; messages %.0f, polls with an error %.0f\n",
			round,
			r.boxes,
			took.Seconds(),
			float64(r.boxes)/took.Seconds(),
			worker,
			1/worker.Seconds(),
			(r.nats.CPU()-nats)/polls,
			(s.CPU()-scheduler)/polls,
			(cpu(r.lab.Servers)-servers)/polls,
			w.metric("fleet_messages_total"),
			w.metric("fleet_errors_total"),
		)
	}
	fmt.Printf("resident: worker %.0f MB, NATS %.0f MB\n", float64(w.Resident())/1e6, float64(r.nats.Resident())/1e6)
	return nil
}

// hosts returns the hosts of all accounts.
func (r *testbed) hosts() (all []string) {
	for _, a := range r.lab.Accounts {
		if host, _, _ := net.SplitHostPort(a.Addr); !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

func cpu(all []*lab.Child) (sum time.Duration) {
	for _, c := range all {
		sum += c.CPU()
	}
	return sum
}

// benchSessions measures the memory of a worker in which many sessions are in the middle of a message.
func benchSessions(r *testbed) error {
	const count = 2000
	if err := r.open(lab.Size{Servers: 1}); err != nil {
		return err
	}
	flags := []string{"--count", strconv.Itoa(count), "--size", "100000", "--pace", "300ms"}
	if err := r.lab.Start(9, 0, count, false, flags...); err != nil {
		return err
	}
	if err := r.lab.Save(); err != nil {
		return err
	}
	w, err := r.start("worker", "--mechanisms", "PLAIN", "--sessions", strconv.Itoa(count*2))
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	before := w.Resident()
	scheduler := []string{"scheduler", "--first", "1ms", "--min", "10h", "--max", "10h"}
	if _, err := r.start(append(scheduler, unlimited...)...); err != nil {
		return err
	}
	if _, err := r.waitForMetric(w, "fleet_polling", count); err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	fmt.Printf("%d sessions in the middle of a message, without TLS: %.1f kB resident each\n", count,
		float64(w.Resident()-before)/1e3/count)
	return nil
}

// benchStart measures a scheduler that starts with many new accounts, then with the same accounts again. At last it
// adds one account.
func benchStart(r *testbed) error {
	if err := r.open(lab.Size{Servers: 1}); err != nil {
		return err
	}
	for n := range r.accounts {
		host := fmt.Sprintf("pop%d.example.org", n%100)
		r.lab.Accounts = append(r.lab.Accounts, accounts.Account{Name: lab.User(n) + "@" + host, Addr: host,
			User: lab.User(n), Password: lab.Password(n)})
	}
	if err := r.lab.Save(); err != nil {
		return err
	}
	for _, round := range []string{"all accounts are new", "all accounts are known"} {
		s, err := r.start("scheduler", "--first", "10h", "--max", "10h")
		if err != nil {
			return err
		}
		took, err := r.waitForMetric(s, "fleet_accounts", float64(r.accounts))
		if err != nil {
			return err
		}
		// the metric is updated once a second, and the lease of the previous scheduler must expire
		time.Sleep(10 * time.Second)
		fmt.Printf("%d accounts, %s: all have a record after %.1f s, %.1f s of processor time, %.0f MB resident\n",
			r.accounts, round, took.Seconds(), s.CPU().Seconds(), float64(s.Resident())/1e6)
		if round == "all accounts are known" {
			return r.addOne(s)
		}
		s.Stop()
	}
	return nil
}

// addOne compares the processor time of 20 seconds without changes with that of 20 seconds in which an account is
// added.
func (r *testbed) addOne(s *process) error {
	const period = 20 * time.Second
	idle := s.CPU()
	time.Sleep(period)
	idle = s.CPU() - idle
	added := s.CPU()
	begin := time.Now()
	r.lab.Accounts = append(r.lab.Accounts,
		accounts.Account{Name: "new@example.org", Addr: "example.org", User: "u", Password: "p"})
	if err := r.lab.Save(); err != nil {
		return err
	}
	took, err := r.waitForMetric(s, "fleet_accounts", float64(r.accounts+1))
	if err != nil {
		return err
	}
	time.Sleep(period - time.Since(begin))
	fmt.Printf("idle: %.2f s of processor time in %v; with one account added: %.2f s, it has a record after %.1f s\n",
		idle.Seconds(), period, (s.CPU() - added).Seconds(), took.Seconds())
	return nil
}
