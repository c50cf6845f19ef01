package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// testFolders lists the folders whose tests are run for the mutations of a folder, the most useful first.
var testFolders = map[string][]string{
	".":     {".", "internal/conformance", "fetch", "internal/lossproof"},
	"fetch": {"fetch", "internal/lossproof"},
}

// A test is a test function.
type test struct {
	folder, name string
	duration     time.Duration
	reached      string // the functions with mutations that it calls, one on each line
}

// A runner tries mutations.
type runner struct {
	dir      string // folder of the test programs
	all      []mutation
	parallel int
	tests    []*test

	mu     sync.Mutex
	counts map[string]int      // number of mutations by file and result
	recent map[string][]string // the tests that failed last, by file
}

// maxUnmeasured is the highest number of mutations for which the tests are not measured first, because measuring takes
// longer than it saves.
const maxUnmeasured = 10

// try builds the tests and tries the mutations. It returns an error if some survived.
func try(all []mutation, parallel int) error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &runner{dir: dir, all: all, parallel: parallel, counts: make(map[string]int),
		recent: make(map[string][]string)}
	folders := testFolders["."]
	if !slices.ContainsFunc(all, func(m mutation) bool { return filepath.Dir(m.file) == "." }) {
		folders = testFolders["fetch"]
	}
	bad, err := buildAll(dir, all, folders)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		names, err := exec.Command(binary(dir, folder), "-test.list", "^(Test|Example|Fuzz)").Output()
		if err != nil {
			return err
		}
		for name := range strings.FieldsSeq(string(names)) {
			t.tests = append(t.tests, &test{folder: folder, name: name})
		}
	}
	if len(all) > maxUnmeasured {
		t.each(len(t.tests), t.measure)
	}
	survived := 0
	t.each(len(all), func(i int) {
		m, result := all[i], "does not compile"
		if !bad[i] && t.kills(i) {
			result = "killed"
		} else if !bad[i] {
			result = "survived"
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		fmt.Printf("%s:%d: %s: %v\n", m.file, m.line, result, m)
		if t.counts[m.file+" "+result]++; result == "survived" {
			survived++
		}
	})
	for _, name := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Println(name, t.counts[name])
	}
	if survived > 0 {
		return fmt.Errorf("%d mutations survived: each needs a test, or a line in internal/mutate/survivors.txt",
			survived)
	}
	return nil
}

// each calls f for the numbers below n, several at the same time.
func (t *runner) each(n int, f func(i int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range t.parallel {
		workers.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// measure runs a test without a mutation, and records its duration and the functions that it calls.
func (t *runner) measure(i int) {
	one, reached, began := t.tests[i], filepath.Join(t.dir, fmt.Sprint("reached", i)), time.Now()
	ok, output := t.run([]*test{one}, 10*time.Minute, "MUTATION_REACHED="+reached)
	lines, _ := os.ReadFile(reached)
	if one.duration, one.reached = time.Since(began), string(lines); !ok {
		fmt.Printf("left out, since it fails without a mutation: %s %s\n%s", one.folder, one.name, output)
		one.reached = ""
	}
}

// run runs tests of one folder with a variable in the environment.
func (t *runner) run(tests []*test, limit time.Duration, variable string) (ok bool, output string) {
	var names []string
	for _, one := range tests {
		names = append(names, one.name)
	}
	// A mutation may make a program use all memory.
	cmd := exec.Command("sh", "-c", `ulimit -v 8000000; exec "$0" "$@"`, binary(t.dir, tests[0].folder), "-test.short",
		"-test.failfast", "-test.timeout", limit.String(), "-test.run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir = tests[0].folder
	cmd.Env = append(os.Environ(), variable)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return err == nil, string(out)
}

// quickTest is the longest duration of a quick test. Quick tests run before the others.
const quickTest = time.Second

// kills reports whether a test fails with mutation i. In each folder it runs first the tests that failed last with
// mutations of the file, then quick tests, then the others.
func (t *runner) kills(i int) bool {
	m := t.all[i]
	t.mu.Lock()
	recent := slices.Clone(t.recent[m.file])
	t.mu.Unlock()
	for _, folder := range testFolders[filepath.Dir(m.file)] {
		var first, second, third []*test
		for _, one := range t.tests {
			switch {
			case one.folder != folder || one.duration > 0 && !strings.Contains(one.reached, m.place()+"\n"):
			case slices.Contains(recent, one.name):
				first = append(first, one)
			case one.duration < quickTest:
				second = append(second, one)
			default:
				third = append(third, one)
			}
		}
		for _, tests := range [][]*test{first, second, third} {
			if len(tests) > 0 && t.fails(tests, m.file, i) {
				return true
			}
		}
	}
	return false
}

var failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)

// fails reports whether one of the tests fails with mutation i. A mutation may make the tests hang.
func (t *runner) fails(tests []*test, file string, i int) bool {
	limit := 20 * time.Second
	for _, one := range tests {
		limit += max(quickTest, 3*one.duration)
	}
	ok, output := t.run(tests, limit, fmt.Sprintf("MUTATION=%d", i+1))
	if name := failedTest.FindStringSubmatch(output); name != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		others := slices.DeleteFunc(t.recent[file], func(other string) bool { return other == name[1] })
		t.recent[file] = append([]string{name[1]}, others[:min(4, len(others))]...)
	}
	return !ok
}
