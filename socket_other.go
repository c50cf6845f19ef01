//go:build !linux

package pop3

import "net"

// A socket is what a TCP connection can do beyond net.Conn: nothing that is needed here.
type socket struct{}

func newSocket(net.Conn) socket { return socket{} }

func (socket) quickAck() {}

func (socket) readable() bool { return false }

func (socket) tellsWritten() bool { return false }
