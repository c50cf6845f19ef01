// Package docs has no code. Its tests compile and run what README.md and MIGRATING.md print, and check what they and
// SECURITY.md promise.
package docs
