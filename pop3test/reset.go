//go:build !plan9

package pop3test

import "syscall"

// errReset is what a broken connection fails with.
const errReset = syscall.ECONNRESET
