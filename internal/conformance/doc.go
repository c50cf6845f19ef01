// Package conformance contains only tests. They use package pop3 through its public API and check what the RFCs
// require of a client, how it handles hostile servers and the differences between servers, and that it does not repeat
// mistakes of other clients and of earlier versions.
package conformance
