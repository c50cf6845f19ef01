package interop

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	inbucketModule  = "github.com/inbucket/inbucket/v3"
	inbucketVersion = "v3.2.0"
)

// inbucketSpec runs Inbucket, which accepts every login. It is compiled from its module. A process of Inbucket has
// only one port, either in clear with STLS or with implicit TLS. So two processes run, with one store.
var inbucketSpec = spec{
	add:     addInbucket,
	stores:  []Store{Maildir}, // the format is that of Inbucket, but it has one file for each message
	keyMode: 0o600,
	prepare: func(_ context.Context, s *Server) error {
		return s.render("inbucket.sh", "srv/conf/inbucket.sh", nil)
	},
	command: func(*Server) []string { return []string{"sh", "/srv/conf/inbucket.sh"} },
	deliver: func(ctx context.Context, s *Server) error {
		// Bulk is left out, because delivering a thousand messages would take minutes.
		return deliver(ctx, s.backendAddr(), true, Five, Awkward)
	},
}

func addInbucket(ctx context.Context, tree string) (version string, err error) {
	program, err := exec.LookPath("go")
	if err != nil {
		return "", errors.New("no go command to compile Inbucket with")
	}
	cmd := exec.CommandContext(ctx, program, "install", inbucketModule+"/cmd/inbucket@"+inbucketVersion)
	cmd.Dir = tree // a folder outside of this module, so that its go.mod is not used
	bin := filepath.Join(tree, "usr", "bin")
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	return inbucketVersion, runCommand(cmd)
}
