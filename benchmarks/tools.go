package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
	"github.com/seed-2d50cddb/pop3/benchmarks/link"
)

// A tool is a program that fetches mail into a Maildir.
type tool struct {
	name            string
	version         []string // command that prints the version
	configFiles     func(a *account, host, port, dir string) map[string]string
	command         func(dir string) []string
	waitsForReplies bool // it requests the next message only after it has received the previous one
}

// tools are popfetch and the programs that it can replace. fetchmail needs another program to deliver mail. Each tool
// fetches only new mail and leaves it on the server.
var tools = []tool{
	{"popfetch", []string{"popfetch", "--version"}, func(a *account, host, port, dir string) map[string]string {
		return map[string]string{"config.toml": fmt.Sprintf("state = %q\n[[account]]\nserver = %q\nuser = %q\n"+
			"password = %q\nca_file = %q\nmaildir = %q\n", dir+"/state", host+":"+port, a.user, a.password, a.caFile,
			dir+"/mail")}
	}, func(dir string) []string { return []string{"popfetch", "-c", dir + "/config.toml"} }, false},
	{"mpop", []string{"mpop", "--version"}, func(a *account, host, port, dir string) map[string]string {
		return map[string]string{"mpoprc": fmt.Sprintf("account a\nhost %s\nport %s\nuser %s\npassword %s\ntls on\n"+
			"tls_starttls off\ntls_trust_file %s\nkeep on\nuidls_file %s/uidls\ndelivery maildir %s/mail\n",
			host, port, a.user, a.password, a.caFile, dir, dir)}
	}, func(dir string) []string { return []string{"mpop", "-Q", "-C", dir + "/mpoprc", "a"} }, false},
	{"getmail6", []string{"getmail", "--version"}, func(a *account, host, port, dir string) map[string]string {
		return map[string]string{"rc": fmt.Sprintf("[retriever]\ntype = SimplePOP3SSLRetriever\nserver = %s\nport "+
			"= %s\n"+
			"username = %s\npassword = %s\nca_certs = %s\n[destination]\ntype = Maildir\npath = %s/mail/\n"+
			"[options]\nread_all = false\ndelete = false\nverbose = 0\n", host, port, a.user, a.password, a.caFile,
			dir)}
	}, func(dir string) []string { return []string{"getmail", "--getmaildir", dir, "--rcfile", dir + "/rc"} }, true},
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
		}, true},
}

// A toolRow describes one kind of work. A tool fetches a maildrop over a link and stores it in a file system.
type toolRow struct {
	maildrop
	trip time.Duration
	disk string // kind of file system: "tmpfs" or "disk"
}

// toolRows returns all rows.
func toolRows() (rows []toolRow) {
	for _, m := range []maildrop{{2000, 6000}, {1, 100_000_000}} {
		for _, trip := range []time.Duration{0, 50 * time.Millisecond} {
			for _, disk := range []string{"tmpfs", "disk"} {
				rows = append(rows, toolRow{m, trip, disk})
			}
		}
	}
	return rows
}

func (r toolRow) title() string {
	mail := english.Sprintf("%d messages of %d kB", r.count, r.size/1000)
	if r.count == 1 {
		mail = english.Sprintf("one message of %d MB", r.size/1_000_000)
	}
	return fmt.Sprintf("%s, round trip %s, %s", mail, milliseconds(r.trip), r.disk)
}

// toolResults maps the title of a row and the name of a tool to a measurement. Earlier measurements are in tools.json.
type toolResults map[string]map[string]*toolResult

// A toolResult is the measurement of one tool in one row.
type toolResult struct {
	Took []time.Duration // time of each run
	CPU  []time.Duration // processor time of each run
	Peak int64           // bytes of memory
	Load string          // load of the machine before the run: means of 1, 5 and 15 minutes
}

// A toolBench measures tools.
type toolBench struct {
	server   *dovecot
	folders  map[string]string // folder on each kind of file system
	progress io.Writer

	results toolResults
}

