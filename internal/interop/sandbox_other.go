//go:build !linux

package interop

import (
	"fmt"
	"os"
)

type sandbox struct{ done chan struct{} }

func startSandbox(root, state string, log *os.File, command ...string) (*sandbox, error) {
	return nil, available()
}

func (b *sandbox) stop() {}

func lock(name string) (unlock func(), err error) { return nil, available() }

func available() error { return fmt.Errorf("%w: namespaces need Linux", ErrUnavailable) }
