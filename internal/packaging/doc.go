// Package packaging tests the library as users get it: zipped as by the module proxy, fetched with go get into
// an empty program, compiled, and run. It is a module of its own, because it needs golang.org/x/mod.
package packaging
