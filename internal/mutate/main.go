// Command mutate tests the tests. It changes the source in one place at a time, and reports each change that no test
// finds. Run it in the root of the module:
//
//	go run ./internal/mutate                      # all changes
//	go run ./internal/mutate -sample 4 -seed 1    # four changes, drawn with a seed
//	go run ./internal/mutate -match 'quit.go end' # some changes, as -list prints them
//	go run ./internal/mutate -list quit.go        # the changes of one file
//
// The source files stay unchanged. The compiler gets overlay files with the changed functions in addition to the
// original ones, so the tests are built only once. An environment variable selects the change. For each change, only
// the tests that call its function are run. survivors.txt lists changes that no test can find, with reasons.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"go/build"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	wanted := regexp.MustCompile(*match)
	all = slices.DeleteFunc(all, func(m mutation) bool { return !wanted.MatchString(m.String()) })
	if *sample > 0 {
		all = sampleOf(all, *sample, *seed)
	}
	switch {
	case err != nil:
	case *list:
		for _, m := range all {
			fmt.Printf("%s:%d: %v\n", m.file, m.line, m)
		}
	default:
		err = try(slices.DeleteFunc(all, isKnown), *parallel)
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
			if err == nil && built && !strings.HasSuffix(file, "_test.go") {
				all, err = mutate(all, file)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// sampleOf returns n of the mutations.
func sampleOf(all []mutation, n int, seed string) []mutation {
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