// measureTools measures the installed tools. If names is not empty, it measures only the tools with these names. If
// disk is not empty, it measures only the rows with that kind of file system. It writes TOOLS.md, tools.json and a
// chart for each row to out. Other results in tools.json are kept.
func measureTools(ctx context.Context, names []string, disk, out string, progress io.Writer) (err error) {
	memory, err := memoryDir()
	if err != nil {
		return err
	}
	onDisk, err := os.MkdirTemp("/var/tmp", "pop3-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(memory), os.RemoveAll(onDisk)) }()
	server, err := startDovecot(ctx, memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if err := buildPopfetch(ctx, memory); err != nil {
		return err
	}
	b := &toolBench{server: server, folders: map[string]string{"tmpfs": memory, "disk": onDisk}, progress: progress}
	chosen := slices.DeleteFunc(slices.Clone(tools), func(t tool) bool {
		_, missing := exec.LookPath(t.version[0])
		return missing != nil || len(names) > 0 && !slices.Contains(names, t.version[0])
	})
	b.results = make(toolResults)
	for _, row := range toolRows() {
		if disk == "" || disk == row.disk {
			if err := b.measure(ctx, row, chosen); err != nil {
				return err
			}
		}
	}
	return b.results.save(ctx, out, progress)
}

// buildPopfetch builds popfetch and puts it into the PATH.
func buildPopfetch(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "popfetch"), ".")
	cmd.Dir = "../cmd/popfetch"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build popfetch: %w: %s", err, out)
	}
	// The user nobody must be able to enter the folder.
	return errors.Join(os.Chmod(dir, 0o711), os.Setenv("PATH", dir+":"+os.Getenv("PATH")))
}

// save adds the results to tools.json in the folder out, and writes the report and the charts. If out is empty, save
// only prints the report.
func (r toolResults) save(ctx context.Context, out string, progress io.Writer) error {
	if out == "" {
		_, err := io.WriteString(progress, r.report(ctx))
		return err
	}
	name := filepath.Join(out, "tools.json")
	all := make(toolResults)
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for title, results := range r {
		if all[title] == nil {
			all[title] = make(map[string]*toolResult)
		}
		maps.Copy(all[title], results)
	}
	for i, row := range toolRows() {
		if c := all.chart(row, i+1); len(c.bars) > 0 {
			if err := c.save(out); err != nil {
				return err
			}
		}
	}
	numbers, err := json.MarshalIndent(all, "", "\t")
	return errors.Join(err, os.WriteFile(name, append(numbers, '\n'), 0o644),
		os.WriteFile(filepath.Join(out, "TOOLS.md"), []byte(all.report(ctx)), 0o644))
}

// measure measures the tools for a row. Each tool runs three times, in turns. A tool that waits for each message takes
// minutes, so it runs only once.
func (b *toolBench) measure(ctx context.Context, row toolRow, chosen []tool) error {
	a, err := b.server.open(ctx, mailRequest{maildrop: row.maildrop, overTLS: true})
	if err != nil {
		return err
	}
	addr := a.addr
	if row.trip > 0 {
		l, err := link.Listen(row.trip, a.addr)
		if err != nil {
			return err
		}
		defer l.Close()
		addr = l.Addr
	}
	results := make(map[string]*toolResult)
	b.results[row.title()] = results
	for run := range 3 {
		for _, t := range chosen {
			if run == 0 {
				results[t.name] = &toolResult{Load: machineLoad()}
			} else if t.waitsForReplies {
				continue
			}
			if err := t.run(ctx, a, addr, b.folders[row.disk], row.count, results[t.name]); err != nil {
				fmt.Fprintf(b.progress, "%s: %s failed: %v\n", row.title(), t.name, err)
				continue
			}
			fmt.Fprintf(b.progress, "%s: %s: %v\n", row.title(), t.name, results[t.name].Took)
		}
	}
	return ctx.Err()
}

// toolTimeout limits a run of a tool. Tools that wait for each message are slow over a long link. getmail sometimes
// does not notice that its child has ended.
const toolTimeout = 2 * time.Minute

