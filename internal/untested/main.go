// Untested prints the ids of requirements that are in no test, and the ids in tests that are in no list. It prints
// nothing if there are none.
//
// The lists contain ids with a short text. There are ids of requirements of the RFCs (R1-014), hostile servers (H-066),
// quirks of real servers, cases that programs met (C-014), and advisories about other clients. A test covers an
// id if its source contains the id. The id should be in the name of a row or test. ignored.txt lists the ids that
// cannot be tested or do not apply, with the reason.
//
//	go run ./internal/untested
package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed *.txt
var lists embed.FS

// ignored is the list of ids that need no test, with the reason as text.
const ignored = "ignored.txt"

// idPattern matches ids, in the lists and in tests.
var idPattern = regexp.MustCompile(`\b(R1-\d{3}|H-\d{3}|Q-\d{1,3}|C-\d{3}|CVE-\d{4}-\d{4,5})\b`)

func main() {
	root, err := findRoot()
	if err == nil {
		var complaints []string
		complaints, err = check(lists, os.DirFS(root))
		for _, complaint := range complaints {
			fmt.Println(complaint)
		}
		if len(complaints) > 0 {
			os.Exit(1)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "untested:", err)
		os.Exit(2)
	}
}

// findRoot returns the root directory of the module.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		content, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
		if bytes.HasPrefix(content, []byte("module github.com/seed-2d50cddb/pop3\n")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not within the module")
		}
		dir = parent
	}
	return "", err
}

// check compares the lists with the ids in the tests under root. It returns a line for each difference.
func check(lists, root fs.FS) (complaints []string, err error) {
	wanted, reasons, err := readLists(lists)
	if err != nil {
		return nil, err
	}
	named, err := namedIDs(root)
	if err != nil {
		return nil, err
	}
	for id, text := range wanted {
		if !named[id] && reasons[id] == "" {
			complaints = append(complaints, id+" "+text+": no test names it")
		}
	}
	for id := range reasons {
		if wanted[id] == "" {
			complaints = append(complaints, id+": ignored, but not in a list")
		} else if named[id] {
			complaints = append(complaints, id+": ignored, but a test names it")
		}
	}
	for id := range named {
		if wanted[id] == "" && !strings.HasPrefix(id, "CVE-") {
			complaints = append(complaints, id+": named by a test, but in no list")
		}
	}
	slices.Sort(complaints)
	return complaints, nil
}

// readLists returns the text of each id, and the reason for each id that is ignored.
func readLists(lists fs.FS) (wanted, reasons map[string]string, err error) {
	names, err := fs.Glob(lists, "*.txt")
	if err != nil {
		return nil, nil, err
	}
	wanted, reasons = map[string]string{}, map[string]string{}
	for _, name := range names {
		texts := wanted
		if name == ignored {
			texts = reasons
		}
		if err := readList(lists, name, texts); err != nil {
			return nil, nil, err
		}
	}
	return wanted, reasons, nil
}

// readList reads a list, whose lines have an id and a text, into texts.
func readList(lists fs.FS, name string, texts map[string]string) error {
	content, err := fs.ReadFile(lists, name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(content)) {
		id, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case idPattern.FindString(id) != id || text == "":
			return fmt.Errorf("%s: not an id and a text: %q", name, line)
		case texts[id] != "":
			return fmt.Errorf("%s: %s comes twice", name, id)
		}
		texts[id] = text
	}
	return nil
}

// namedIDs returns the ids in all test files, except those of this program.
func namedIDs(root fs.FS) (map[string]bool, error) {
	named := map[string]bool{}
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "untested"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(root, path)
		for _, id := range idPattern.FindAll(source, -1) {
			named[strings.Replace(string(id), "Q-0", "Q-", 1)] = true
		}
		return err
	})
	return named, err
}
