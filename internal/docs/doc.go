// Package docs has no code. Its tests compile and run the programs in README.md and MIGRATING.md, and check
// what these and SECURITY.md promise.
package docs
