//go:build unix

package pop3

import (
	"runtime"
	"syscall"
)

// hasInput reports whether a read of the socket would return at once.
func hasInput(fd uintptr) bool {
	var octet [1]byte
	// Recvfrom does not block, because the runtime's sockets are non-blocking.
	_, _, err := syscall.Recvfrom(int(fd), octet[:], syscall.MSG_PEEK)
	return err != syscall.EAGAIN && err != syscall.EINTR
}

const tcpQuickAck = 12 // the value of TCP_QUICKACK on Linux

func setQuickAck(fd uintptr) {
	if runtime.GOOS == "linux" {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1)
	}
}
