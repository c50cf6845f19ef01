package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

const (
	modulePath = "github.com/seed-2d50cddb/pop3"
	version    = "v0.0.0-packaging"
)

// root is the library's folder.
var root = filepath.Join("..", "..")

// publish makes a module proxy in a folder, with the library as it stands, and gives its size as a zip.
func publish(t *testing.T) (proxy string, octets int64) {
	t.Helper()
	proxy = t.TempDir()
	dir := filepath.Join(proxy, filepath.FromSlash(modulePath), "@v")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	write := func(name string, content []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	write("list", []byte(version+"\n"))
	write(version+".info", []byte(fmt.Sprintf("{\"Version\":%q,\"Time\":\"2026-01-01T00:00:00Z\"}", version)))
	write(version+".mod", mod)

	file, err := os.Create(filepath.Join(dir, version+".zip"))
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, zip.CreateFromDir(file, module.Version{Path: modulePath, Version: version}, tracked(t)))
	info, err := file.Stat()
	require.NoError(t, err)
	return "file://" + proxy, info.Size()
}

// tracked is a copy of the files that git tracks, which are those that a proxy would see.
func tracked(t *testing.T) string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z")
	list.Dir = root
	names, err := list.Output()
	require.NoError(t, err)
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted and not committed yet
		}
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	return dir
}

// A program is an empty module that gets its dependencies from proxy, and the others from what this machine has in its
// module cache already. Its own cache is thrown away, so that nobody else finds this version of the module.
type program struct {
	t   *testing.T
	dir string
	env []string
}

func newProgram(t *testing.T, proxy, source string) program {
	t.Helper()
	p := program{t: t, dir: t.TempDir()}
	have := "file://" + strings.TrimSpace(string(p.run("go", "env", "GOMODCACHE"))) + "/cache/download"
	upstream := strings.TrimSpace(string(p.run("go", "env", "GOPROXY")))
	p.env = append(os.Environ(), "GOPROXY="+strings.Join([]string{proxy, have, upstream}, ","), "GONOSUMDB="+modulePath,
		"GOFLAGS=-mod=mod -modcacherw", "GOWORK=off", "GOMODCACHE="+t.TempDir())
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "main.go"), []byte(source), 0o644))
	p.run("go", "mod", "init", "example.com/program")
	return p
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

// TestGoGet: README's program compiles against what go get brings, and go get brings little.
func TestGoGet(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	match := readmeProgram.FindSubmatch(readme)
	require.NotNil(t, match)

	proxy, zipped := publish(t)
	p := newProgram(t, proxy, string(match[1]))
	p.run("go", "get", modulePath+"@"+version)
	with := p.size()

	bare := newProgram(t, proxy, `package main

import (
	"context"
	"crypto/tls"
	"fmt"
)

func main() { fmt.Println(new(tls.Dialer).DialContext(context.Background(), "tcp", "127.0.0.1:995")) }
`)
	without := bare.size()
	t.Logf("the module: %d KiB zipped; a program: %d KiB with it, %d KiB with crypto/tls alone", zipped>>10, with>>10, without>>10)
	assert.Less(t, zipped, int64(3<<20), "the module stays small: what is large belongs into a nested one")

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
	}, slices.Compact(deps), "what a program links")
}
