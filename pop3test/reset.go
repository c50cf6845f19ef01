//go:build !plan9

package pop3test

import "syscall"

// errReset is the error of a connection that was reset.
const errReset = syscall.ECONNRESET
