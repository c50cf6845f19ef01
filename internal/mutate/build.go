package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// choose is a source file that is added to each package with mutations. MUTATION is the index of a mutation plus 1.
// MUTATION_REACHED names a file that collects the functions that are called.
const choose = `package %s

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

// buildAll builds the tests of all folders with all mutations in them, and returns the mutations that do not compile.
func buildAll(dir string, all []mutation, folders []string) (bad map[int]bool, err error) {
	bad = make(map[int]bool)
	overlay := filepath.Join(dir, "overlay.json")
	for {
		if err := writeOverlay(dir, overlay, all, bad); err != nil {
			return nil, err
		}
		output, err := exec.Command("go", append([]string{"build", "-gcflags=-e", "-overlay", overlay},
			mutatedPackages(all)...)...).CombinedOutput()
		if err == nil {
			break
		}
		before := len(bad)
		for _, at := range regexp.MustCompile(`\bmutation(\d+):`).FindAllSubmatch(output, -1) {
			i, _ := strconv.Atoi(string(at[1]))
			bad[i] = true
		}
		if len(bad) == before {
			return nil, fmt.Errorf("go build: %w\n%s", err, output)
		}
	}
	for _, folder := range folders {
		output, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary(dir, folder),
			"./"+folder).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("go test -c ./%s: %w\n%s", folder, err, output)
		}
	}
	return bad, nil
}

// binary is the test program of a folder.
func binary(dir, folder string) string {
	return filepath.Join(dir, strings.ReplaceAll(folder, "/", "-")+".test")
}

func mutatedPackages(all []mutation) []string {
	folders := make(map[string]bool)
	for _, m := range all {
		folders["./"+filepath.ToSlash(filepath.Dir(m.file))] = true
	}
	return slices.Sorted(maps.Keys(folders))
}

// writeOverlay writes the files with mutations, without the bad ones.
func writeOverlay(dir, overlay string, all []mutation, bad map[int]bool) error {
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
		if err == nil {
			err = write(filepath.Join(filepath.Dir(file), "zmutation.go"), fmt.Sprintf(choose, pkg.Name))
		}
		if err == nil {
			err = write(file, withMutations(all, some))
		}
		if err != nil {
			return err
		}
	}
	content, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return err
	}
	return os.WriteFile(overlay, content, 0o666)
}

// withMutations returns a file with some of all mutations. Each mutated function is there once unchanged, once for each
// mutation, and once to choose between these.
func withMutations(all []mutation, some []int) string {
	byFunc := make(map[*ast.FuncDecl][]int)
	for _, i := range some {
		byFunc[all[i].decl] = append(byFunc[all[i].decl], i)
	}
	inOrder := slices.SortedFunc(maps.Keys(byFunc), func(a, b *ast.FuncDecl) int { return int(a.Pos() - b.Pos()) })
	source := all[some[0]].source
	var file, added strings.Builder
	copied := 0
	for _, f := range inOrder {
		name, body := offset(f.Name.Pos()), offset(f.Name.End())
		fmt.Fprintf(&file, "%snotMutated%s", source[copied:name], f.Name)
		copied = body
		added.WriteString(choice(all, byFunc[f]))
		for _, i := range byFunc[f] {
			broken := all[i].broken()
			end := offset(f.End()) + len(broken) - len(source)
			fmt.Fprintf(&added, "//line mutation%d:1\n%smutated%d%s%s\n", i, broken[offset(f.Pos()):name], i, f.Name,
				broken[body:end])
		}
	}
	return file.String() + string(source[copied:]) + "\n" + added.String()
}

// choice returns a function that replaces one with mutations. It calls the original or one of the mutations.
func choice(all []mutation, some []int) string {
	source, f := all[some[0]].source, all[some[0]].decl
	code := func(n ast.Node) string { return string(source[offset(n.Pos()):offset(n.End())]) }
	receiver, call, results := "", "", ""
	if f.Type.Results != nil {
		results, call = code(f.Type.Results), "return "
	}
	if f.Recv != nil {
		receiver = "(receiver " + code(f.Recv.List[0].Type) + ")"
		call += "receiver."
	}
	var params, args []string
	for _, field := range f.Type.Params.List {
		for range max(1, len(field.Names)) {
			name := "param" + strconv.Itoa(len(params))
			params = append(params, name+" "+code(field.Type))
			if _, ok := field.Type.(*ast.Ellipsis); ok {
				name += "..."
			}
			args = append(args, name)
		}
	}
	var cases strings.Builder
	with := f.Name.Name + "(" + strings.Join(args, ", ") + ")"
	for _, i := range some {
		fmt.Fprintf(&cases, "case %d:\n%smutated%d%s\n", i+1, call, i, with)
	}
	return fmt.Sprintf("//line choice:1\nfunc %s %s(%s) %s {\nswitch chosenMutation {\n%sdefault:\n"+
		"reachedMutations(%q)\n%snotMutated%s\n}\n}\n", receiver, f.Name, strings.Join(params, ", "), results,
		cases.String(), all[some[0]].place(), call, with)
}
