package interop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// EnvCache is the environment variable with the folder for fetched packages. Without it they are in the user's cache
// folder.
const EnvCache = "POP3_INTEROP_CACHE"

// cacheForm is part of every name in the cache. Change it when the contents of the folders change, so that older
// folders are not used.
const cacheForm = "1"

func cacheDir() (string, error) {
	dir := os.Getenv(EnvCache)
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: no folder for packages, set %s: %v", ErrUnavailable, EnvCache, err)
		}
		dir = filepath.Join(user, "pop3-interop")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// fetch returns the folder with the unpacked packages of a server, and with all packages that they need and this
// machine does not have. The first call for a server fetches the packages. Nothing is installed.
func fetch(ctx context.Context, kind Kind, sp spec) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, string(kind)+"-"+cmp.Or(sp.cacheForm, cacheForm))
	unlock, err := lock(root + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	work, err := os.MkdirTemp(cache, string(kind)+"-*.tmp")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if len(sp.packages) > 0 {
		if err := downloadAlone(ctx, filepath.Join(cache, "apt.lock"), work, sp.packages); err != nil {
			return "", err
		}
	}
	tree := filepath.Join(work, "tree")
	if err := unpack(ctx, filepath.Join(work, "archives"), tree, sp); err != nil {
		return "", err
	}
	return root, os.Rename(tree, root)
}

// downloadAlone calls download for one server at a time and in one program at a time, because the first call may have
// to update apt's lists.
func downloadAlone(ctx context.Context, lockFile, work string, packages []string) error {
	unlock, err := lock(lockFile)
	if err != nil {
		return err
	}
	defer unlock()
	return download(ctx, work, packages)
}

// download makes apt fetch packages and their dependencies into work/archives. If the list of packages is old or
// missing, download updates the list and tries again.
func download(ctx context.Context, work string, packages []string) error {
	archives := filepath.Join(work, "archives")
	if err := os.MkdirAll(filepath.Join(archives, "partial"), 0o755); err != nil {
		return err
	}
	// apt only fetches into a folder of its own, so it needs no locks and no special user
	args := append([]string{"--yes", "--no-install-recommends", "--download-only", "--reinstall",
		"-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=root",
		"-o", "Dir::Cache::archives=" + archives, "-o", "Acquire::Retries=2", "install"}, packages...)
	first := run(ctx, "apt-get", args...)
	if first == nil {
		return nil
	}
	if err := updateLists(ctx); err != nil {
		return fmt.Errorf("%w: %v; then %v", ErrUnavailable, first, err)
	}
	if err := run(ctx, "apt-get", args...); err != nil {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	return nil
}

// updateLists updates the machine's list of packages. It retries while another apt does the same, because apt then
// fails at once.
func updateLists(ctx context.Context) error {
	for {
		err := run(ctx, "apt-get", "update")
		if err == nil || !strings.Contains(err.Error(), "Could not get lock") {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(time.Second):
		}
	}
}

func unpack(ctx context.Context, archives, tree string, sp spec) error {
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil || len(debs) == 0 && len(sp.packages) > 0 {
		return errors.Join(errors.New("apt-get fetched no package"), err)
	}
	var versions strings.Builder
	for _, deb := range debs {
		if err := run(ctx, "dpkg-deb", "-x", deb, tree); err != nil {
			return err
		}
		name := strings.Split(strings.TrimSuffix(filepath.Base(deb), ".deb"), "_")
		fmt.Fprintf(&versions, "%s %s\n", name[0], strings.ReplaceAll(name[1], "%3a", ":"))
	}
	for _, dir := range []string{"usr", "etc", "var"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	if err := mergeUsr(ctx, tree); err != nil {
		return err
	}
	if sp.add != nil {
		version, err := sp.add(ctx, tree)
		if err != nil {
			return fmt.Errorf("%w: %v", ErrUnavailable, err)
		}
		fmt.Fprintf(&versions, "%s %s\n", added, version)
	}
	return os.WriteFile(filepath.Join(tree, versionsFile), []byte(versions.String()), 0o644)
}

const (
	versionsFile = "versions"
	added        = "(added)" // the entry in versionsFile with the version of a server that is not a Debian package
)

// mergeUsr moves files that packages put into /lib, /bin and /sbin into /usr. On Debian 12 these folders are links
// into /usr.
func mergeUsr(ctx context.Context, tree string) error {
	for _, dir := range []string{"lib", "bin", "sbin"} {
		old := filepath.Join(tree, dir)
		if _, err := os.Stat(old); err != nil {
			continue
		}
		if err := os.MkdirAll(filepath.Join(tree, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := run(ctx, "cp", "-a", old+"/.", filepath.Join(tree, "usr", dir)); err != nil {
			return err
		}
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	return nil
}

// packageVersion returns the version of an unpacked server.
func packageVersion(root string, sp spec) string {
	name := added
	if sp.add == nil {
		name = sp.packages[0]
	}
	text, err := os.ReadFile(filepath.Join(root, versionsFile))
	if err != nil {
		return ""
	}
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.*)$`).FindSubmatch(text)
	if line == nil {
		return ""
	}
	return string(line[1])
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	return runCommand(cmd)
}

func runCommand(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Path, err, lastLines(out, 2))
	}
	return nil
}

// lastLines returns the last lines of a program's output. They usually contain the reason for a failure.
func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
