// Command mutate tests the tests: it changes the source in one place at a time, and reports each change with
// which no test fails. It runs in the root of the module:
//
//	go run ./internal/mutate                     # everything: hours
//	go run ./internal/mutate -sample 4 -seed 1   # four places, drawn with a seed
//	go run ./internal/mutate -list quit.go       # what would be done to one file
//
// The source files are not changed; the compiler gets the changed file as an overlay. survivors.txt lists
// changes that no test can find, each with the reason.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"go/build"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// suites are the tests for the files of a folder, the fastest first.
var suites = map[string][][]string{
	".": {
		{"test", "-short", "-failfast", "."},
		{"test", "-short", "-failfast", "./internal/conformance"},
		{"test", "-short", "-failfast", "./internal/lossproof", "./fetch"},
	},
	"fetch": {
		{"test", "-short", "-failfast", "./fetch"},
		{"test", "-short", "-failfast", "./internal/lossproof"},
	},
}

// sources are the files to change if none is named.
var sources = []string{"conn.go", "dotreader.go", "pipeline.go", "quit.go", "login.go", "session.go", "fetch/*.go"}

// maxTime limits a suite. It finds mutations that make a program hang.
const maxTime = 5 * time.Minute

//go:embed survivors.txt
var survivors string

func main() {
	sample := flag.Int("sample", 0, "how many places to draw; 0 is all")
	seed := flag.String("seed", time.Now().Format(time.DateOnly), "what the sample is drawn with")
	list := flag.Bool("list", false, "print the mutations and do nothing")
	flag.Parse()
	all, err := mutations(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
	if *sample > 0 {
		all = draw(all, *sample, *seed)
	}
	if *list {
		for _, m := range all {
			fmt.Printf("%s:%d: %v\n", m.file, m.line, m)
		}
		return
	}
	if run(all) > 0 {
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

// run tries each mutation, and returns the number of survivors that are not in the list.
func run(all []mutation) (unknown int) {
	known := strings.Split(survivors, "\n")
	counts := map[string]int{}
	for _, m := range all {
		if slices.ContainsFunc(known, func(line string) bool { return strings.HasPrefix(line, m.String()+": ") }) {
			counts["known to survive"]++
			continue
		}
		result, err := try(m)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutate:", err)
			os.Exit(2)
		}
		if counts[result]++; result == "survived" {
			unknown++
		}
		fmt.Printf("%s:%d: %s: %v\n", m.file, m.line, result, m)
	}
	fmt.Println(len(all), "mutations:", counts)
	return unknown
}

// try runs the tests with a mutation.
func try(m mutation) (result string, err error) {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	broken := filepath.Join(dir, filepath.Base(m.file))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: broken}})
	if err != nil {
		return "", err
	}
	if err = os.WriteFile(broken, m.broken(), 0o666); err == nil {
		err = os.WriteFile(dir+"/overlay.json", overlay, 0o666)
	}
	if err != nil {
		return "", err
	}
	for _, suite := range suites[filepath.Dir(m.file)] {
		if result := tested(slices.Insert(slices.Clone(suite), 1, "-overlay", dir+"/overlay.json")); result != "" {
			return result, nil
		}
	}
	return "survived", nil
}

// tested returns the output of a suite with a mutation, "" if no test failed.
func tested(args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return ""
	case bytes.Contains(output, []byte("[build failed]")):
		return "does not compile"
	}
	return "killed"
}
