// Package conformance contains only tests. They use package pop3 through its public API. They check that the client
// does what the RFCs require, and that it can handle hostile servers and the differences between servers. They also
// check that it does not repeat mistakes of other clients and of earlier versions.
package conformance
