//go:build !unix && !windows

package pop3

// hasInput returns false, because these systems cannot report whether a read of the socket would return at once.
func hasInput(uintptr) bool { return false }

func setQuickAck(uintptr) {}
