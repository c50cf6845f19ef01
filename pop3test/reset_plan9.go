package pop3test

import "syscall"

// errReset is the error of a connection that was reset. Plan 9 has no error number for that.
const errReset = syscall.ErrorString("connection reset by peer")
