// Package interop starts real POP3 servers, so that the client can be tried, and measured, against what
// people run.
//
// [Start] fetches a server from Debian's packages (WildDuck from npm, Inbucket from its Go module) into a cache,
// unpacked and not installed, and runs it in a mount and process namespace of its own, on loopback ports that were
// free, over a mail store that holds the messages of [Corpus]. No account, file or daemon of the machine is touched,
// and nothing is left running: [Server.Stop] ends the whole process tree, and so does the death of the program that
// started it.
//
// It needs Linux, Debian 12, root (CAP_SYS_ADMIN), overlayfs, npm for WildDuck, and the network the first time. Where
// one of them is missing, Start fails with an error that wraps [ErrUnavailable]. [Mode] tells what tests are to do
// about that.
package interop
