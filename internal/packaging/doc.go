// Package packaging tests the library as users get it: it is zipped as by the module proxy, fetched into an empty
// program with go get, compiled and run. The package is a module of its own, because it needs golang.org/x/mod.
package packaging
