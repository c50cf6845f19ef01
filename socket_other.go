//go:build !unix && !windows

package pop3

// hasInput would report whether a read of the socket came back at once, which cannot be known here.
func hasInput(uintptr) bool { return false }

func setQuickAck(uintptr) {}
