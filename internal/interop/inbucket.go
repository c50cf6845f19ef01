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

// inbucketSpec runs Inbucket, which accepts every login. It is compiled from its module. A process has one
// port, either in clear with STLS or with implicit TLS, so there are two processes with one store.
var inbucketSpec = spec{
	add:     addInbucket,
	stores:  []Store{Maildir}, // its own format, but one file per message
	keyMode: 0o600,
	prepare: func(_ context.Context, s *Server) error {
		return s.render("inbucket.sh", "srv/conf/inbucket.sh", nil)
	},
	command: func(*Server) []string { return []string{"sh", "/srv/conf/inbucket.sh"} },
	deliver: func(ctx context.Context, s *Server) error {
		return deliver(ctx, s.behind(), true, Five, Awkward) // a thousand messages take minutes
	},
}

func addInbucket(ctx context.Context, tree string) (version string, err error) {
	program, err := exec.LookPath("go")
	if err != nil {
		return "", errors.New("no go command to compile Inbucket with")
	}
	cmd := exec.CommandContext(ctx, program, "install", inbucketModule+"/cmd/inbucket@"+inbucketVersion)
	cmd.Dir = tree // outside of this module
	bin := filepath.Join(tree, "usr", "bin")
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	return inbucketVersion, runCommand(cmd)
}
