package pop3test

import "syscall"

// errReset is what a broken connection fails with. Plan 9 has no number for it.
const errReset = syscall.ErrorString("connection reset by peer")
