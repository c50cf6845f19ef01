package interop

import (
	"errors"
	"os"
)

// ErrUnavailable means that this machine cannot run the server: it is not Debian 12, or root or overlayfs is missing,
// or a package cannot be fetched. Errors wrap it. Such an error is not a failure of the client.
var ErrUnavailable = errors.New("this machine cannot run real POP3 servers")

// EnvMode is the environment variable that says whether tests start real servers; see [Mode].
const EnvMode = "POP3_INTEROP"

// A Mode says whether tests start real servers.
type Mode string

const (
	ModeOff     Mode = "off"     // skip them; the default, since starting a server may fetch packages
	ModeOn      Mode = "on"      // run them, and skip those whose server is not available
	ModeRequire Mode = "require" // run them, and fail if a server is not available
)

// CurrentMode returns the mode in the environment. Any value except "on" and "require" means [ModeOff].
func CurrentMode() Mode {
	switch m := Mode(os.Getenv(EnvMode)); m {
	case ModeOn, ModeRequire:
		return m
	default:
		return ModeOff
	}
}
