// Package interop starts real POP3 servers, so that the client can be tested with them and measured.
//
// [Start] fetches a server into a cache and unpacks it without installing it. Most servers come from Debian's
// packages, WildDuck from npm, and Inbucket from its Go module. The server runs in mount and process namespaces of its
// own, on free loopback ports, with a mail store that contains the messages of [Corpus]. No account, file or daemon of
// the machine is changed. [Server.Stop] ends the whole process tree. The tree also ends when the program that started
// it ends.
//
// Start needs Linux, Debian 12, root (CAP_SYS_ADMIN), overlayfs, npm for WildDuck, and the network the first time. If
// something is missing, the error wraps [ErrUnavailable]. [Mode] says what tests do in that case.
package interop
