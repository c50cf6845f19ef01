//go:build !linux

package fetch

import "os"

// reserve makes sure that a file which ends at end can grow by some bytes now.
func reserve(f *os.File, end, bytes int64) error { return tryRoom(f, end, bytes) }

// bootID returns what tells this start of the machine from others. "" means that it is not known.
func bootID() string { return "" }

// syncAll is for systems that have a bootID.
func syncAll() {}
