package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

const (
	modulePath = "github.com/seed-2d50cddb/pop3"
	version    = "v0.1.0"
)

// root is the library's folder.
var root = filepath.Join("..", "..")

// publish makes a module proxy in a folder. The modules are in the given folders of the library; "." is the library
// itself. It returns the URL of the proxy, and the size of the zip of the first module in bytes.
func publish(t *testing.T, folders ...string) (proxy string, zipSize int64) {
	t.Helper()
	proxy = t.TempDir()
	source := copyTracked(t)
	for i, folder := range folders {
		dir := filepath.Join(proxy, filepath.FromSlash(path.Join(modulePath, folder)), "@v")
		require.NoError(t, os.MkdirAll(dir, 0o755))
		mod, err := os.ReadFile(filepath.Join(source, folder, "go.mod"))
		require.NoError(t, err)
		for name, content := range map[string]string{
			"list":            version + "\n",
			version + ".info": fmt.Sprintf("{\"Version\":%q,\"Time\":\"2026-01-01T00:00:00Z\"}", version),
			version + ".mod":  string(mod),
		} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
		file, err := os.Create(filepath.Join(dir, version+".zip"))
		require.NoError(t, err)
		defer file.Close()
		archived := module.Version{Path: path.Join(modulePath, folder), Version: version}
		require.NoError(t, zip.CreateFromDir(file, archived, filepath.Join(source, folder)))
		if i == 0 {
			info, err := file.Stat()
			require.NoError(t, err)
			zipSize = info.Size()
		}
	}
	return "file://" + proxy, zipSize
}

// copyTracked copies the files that git tracks to a new folder. A module proxy would contain the same files.
func copyTracked(t *testing.T) string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z")
	list.Dir = root
	names, err := list.Output()
	require.NoError(t, err)
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // the file is deleted, and the deletion is not committed yet
		}
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	return dir
}

// A program is a folder in which the go command is run. The go command gets the library from proxy and all other
// modules from the module cache of this machine. The program's own module cache is removed afterwards, so that no
// other program uses this version of the library.
type program struct {
	t   *testing.T
	dir string
	env []string
}

func newProgram(t *testing.T, proxy string) program {
	t.Helper()
	p := program{t: t, dir: t.TempDir()}
	localModules := "file://" + strings.TrimSpace(string(p.run("go", "env", "GOMODCACHE"))) + "/cache/download"
	upstream := strings.TrimSpace(string(p.run("go", "env", "GOPROXY")))
	p.env = append(os.Environ(), "GOPROXY="+strings.Join([]string{proxy, localModules, upstream}, ","),
		"GONOSUMDB="+modulePath,
		"GOFLAGS=-modcacherw", "GOWORK=off", "GOBIN=", "GOPATH="+t.TempDir(), "GOMODCACHE="+t.TempDir())
	return p
}

// writeMain makes the program a module with one file.
func (p program) writeMain(source string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, "main.go"), []byte(source), 0o644))
	p.run("go", "mod", "init", "example.com/program")
}

func (p program) run(name string, args ...string) []byte {
	p.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	out, err := cmd.CombinedOutput()
	require.NoError(p.t, err, "%s %v: %s", name, args, out)
	return out
}

func (p program) size() int64 {
	p.t.Helper()
	p.run("go", "build", "-trimpath", "-ldflags=-s -w", "-o", "program", ".")
	info, err := os.Stat(filepath.Join(p.dir, "program"))
	require.NoError(p.t, err)
	return info.Size()
}

var readmeProgram = regexp.MustCompile("(?s)```go\n(package main.*?)```")

// TestGoGet: the program of README.md compiles with the modules that go get downloads. It links only a few modules.
func TestGoGet(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	match := readmeProgram.FindSubmatch(readme)
	require.NotNil(t, match)

	proxy, zipSize := publish(t, ".")
	p := newProgram(t, proxy)
	p.writeMain(string(match[1]))
	p.run("go", "get", modulePath+"@"+version)
	sizeWith := p.size()

	baseline := newProgram(t, proxy)
	baseline.writeMain(`package main

import (
	"context"
	"crypto/tls"
	"fmt"
)

func main() { fmt.Println(new(tls.Dialer).DialContext(context.Background(), "tcp", "127.0.0.1:995")) }
`)
	sizeWithout := baseline.size()
	t.Logf("the module: %d KiB zipped; a program: %d KiB with it, %d KiB with crypto/tls alone", zipSize>>10,
		sizeWith>>10,
		sizeWithout>>10)
	assert.Less(t, zipSize, int64(3<<20), "the module stays small; large files belong in a nested module")

	deps := strings.Fields(string(p.run("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")))
	slices.Sort(deps)
	assert.Equal(t, []string{
		"example.com/program",
		"github.com/emersion/go-sasl",
		modulePath,
		"github.com/xdg-go/scram",
		"github.com/xdg-go/stringprep",
		"golang.org/x/net",
		"golang.org/x/text",
	}, slices.Compact(deps), "the modules that a program links")
}

// TestGoInstall: the command in the README of popfetch installs it, and the program knows its version.
func TestGoInstall(t *testing.T) {
	proxy, _ := publish(t, "cmd/popfetch", ".")
	p := newProgram(t, proxy)
	p.run("go", "install", modulePath+"/cmd/popfetch@"+version)
	bin := filepath.Join(strings.TrimSpace(string(p.run("go", "env", "GOPATH"))), "bin", "popfetch")
	assert.Contains(t, string(p.run(bin, "--version")), "popfetch "+version)
}

// TestNestedModules: no nested module has a replace directive, because go install refuses such a module. go.work lists
// all nested modules.
func TestNestedModules(t *testing.T) {
	work, err := os.ReadFile(filepath.Join(root, "go.work"))
	require.NoError(t, err)
	var used []string
	workFile, err := modfile.ParseWork("go.work", work, nil)
	require.NoError(t, err)
	for _, use := range workFile.Use {
		used = append(used, path.Join(use.Path, "go.mod"))
	}
	source := copyTracked(t)
	var found []string
	require.NoError(t, filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "go.mod" {
			return err
		}
		folder, err := filepath.Rel(source, name)
		require.NoError(t, err)
		found = append(found, filepath.ToSlash(folder))
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		mod, err := modfile.Parse(name, content, nil)
		require.NoError(t, err)
		assert.Empty(t, mod.Replace, "%s: go install refuses a module that replaces another", folder)
		for _, needed := range mod.Require {
			if strings.HasPrefix(needed.Mod.Path, modulePath) {
				assert.Equal(t, version, needed.Mod.Version, "%s: %s", folder, needed.Mod.Path)
			}
		}
		return nil
	}))
	assert.ElementsMatch(t, found, used)
}
