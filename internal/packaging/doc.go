// Package packaging tests the library as users get it. The tests zip it as the module proxy does, add it to an empty
// program with go get, and build and run that program. The package is a module of its own, because it needs
// golang.org/x/mod.
package packaging
