// Package conformance has no code. Its tests speak to package pop3 from outside: what the RFCs ask of a client, what
// hostile servers do, what servers in use do differently, what went wrong in other clients, and what programs met.
package conformance
