package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
	"github.com/seed-2d50cddb/pop3/benchmarks/link"
)

// A tool is a program that fetches mail into a Maildir.
type tool struct {
	name    string
	version []string // command that prints it
	files   func(a *account, host, port, dir string) map[string]string
	command func(dir string) []string
}

func (t *tool) ours() bool { return t.name == "popfetch" }

// tools are popfetch and the programs that it can replace. fetchmail needs another program to deliver. Each
// fetches only new mail and leaves it on the server.
var tools = []tool{
	{"popfetch", []string{"popfetch", "--version"}, func(a *account, host, port, dir string) map[string]string {
		return map[string]string{"config.toml": fmt.Sprintf("state = %q\n[[account]]\nserver = %q\nuser = %q\n"+
			"password = %q\nca_file = %q\nmaildir = %q\n", dir+"/state", host+":"+port, a.user, a.password, a.caFile,
			dir+"/mail")}
	}, func(dir string) []string { return []string{"popfetch", "-c", dir + "/config.toml"} }},
	{"mpop", []string{"mpop", "--version"}, func(a *account, host, port, dir string) map[string]string {
		return map[string]string{"mpoprc": fmt.Sprintf("account a\nhost %s\nport %s\nuser %s\npassword %s\ntls on\n"+
			"tls_starttls off\ntls_trust_file %s\nkeep on\nuidls_file %s/uidls\ndelivery maildir %s/mail\n",
			host, port, a.user, a.password, a.caFile, dir, dir)}
	}, func(dir string) []string { return []string{"mpop", "-Q", "-C", dir + "/mpoprc", "a"} }},
	{"getmail6", []string{"getmail", "--version"}, func(a *account, host, port, dir string) map[string]string {
		return map[string]string{"rc": fmt.Sprintf("[retriever]\ntype = SimplePOP3SSLRetriever\nserver = %s\nport "+
			"= %s\n"+
			"username = %s\npassword = %s\nca_certs = %s\n[destination]\ntype = Maildir\npath = %s/mail/\n"+
			"[options]\nread_all = false\ndelete = false\nverbose = 0\n", host, port, a.user, a.password, a.caFile,
			dir)}
	}, func(dir string) []string { return []string{"getmail", "--getmaildir", dir, "--rcfile", dir + "/rc"} }},
	{"fetchmail, procmail", []string{"fetchmail", "--version"},
		func(a *account, host, port, dir string) map[string]string {
			return map[string]string{
				"procmailrc": fmt.Sprintf("MAILDIR=%s\nDEFAULT=%s/mail/\n", dir, dir),
				"rc": fmt.Sprintf("poll %s service %s proto pop3 uidl\nuser %q password %q keep ssl sslcertck "+
					"sslcertfile %q\n"+
					"mda \"/usr/bin/procmail -m %s/procmailrc\"\n", host, port, a.user, a.password, a.caFile, dir),
			}
		}, func(dir string) []string {
			return []string{"fetchmail", "-s", "--nosyslog", "--nodetach", "-f", dir + "/rc", "-i", dir + "/ids",
				"--pidfile", dir + "/pid"}
		}},
}

// A toolRow is one kind of work: a maildrop over a link into a file system.
type toolRow struct {
	maildrop
	trip   time.Duration
	disk   string // "tmpfs" or "disk"
	runs   int
	took   map[string][]time.Duration
	failed map[string]int
	peak   map[string]int64 // octets of memory
}

func (r *toolRow) title() string {
	what := english.Sprintf("%d messages of %d kB", r.count, r.size/1000)
	if r.count == 1 {
		what = english.Sprintf("one message of %d MB", r.size/1_000_000)
	}
	return fmt.Sprintf("%s, round trip %s, %s", what, milliseconds(r.trip), r.disk)
}

// measureTools measures the tools that are installed. It writes TOOLS.md and a chart for each row to out.
func measureTools(ctx context.Context, out string, progress io.Writer) (err error) {
	memory, err := memoryDir()
	if err != nil {
		return err
	}
	disk, err := os.MkdirTemp("/var/tmp", "pop3-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(memory), os.RemoveAll(disk)) }()
	server, err := startDovecot(ctx, memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if err := buildPopfetch(ctx, memory); err != nil {
		return err
	}
	load := machineLoad()
	var rows []*toolRow
	for _, m := range []maildrop{{2000, 6000}, {1, 100_000_000}} {
		for _, trip := range []time.Duration{0, 50 * time.Millisecond} {
			for _, fs := range []string{"tmpfs", "disk"} {
				row := &toolRow{maildrop: m, trip: trip, disk: fs, runs: 3}
				row.took, row.peak = make(map[string][]time.Duration), make(map[string]int64)
				row.failed = make(map[string]int)
				rows = append(rows, row)
				base := map[string]string{"tmpfs": memory, "disk": disk}[fs]
				if err := row.measure(ctx, server, base, progress); err != nil {
					return err
				}
			}
		}
	}
	text := toolReport(ctx, load, rows)
	if out == "" {
		_, err = io.WriteString(progress, text)
		return err
	}
	for i, row := range rows {
		c := row.chart(fmt.Sprintf("tools-%d.svg", i+1))
		if err := c.save(out); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(out, "TOOLS.md"), []byte(text), 0o644)
}

// buildPopfetch builds popfetch and puts it into the PATH.
func buildPopfetch(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "popfetch"), ".")
	cmd.Dir = "../cmd/popfetch"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build popfetch: %w: %s", err, out)
	}
	return os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// measure runs the tools in turns. Over a long link, a tool that waits for each message is measured only once.
