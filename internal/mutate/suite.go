package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// order lists the folders whose tests are run for the mutations of a folder, the most useful first.
var order = map[string][]string{
	".":     {".", "internal/conformance", "fetch", "internal/lossproof"},
	"fetch": {"fetch", "internal/lossproof"},
}

// A suite is the tests of a folder.
type suite struct {
	folder  string
	program string
	tests   []*test
	mu      sync.Mutex // guards the results of tests
}

// A test is a test function.
type test struct {
	name    string
	took    time.Duration
	reaches string         // the functions with mutations that it calls, one on each line
	found   map[string]int // number of mutations that it found, by file
}

// suitesOf returns the suites that the mutations need.
func suitesOf(dir string, all []mutation) (suites []*suite) {
	for _, folder := range order["."] {
		needed := func(m mutation) bool { return slices.Contains(order[filepath.Dir(m.file)], folder) }
		if slices.ContainsFunc(all, needed) {
			suites = append(suites, &suite{folder: folder, program: binary(dir, folder)})
		}
	}
	return suites
}

// list finds the tests. At first they may call any function and take any time.
func (s *suite) list(all []mutation) error {
	names, err := exec.Command(s.program, "-test.list", "^(Test|Example|Fuzz)").Output()
	var places strings.Builder
	for _, m := range all {
		places.WriteString(m.place() + "\n")
	}
	for name := range strings.FieldsSeq(string(names)) {
		t := &test{name: name, took: quick, reaches: places.String(), found: make(map[string]int)}
		s.tests = append(s.tests, t)
	}
	return err
}

// measure runs each test without a mutation, and records its duration and the functions that it calls.
func (s *suite) measure(dir string, parallel int) {
	next := make(chan *test)
	var workers sync.WaitGroup
	for i := range parallel {
		reached := filepath.Join(dir, fmt.Sprint("reached", i))
		workers.Go(func() {
			for t := range next {
				os.Remove(reached)
				began := time.Now()
				ok, output := s.run([]*test{t}, 10*time.Minute, "MUTATION_REACHED="+reached)
				t.took = time.Since(began)
				lines, _ := os.ReadFile(reached)
				if t.reaches = string(lines); !ok {
					fmt.Printf("left out, since it fails without a mutation: %s %s\n%s", s.folder, t.name, output)
					t.reaches = ""
				}
			}
		})
	}
	for _, t := range s.tests {
		next <- t
	}
	close(next)
	workers.Wait()
}

// run runs tests with a variable in the environment.
func (s *suite) run(tests []*test, limit time.Duration, variable string) (ok bool, output string) {
	var names []string
	for _, t := range tests {
		names = append(names, t.name)
	}
	// A mutation may make a program eat all memory.
	cmd := exec.Command("sh", "-c", `ulimit -v 8000000; exec "$0" "$@"`, s.program, "-test.short", "-test.failfast",
		"-test.timeout", limit.String(), "-test.run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir = s.folder
	cmd.Env = append(os.Environ(), variable)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return err == nil, string(out)
}

// quick is the longest duration of a test that is run before the others.
const quick = time.Second

// finds reports whether a test fails with mutation i. It runs first the tests that found other mutations of the file,
// then quick tests, then the others.
func (s *suite) finds(m mutation, i int) bool {
	var tests []*test
	for _, t := range s.tests {
		if strings.Contains(t.reaches, m.place()+"\n") {
			tests = append(tests, t)
		}
	}
	s.mu.Lock()
	slices.SortFunc(tests, func(a, b *test) int {
		return cmp.Or(b.found[m.file]-a.found[m.file], cmp.Compare(a.took, b.took))
	})
	finders := slices.IndexFunc(tests, func(t *test) bool { return t.found[m.file] == 0 })
	s.mu.Unlock()
	first := min(5, max(finders, 0))
	second := first
	for second < len(tests) && tests[second].took < quick {
		second++
	}
	for _, part := range [][]*test{tests[:first], tests[first:second], tests[second:]} {
		if len(part) > 0 && s.fails(part, m, i) {
			return true
		}
	}
	return false
}

// fails reports whether one of the tests fails with mutation i. A mutation may make the tests hang.
func (s *suite) fails(tests []*test, m mutation, i int) bool {
	limit := 20 * time.Second
	for _, t := range tests {
		limit += 3 * t.took
	}
	ok, output := s.run(tests, limit, fmt.Sprintf("MUTATION=%d", i+1))
	if ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range regexp.MustCompile(`(?m)^--- FAIL: (\w+)`).FindAllStringSubmatch(output, -1) {
		for _, t := range tests {
			if t.name == name[1] {
				t.found[m.file]++
			}
		}
	}
	return true
}

// try returns the result of mutation i.
func try(suites []*suite, m mutation, i int) (result string) {
	for _, folder := range order[filepath.Dir(m.file)] {
		j := slices.IndexFunc(suites, func(s *suite) bool { return s.folder == folder })
		if suites[j].finds(m, i) {
			return "killed"
		}
	}
	return "survived"
}
