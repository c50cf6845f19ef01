package pop3

import (
	"syscall"
	"unsafe"
)

const fionread = 0x4004667f // FIONREAD, which asks for the number of octets that can be read without waiting

// hasInput reports whether the socket holds octets. It does not see the end of the connection.
func hasInput(fd uintptr) bool {
	var waiting, size uint32
	out := (*byte)(unsafe.Pointer(&waiting))
	err := syscall.WSAIoctl(syscall.Handle(fd), fionread, nil, 0, out, 4, &size, nil, 0)
	return err == nil && waiting > 0
}

func setQuickAck(uintptr) {}
