package interop

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// wildDuckVersion is the version of WildDuck on npm.
const wildDuckVersion = "1.46.1"

var wildDuckNeeds = []string{
	"nodemailer@7.0.9", "base32.js@0.1.0", "punycode.js@2.3.1", "wild-config@1.7.1", "gelf@2.0.1",
}

// wildDuckSpec runs the POP3 server of WildDuck with a store of files. WildDuck's own store needs MongoDB and Redis.
// The tests do not need that store, because they check only the replies of the POP3 server.
var wildDuckSpec = spec{
	add:     addWildDuck,
	stores:  []Store{Maildir},
	keyMode: 0o600,
	prepare: prepareWildDuck,
	command: func(*Server) []string { return []string{"node", "/srv/conf/wildduck.js"} },
}

func addWildDuck(ctx context.Context, tree string) (version string, err error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("no npm command to fetch WildDuck with")
	}
	lib := filepath.Join(tree, "usr", "lib", "wildduck")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return "", err
	}
	install := []string{"install", "--prefix", lib, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"}
	for _, args := range [][]string{append(install, wildDuckNeeds...), {"pack", "wildduck@" + wildDuckVersion}} {
		cmd := exec.CommandContext(ctx, npm, args...)
		cmd.Dir = lib
		if err := runCommand(cmd); err != nil {
			return "", err
		}
	}
	wildDuck := filepath.Join(lib, "node_modules", "wildduck")
	if err := os.Mkdir(wildDuck, 0o755); err != nil {
		return "", err
	}
	archive := filepath.Join(lib, "wildduck-"+wildDuckVersion+".tgz")
	return wildDuckVersion, run(ctx, "tar", "-xzf", archive, "-C", wildDuck, "--strip-components=1")
}

func prepareWildDuck(_ context.Context, s *Server) error {
	if err := s.fill(oneOwner); err != nil {
		return err
	}
	passwords := map[string]string{}
	for _, a := range accounts() {
		passwords[a.Name] = a.Password
	}
	text, err := json.Marshal(passwords)
	if err != nil {
		return err
	}
	if err := s.write("srv/conf/passwords.json", string(text), 0o600); err != nil {
		return err
	}
	return s.render("wildduck.js", "srv/conf/wildduck.js", map[string]any{"Version": wildDuckVersion})
}
