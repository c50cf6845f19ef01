// Package conformance has no code. Its tests use package pop3 through its public API: what the RFCs require of
// a client, what hostile servers do, how servers differ, which mistakes other clients made, and what happened
// to programs.
package conformance