// run fetches a maildrop into a new Maildir and checks that the Maildir is complete. It adds the measurement to result.
func (t *tool) run(ctx context.Context, a *account, addr, base string, count int, result *toolResult) error {
	dir, err := os.MkdirTemp(base, "tool-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := t.prepare(a, addr, dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	argv := t.command(dir)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	var peak int64
	var watching sync.WaitGroup
	watching.Go(func() { peak = watchMemory(cmd.Process.Pid, ended) })
	err = cmd.Wait()
	took := time.Since(start)
	close(ended)
	watching.Wait()
	stored, readErr := os.ReadDir(filepath.Join(dir, "mail", "new"))
	if len(stored) != count || readErr != nil {
		return fmt.Errorf("%d of %d messages are stored: %w: %s", len(stored), count, errors.Join(err, readErr),
			&output)
	}
	result.Took, result.Peak = append(result.Took, took), max(result.Peak, peak)
	result.CPU = append(result.CPU, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	return nil
}

// prepare creates a Maildir and the configuration of the tool in dir.
func (t *tool) prepare(a *account, addr, dir string) error {
	for _, folder := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "mail", folder), 0o700); err != nil {
			return err
		}
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(a.caFile)
	if err != nil {
		return err
	}
	local := *a
	local.caFile = filepath.Join(dir, "ca.pem")
	files := t.configFiles(&local, "localhost", port, dir)
	files["ca.pem"] = string(authority)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return chownToNobody(dir)
}

// watchMemory returns the largest resident memory of a process, in octets. It reads /proc repeatedly. The kernel's
// ru_maxrss cannot be used, because it includes the memory that this program had at the fork.
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

// nobody is the user id with which the tools run, because getmail delivers nothing as root.
const nobody = 65534

// chownToNobody makes the user nobody the owner of a folder, and lets that user enter the folder.
func chownToNobody(dir string) error {
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

// report returns the text of TOOLS.md.
func (r toolResults) report(ctx context.Context) string {
	var b strings.Builder
	b.WriteString("# popfetch beside mpop, getmail6 and fetchmail\n\nWritten by `go run . -tools -out .`; " +
		"[README.md](README.md) says how it is measured.\n\n")
	fmt.Fprintf(&b, "%s, %s. Other programs were at work on the machine; its load before the first run of a row is "+
		"in the last column (1, 5 and 15 minutes). Ratios, charts and the time of the processor, which includes "+
		"programs that deliver, are of the least times. "+
		"Server: Dovecot, TLS from the first byte.\n\n| program | version |\n| --- | --- |\n",
		time.Now().Format("2 January 2006"), machine())
	for _, t := range tools {
		out, _ := exec.CommandContext(ctx, t.version[0], t.version[1:]...).CombinedOutput()
		_, after, _ := strings.Cut(string(out), "is discouraged.\n") // the warning of fetchmail when root runs it
		line, _, _ := strings.Cut(cmp.Or(after, string(out)), "\n")
		fmt.Fprintf(&b, "| %s | %s |\n", t.name, line)
	}
	for i, row := range toolRows() {
		fmt.Fprintf(&b, "\n## %s\n\n![%s](tools-%d.svg)\n\n"+
			"| program | time | × popfetch | processor | memory | load |\n| --- | --- | --- | --- | --- | --- |\n",
			row.title(), row.title(), i+1)
		results := r[row.title()]
		for _, t := range tools {
			switch result := results[t.name]; {
			case result == nil:
			case len(result.Took) == 0:
				fmt.Fprintf(&b, "| %s | not within %v | | | | %s |\n", t.name, toolTimeout, result.Load)
			default:
				took, ratio := spreadOf(result.Took), emptyCell
				if own := results["popfetch"]; own != nil && len(own.Took) > 0 {
					ratio = threeDigits(took.min.Seconds() / spreadOf(own.Took).min.Seconds())
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", t.name, took, ratio,
					singleSpread(slices.Min(result.CPU)), mebibytes(result.Peak), result.Load)
			}
		}
	}
	return b.String()
}

// chart returns the chart that compares the tools for a row.
func (r toolResults) chart(row toolRow, number int) chart {
	c := chart{file: fmt.Sprintf("tools-%d.svg", number), title: row.title(), axis: "seconds, less is better"}
	for _, t := range tools {
		result := r[row.title()][t.name]
		if result == nil || len(result.Took) == 0 {
			continue
		}
		color := other
		if t.name == "popfetch" {
			color = own
		}
		shortest := slices.Min(result.Took)
		c.bars = append(c.bars, bar{t.name, shortest.Seconds(), singleSpread(shortest).String(), color})
	}
	return c
}