func (r *toolRow) measure(ctx context.Context, server *dovecot, base string, progress io.Writer) error {
	a, err := server.open(ctx, visit{maildrop: r.maildrop, overTLS: true})
	if err != nil {
		return err
	}
	l, err := link.Listen(r.trip, a.addr)
	if err != nil {
		return err
	}
	defer l.Close()
	for run := range r.runs {
		for _, t := range tools {
			waits := !t.ours() && t.name != "mpop"
			if _, err := exec.LookPath(t.version[0]); err != nil || run > 0 && waits && r.trip > 0 && r.count > 1 {
				continue
			}
			addr := a.addr
			if r.trip > 0 {
				addr = l.Addr
			}
			took, peak, err := t.run(ctx, a, addr, base, r.count)
			if err != nil && !t.ours() {
				fmt.Fprintf(progress, "%s: %s failed: %v\n", r.title(), t.name, err)
				r.failed[t.name]++
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", r.title(), t.name, err)
			}
			fmt.Fprintf(progress, "%s: %s: %v\n", r.title(), t.name, took.Round(time.Millisecond))
			r.took[t.name] = append(r.took[t.name], took)
			r.peak[t.name] = max(r.peak[t.name], peak)
		}
	}
	return nil
}

// toolTimeout is longer than any of them needs. getmail sometimes misses the end of its child and waits for
// minutes.
const toolTimeout = 4 * time.Minute

// run fetches a maildrop into a new Maildir and checks that all of it is there.
func (t *tool) run(ctx context.Context, a *account, addr, base string, count int) (time.Duration, int64, error) {
	dir, err := os.MkdirTemp(base, "tool-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	for _, folder := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "mail", folder), 0o700); err != nil {
			return 0, 0, err
		}
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, 0, err
	}
	authority, err := os.ReadFile(a.caFile)
	if err != nil {
		return 0, 0, err
	}
	here := *a
	here.caFile = filepath.Join(dir, "ca.pem")
	files := t.files(&here, "localhost", port, dir)
	files["ca.pem"] = string(authority)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return 0, 0, err
		}
	}
	if err := giveAway(dir); err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	argv := t.command(dir)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	var peak int64
	if err = cmd.Start(); err == nil {
		ended := make(chan struct{})
		var watching sync.WaitGroup
		watching.Go(func() { peak = watchMemory(cmd.Process.Pid, ended) })
		err = cmd.Wait()
		close(ended)
		watching.Wait()
	}
	took := time.Since(start)
	stored, readErr := os.ReadDir(filepath.Join(dir, "mail", "new"))
	if len(stored) != count || readErr != nil {
		return 0, 0, fmt.Errorf("%d of %d messages are there: %w: %s", len(stored), count, errors.Join(err, readErr),
			&said)
	}
	return took, peak, nil
}

// watchMemory returns the most memory that a process had resident, in octets. It asks again and again, because
// ru_maxrss, which the kernel tells at the end, counts the memory that this program had at the fork.
func watchMemory(pid int, ended <-chan struct{}) (peak int64) {
	for {
		peak = max(peak, clients.Peak(pid))
		select {
		case <-ended:
			return peak
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// nobody is the user as whom the tools run, because getmail delivers nothing as root.
const nobody = 65534

// giveAway makes nobody the owner of a folder and lets that user reach it.
func giveAway(dir string) error {
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
}

// toolReport writes TOOLS.md.
func toolReport(ctx context.Context, load string, rows []*toolRow) string {
	var b strings.Builder
	b.WriteString("# popfetch beside mpop, getmail6 and fetchmail\n\nWritten by `go run . -tools -out .`; " +
		"[README.md](README.md) says how it is measured.\n\n")
	fmt.Fprintf(&b, "%s, %s. The load of the machine before the run was %s (1, 5 and 15 minutes). "+
		"Server: Dovecot, TLS from the first byte.\n\n| program | version |\n| --- | --- |\n",
		time.Now().Format("2 January 2006"), machine(), load)
	for _, t := range tools {
		out, _ := exec.CommandContext(ctx, t.version[0], t.version[1:]...).CombinedOutput()
		_, after, _ := strings.Cut(string(out), "is discouraged.\n") // what fetchmail says to root
		line, _, _ := strings.Cut(cmp.Or(after, string(out)), "\n")
		fmt.Fprintf(&b, "| %s | %s |\n", t.name, line)
	}
	for i, r := range rows {
		fmt.Fprintf(&b, "\n## %s\n\n![%s](tools-%d.svg)\n\n| program | time | × popfetch | memory |\n"+
			"| --- | --- | --- | --- |\n", r.title(), r.title(), i+1)
		for _, t := range tools {
			if len(r.took[t.name]) == 0 {
				if n := r.failed[t.name]; n > 0 {
					fmt.Fprintf(&b, "| %s | failed %d times | | |\n", t.name, n)
				}
				continue
			}
			took := spreadOf(r.took[t.name])
			ratio := took.median.Seconds() / spreadOf(r.took["popfetch"]).median.Seconds()
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", t.name, took, threeDigits(ratio), mebibytes(r.peak[t.name]))
		}
	}
	return b.String()
}

// chart compares the tools in a row.
func (r *toolRow) chart(file string) chart {
	c := chart{file: file, title: r.title(), axis: "seconds, less is better"}
	for _, t := range tools {
		if len(r.took[t.name]) == 0 {
			continue
		}
		color := other
		if t.ours() {
			color = own
		}
		median := spreadOf(r.took[t.name]).median
		c.bars = append(c.bars, bar{t.name, median.Seconds(), once(median).String(), color})
	}
	return c
}
