package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// chooserSource is a source file that is added to each package with mutations. MUTATION is the index of a mutation plus
// 1. MUTATION_REACHED names a file that collects the functions that are called.
const chooserSource = `package %s

import (
	"fmt"
	"os"
	"strconv"
	"sync"
)

var (
	chosenMutation, _ = strconv.Atoi(os.Getenv("MUTATION"))
	reachedFile, _    = os.OpenFile(os.Getenv("MUTATION_REACHED"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	reachedBefore     sync.Map
)

func reachedMutations(place any) { // any, so that nothing is allocated
	if reachedFile != nil {
		if _, before := reachedBefore.LoadOrStore(place, true); !before {
			fmt.Fprintln(reachedFile, place)
		}
	}
}
`

var badMutation = regexp.MustCompile(`\bmutation(\d+):`)

// buildAll builds the tests of folders with all mutations in them, and returns the mutations that do not compile.
func buildAll(dir string, all []mutation, folders []string) (bad map[int]bool, err error) {
	bad = make(map[int]bool)
	for _, folder := range folders {
		for found := -1; ; found = len(bad) {
			if err := writeOverlay(dir, all, bad); err != nil {
				return nil, err
			}
			output, err := exec.Command("go", "test", "-c", "-vet=off", "-gcflags=-e", "-overlay",
				filepath.Join(dir, "overlay.json"), "-o", binary(dir, folder), "./"+folder).CombinedOutput()
			if err == nil {
				break
			}
			for _, at := range badMutation.FindAllSubmatch(output, -1) {
				i, _ := strconv.Atoi(string(at[1]))
				bad[i] = true
			}
			if len(bad) == found {
				return nil, fmt.Errorf("go test -c ./%s: %w\n%s", folder, err, output)
			}
		}
	}
	return bad, nil
}

// binary returns the name of the test program of a folder.
func binary(dir, folder string) string {
	return filepath.Join(dir, strings.ReplaceAll(folder, "/", "-")+".test")
}

// writeOverlay writes the files with mutations, without the bad ones.
func writeOverlay(dir string, all []mutation, bad map[int]bool) error {
	byFile := make(map[string][]int)
	for i, m := range all {
		if !bad[i] {
			byFile[m.file] = append(byFile[m.file], i)
		}
	}
	replaced := make(map[string]string)
	write := func(file, content string) error {
		path, err := filepath.Abs(file)
		replaced[path] = filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		return errors.Join(err, os.WriteFile(replaced[path], []byte(content), 0o666))
	}
	for file, some := range byFile {
		pkg, err := build.Default.ImportDir(filepath.Dir(file), 0)
		if err != nil {
			return err
		}
		err = errors.Join(write(file, withMutations(all, some)),
			write(filepath.Join(filepath.Dir(file), "zmutation.go"), fmt.Sprintf(chooserSource, pkg.Name)))
		if err != nil {
			return err
		}
	}
	content, err := json.Marshal(map[string]any{"Replace": replaced})
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "overlay.json"), content, 0o666))
}

// withMutations returns a file with the mutations that have the given indexes. Each mutated function begins with a
// switch that contains its changed bodies.
func withMutations(all []mutation, indexes []int) string {
	slices.SortStableFunc(indexes, func(i, j int) int { return int(all[i].decl.Pos() - all[j].decl.Pos()) })
	source := all[indexes[0]].source
	var file strings.Builder
	copied := 0
	for n, i := range indexes {
		m := all[i]
		begin, end := offset(m.decl.Body.Lbrace)+1, offset(m.decl.Body.Rbrace)
		if begin != copied {
			fmt.Fprintf(&file, "%s\nswitch chosenMutation {\n", source[copied:begin])
			copied = begin
		}
		last := "return"
		if m.decl.Type.Results != nil {
			last = `panic("mutation")`
		}
		body := string(source[begin:m.from]) + m.new + string(source[m.to:end])
		fmt.Fprintf(&file, "case %d:\n//line mutation%d:1\n%s\n%s\n", i+1, i, body, last)
		if n+1 == len(indexes) || all[indexes[n+1]].decl != m.decl {
			fmt.Fprintf(&file, "default:\nreachedMutations(%q)\n}\n", m.place())
		}
	}
	return file.String() + string(source[copied:])
}
