// Command mutate tests the tests: it changes the source in one place at a time, and reports each change with
// which no test fails. It runs in the root of the module:
//
//	go run ./internal/mutate                     # everything
//	go run ./internal/mutate -sample 4 -seed 1   # four places, drawn with a seed
//	go run ./internal/mutate -list quit.go       # what would be done to one file
//
// The source files are not changed. The compiler gets overlay files with the changed functions beside the original
// ones, so the tests are built once; an environment variable selects the change. For each change the tests that call
// its function are run, first those that found changes of the same file. survivors.txt lists changes that no test
// can find, each with the reason.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"go/build"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// sources are the files that are changed by default.
var sources = []string{"conn.go", "dotreader.go", "pipeline.go", "quit.go", "login.go", "session.go", "response.go",
	"message.go", "fetch/*.go"}

//go:embed survivors.txt
var survivors string

func main() {
	sample := flag.Int("sample", 0, "the number of places to change; 0 means all")
	seed := flag.String("seed", time.Now().Format(time.DateOnly), "the seed of the sample")
	match := flag.String("match", "", "a regular expression for the mutations to try, as -list prints them")
	list := flag.Bool("list", false, "print the mutations and do nothing")
	parallel := flag.Int("parallel", 2, "the number of mutations to try at the same time")
	flag.Parse()
	all, err := mutations(flag.Args())
	if err == nil {
		wanted := regexp.MustCompile(*match)
		all = slices.DeleteFunc(all, func(m mutation) bool { return !wanted.MatchString(m.String()) })
		if *sample > 0 {
			all = draw(all, *sample, *seed)
		}
		if *list {
			for _, m := range all {
				fmt.Printf("%s:%d: %v\n", m.file, m.line, m)
			}
			return
		}
		err = run(all, *parallel)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// mutations returns the mutations of all files.
func mutations(patterns []string) (all []mutation, err error) {
	if len(patterns) == 0 {
		patterns = sources
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no file is named %s; run mutate in the root of the module", pattern)
		}
		for _, file := range files {
			built, err := build.Default.MatchFile(filepath.Split(file))
			if err != nil {
				return nil, err
			}
			if !built || strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			found, err := mutate(file, source)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// draw returns n of the mutations.
func draw(all []mutation, n int, seed string) []mutation {
	h := fnv.New64a()
	h.Write([]byte(seed))
	rand.New(rand.NewPCG(h.Sum64(), 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

// isKnown reports whether survivors.txt gives a reason why the mutation survives.
func isKnown(m mutation) bool {
	return slices.ContainsFunc(strings.Split(survivors, "\n"), func(line string) bool {
		return strings.HasPrefix(line, m.String()+": ")
	})
}

// few is the number of mutations up to which measuring the tests takes too long.
const few = 10

// run builds the tests and tries the mutations. It returns an error if one survived that is not in survivors.txt.
func run(all []mutation, parallel int) error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all = slices.DeleteFunc(slices.Clone(all), isKnown)
	suites := suitesOf(dir, all)
	var folders []string
	for _, s := range suites {
		folders = append(folders, s.folder)
	}
	bad, err := buildAll(dir, all, folders)
	if err != nil {
		return err
	}
	for _, s := range suites {
		if err := s.list(all); err != nil {
			return err
		}
		if len(all) > few {
			s.measure(dir, parallel)
		}
	}
	return summary(tryAll(suites, all, bad, parallel))
}

// tryAll counts the results of the mutations, by file. The bad ones do not compile.
func tryAll(suites []*suite, all []mutation, bad map[int]bool, parallel int) map[string]map[string]int {
	counts := make(map[string]map[string]int)
	next := make(chan int)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for i := range next {
				m, result := all[i], "does not compile"
				if !bad[i] {
					result = try(suites, m, i)
					fmt.Printf("%s:%d: %s: %v\n", m.file, m.line, result, m)
				}
				mu.Lock()
				if counts[m.file] == nil {
					counts[m.file] = make(map[string]int)
				}
				counts[m.file][result]++
				mu.Unlock()
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	workers.Wait()
	return counts
}

// summary prints the results of each file.
func summary(counts map[string]map[string]int) error {
	survived := 0
	for _, file := range slices.Sorted(maps.Keys(counts)) {
		fmt.Println(file, counts[file])
		survived += counts[file]["survived"]
	}
	if survived > 0 {
		return fmt.Errorf("%d mutations survived: each needs a test, or a line in internal/mutate/survivors.txt",
			survived)
	}
	return nil
}
