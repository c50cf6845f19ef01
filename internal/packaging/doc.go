// Package packaging sees the library as its users get it: zipped as the module proxy zips it, fetched with go get into
// an empty program, compiled, and run. It is a module of its own, since it needs golang.org/x/mod.
package packaging
