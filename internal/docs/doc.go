// Package docs contains only tests. They compile and run the programs in README.md and MIGRATING.md, and check the
// promises of these files and of SECURITY.md.
package docs
